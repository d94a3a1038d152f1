"""Does the rule of `des4 next` choose better masks than chance? Labeling is played: masks that exist are revealed.

python benchmarks/next_rules.py CONFIG [KEY=VALUE …] --labeled FILE … --unlabeled FILE … --out FOLDER
                                [--rules NAME …] [--seeds N …] [--rounds N] [--count N] [--threads N]

A supervised network learns from the labeled list. Each rule looks at the unlabeled images through it and chooses
`--count` of them; their masks are added, a network is trained anew, from the same weights as the first, and so on. The
first network of a seed is shared by all rules. The images of the unlabeled list need masks, which nobody reads before
they are chosen. `--labeled` and `--unlabeled` take one list for all seeds, or one for each.

Written into the folder: `figures/` with a small JSON for every training, `campaign.md` with tables and the differences
to `random`, pair by pair, `campaign.png`, and `curve.png` over the number of masks. The tail is that of all masks
there are, for every training, so that it is always of the same classes. The command may be stopped and given again:
what is done stays, and other rules, seeds or more rounds may be added.
"""

from __future__ import annotations

import argparse
import math
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import des4
from des4.acquisition import RULES, Rule, Settings
from des4.config import RunConfig, dump, load_config
from des4.data_tools.importing import prepared
from des4.datasets import content_hash, open_files, pixel_counts
from des4.datasets.files import FilesConfig
from des4.engine import Interrupted
from des4.engine.process import prepare_process
from des4.metrics import tail_classes
from des4.report.campaign import CampaignReport
from des4.report.campaign_scores import Finished
from des4.runlog import RunFolder, read_json, write_atomically, write_json
from des4.types import ConfigError, RunError, UserError

BEGINNING = "beginning"
"""Stands for the rule in the first training of a seed, which all rules share."""
KEPT = ("miou", "iou", "steps", "seconds", "evaluated", "data")
"""What is kept of a training's results."""


@dataclass(frozen=True)
class Lists:
    """A labeled list and an unlabeled one, as files."""

    labeled: Path
    unlabeled: Path

    @classmethod
    def of(cls, folder: Path) -> Lists:
        """Return the lists that a choice has written."""
        return cls(folder / "lists" / "labeled.txt", folder / "lists" / "unlabeled.txt")


@dataclass(frozen=True)
class Game:
    """What is played. begin: the lists of each seed. tail: of all masks there are, for each seed."""

    config: RunConfig
    out: Path
    begin: dict[int, Lists]
    tail: dict[int, list[str]]
    rules: Sequence[Rule]
    rounds: int
    count: int

    @property
    def trainings(self) -> int:
        """How many there are in all."""
        return len(self.begin) * (1 + len(self.rules) * self.rounds)

    def play(self) -> Iterator[Finished]:
        """Yield all trainings, seed by seed and round by round, each when it is done."""
        for seed, lists in self.begin.items():
            first = self._trained(seed, BEGINNING, 0, lists)
            yield first
            before = dict.fromkeys(self.rules, (BEGINNING, lists))
            for number in range(1, self.rounds + 1):
                for rule in self.rules:
                    parent, lists = before[rule]
                    chosen = self._chosen(seed, rule, number, self._folder(seed, parent, number - 1))
                    before[rule] = (rule, Lists.of(chosen))
                    yield self._trained(seed, rule, number, before[rule][1])

    def _chosen(self, seed: int, rule: Rule, number: int, run: Path) -> Path:
        """Let a rule choose for round `number` through the network of `run`; return the folder of the choice."""
        out = self._folder(seed, rule, number).with_name(f"choice-{number}")
        if (out / "next.json").is_file() and read_json(out / "next.json")["finished"]:
            return out
        settings = Settings(self.count, rule, seed=100 * seed + number, shapes=None)
        chosen = des4.choose_next(run, settings=settings, out=out, resume=out.exists())
        print(f"seed {seed}, {rule}, round {number}: chose {', '.join(chosen.names)}", flush=True)
        return out

    def _trained(self, seed: int, rule: str, number: int, lists: Lists) -> Finished:
        """Train with these lists, or read what came of it before."""
        figures = self.out / "figures" / f"seed-{seed}-{rule}-{number}.json"
        folder = self._folder(seed, rule, number)
        settings: dict[str, Any] = {
            "data.labeled": str(lists.labeled),
            "data.unlabeled": str(lists.unlabeled),
            "train.seed": seed,
            "out": str(folder),
        }
        if not figures.is_file():
            config = load_config(self.config, settings)
            # of what a kill left before the run had its config, nothing is worth keeping
            run = des4.resume(folder, config) if RunFolder.is_run(folder) else des4.train(config, overwrite=True)
            kept = {key: run.results[key] for key in KEPT}
            own = {"seed": seed, "rule": rule, "round": number, "tail_classes": self.tail[seed]}
            present = [value for name in self.tail[seed] if (value := run.results["iou"][name]) is not None]
            tail = statistics.fmean(present) if present else None
            figures.parent.mkdir(parents=True, exist_ok=True)
            write_json(figures, {**own, "tail_miou": tail, **kept})
            shutil.rmtree(RunFolder(folder).checkpoints)  # four fifths of the run; its weights are elsewhere
        results = read_json(figures)
        return Finished(rule, f"{results['data']['labeled']} masks", seed, results)

    def _folder(self, seed: int, rule: str, number: int) -> Path:
        return self.out / f"seed-{seed}" / rule / f"run-{number}"


