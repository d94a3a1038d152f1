"""Labeled boxes that are pasted into unlabeled images, labels and all (AugSeg, Zhao et al., CVPR 2023)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from des4.methods.ingredients.targets import Target
from des4.ops.noise import uniform
from des4.types import Labeled


def injected(image: Tensor, target: Target, labeled: Labeled, box: Tensor) -> tuple[Tensor, Target]:
    """Paste labeled pixels, whose labels are certain, into images and their target.

    image: (B, 3, H, W), the strong view, not yet mixed. box: (B, H, W) bool, where labeled pixels are taken. Labeled
    images go round in order, so that those of a part of a step meet that part's.
    """
    source = in_order(labeled, len(image))
    label, valid = source.label, source.valid
    return torch.where(box[:, None], source.image, image), replace(
        target,
        label=torch.where(box, label.masked_fill(~valid, 0), target.label),
        confidence=target.confidence.masked_fill(box, torch.nan),  # of a label that is no guess
        keep=torch.where(box, valid, target.keep),
        valid=torch.where(box, valid, target.valid),
    )


def in_order(labeled: Labeled, count: int) -> Labeled:
    """The labeled image that each of `count` unlabeled ones is given pixels of: they go round in order."""
    at = torch.arange(count, device=labeled.image.device) * len(labeled.image) // count
    return Labeled(labeled.image[at], labeled.label[at], labeled.keys[at])


def injection_boxes(keys: Tensor, probability: Tensor, height: int, width: int) -> Tensor:
    """Draw a box for each image: (B, H, W) bool, True inside, nowhere for the images that get none.

    keys, probability: (B,), of getting one; NaN gets none. Sides are √(1 - λ) of the crop's, λ ~ Beta(8, 2), about a
    centre anywhere in it, and clipped at its border. The eighth smallest of nine uniform numbers is such a λ.
    """
    noise = uniform(keys, (12,), "injected box")
    side = (1 - noise[:, :9].sort(1).values[:, 7]).sqrt()
    rows, columns = (
        _span(centre, side, torch.arange(length, device=keys.device))
        for centre, length in ((noise[:, 9], height), (noise[:, 10], width))
    )
    return rows[:, :, None] & columns[:, None, :] & (noise[:, 11] < probability)[:, None, None]


def _span(centre: Tensor, side: Tensor, place: Tensor) -> Tensor:
    """Mark (B, length) where a box lies along one axis. centre, side: (B,), shares of the length."""
    middle = (centre * len(place)).long()
    half = (side * len(place)).round().long() // 2
    return (place >= (middle - half)[:, None]) & (place < (middle + half)[:, None])
