"""What is watched of a run beside its validation: whether its pseudo-labels go wrong, and what its labels say of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import nn

from des4.engine.drift import DriftGuard
from des4.engine.evaluator import Evaluation, Evaluator
from des4.metrics import Results


class Guards:
    """Looks at log lines and evaluates at each validation; it changes nothing that is trained.

    drift: follows the shares of classes among pseudo-labels. truth: measures the pseudo-labels on unlabeled images
    whose masks may be opened. held_out: scores the models on labeled images that nothing is learnt from. Each
    may be None.
    """

    def __init__(
        self, drift: DriftGuard | None = None, truth: Evaluator | None = None, held_out: Evaluator | None = None
    ) -> None:
        self.drift, self.truth, self.held_out = drift, truth, held_out
        self._of_truth: Evaluation | None = None  # the newest ones
        self._of_held_out: Evaluation | None = None

    @property
    def num_images(self) -> int:
        """How many images a validation evaluates for it."""
        return sum(len(one.ids) for one in (self.truth, self.held_out) if one)

    def look(self, step: int, shares: Sequence[float]) -> list[str]:
        """Take the shares of the classes among the pseudo-labels since the last log line; return warnings."""
        return self.drift.look(step, shares) if self.drift else []

    def replay(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take what a run has logged so far, before it goes on."""
        if self.drift:
            self.drift.replay(rows)

    def evaluate(
        self,
        predictors: Mapping[str, nn.Module],
        labeler: Mapping[str, nn.Module],
        threshold: float,
        progress: Callable[[Iterable[str]], Iterable[str]] = iter,
    ) -> dict[str, float]:
        """Evaluate what there is to evaluate; return what metrics.jsonl keeps of it, by key.

        predictors, threshold, progress: as of an `Evaluator`. labeler: what pseudo-labels are of, by its name. Raises
        DataError.
        """
        line: dict[str, float] = {}
        if self.truth:
            self._of_truth = self.truth(labeler, threshold, progress)
            line |= _truth_line(self._of_truth)
        if self.held_out:
            self._of_held_out = self.held_out(predictors, threshold, progress)
            for model, results in self._of_held_out.results.items():
                line |= {f"held_out/{model}/{key}": value for key, value in _scores(results).items()}
        return line

    def results(self) -> dict[str, Any]:
        """What results.json says of it: null for what was not watched."""
        return {
            "drift": self.drift.summary() if self.drift else None,
            "truth": _truth_figures(self._of_truth) if self._of_truth else None,
            "held_out": _held_out_figures(self._of_held_out) if self._of_held_out else None,
        }


def quality_figures(evaluation: Evaluation) -> dict[str, Any]:
    """Return what results.json says of the pseudo-labels of an evaluation."""
    return asdict(evaluation.pseudo_labels)


def _truth_line(evaluation: Evaluation) -> dict[str, float]:
    """Coverage is left out where there is no threshold, and all is covered."""
    quality = evaluation.pseudo_labels
    line = {"truth/miou": evaluation.results[evaluation.headline].miou}
    line |= {f"truth/precision/{name}": value for name, value in quality.precision.items()}
    return line | ({f"truth/coverage/{n}": v for n, v in quality.coverage.items()} if quality.threshold else {})


def _truth_figures(evaluation: Evaluation) -> dict[str, Any]:
    results = evaluation.results[evaluation.headline]
    return {
        "images": len(evaluation.image_miou),
        "model": evaluation.headline,
        "iou": results.iou,
        "share": _shares(results, 1),
        "predicted_share": _shares(results, 0),
        **quality_figures(evaluation),
    }


def _shares(results: Results, summed: int) -> dict[str, float]:
    """Share of each class among the pixels that have a label: of the labels (sum over dim 1), or of the predictions."""
    counts = results.confusion.sum(summed).double()
    return dict(zip(results.classes, (counts / counts.sum().clamp_min(1)).tolist(), strict=True))


def _held_out_figures(evaluation: Evaluation) -> dict[str, Any]:
    models = {model: {**_scores(results), "iou": results.iou} for model, results in evaluation.results.items()}
    return {"images": list(evaluation.image_miou), "models": models}


def _scores(results: Results) -> dict[str, float]:
    return {"miou": results.miou, "tail_miou": results.tail_miou}
