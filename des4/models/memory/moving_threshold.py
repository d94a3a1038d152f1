"""A threshold that follows how sure a network is of the classes it finds (CorrMatch, Sun et al., CVPR 2024)."""

from __future__ import annotations

import torch
from torch import Tensor

from des4.models.memory.base import Memory
from des4.ops.reduce import join_over_ranks


class MovingThreshold(Memory):
    """A moving average of the mean, over the classes that are predicted in a step, of the largest confidence of each.

    start: at first. momentum: of the average, per step. value: a scalar in [0, 1].
    """

    value: Tensor

    def __init__(self, num_classes: int, start: float, momentum: float) -> None:
        super().__init__()
        self.num_classes, self.momentum = num_classes, momentum
        self.register_buffer("value", torch.tensor(start))

    @torch.no_grad()
    def collect(self, confidence: Tensor, label: Tensor, where: Tensor) -> None:
        """See confidences of pixels where a mask says so. All are (B, H, W); NaN never counts."""
        known = torch.where(where & (confidence >= 0), confidence.float(), -1.0)
        largest = known.new_full((self.num_classes,), -1.0)
        self._hold(largest.scatter_reduce(0, label.flatten(), known.flatten(), "amax"))

    @torch.no_grad()
    def commit(self) -> None:
        """Average with what was collected, on all processes; a step without any prediction changes nothing."""
        held = self._take()
        if not held:
            return
        largest = join_over_ranks(torch.stack([each for (each,) in held]).amax(0)[None]).amax(0)
        found = self.unless_skipped(largest >= 0)
        mean = torch.where(found, largest, 0).sum() / found.sum().clamp_min(1)
        self.value.copy_(torch.where(found.any(), self.momentum * self.value + (1 - self.momentum) * mean, self.value))
