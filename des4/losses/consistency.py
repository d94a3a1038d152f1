"""Consistency between two class distributions of the same pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from des4.ops.reduce import mean_over


def squared_gap(probs: Tensor, target: Tensor, valid: Tensor, pixels: Tensor | None = None) -> Tensor:
    """Squared difference of two distributions, *summed* over classes, averaged over valid pixels (French et al. 2020).

    Codes that average over classes too state weights C times larger for the same loss.
    probs, target: (B, C, H, W); no gradient reaches `target`. valid: (B, H, W) bool. pixels: what the mean
    divides by, see `Labeled`; None = the valid pixels of this batch. Returns a scalar in [0, 2].
    """
    gap = (probs.float() - target.detach().float()).square().sum(1)
    return mean_over(gap * valid, valid, pixels)


def divergence(logits: Tensor, target: Tensor, valid: Tensor, pixels: Tensor | None = None) -> Tensor:
    """Kullback-Leibler divergence Σ_c p_c (log p_c - log q_c) of logits from a target p, averaged over valid pixels.

    logits: (B, C, H, W), of q. target: (B, C, H, W) distributions, which no gradient reaches. valid, pixels: as of
    `squared_gap`. Returns a scalar ≥ 0.
    """
    return mean_over(pixel_divergence(logits, target.detach()) * valid, valid, pixels)


def pixel_divergence(logits: Tensor, target: Tensor) -> Tensor:
    """Divergence at each pixel, as `divergence` has it: (B, H, W) float32. logits, target: (B, C, H, W)."""
    target = target.float()
    gap: Tensor = (torch.special.xlogy(target, target) - target * logits.float().log_softmax(1)).sum(1)
    return gap


def cosine_gap(probs: Tensor, target: Tensor, valid: Tensor, pixels: Tensor | None = None) -> Tensor:
    """1 - cosine of two distributions, averaged over valid pixels (Zhong et al., ICCV 2021): half the squared distance
    of the two once their lengths are 1.

    probs, target: (B, C, H, W); no gradient reaches `target`. valid, pixels: as of `squared_gap`. Returns a scalar in
    [0, 1].
    """
    one, two = F.normalize(probs.float(), dim=1), F.normalize(target.detach().float(), dim=1)
    return mean_over((one - two).square().sum(1) / 2 * valid, valid, pixels)  # 1 - a product would be rounded off
