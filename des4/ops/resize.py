"""The two resizings of the project: logits up to the pixels, labels down to the feature grid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resizing of (B, C, h, w) to (B, C, *size), corners aligned.

    Aligned corners, as in the protocol the paper follows: position i of a stride-4 grid lies on pixel 4i, so a 513 crop
    (129 grid positions) is met exactly.
    """
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=True)


def shrink_label(label: Tensor, size: tuple[int, int]) -> Tensor:
    """Nearest resizing of integer maps (B, H, W) to (B, *size), on the grid of `upsample`: corners aligned.

    Each grid cell gets one real pixel's label, the one its feature lies on, never a blend.
    """
    if label.shape[-2:] == size:
        return label
    rows, columns = (
        torch.linspace(0, full - 1, small, device=label.device).round().long()
        for full, small in zip(label.shape[-2:], size, strict=True)
    )
    return label[:, rows[:, None], columns]
