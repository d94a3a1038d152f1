"""What a campaign found: its scores, what limits them, and the files that say so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group as Lines
from rich.console import RenderableType
from rich.text import Text

from des4.report.campaign_scores import SCORES, CampaignScores, Finished
from des4.report.campaign_tables import by_class, cost, paired_differences, scores_by_list
from des4.report.compare import Rows, as_table, markdown_rows, markdown_text
from des4.report.plots import group_bars, learning_curve, paired
from des4.runlog import write_atomically, write_json

FEWEST = 3
"""Seeds, or pairs, below which a spread says little."""
MOST_NAMED = 5
"""Runs that a warning names."""
ROOM, STILL_RISING = 5.0, 1.0
"""Points of mIoU: what all masks must be worth for a list to be a benchmark, and what a last step says it goes on."""


@dataclass(frozen=True)
class CampaignReport(CampaignScores):
    """The scores, with what limits them. planned: how many runs the campaign has in all. reconstructions: methods of
    which parts are guesses, by what the campaign calls them. doubts: further things that the reader must know.
    """

    planned: int = 0
    reconstructions: Sequence[str] = ()
    doubts: Sequence[str] = ()

    def tables(self) -> list[Rows]:
        """Scores by list and method and, with a reference, differences to it, by list and over all."""
        differences = paired_differences(self) if self.reference else []
        return [scores_by_list(self, name) for name in SCORES] + ([differences] if len(differences) > 1 else [])

    @property
    def warnings(self) -> list[str]:
        """What the reader must know."""
        found = [*self.doubts]
        if len(self.runs) < self.planned:
            found.append(f"{len(self.runs)} of {self.planned} runs are finished; give the command again to go on")
        steps = {
            method: sorted({r.results["steps"] for r in self.runs if r.method == method}) for method in self.methods
        }
        if len({tuple(numbers) for numbers in steps.values()}) > 1:
            told = "; ".join(f"{method} {', '.join(map(str, numbers))}" for method, numbers in steps.items())
            found.append(f"steps differ: {told}")
        if fewest := self._few_seeds():
            found.append(f"fewer than {FEWEST} seeds: {fewest}; a spread over so few says little")
        if rebuilt := [method for method in self.methods if method in self.reconstructions]:
            found.append(f"reconstructed, for too little was published: {', '.join(rebuilt)}; parts are guesses, and "
                         "the score is no evidence on the published method")  # fmt: skip
        if oracles := [m for m in self.methods if any(r.method == m and r.results.get("oracle") for r in self.runs)]:
            found.append(f"{', '.join(oracles)}: ORACLE RUNS, which learnt from the true labels of the unlabeled "
                         "images; no results")  # fmt: skip
        if few := [m for m in self.methods if m != self.reference and self._is_thin(m)]:
            found.append(f"{', '.join(few)}: fewer than {FEWEST} pairs, so nothing is known about the spread")
        return found + self._of_runs()

    def _of_runs(self) -> list[str]:
        """What runs say of themselves: that they ended before their last step, and their cautions, each once."""
        found = []
        if short := [run for run in self.runs if run.is_short]:
            told = (f"{r.method} · {r.lists} · seed {r.seed} at step {r.results['step']} of {r.results['steps']}"
                    for r in short[:MOST_NAMED])  # fmt: skip
            more = f", and {len(short) - MOST_NAMED} more" if len(short) > MOST_NAMED else ""
            found.append(f"stopped before their last step: {', '.join(told)}{more}")
        cautions: dict[str, dict[str, None]] = {}
        for run in self.runs:
            if (text := run.results.get("caution")) and not run.results.get("oracle"):  # of which more is said above
                cautions.setdefault(text, {})[run.method] = None
        return found + [f"{', '.join(methods)}: {text}" for text, methods in cautions.items()]

    def _few_seeds(self) -> str:
        """Say which methods have fewer seeds with some list than are needed, and how many."""
        told = {}
        for method in self.methods:
            seeds = [{r.seed for r in self.runs if (r.method, r.lists) == (method, lists)} for lists in self.lists]
            fewest = min(len(found) for found in seeds if found)
            if fewest < FEWEST:
                told[method] = f"{method} has {fewest}"
        return ", ".join(told.values())

    def _is_thin(self, method: str) -> bool:
        return self.reference is not None and len(self.differences(method, "miou").present) < FEWEST

    def markdown(self) -> str:
        """Return tables and warnings as Markdown, IoU by class and what the runs took among them."""
        tables = [*self.tables(), by_class(self), cost(self)]
        blocks = ["\n".join(markdown_rows(rows)) for rows in tables if rows]
        if self.warnings:
            blocks.append("\n".join(f"- Warning: {markdown_text(text)}" for text in self.warnings))
        return "\n\n".join(blocks) + "\n"

    def plot(self, path: Path) -> None:
        """Draw each method's differences to the reference, a dot a pair, as PNG; without a reference, its scores."""
        differences = self.difference_values()
        if self.reference is not None and differences:
            paired(differences, self.reference, path)
        else:
            group_bars(self.score_values(), path)

    def verdict(self, method: str) -> list[str]:
        """What a learning curve says: whether more masks would help, and whether unlabeled images have room to."""
        points = [(n, score.mean) for n, score in self.curve("miou")[method].items() if not math.isnan(score.mean)]
        if len(points) < 2:
            return []
        (few, low), (most, top) = points[0], points[-1]
        room, (half, before) = 100 * (top - low), points[-2]
        last = 100 * (top - before)
        if room < 0:
            return [
                f"All {most} masks give {-room:.1f} points of mIoU less than {few}, so this curve says nothing yet: "
                "train for longer, with more validation images, or with more seeds."
            ]
        return [
            f"All {most} masks give {room:.1f} points of mIoU more than {few}. "
            + (
                f"With {few} masks there is room for a method that reads unlabeled images."
                if room >= ROOM
                else f"That is less than {ROOM:g}: with {few} masks unlabeled images have little left to win."
            ),
            f"From {half} to {most} masks it {'gained' if last >= 0 else 'lost'} {abs(last):.1f}. "
            + (
                "More masks would still help."
                if last >= STILL_RISING
                else "More masks of this kind would help little; longer training or larger images might."
            ),
        ]

    def write(self, folder: Path, opening: str = "", curve: Sequence[Finished] | None = None) -> None:
        """Write campaign.md, campaign.json (the figures of each run), campaign.png and curve.png into a folder.

        opening: what campaign.md says first. curve: the runs of the curve, if not these; it needs lists of several
        sizes. Raises RunError.
        """
        kept = ("miou", "tail_miou", "iou", "tail_classes", "steps", "evaluated", "seconds", "data")
        runs = [
            {"method": r.method, "lists": r.lists, "seed": r.seed, **{k: r.results.get(k) for k in kept}}
            for r in self.runs
        ]
        write_json(folder / "campaign.json", {"reference": self.reference, "full": self.full, "runs": runs})
        write_atomically(folder / "campaign.md", f"{opening}\n\n{self.markdown()}" if opening else self.markdown())
        self.plot(folder / "campaign.png")
        if drawn := (self if curve is None else CampaignReport(curve)).curve_values():
            learning_curve(drawn, folder / "curve.png")

    def __rich__(self) -> RenderableType:
        tables: list[RenderableType] = [as_table(rows) for rows in self.tables()]
        return Lines(*tables, *(Text(f"! {text}", style="yellow") for text in self.warnings))
