"""Consistency between two class distributions of the same pixels."""

from __future__ import annotations

from torch import Tensor

from des4.ops.reduce import mean_over


def squared_gap(probs: Tensor, target: Tensor, valid: Tensor, pixels: Tensor | None = None) -> Tensor:
    """Squared difference of two distributions, *summed* over classes, averaged over valid pixels (French et al. 2020).

    Codes that average over classes too state weights C times larger for the same loss.
    probs, target: (B, C, H, W); no gradient reaches `target`. valid: (B, H, W) bool. pixels: what the mean
    divides by, see `Labelled`; None = the valid pixels of this batch. Returns a scalar in [0, 2].
    """
    gap = (probs.float() - target.detach().float()).square().sum(1)
    return mean_over(gap * valid, valid, pixels)
