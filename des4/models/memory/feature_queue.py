"""The newest embeddings of each class, first in, first out (MoCo, He et al., CVPR 2020; U2PL, Wang et al., CVPR 2022).

A commit writes new rows over the oldest ones. Nothing copies the queue, however long it is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from des4.models.memory.base import Memory
from des4.ops.reduce import join_over_ranks

_LAST = torch.iinfo(torch.int64).max


class FeatureQueue(Memory):
    """At most `size` embeddings of each class. Before the first commit there are none.

    rows: (C, size, D), of which the first `filled` (C,) are there; the next one goes to `place` (C,).
    """

    rows: Tensor
    filled: Tensor
    place: Tensor

    def __init__(self, num_classes: int, size: int, dim: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("rows", torch.zeros(num_classes, size, dim))
        self.register_buffer("filled", torch.zeros(num_classes, dtype=torch.int64))
        self.register_buffer("place", torch.zeros(num_classes, dtype=torch.int64))

    def collect(self, features: Tensor, chosen: Tensor, keys: Tensor) -> None:
        """Remember rows of each class. features: (C, K, D). chosen: (C, K) bool, which of these to take.

        keys: (K,), of the samples that they come from: new rows are queued in the order of keys, whoever found them.
        """
        self._hold(features, chosen, keys)

    def draw(self, noise: Tensor) -> Tensor:
        """Draw rows of each class at random. noise: (B, C, m) in [0, 1). Returns (B, C, m, D), 0 of empty classes."""
        number = (noise * self.filled[:, None]).long()
        return self.rows[torch.arange(len(self.rows), device=noise.device)[:, None], number]

    @torch.no_grad()
    def commit(self) -> None:
        """Queue what was collected, on all processes."""
        held = self._take()
        if not held:
            return
        features, chosen, keys = zip(*held, strict=True)
        rows, found = (join_over_ranks(torch.cat(tensors, 1), 1) for tensors in (features, chosen))
        found = self.unless_skipped(found)
        place = torch.where(found, join_over_ranks(torch.cat(keys)), _LAST)
        order = place.argsort(dim=1, stable=True)[:, : self.size, None]
        count = found.sum(1).clamp_max(self.size)
        # Each row has a slot of its own, also those that were not chosen: these write what is there already.
        offset = torch.arange(order.shape[1], device=order.device)
        slots = ((self.place[:, None] + offset) % self.size)[..., None]
        new = rows.take_along_dim(order, 1).to(self.rows.dtype)
        kept = torch.where((offset < count[:, None])[..., None], new, self.rows.take_along_dim(slots, 1))
        self.rows.scatter_(1, slots.expand_as(kept), kept)
        self.place.copy_((self.place + count) % self.size)
        self.filled.copy_((self.filled + count).clamp_max(self.size))
