"""Distribution alignment: predictions on unlabeled images as if classes were as frequent there as in the labels.

Berthelot et al., ReMixMatch, ICLR 2020, arxiv.org/abs/1911.09785, section 3.1: a prediction q becomes q · p / p̃, scaled
to a sum of 1, with p the labeled shares of the classes and p̃ the running mean of predictions. Here of pixels. Ours: an
exponential mean (there: over the last 128 batches), a power of the ratio as strength, and a largest ratio, so that a
class which is hardly ever predicted does not turn noise into labels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from des4.models.memory.base import Memory
from des4.ops.reduce import sum_over_ranks

LARGEST = 10.0
"""A class's probability is multiplied, before all are scaled, by this at most, and by its inverse at least."""


class ShareAlignment(Memory):
    """Aligns class distributions; `des4.types.TargetAlignment` says how it is asked.

    prior: (C,) labeled shares. power: of the ratio, in (0, 1]; 1 = as published. momentum: of the running mean, which
    starts warm. shares: (C,), the running mean; steps: how many it has seen, with 0 nothing is aligned.
    """

    prior: Tensor
    shares: Tensor
    steps: Tensor

    def __init__(self, prior: Tensor, power: float, momentum: float) -> None:
        super().__init__()
        self.power, self.momentum = power, momentum
        self.register_buffer("prior", prior.float(), persistent=False)
        self.register_buffer("shares", prior.float().clone())
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @property
    def ratio(self) -> Tensor:
        """What probabilities are multiplied by, (C,)."""
        ratio = (self.prior / self.shares.clamp_min(torch.finfo(torch.float32).tiny)).pow(self.power)
        return ratio.clamp(1 / LARGEST, LARGEST)

    @torch.no_grad()
    def aligned(self, probs: Tensor, valid: Tensor) -> Tensor:
        """Align distributions (B, C, h, w) of which `valid` ones, (B, h, w) bool, are collected as they are given.

        Those over anything but the C classes, such as sub-classes of them, are neither: their shares are not known.
        """
        if probs.shape[1] != len(self.prior):
            return probs
        counted = (probs * valid[:, None]).sum((0, 2, 3), dtype=torch.float64)
        self._hold(torch.cat([counted, valid.sum().double()[None]]))
        raised = probs * self.ratio[:, None, None]
        aligned = raised / raised.sum(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        return torch.where(self.steps > 0, aligned, probs)

    @torch.no_grad()
    def commit(self) -> None:
        """Move the running mean by the mean of all that the step has collected, over all processes."""
        held = [sums for (sums,) in self._take()]
        nothing = torch.zeros(len(self.shares) + 1, dtype=torch.float64, device=self.shares.device)
        (total,) = sum_over_ranks(torch.stack(held).sum(0) if held else nothing)
        moves = self.unless_skipped((total[-1] > 0) & total.isfinite().all())
        momentum = (1 - 1 / (self.steps + 1.0)).clamp_max(self.momentum)
        mean = (total[:-1] / total[-1].clamp_min(1)).float()
        self.shares.copy_(torch.where(moves, momentum * self.shares + (1 - momentum) * mean, self.shares))
        self.steps += moves
