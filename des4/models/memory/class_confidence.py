"""How well each class is predicted where it is true (AEL, Hu et al., NeurIPS 2021, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from des4.models.memory.base import Memory
from des4.ops.reduce import sum_over_ranks
from des4.ops.resize import shrink_label
from des4.types import IGNORE


class ClassConfidence(Memory):
    """Moving averages, over the steps in which a class occurs, of the mean probability that its pixels give to it.

    momentum: of the averages, per such step; each starts warm. values: (C,) in [0, 1], 0 of a class not seen yet.
    steps: (C,), in which a class occurred.
    """

    values: Tensor
    steps: Tensor

    def __init__(self, num_classes: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("values", torch.zeros(num_classes))
        self.register_buffer("steps", torch.zeros(num_classes, dtype=torch.int64))

    @property
    def doubts(self) -> Tensor:
        """(1 - v) / max (1 - v), (C,) in (0, 1]: 1 of the class that is predicted worst."""
        doubts = (1 - self.values).clamp_min(1e-12)
        return doubts / doubts.max()

    @torch.no_grad()
    def collect(self, logits: Tensor, label: Tensor) -> None:
        """Add probabilities up. logits: (B, C, h, w). label: (B, H, W) int64 in [0, C) or IGNORE."""
        probs, labels = logits.float().softmax(1), shrink_label(label, (logits.shape[-2], logits.shape[-1]))
        known, classes = labels != IGNORE, len(self.values)
        own = probs.gather(1, labels.masked_fill(~known, 0)[:, None]).squeeze(1)
        group = labels.masked_fill(~known, classes).flatten()
        sums = torch.zeros(2, classes + 1, device=probs.device, dtype=torch.float64)
        sums[0].scatter_add_(0, group, torch.where(known, own, 0).flatten().double())
        sums[1].scatter_add_(0, group, torch.ones_like(group, dtype=torch.float64))
        self._hold(sums[:, :classes])

    @torch.no_grad()
    def commit(self) -> None:
        """Average with what was collected, on all processes; a class that did not occur stays as it is."""
        held = self._take()
        if not held:
            return
        (sums,) = sum_over_ranks(torch.stack([sums for (sums,) in held]).sum(0))
        occurred = self.unless_skipped(sums[1] > 0)
        momentum = (1 - 1 / (self.steps + 1)).clamp_max(self.momentum)
        new = (sums[0] / sums[1].clamp_min(1)).float()
        self.values.copy_(torch.where(occurred, momentum * self.values + (1 - momentum) * new, self.values))
        self.steps.add_(occurred)
