"""What a campaign found: scores by list and method, and differences to the reference, paired run by run.

A pair is two runs with the same lists and the same seed. Its difference is free of what the lists alone decide, which
of few masks is a good draw, so the spread of differences says more than that of scores. Headroom: what all masks give
the reference more than the few of a list.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group as Lines
from rich.console import RenderableType
from rich.text import Text

from des4.report.campaign_tables import by_class, cost
from des4.report.compare import Rows, Score, as_table, markdown_rows
from des4.report.plots import group_bars, learning_curve, paired, percent
from des4.runlog import write_atomically, write_json

if TYPE_CHECKING:
    from des4.runlog import RunFolder

SCORES = {"miou": "mIoU", "tail_miou": "tail mIoU"}
EVERY_LIST = "every list"
FEWEST = 3
"""Seeds, or pairs, below which a spread says little."""
MOST_COLUMNS = 4
"""Methods that stand side by side on any terminal."""
ROOM, STILL_RISING = 5.0, 1.0
"""Points of mIoU: what all masks must be worth for a list to be a benchmark, and what a last step says it goes on."""


@dataclass(frozen=True)
class Finished:
    """A run that is done. results: its results.json. run: its folder."""

    method: str
    lists: str
    seed: int
    results: Mapping[str, Any]
    run: RunFolder | None = None

    def score(self, name: str) -> float:
        """A figure as a fraction, nan where it is undefined."""
        value = self.results[name]
        return math.nan if value is None else float(value)

    @property
    def masks(self) -> int:
        """Labeled images that it learnt from."""
        return int(self.results["data"]["labeled"])

    def mean_iou(self, classes: Iterable[str]) -> float:
        """Mean IoU over those of the classes that have one, nan if none has."""
        return _mean(math.nan if (value := self.results["iou"].get(name)) is None else value for name in classes)


@dataclass(frozen=True)
class CampaignReport:
    """The finished runs of a campaign. planned: how many it has in all. reconstructions: methods of which parts are
    guesses, by what the campaign calls them. doubts: further things that the reader must know.
    """

    runs: Sequence[Finished]
    reference: str | None = None
    full: str | None = None
    planned: int = 0
    reconstructions: Sequence[str] = ()
    doubts: Sequence[str] = ()

    @property
    def methods(self) -> list[str]:
        """Names of the methods, in the campaign's order."""
        return list(dict.fromkeys(run.method for run in self.runs))

    @property
    def lists(self) -> list[str]:
        """Names of the lists, in the campaign's order."""
        return list(dict.fromkeys(run.lists for run in self.runs))

    def scores(self, method: str, lists: str, name: str) -> Score:
        """Scores of a method with a list, one a seed."""
        return Score(tuple(r.score(name) for r in self.runs if (r.method, r.lists) == (method, lists)))

    def differences(self, method: str, name: str, lists: Iterable[str] | None = None) -> Score:
        """A method minus the reference, of each list and seed that both have."""
        at = {(r.method, r.lists, r.seed): r.score(name) for r in self.runs}
        wanted = set(self.lists if lists is None else lists)
        return Score(
            tuple(
                at[method, run.lists, run.seed] - run.score(name)
                for run in self.runs
                if run.method == self.reference and run.lists in wanted and (method, run.lists, run.seed) in at
            )
        )

    def headroom(self, lists: str, name: str = "miou") -> float:
        """What all masks give more than a list gives the reference; nan where one of the two was not trained."""
        if self.reference is None or lists == self.full:
            return math.nan
        return self.with_all_masks(name) - self.scores(self.reference, lists, name).mean

    def with_all_masks(self, name: str) -> float:
        """A figure of the reference with all masks, or of the first method that has such a run; else nan."""
        having = [run.method for run in self.runs if self.full is not None and run.lists == self.full]
        if self.full is None or not having:
            return math.nan
        return self.scores(self.reference if self.reference in having else having[0], self.full, name).mean

    def closed(self, method: str, lists: str, name: str = "miou") -> float:
        """Share of the headroom that a method closes; nan where there is none."""
        room = self.headroom(lists, name)
        return self.differences(method, name, [lists]).mean / room if room > 0 else math.nan

    def tables(self) -> list[Rows]:
        """Scores by list and method and, with a reference, differences to it, by list and over all."""
        paired = self._paired() if self.reference else []
        return [self._by_list(name) for name in SCORES] + ([paired] if len(paired) > 1 else [])

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
        return found

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
            blocks.append("\n".join(f"- Warning: {text}" for text in self.warnings))
        return "\n\n".join(blocks) + "\n"

    def plot(self, path: Path) -> None:
        """Draw each method's differences to the reference, a dot a pair, as PNG; without a reference, its scores."""
        differences = self.difference_values()
        if self.reference is not None and differences:
            paired(differences, self.reference, path)
        else:
            group_bars(self.score_values(), path)

    def difference_values(self) -> dict[str, dict[str, tuple[float, ...]]]:
        """Method → score → its differences to the reference, what `paired` draws; a method without any is not in it."""
        found = {
            method: {label: self.differences(method, name).values for name, label in SCORES.items()}
            for method in self.methods
            if self.reference is not None and method != self.reference
        }
        return {method: scores for method, scores in found.items() if any(scores.values())}

    def score_values(self) -> dict[str, dict[str, tuple[float, ...]]]:
        """Method and list → score → its values, those that `group_bars` draws."""
        cells = [(m, lists) for lists in self.lists for m in self.methods if self.scores(m, lists, "miou").values]
        return {
            f"{m} · {lists}": {label: self.scores(m, lists, n).values for n, label in SCORES.items()}
            for m, lists in cells
        }

    def list_values(self) -> dict[str, dict[str, dict[str, tuple[float, ...]]]]:
        """Score → list of few masks → method, the reference first → its values, what `list_by_list` draws."""
        few = [lists for lists in self.lists if lists != self.full]
        having = [m for m in self.methods if any(r.method == m and r.lists in few for r in self.runs)]
        methods = sorted(having, key=lambda method: method != self.reference)
        return {
            label: {lists: {m: self.scores(m, lists, name).values for m in methods} for lists in few}
            for name, label in SCORES.items()
        }

    def curve(self, name: str) -> dict[str, dict[int, Score]]:
        """Method → number of masks → a figure of `SCORES`, over all lists of that size and seeds.

        The tail is that of the longest list for all of them: lists of few masks may call other classes rare.
        """
        longest = max(self.runs, key=lambda run: run.masks)
        found: dict[str, dict[int, list[float]]] = {}
        for run in self.runs:
            score = run.mean_iou(longest.results["tail_classes"]) if name == "tail_miou" else run.score(name)
            found.setdefault(run.method, {}).setdefault(run.masks, []).append(score)
        return {m: {n: Score(tuple(v)) for n, v in sorted(sizes.items())} for m, sizes in found.items()}

    def curve_values(self) -> dict[str, dict[str, dict[int, tuple[float, ...]]]]:
        """Score → method → number of masks → its values, what `learning_curve` draws; empty with lists of one size."""
        if len({run.masks for run in self.runs}) < 2:
            return {}
        return {
            label: {m: {n: score.values for n, score in points.items()} for m, points in self.curve(name).items()}
            for name, label in SCORES.items()
        }

    def verdict(self, method: str) -> list[str]:
        """What a learning curve says: whether more masks would help, and whether unlabeled images have room to."""
        points = [(n, score.mean) for n, score in self.curve("miou")[method].items() if not math.isnan(score.mean)]
        if len(points) < 2:
            return []
        (few, low), (most, top) = points[0], points[-1]
        room, (half, before) = 100 * (top - low), points[-2]
        last = 100 * (top - before)
        return [
            f"All {most} masks give {room:.1f} points of mIoU more than {few}. "
            + (
                f"With {few} masks there is room for a method that reads unlabeled images."
                if room >= ROOM
                else f"That is less than {ROOM:g}: with {few} masks unlabeled images have little left to win."
            ),
            f"From {half} to {most} masks it gained {last:.1f}. "
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
        write_atomically(folder / "campaign.md", f"{opening}\n\n{self.markdown()}" if opening else self.markdown())
        kept = ("miou", "tail_miou", "iou", "tail_classes", "steps", "evaluated", "seconds", "data")
        runs = [
            {"method": r.method, "lists": r.lists, "seed": r.seed, **{k: r.results.get(k) for k in kept}}
            for r in self.runs
        ]
        write_json(folder / "campaign.json", {"reference": self.reference, "full": self.full, "runs": runs})
        self.plot(folder / "campaign.png")
        if drawn := (self if curve is None else CampaignReport(curve)).curve_values():
            learning_curve(drawn, folder / "curve.png")

    def __rich__(self) -> RenderableType:
        tables: list[RenderableType] = [as_table(rows) for rows in self.tables()]
        return Lines(*tables, *(Text(f"! {text}", style="yellow") for text in self.warnings))

    def _by_list(self, name: str) -> Rows:
        """Return the scores, a row a list and a column a method; the other way round where there are more methods."""

        def cell(method: str, lists: str) -> str:
            score = self.scores(method, lists, name)
            return str(score) if score.values else "–"

        title = f"{SCORES[name]} %"
        if len(self.methods) > max(len(self.lists), MOST_COLUMNS):
            rows = [[method, *(cell(method, lists) for lists in self.lists)] for method in self.methods]
            return [[title, *self.lists], *rows]
        rows = [[lists, *(cell(method, lists) for method in self.methods)] for lists in self.lists]
        return [[title, *self.methods], *rows]

    def _paired(self) -> Rows:
        """Differences to the reference in points: mean ± sd, pairs, and the share of the headroom that is closed.

        The last row of a method is over all lists but that with every mask, where there is nothing to close.
        """
        others = [m for m in self.methods if m != self.reference]
        heading = [f"minus {self.reference}", "lists", "pairs", *SCORES.values(), "headroom", "closed"]
        rows = [heading]
        for method in others:
            for lists in [*self.lists, None]:
                wanted = [each for each in self.lists if each != self.full] if lists is None else [lists]
                miou, tail = (self.differences(method, name, wanted) for name in SCORES)
                if not miou.values:
                    continue
                few = [each for each in wanted if self.differences(method, "miou", [each]).values]
                room = _mean(self.headroom(each) for each in few)
                closed = miou.mean / room if room > 0 else math.nan
                share = "–" if math.isnan(closed) else f"{100 * closed:.0f} %"
                scores = [_points(miou), _points(tail), percent(room, 2), share]
                rows.append([method, lists or EVERY_LIST, str(len(miou.values)), *scores])
        return rows


def _mean(values: Iterable[float]) -> float:
    present = [value for value in values if not math.isnan(value)]
    return statistics.fmean(present) if present else math.nan


def _points(score: Score) -> str:
    """A difference in points of a percentage, with its sign."""
    spread = "" if math.isnan(score.sd) else f" ± {100 * score.sd:.2f}"
    return "–" if math.isnan(score.mean) else f"{100 * score.mean:+.2f}{spread}"
