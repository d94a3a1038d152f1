"""How far a campaign is: what workers say, kept at once, and the report of it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from des4.report.campaign import CampaignReport
from des4.report.campaign_scores import Finished
from des4.report.plots import learning_curve
from des4.runlog import write_atomically
from gpu.stages import Plan


@dataclass
class Progress:
    """What is known of the entries. state: number → running, stopped, done or failed. results: of those done."""

    plan: Plan
    state: dict[int, str] = field(default_factory=dict)
    results: dict[int, dict[str, Any]] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)

    def note(self, told: Mapping[str, Any], out: Path) -> None:
        """Take in what a worker says, and keep a result at once."""
        number = told["number"]
        entry = self.plan.entries[number]
        self.state[number] = told["state"]
        if "reason" in told:
            self.reasons[number] = told["reason"]
            print(f"{entry.name}: {told['reason']}", flush=True)
        if told["state"] == "done":
            self.results[number], self.seconds[number] = told["results"], told["seconds"]
            line = {"stage": entry.stage.name, "method": entry.run.method, "lists": entry.run.lists,
                    "seed": entry.run.seed, "whole_seconds": told["seconds"], **told["results"]}  # fmt: skip
            with (out / "results.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def count(self, state: str) -> int:
        return sum(one == state for one in self.state.values())

    def line(self) -> str:
        return (f"{self.count('done')} of {len(self.plan.entries)} trainings done, {self.count('running')} running, "
                f"{self.count('stopped')} stopped, {self.count('failed')} failed")  # fmt: skip


def write(progress: Progress, out: Path, about: str) -> str:
    """Write tables and curves, and what was not reached; return the text."""
    blocks = [f"{about}\n\n{progress.line()}.", *_seconds(progress)]
    done: dict[str, list[Finished]] = {}
    for number, results in sorted(progress.results.items()):
        run = progress.plan.entries[number].run
        stage = progress.plan.entries[number].stage.name
        done.setdefault(stage, []).append(Finished(run.method, run.lists, run.seed, results))
    for stage, campaign in progress.plan.campaigns.items():
        if stage not in done:
            continue
        found = CampaignReport(done[stage], campaign.reference, campaign.full)
        blocks.append(f"## {stage}\n\n{found.markdown()}")
        if "curve" in stage and (drawn := found.curve_values()):
            learning_curve(drawn, out / f"{stage}.png")
    missing = [
        f"- {entry.name}: {progress.reasons.get(number, 'not begun' if state == 'waiting' else 'stopped')}"
        for number, entry in enumerate(progress.plan.entries)
        if (state := progress.state.get(number, "waiting")) != "done"
    ]
    notes = [
        f"- {progress.plan.entries[number].name}: {reason}"
        for number, reason in sorted(progress.reasons.items())
        if progress.state[number] == "done"
    ]
    if notes:
        blocks.append("## Notes\n\n" + "\n".join(notes))
    if missing:
        blocks.append("## Not reached\n\n" + "\n".join(missing))
    text = "\n\n".join(blocks) + "\n"
    write_atomically(out / "report.md", text)
    return text


def _seconds(progress: Progress) -> Iterator[str]:
    """Say how long the trainings of each kind took."""
    kinds: dict[str, list[float]] = {}
    for number, seconds in sorted(progress.seconds.items()):
        entry = progress.plan.entries[number]
        steps = progress.results[number]["steps"]
        kinds.setdefault(f"{entry.stage.name}, {entry.run.method}, {steps} steps", []).append(seconds)
    if kinds:
        yield "Seconds of a training, scores included, beside the others:\n\n" + "\n".join(
            f"- {kind}: {statistics.median(seconds):.1f} ({len(seconds)} trainings)" for kind, seconds in kinds.items()
        )
