"""Consistency between two class distributions of the same pixels."""

from __future__ import annotations

from torch import Tensor


def squared_gap(probs: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Squared difference of two distributions, *summed* over classes, averaged over valid pixels (French et al. 2020).

    Codes that average over classes too state weights C times larger for the same loss.
    probs, target: (B, C, H, W); no gradient reaches `target`. valid: (B, H, W) bool. Returns a scalar in [0, 2].
    """
    gap = (probs - target.detach()).square().sum(1)
    return (gap * valid).sum() / valid.sum().clamp_min(1)
