"""Entropy of a pixel's class distribution (DeS4, eq. 9)."""

from __future__ import annotations

import math

from torch import Tensor

EPSILON = 1e-10
"""Inside the logarithm of eq. 9, so that a probability of 0 contributes 0."""


def pixel_entropy(probs: Tensor, dim: int = 1) -> Tensor:
    """Entropy in nats of each pixel's distribution, `-Σ_c p_c log(p_c + 1e-10)` (DeS4, eq. 9).

    probs: any shape with the C classes in `dim`, values in [0, 1] that sum to 1 there.
    Returns float32 without that dimension, in [0, log C] (up to the epsilon).
    """
    probs = probs.float()
    return -(probs * (probs + EPSILON).log()).sum(dim)


def doubt(probs: Tensor, dim: int = 1) -> Tensor:
    """How unsure a distribution is, in [0, 1]: ½ (1 + √h - √(1 - h)) of its entropy h, as a share of log C.

    It rises with the entropy, and sets values near 0 and near 1, where most pixels are, further apart, so that
    intervals of equal width tell them apart. probs: any shape with the C ≥ 2 classes in `dim`. NaN stays.
    """
    share = (pixel_entropy(probs, dim) / math.log(probs.shape[dim])).clamp(0, 1)
    return (1 + share.sqrt() - (1 - share).sqrt()) / 2