def report(game: Game, done: Sequence[Finished]) -> CampaignReport:
    """Return the report on what is done. In the curve each rule begins where the first networks are."""
    return CampaignReport(
        [run for run in done if run.method != BEGINNING],
        "random" if "random" in game.rules else None,
        planned=game.trainings - len(game.begin),
    )


def write(game: Game, done: Sequence[Finished]) -> None:
    """Write tables and pictures of what is done."""
    found = report(game, done)
    if not found.runs:
        return
    first = [run for run in done if run.method == BEGINNING]
    scores = [run.score("miou") for run in first], [run.score("tail_miou") for run in first]
    means = " / ".join(f"{100 * statistics.fmean(one):.2f}" for one in scores)
    begun = [Finished(rule, run.lists, run.seed, run.results) for rule in game.rules for run in first]
    opening = f"Before the first choice: mIoU / tail mIoU {means}"
    found.write(game.out, opening, curve=[*begun, *found.runs])


def prepare(config: RunConfig, begin: dict[int, Lists], out: Path, count: int) -> dict[int, list[str]]:
    """Check that all masks are there, and that the folder is of this game; return the tail of all masks of each seed.

    Raises ConfigError, DataError or RunError.
    """
    if not isinstance(config.data, FilesConfig):
        raise ConfigError("data: labeling is played with data in files; give data=FOLDER")
    about: dict[str, Any] = {"config": dump(config), "count": count, "lists": {}}
    tails = {}
    (out / "lists").mkdir(parents=True, exist_ok=True)
    for seed, lists in begin.items():
        given = lists.labeled.read_text(encoding="utf-8").split("\n"), lists.unlabeled.read_text("utf-8").split("\n")
        every = out / "lists" / f"seed-{seed}.txt"
        write_atomically(every, "\n".join(line for lines in given for line in lines if line.strip()) + "\n")
        whole = config.data.model_copy(update={"labeled": every, "unlabeled": None})
        dataset = open_files(prepared(whole))  # raises DataError for an image without a mask
        counts = pixel_counts(dataset, dataset.labeled)
        tails[seed] = [dataset.classes[index] for index in tail_classes(counts)]
        about["lists"][str(seed)] = [content_hash(line for line in lines if line.strip()) for lines in given]
    plan = out / "game.json"
    if plan.is_file():
        before = read_json(plan)
        same = all(before["lists"].get(seed, hashes) == hashes for seed, hashes in about["lists"].items())
        if not same or any(before[key] != about[key] for key in ("config", "count")):
            raise RunError(f"{out} holds a game with other settings or lists; give another folder with --out")
        about["lists"] = {**before["lists"], **about["lists"]}
    write_json(plan, about)
    return tails


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--labeled", type=Path, nargs="+", required=True, help="one list, or one for each seed")
    parser.add_argument("--unlabeled", type=Path, nargs="+", required=True, help="the same; all need masks")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rules", nargs="+", choices=RULES, default=["balanced", "random"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=6, help="images that are chosen in a round")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_intermixed_args()
    for lists in (args.labeled, args.unlabeled):
        if len(lists) not in (1, len(args.seeds)):
            parser.error("--labeled and --unlabeled: give one list, or one for each seed")
    return args


def main() -> None:
    """Play, and write after each training what is known."""
    args = arguments()
    prepare_process()
    torch.set_num_threads(args.threads)
    seeds = len(args.seeds)
    labeled, unlabeled = ((lists * seeds)[:seeds] for lists in (args.labeled, args.unlabeled))
    begin = {seed: Lists(*both) for seed, *both in zip(args.seeds, labeled, unlabeled, strict=True)}
    try:
        config = load_config(args.config, ["method=supervised", *args.settings])
        tail = prepare(config, begin, args.out, args.count)
        game = Game(config, args.out, begin, tail, args.rules, args.rounds, args.count)
        done: list[Finished] = []
        started = time.perf_counter()
        for run in game.play():
            done.append(run)
            scores = [100 * run.score(name) for name in ("miou", "tail_miou")]
            shown = " / ".join("–" if math.isnan(score) else f"{score:.2f}" for score in scores)
            print(f"[{len(done)}/{game.trainings}, {time.perf_counter() - started:.0f} s] seed {run.seed}, "
                  f"{run.method}, {run.lists}: {shown}", flush=True)  # fmt: skip
            write(game, done)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    except Interrupted as stop:
        raise SystemExit(f"{stop.args[0]}, or give this command again") from None
    print(report(game, done).markdown())


if __name__ == "__main__":
    main()
