"""Sums, means and shares that are those of the whole step, over the processes (ranks) of a distributed run.

On one process a sum over ranks is the identity. Sums are added before any mean is taken: a mean of the ranks' means
is another number wherever they hold different numbers of pixels.
"""

from __future__ import annotations

import json
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor


def is_distributed() -> bool:
    """Whether this process has joined others."""
    return dist.is_available() and dist.is_initialized()


def this_rank() -> int:
    """Number of this process among all, from 0."""
    return dist.get_rank() if is_distributed() else 0


def num_ranks() -> int:
    """Number of processes of this run."""
    return dist.get_world_size() if is_distributed() else 1


def sum_over_ranks(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return each tensor summed over all ranks, the same on every rank."""
    if not is_distributed():
        return tensors
    summed = tuple(t.clone() for t in tensors)
    for t in summed:
        dist.all_reduce(t)
    return summed


def join_over_ranks(tensor: Tensor, dim: int = 0) -> Tensor:
    """Return the tensors of all ranks, of one shape, one after the other in a dimension; the same on every rank."""
    if not is_distributed():
        return tensor
    own = tensor.contiguous()
    if own.dtype == torch.bool:  # not every backend sends these
        return join_over_ranks(own.to(torch.uint8), dim).bool()
    found = [torch.empty_like(own) for _ in range(num_ranks())]
    dist.all_gather(found, own)
    return torch.cat(found, dim)


def own_part(tensor: Tensor) -> Tensor:
    """Return what this rank holds of a tensor, a view of it: all, unless it lies in shards over the ranks."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def mean_over(values: Tensor, valid: Tensor, pixels: Tensor | None = None) -> Tensor:
    """Sum of `values` over the number of valid pixels, a scalar; 0 where there is none.

    values: 0 where `valid`, (B, H, W) bool, is False. pixels: the number to divide by where it is not that of this
    batch alone, see `Labeled`.
    """
    return values.sum() / (valid.sum().clamp_min(1) if pixels is None else pixels)


def share(some: Tensor, of: Tensor) -> Tensor:
    """Share of True among True in two masks, a scalar in [0, 1], over all ranks."""
    part, whole = sum_over_ranks(some.sum(), of.sum())
    return part / whole.clamp_min(1)


def gather_over_ranks(value: Any) -> list[Any]:
    """Return the value of each rank, on every rank. value: what JSON can hold; nothing is pickled."""
    if not is_distributed():
        return [value]
    data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(num_ranks())]
    dist.all_gather(sizes, torch.tensor([len(data)]))
    longest = max(int(size) for size in sizes)
    padded = torch.cat([data, data.new_zeros(longest - len(data))])
    texts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(texts, padded)
    return [json.loads(bytes(text[: int(size)].tolist())) for text, size in zip(texts, sizes, strict=True)]
