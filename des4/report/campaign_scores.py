"""The scores of a campaign's runs: by method and list, their differences to the reference, and the headroom.

A pair is two runs with the same lists and the same seed. Its difference is free of what the lists alone decide, which
of few masks is a good draw, so the spread of differences says more than that of scores. Headroom: what all masks give
the reference more than the few of a list.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from des4.report.compare import Score

if TYPE_CHECKING:
    from des4.runlog import RunFolder

SCORES = {"miou": "mIoU", "tail_miou": "tail mIoU"}


@dataclass(frozen=True)
class Finished:
    """A run that is done. results: its results.json, or as much of it as is kept. run: its folder."""

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

    @property
    def is_short(self) -> bool:
        """Whether it ended before its last step."""
        return bool(self.results.get("step", self.results["steps"]) != self.results["steps"])

    def mean_iou(self, classes: Iterable[str]) -> float:
        """Mean IoU over those of the classes that have one, nan if none has."""
        iou = self.results["iou"]
        return mean_of_known(math.nan if iou.get(name) is None else iou[name] for name in classes)


@dataclass(frozen=True)
class CampaignScores:
    """The finished runs of a campaign. reference: the method that others are held against. full: the list with every
    mask.
    """

    runs: Sequence[Finished]
    reference: str | None = None
    full: str | None = None

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
        return self.with_all_masks(name, lists) - self.scores(self.reference, lists, name).mean

    @property
    def full_method(self) -> str | None:
        """Whose runs with all masks count: the reference, or else the first method that has some."""
        having = [run.method for run in self.runs if self.full is not None and run.lists == self.full]
        return self.reference if self.reference in having else next(iter(having), None)

    def with_all_masks(self, name: str, lists: str) -> float:
        """What all masks reach of a figure that is held against a list's: over the classes that are rare there.

        nan without runs with all masks, or where those were scored on other val images than the list's.
        """
        full = [run for run in self.runs if (run.method, run.lists) == (self.full_method, self.full)]
        few = [run for run in self.runs if run.lists == lists]
        if not few or len({run.results["data"].get("val_hash") for run in [*full, *few]}) > 1:
            return math.nan
        tail = few[0].results["tail_classes"]
        return mean_of_known(run.mean_iou(tail) if name == "tail_miou" else run.score(name) for run in full)

    def closed(self, method: str, lists: str, name: str = "miou") -> float:
        """Share of the headroom that a method closes; nan where there is none."""
        room = self.headroom(lists, name)
        return self.differences(method, name, [lists]).mean / room if room > 0 else math.nan

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


def mean_of_known(values: Iterable[float]) -> float:
    """Mean of what is not nan; nan if nothing is."""
    present = [value for value in values if not math.isnan(value)]
    return statistics.fmean(present) if present else math.nan
