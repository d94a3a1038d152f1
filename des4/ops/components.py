"""Connected regions of masks, found without waiting for the device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def connected(mask: Tensor) -> Tensor:
    """Number the connected regions of masks (B, h, w) bool; neighbours touch at a side or a corner.

    Returns (B, h, w) int64: of each True place the largest place in its region, counted along rows; -1 elsewhere.
    In each round every region that has found a larger neighbour joins it, so at most half of them are left: the number
    of rounds is that of the bits of h·w (hooking and pointer jumping, Shiloach & Vishkin 1982).
    """
    inside = mask.flatten(1)
    place = torch.arange(inside.shape[1], device=mask.device)
    region = torch.where(inside, place, -1)
    for _ in range(inside.shape[1].bit_length()):
        near = F.max_pool2d(region.view_as(mask).double(), 3, stride=1, padding=1).long().flatten(1)
        root = region.clamp_min(0)
        joined = region.scatter_reduce(1, root, torch.where(inside, near, -1), "amax")
        for _ in range(3):
            joined = torch.where(inside, joined.gather(1, joined.clamp_min(0)), -1)
        region = joined
    return region.view_as(mask)
