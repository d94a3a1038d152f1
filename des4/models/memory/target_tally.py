"""What targets say of unlabeled images, counted over many steps: whether pseudo-labels go wrong can be seen in it.

Nothing in it waits for the device, and nothing is added up over processes, until somebody asks for the figures.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from des4.models.memory.base import Memory
from des4.ops.reduce import sum_over_ranks, this_rank


class TargetFigures(NamedTuple):
    """Figures of the targets of some steps, over all processes, in [0, 1].

    shares: of each class among the labels that count, their sum is 1. kept: share of the valid pixels whose label
    counts. confidence: mean over valid pixels. agreement: share of the labels that count that whoever is taught
    predicts as well.
    """

    shares: list[float]
    kept: float
    confidence: float
    agreement: float


class TargetTally(Memory):
    """Counts the targets that losses are taken of; `des4.types.TargetWatch` says what it is shown.

    A target counts each time that a loss is taken of it. sums: (C + 3,) float64, labels that count of each class; those
    among them that are agreed with, valid pixels, and their summed confidence. It is no part of a method's state:
    whoever asks for the figures keeps it.
    """

    sums: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.register_buffer("sums", torch.zeros(num_classes + 3, dtype=torch.float64), persistent=False)

    @torch.no_grad()
    def collect(self, logits: Tensor, label: Tensor, confidence: Tensor, keep: Tensor, valid: Tensor) -> None:
        """Count a target; pixels whose confidence is not a number are none."""
        known = valid & (confidence >= 0)
        counted = keep & known
        sums = torch.zeros_like(self.sums)
        sums[: self.num_classes].scatter_add_(0, label.flatten(), counted.flatten().double())
        sums[self.num_classes] = (counted & (logits.argmax(1) == label)).sum()
        sums[self.num_classes + 1] = known.sum()
        sums[self.num_classes + 2] = torch.where(known, confidence, 0).double().sum()
        self._hold(sums)

    @torch.no_grad()
    def commit(self) -> None:
        """Add what the step has collected."""
        for (sums,) in self._take():
            self.sums += torch.where(self.unless_skipped(torch.ones_like(sums, dtype=torch.bool)), sums, 0)

    def take(self) -> TargetFigures | None:
        """Return the figures of the steps since the last call, and count afresh; None if no target was seen."""
        (sums,) = sum_over_ranks(self.sums)
        *labels, agreed, valid, confidence = sums.tolist()
        self.sums.zero_()
        if not valid:
            return None
        kept = sum(labels)
        shares = [count / kept if kept else 0.0 for count in labels]
        return TargetFigures(shares, kept / valid, confidence / valid, agreed / kept if kept else 0.0)

    def state(self) -> list[float]:
        """The sums over all processes, which a checkpoint keeps."""
        return sum_over_ranks(self.sums)[0].tolist()

    def restore(self, state: list[float]) -> None:
        """Go on from `state`, all of which the first process then holds."""
        self.sums.copy_(torch.tensor(state, dtype=torch.float64) * (this_rank() == 0))
