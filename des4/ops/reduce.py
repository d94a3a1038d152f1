"""Sums over the ranks of a distributed run; the identity on one process."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


def sum_over_ranks(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return each tensor summed over all ranks, the same on every rank. Sums are added before any mean is taken."""
    if not (dist.is_available() and dist.is_initialized()):
        return tensors
    summed = tuple(t.clone() for t in tensors)
    for t in summed:
        dist.all_reduce(t)
    return summed
