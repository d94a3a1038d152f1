"""Perturbations of features. What they draw follows from the keys of the samples."""

from __future__ import annotations

import torch
from torch import Tensor

from des4.ops.noise import bernoulli, uniform


def drop_channels(maps: tuple[Tensor, ...], keys: Tensor, name: str, p: float = 0.5) -> tuple[Tensor, ...]:
    """Set whole channels of an encoder's maps to 0, each with probability `p`; what stays is scaled by 1 / (1 - p).

    maps: (B, channels, h, w) each; every map has draws of its own. keys: (B,). name: of the draw. p: in [0, 1).
    """
    masks = (~bernoulli(keys, (each.shape[1],), f"{name}/{n}", p) for n, each in enumerate(maps))
    return tuple(
        each * (mask.to(each.dtype) / (1 - p))[:, :, None, None] for each, mask in zip(maps, masks, strict=True)
    )


def share_channels(
    views: tuple[tuple[Tensor, ...], tuple[Tensor, ...]], keys: Tensor, name: str, whole: float = 0.5
) -> tuple[tuple[Tensor, ...], ...]:
    """Give each channel of an encoder's maps to one of two views of an image, twice as large, and 0 to the other.

    views: of each the maps, (B, channels, h, w) each; every map has draws of its own. keys: (B,). whole: probability
    with which an image is left as it is in both views.
    """
    left, shared = bernoulli(keys, (), f"{name}/whole", whole), []
    for n, pair in enumerate(zip(*views, strict=True)):
        mine = bernoulli(keys, (pair[0].shape[1],), f"{name}/{n}")
        gains = (torch.where(left[:, None], 1.0, 2.0 * part) for part in (mine, ~mine))
        shared.append(
            tuple(each * gain.to(each.dtype)[:, :, None, None] for each, gain in zip(pair, gains, strict=True))
        )
    return tuple(zip(*shared, strict=True))


def drop_active(features: Tensor, keys: Tensor, name: str) -> Tensor:
    """Set the most active places of features (B, D, h, w) to 0: those whose mean over channels is above a share,
    U(0.7, 0.9), of the image's largest.
    """
    active = features.detach().float().mean(1, keepdim=True)
    share = 0.7 + 0.2 * uniform(keys, (1, 1, 1), name)
    return features * (active < share * active.amax((2, 3), keepdim=True)).to(features.dtype)


def noisy(features: Tensor, keys: Tensor, name: str, size: float = 0.3) -> Tensor:
    """Multiply each value of features (B, D, h, w) by 1 + n, n ~ U(-size, size)."""
    noise = uniform(keys, features.shape[1:], name)
    return features * (1 + size * (2 * noise - 1)).to(features.dtype)
