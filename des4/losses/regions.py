"""Regions of images, by masks: how far they overlap, what they look like, which classes they are of (RC2L, 2022).

Masks are numbers in [0, 1], (B, K, h, w), 0 where nothing is to be seen. Means are over regions, then over images; an
image without any region counts as 0. float32, whatever autocast says.
"""

from __future__ import annotations

import torch
from torch import Tensor


def overlap(one: Tensor, two: Tensor) -> Tensor:
    """Dice coefficient of each of the masks (B, K, h, w) with each of (B, M, h, w): (B, K, M) in [0, 1], 0 of nothing.

    2 Σ a b / (Σ a + Σ b): 1 of two equal masks of zeros and ones.
    """
    with torch.autocast(one.device.type, enabled=False):
        one, two = one.float().flatten(2), two.float().flatten(2)
        both = one @ two.transpose(1, 2)
        return 2 * both / (one.sum(2)[:, :, None] + two.sum(2)[:, None, :]).clamp_min(1e-6)


def pooled(features: Tensor, masks: Tensor) -> Tensor:
    """Mean of features (B, D, h, w) in each of the masks (B, K, h, w): (B, K, D), 0 of nothing."""
    with torch.autocast(features.device.type, enabled=False):
        masks = masks.float().flatten(2)
        sums = masks @ features.float().flatten(2).transpose(1, 2)
        return sums / masks.sum(2, keepdim=True).clamp_min(1e-6)


def mean_over_regions(values: Tensor, there: Tensor) -> Tensor:
    """Mean over the regions of an image and over images. values: (B, K). there: (B, K) bool. Returns a scalar."""
    return ((values * there).sum(1) / there.sum(1).clamp_min(1)).mean()


def mask_contrast(overlaps: Tensor, there: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of finding each mask again among another's, by their overlap / temperature; a scalar.

    overlaps: (B, C, C), of the other's masks with these, numbered alike. there: (B, C) bool, which of these count.
    """
    found = overlaps.float() / temperature
    return mean_over_regions(found.logsumexp(1) - found.diagonal(dim1=1, dim2=2), there)


def presence_loss(probs: Tensor, there: Tensor, known: Tensor) -> Tensor:
    """Binary cross-entropy of an image's largest probability of each class with whether the class is there; a scalar.

    probs: (B, C, h, w) distributions, 0 where nothing is to be seen. there, known: (B, C) bool, what is true, and of
    which classes it is known.
    """
    largest = probs.float().flatten(2).amax(2)
    return mean_over_regions(-torch.where(there, largest, 1 - largest).clamp_min(1e-6).log(), known)
