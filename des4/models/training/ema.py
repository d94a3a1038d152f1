"""Exponential moving averages of whole modules (DeS4, eq. 5)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from des4.ops.reduce import own_part


def warm_momentum(momentum: float, step: int) -> float:
    """Momentum with a warm start, `min(1 - 1/(step + 1), momentum)`: step 0 copies, later steps average ever longer."""
    return min(1 - 1 / (step + 1), momentum)


@torch.no_grad()
def follow(target: nn.Module, source: nn.Module, momentum: float, buffers: Literal["ema", "copy"] = "ema") -> None:
    """Move `target` towards `source`, `θ ← momentum·θ + (1 - momentum)·θ_source` (DeS4, eq. 5).

    Parameters follow in a few fused operations. Float buffers (BatchNorm statistics) follow likewise or, with
    `buffers="copy"`, are copied; integer buffers are always copied. The modules must have the same architecture.
    """
    averaged: list[Tensor] = [own_part(parameter) for parameter in target.parameters()]
    towards: list[Tensor] = [own_part(parameter) for parameter in source.parameters()]
    for mine, theirs in zip(target.buffers(), source.buffers(), strict=True):
        if mine.is_floating_point() and buffers == "ema":
            averaged.append(mine)
            towards.append(theirs)
        else:
            mine.copy_(theirs)
    torch._foreach_lerp_(averaged, towards, 1 - momentum)
