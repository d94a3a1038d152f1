"""The validations of a run: when one is due, what they gave, and whether the run stands still."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from des4.engine.evaluator import Evaluation, Evaluator
from des4.engine.guards import Guards, quality_figures
from des4.engine.optim import PolySchedule
from des4.metrics import Results

if TYPE_CHECKING:
    from des4.methods.base import Method


class Validation:
    """Scores a method while it trains, and remembers the headline's mIoU; it changes nothing that is trained.

    schedule: of the run. every: steps between validations; 0 = only after the last step. stop_after: validations in a
    row without a better mIoU that end the run; None = it goes to its last step. evaluator: None = no evaluation.
    guards: what is watched beside it; None = nothing.
    """

    def __init__(
        self,
        schedule: PolySchedule,
        every: int = 0,
        stop_after: int | None = None,
        evaluator: Evaluator | None = None,
        guards: Guards | None = None,
    ) -> None:
        self.schedule = schedule
        self.every = every
        self.stop_after = stop_after
        self.evaluator = evaluator
        self.guards = guards or Guards()
        self.newest: Evaluation | None = None
        self.labeler: str | None = None  # whose predictions the newest one measured as pseudo-labels
        self.scores: dict[int, float] = {}  # step → the headline's mIoU there; -1 for one that is undefined

    def due(self, step: int) -> bool:
        """Whether the state after `step` is to be scored, and has not been."""
        due = step == self.schedule.steps or bool(self.every and step and step % self.every == 0)
        return self.evaluator is not None and due and step not in self.scores

    @property
    def missing(self) -> bool:
        """Whether a run at its end has nothing to report: one that had finished has been fitted once more."""
        return self.evaluator is not None and self.newest is None

    def evaluate(
        self, method: Method, progress: Callable[[Iterable[str]], Iterable[str]] = iter
    ) -> tuple[Evaluation, dict[str, float]]:
        """Score a method; return the evaluation, and what metrics.jsonl keeps of it and of the guards, by key.

        progress: walks over the image ids, and may show how far it is. Raises DataError.
        """
        assert self.evaluator  # noqa: S101  # callers asked `due` or `missing`
        predictors, threshold, (name, labeler) = method.predictors(), method.threshold, method.pseudo_labeler()
        evaluation = self.evaluator(predictors, threshold, progress, labeler)
        self.labeler = name
        return evaluation, _line(evaluation) | self.guards.evaluate(predictors, {name: labeler}, threshold, progress)

    def is_best(self, evaluation: Evaluation) -> bool:
        """Whether no validation so far was as good, the first of all being the best."""
        score = _or_lowest(evaluation.results[evaluation.headline].miou)
        return not any(score <= past for past in self.scores.values())

    def take(self, step: int, evaluation: Evaluation) -> None:
        """Remember the score of the state after `step`."""
        self.scores[step] = _or_lowest(evaluation.results[evaluation.headline].miou)

    def replay(self, rows: Iterable[Mapping[str, Any]], headline: str) -> None:
        """Take what a run has logged so far, before it goes on."""
        rows, key = list(rows), f"val/{headline}/miou"
        self.scores = {row["step"]: _or_lowest(row[key]) for row in rows if key in row}
        self.guards.replay(rows)

    # ── standing still ───────────────────────────────────────────────────────────────────────────────────────────────

    def without_gain(self) -> tuple[int, int] | None:
        """Return the best validation of the last part of the run, by its step, and how many have come after it."""
        last = max(self.schedule.restarts, default=0)
        steps = sorted(step for step in self.scores if step > last)
        if not steps:
            return None
        best = max(steps, key=self.scores.__getitem__)  # the first of equal ones
        return best, len(steps) - 1 - steps.index(best)

    def stands_still(self) -> bool:
        """Whether the config asks for a stop here. It rests on the validations alone, so a resumed run stops alike."""
        found = self.without_gain() if self.stop_after else None
        return found is not None and found[1] >= (self.stop_after or 0)

    def early_stop(self, step: int) -> dict[str, Any] | None:
        """Return what results.json says of a run that ended at `step` before its last one; None of one that did not."""
        found = self.without_gain()
        if found is None or step == self.schedule.steps:
            return None
        return {"step": step, "stop_after": self.stop_after, "best_step": found[0], "chosen_on": "val"}

    # ── results.json ─────────────────────────────────────────────────────────────────────────────────────────────────

    def figures(self, headline: str) -> dict[str, Any]:
        """Return the part of results.json that the newest one gives; the headline's figures are repeated at the top."""
        if self.newest is None:
            return {"miou": None, "tail_miou": None, "pixel_accuracy": None, "iou": {}, "evaluated": headline,
                    "models": {}, "pseudo_labels": None}  # fmt: skip
        return {
            **_summary(self.newest.results[headline]),
            "evaluated": headline,
            "models": {
                name: {**_summary(results), "confusion": results.confusion.tolist()}
                for name, results in self.newest.results.items()
            },
            "pseudo_labels": {"model": self.labeler, **quality_figures(self.newest)},
        }

    def best(self) -> dict[str, Any] | None:
        """Return what results.json says of the best validation: the state that best.safetensors holds."""
        step = max(self.scores, key=self.scores.__getitem__, default=None)
        if step is None:
            return None
        return {"step": step, "miou": None if self.scores[step] < 0 else self.scores[step], "chosen_on": "val"}


def _line(evaluation: Evaluation) -> dict[str, float]:
    """Return what metrics.jsonl keeps of an evaluation, by key."""
    line = {}
    for model, results in evaluation.results.items():
        line[f"val/{model}/miou"] = results.miou
        line[f"val/{model}/tail_miou"] = results.tail_miou
        line |= {f"val/{model}/iou/{name}": iou for name, iou in results.iou.items()}
    quality = evaluation.pseudo_labels
    line["pseudo/miou"] = quality.miou
    line |= {f"pseudo/precision/{name}": value for name, value in quality.precision.items()}
    return line | {f"pseudo/coverage/{name}": value for name, value in quality.coverage.items()}


def _summary(results: Results) -> dict[str, Any]:
    return {"miou": results.miou, "tail_miou": results.tail_miou, "pixel_accuracy": results.pixel_accuracy,
            "iou": results.iou}  # fmt: skip


def _or_lowest(miou: float | None) -> float:
    """Return a mIoU for comparisons: one that is undefined is worse than any other."""
    return -1.0 if miou is None or math.isnan(miou) else miou
