"""Maps of flaws: what they are where labels are known, and how those of two networks compare (Ke et al., ECCV 2020)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def true_flaws(probs: Tensor, label: Tensor, valid: Tensor) -> Tensor:
    """Where distributions differ from labels, smoothed, spread and stretched to [0, 1]: (B, H, W).

    ½ Σ_c |1[y = c] - p_c|, blurred over an eighth of the image, then the largest of 3×3, blurred over a quarter. probs:
    (B, C, H, W). label: (B, H, W), valid: bool, where there is one; elsewhere there is no flaw.
    """
    own = probs.gather(1, label.masked_fill(~valid, 0)[:, None]).squeeze(1)
    gap = blurred((1 - own) * valid, label.shape[-2] // 8)  # half of all differences is what the own class lacks
    spread = F.max_pool2d(gap[:, None], 3, stride=1, padding=1).squeeze(1)
    return stretched(blurred(spread, label.shape[-2] // 4))


def exchanged_flaws(flaws: Tensor, sure: float) -> Tensor:
    """Make detected flaws (B, H, W) of several networks comparable: positive, smoothed, stretched; 1 from `sure` on.

    An image without a flaw above 0.1 has none.
    """
    found = blurred(flaws.clamp_min(0), flaws.shape[-2] // 16)
    found = stretched(torch.where(found.amax((1, 2), keepdim=True) > 0.1, found, 0.0))
    return torch.where(found >= sure, 1.0, found)


def stretched(maps: Tensor) -> Tensor:
    """Stretch each of the maps (B, H, W) to [0, 1]; one that is the same everywhere becomes 0."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low).clamp_min(1e-8)


def blurred(maps: Tensor, width: int) -> Tensor:
    """Blur maps (B, H, W) by a Gaussian that is cut at `width` pixels, made odd; edges are repeated.

    Its σ is 0.3 ((width - 1) / 2 - 1) + 0.8, that of OpenCV for a kernel of this width.
    """
    radius = min(width // 2, min(maps.shape[-2:]) - 1)
    if radius < 1:
        return maps
    taps = torch.arange(-radius, radius + 1, device=maps.device)
    kernel = torch.exp(-0.5 * (taps / (0.3 * (radius - 1) + 0.8)) ** 2)
    kernel = (kernel / kernel.sum()).to(maps.dtype)
    maps = F.conv2d(F.pad(maps[:, None], (radius, radius, 0, 0), mode="replicate"), kernel.view(1, 1, 1, -1))
    return F.conv2d(F.pad(maps, (0, 0, radius, radius), mode="replicate"), kernel.view(1, 1, -1, 1)).squeeze(1)
