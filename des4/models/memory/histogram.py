"""How values were spread in the last steps, so that a percentile can be told before all of a step is seen."""

from __future__ import annotations

import torch
from torch import Tensor

from des4.models.memory.base import Memory
from des4.ops.reduce import sum_over_ranks


class Histogram(Memory):
    """A moving average over steps of the shares of values in `bins` equal parts of [0, 1], by group.

    Before the first commit values count as evenly spread. So a threshold that is a percentile is the same in all parts
    of a step and on all processes, one step late. momentum: of the average, per step; it starts warm. groups: G, such
    as classes; the shares of all groups together sum to 1.
    """

    shares: Tensor
    steps: Tensor

    def __init__(self, bins: int = 1000, momentum: float = 0.9, groups: int = 1) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("shares", torch.empty(groups, bins, dtype=torch.float64))
        self.register_buffer("steps", torch.empty((), dtype=torch.int64))
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.shares.fill_(1 / self.shares.numel())
        self.steps.zero_()

    def collect(self, values: Tensor, where: Tensor, group: Tensor | None = None) -> None:
        """Count values in [0, 1], of any shape, where a mask of that shape says so; NaN never counts.

        group: of each value, in [0, G); None = all are of group 0.
        """
        bins = self.shares.shape[1]
        place = (values * bins).nan_to_num().long().clamp(0, bins - 1)
        if group is not None:
            place = place + bins * group
        counts = torch.zeros_like(self.shares).flatten()
        counts.scatter_add_(0, place.flatten(), (where & ~values.isnan()).flatten().to(counts.dtype))
        self._hold(counts.view_as(self.shares))

    def quantile(self, share: float) -> Tensor:
        """Return the value below which this share of all values lies, a scalar; they are even within a bin."""
        inside = self.shares.sum(0)
        below = inside.cumsum(0)
        goal = share * below[-1]
        place = (below < goal).sum()[None].clamp_max(len(below) - 1)
        rest = (goal - below.gather(0, place)) / inside.gather(0, place).clamp_min(1e-12) + 1
        return ((place + rest.clamp(0, 1)) / len(below)).float().squeeze(0)

    def top(self, shares: Tensor) -> tuple[Tensor, Tensor]:
        """Where the largest values of each group begin that make up given shares of all values.

        shares: (G,). Returns the lower edge of the bin that they reach down to, (G,), and which part these are of all
        that lie from there on, (G,) in [0, 1]. Of a group that has too few, all: an edge of 0, a part of 1.
        """
        above = self.shares.flip(1).cumsum(1).flip(1)
        place = ((above >= shares[:, None]).sum(1, keepdim=True) - 1).clamp_min(0)
        part = shares / above.gather(1, place).squeeze(1).clamp_min(1e-12)
        return (place.squeeze(1) / above.shape[1]).float(), part.clamp_max(1).float()

    @torch.no_grad()
    def commit(self) -> None:
        """Average with what was collected, on all processes; a step without any value changes nothing."""
        held = self._take()
        if not held:
            return
        (counts,) = sum_over_ranks(torch.stack([counts for (counts,) in held]).sum(0))
        counted = self.unless_skipped(counts.sum() > 0)
        # min(1 - 1/(t + 1), momentum), with a t that lies on the device
        momentum = (1 - 1 / (self.steps + 1)).clamp_max(self.momentum)
        new = counts / counts.sum().clamp_min(1)
        self.shares.copy_(torch.where(counted, momentum * self.shares + (1 - momentum) * new, self.shares))
        self.steps.add_(counted)
