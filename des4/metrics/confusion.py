"""Figures computed from a confusion matrix: IoU, mIoU, tail mIoU, and the quality of pseudo-labels."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from html import escape

import torch
from torch import Tensor


def confusion_matrix(label: Tensor, prediction: Tensor, num_classes: int) -> Tensor:
    """Count pixels by true class (row) and predicted class (column): (C, C) int64, on the device of `label`.

    label, prediction: integer tensors of one shape; predictions in [0, C). Labels outside [0, C) are ignored.
    """
    label = label.long()
    keep = (label >= 0) & (label < num_classes)
    pairs = label[keep] * num_classes + prediction[keep].long()
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


@dataclass(frozen=True, eq=False)
class Results:
    """The figures of one model on one list of images, in [0, 1].

    confusion: (C, C) int64, rows = truth. classes: C names. tail: the names of the rare classes.
    """

    confusion: Tensor
    classes: tuple[str, ...]
    tail: tuple[str, ...] = ()

    @cached_property
    def iou(self) -> dict[str, float]:
        """Intersection over union by class; NaN where a class occurs in neither truth nor prediction."""
        hit = self.confusion.diagonal()
        union = self.confusion.sum(0) + self.confusion.sum(1) - hit
        return _by_class(self.classes, hit, union)

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that have one."""
        return _mean(self.iou.values())

    @property
    def tail_miou(self) -> float:
        """Mean IoU over the tail classes that have one; NaN if none has."""
        return _mean(self.iou[name] for name in self.tail)

    @property
    def pixel_accuracy(self) -> float:
        """Share of scored pixels that are right; NaN if none is scored."""
        total = int(self.confusion.sum())
        return int(self.confusion.trace()) / total if total else math.nan

    def _repr_html_(self) -> str:
        """What a notebook shows: IoU by class, with the rare ones marked, and the means."""
        rows = [(f"{name} (tail)" if name in self.tail else name, value) for name, value in self.iou.items()]
        means = [("mIoU", self.miou), ("tail mIoU", self.tail_miou), ("pixel accuracy", self.pixel_accuracy)]
        lines = [f"<tr><td>{escape(name)}</td><td>{_percent(value)}</td></tr>" for name, value in rows]
        lines += [f"<tr><th>{name}</th><th>{_percent(value)}</th></tr>" for name, value in means]
        return f"<table><tr><th>class</th><th>IoU %</th></tr>{''.join(lines)}</table>"


@dataclass(frozen=True)
class PseudoLabelQuality:
    """How good the pseudo-labels of a model are, in [0, 1].

    They are measured on the validation images, and on unlabeled ones if the user lets their masks be opened.

    threshold: the confidence a pixel needs to be kept; 0 keeps all. miou: of all pixels, kept or not. By class:
    precision: kept pixels predicted as c that are c / kept pixels predicted as c. NaN if there are none.
    coverage: kept pixels of true class c, whatever their pseudo-label / all pixels of c. NaN if there are none.
    """

    threshold: float
    miou: float
    precision: dict[str, float]
    coverage: dict[str, float]

    @classmethod
    def from_confusions(
        cls, kept: Tensor, everything: Tensor, classes: tuple[str, ...], threshold: float
    ) -> PseudoLabelQuality:
        """Compute the figures from the confusion matrices of the kept pixels and of all pixels."""
        return cls(
            threshold=threshold,
            miou=Results(everything, classes).miou,
            precision=_by_class(classes, kept.diagonal(), kept.sum(0)),
            coverage=_by_class(classes, kept.sum(1), everything.sum(1)),
        )


def _by_class(classes: tuple[str, ...], part: Tensor, whole: Tensor) -> dict[str, float]:
    ratio = part.double() / whole.double()  # 0 / 0 = NaN: the class has no figure
    return dict(zip(classes, ratio.tolist(), strict=True))


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.2f}"


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
