"""Classes cut into sub-classes of about one size, by the features of labeled pixels (USRN, Guan et al., CVPR 2022).

k-means over the steps of a training, one batch after the other (Sculley, WWW 2010), in which a centre that has more
pixels than the others of its class is that much further away (Ahalt et al., 1990), so that all have about as many.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from des4.models.memory.base import Memory
from des4.ops.reduce import sum_over_ranks
from des4.types import IGNORE


class Subclasses(Memory):
    """Centres of the sub-classes of each class. counts: how many each class has; S together.

    parent: (S,) int64, the class of each. centres: (S, D). pixels: (S,) float64, a fading count of those that each has
    got; 0 until its class has occurred. momentum: by which counts fade, per step.
    """

    sizes: Tensor
    parent: Tensor
    centres: Tensor
    pixels: Tensor

    def __init__(self, counts: Sequence[int], dim: int, momentum: float = 0.99) -> None:
        super().__init__()
        self.counts, self.momentum = tuple(counts), momentum
        self.register_buffer("sizes", torch.tensor(self.counts), persistent=False)
        self.register_buffer("parent", torch.arange(len(counts)).repeat_interleave(self.sizes), persistent=False)
        self.register_buffer("centres", torch.zeros(sum(counts), dim))
        self.register_buffer("pixels", torch.zeros(sum(counts), dtype=torch.float64))

    @torch.no_grad()
    def assign(self, features: Tensor, label: Tensor) -> Tensor:
        """The sub-class of each labeled place, (B, h, w); IGNORE where there is no label or its class is new.

        features: (B, D, h, w), which are collected. label: (B, h, w) int64 in [0, C) or IGNORE.
        """
        known = label != IGNORE
        found = self._nearest(features.float()).gather(1, label.masked_fill(~known, 0)[:, None]).squeeze(1)
        found = found.masked_fill(~known | (self.pixels[found] == 0), IGNORE)
        rows = features.float().movedim(1, -1).flatten(0, -2)
        sums, counts = _summed(rows, found, len(self.parent))
        class_sums, class_counts = _summed(rows, label, len(self.counts))
        self._hold(sums, counts, class_sums, _summed(rows.square(), label, len(self.counts))[0], class_counts)
        return found

    def _nearest(self, features: Tensor) -> Tensor:
        """Of each class the nearest sub-class of every place, (B, C, h, w). features: (B, D, h, w)."""
        with torch.autocast(features.device.type, enabled=False):
            product = torch.einsum("bdhw,sd->bshw", features, self.centres)
        distance = features.square().sum(1, keepdim=True) - 2 * product + self.centres.square().sum(1)[:, None, None]
        total = torch.zeros(len(self.counts), device=features.device, dtype=torch.float64)
        total = total.scatter_add(0, self.parent, self.pixels)[self.parent]
        share = torch.where(total > 0, self.pixels / total.clamp_min(1e-12), 1.0)  # of the pixels of its class
        parts = torch.split(distance.clamp_min(0) * share.float()[:, None, None], list(self.counts), 1)
        starts = itertools.accumulate(self.counts, initial=0)
        return torch.stack([part.argmin(1) + start for part, start in zip(parts, starts, strict=False)], 1)

    @torch.no_grad()
    def commit(self, generator: torch.Generator) -> None:
        """Move the centres by what was collected on all processes; those of a class that is new are drawn.

        These are drawn about its mean, with its deviation.
        """
        held = self._take()
        if not held:
            return
        summed = sum_over_ranks(*(torch.stack(tensors).sum(0) for tensors in zip(*held, strict=True)))
        sums, counts, class_sums, class_squares, class_counts = summed
        some = self.unless_skipped(class_counts > 0)
        mean = class_sums / class_counts.clamp_min(1)
        deviation = (class_squares / class_counts.clamp_min(1) - mean.square()).clamp_min(0).sqrt()
        noise = torch.randn(self.centres.shape, generator=generator, device=self.centres.device)
        new = some[self.parent] & (self.pixels == 0)[:, None]
        drawn = mean[self.parent] + deviation[self.parent] * noise
        share = (class_counts[:, 0] / self.sizes)[self.parent]
        moved = self.unless_skipped(counts[:, 0] > 0)
        pixels = torch.where(some[self.parent, 0], self.momentum * self.pixels + counts[:, 0], self.pixels)
        step = (sums - counts * self.centres) / pixels.clamp_min(1e-12)[:, None]
        centres = torch.where(new, drawn, torch.where(moved[:, None], self.centres + step, self.centres.double()))
        self.centres.copy_(centres)
        self.pixels.copy_(torch.where(new[:, 0], share, pixels))


def _summed(rows: Tensor, names: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Sums (count, D) of the rows (N, D) of each name, and how many these are, (count, 1); IGNORE is no name."""
    group = names.flatten().masked_fill(names.flatten() == IGNORE, count)
    sums = torch.zeros(count + 1, rows.shape[1], device=rows.device, dtype=torch.float64).index_add_(
        0, group, rows.double()
    )
    some = torch.zeros(count + 1, 1, device=rows.device, dtype=torch.float64)
    some.scatter_add_(0, group[:, None], torch.ones_like(group, dtype=torch.float64)[:, None])
    return sums[:count], some[:count]
