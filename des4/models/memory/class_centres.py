"""The mean embedding of each class."""

from __future__ import annotations

import torch
from torch import Tensor

from des4.models.memory.base import Memory
from des4.ops.reduce import sum_over_ranks


class ClassCentres(Memory):
    """Means of the embeddings of each class in the last step in which it occurred.

    centres: (C, D). seen: (C,) bool, whether there is one.
    """

    centres: Tensor
    seen: Tensor

    def __init__(self, num_classes: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("centres", torch.zeros(num_classes, dim))
        self.register_buffer("seen", torch.zeros(num_classes, dtype=torch.bool))

    def collect(self, features: Tensor, labels: Tensor) -> None:
        """Add embeddings up. features: (N, D). labels: (N,) integers; those outside [0, C) are left out."""
        num_classes, dim = self.centres.shape
        group = torch.where((labels >= 0) & (labels < num_classes), labels, num_classes)
        sums = self.centres.new_zeros(num_classes + 1, dim).index_add_(0, group, features.detach().float())
        counts = self.centres.new_zeros(num_classes + 1).scatter_add_(0, group, self.centres.new_ones(len(group)))
        self._hold(sums[:num_classes], counts[:num_classes])

    @torch.no_grad()
    def commit(self) -> None:
        """Take the means of what was collected, on all processes."""
        held = self._take()
        if not held:
            return
        sums, counts = sum_over_ranks(*(torch.stack(tensors).sum(0) for tensors in zip(*held, strict=True)))
        present = self.unless_skipped(counts > 0)
        mean = sums / counts.clamp_min(1)[:, None]
        self.centres.copy_(torch.where(present[:, None], mean, self.centres))
        self.seen.logical_or_(present)
