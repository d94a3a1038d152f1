"""Perturbations of features, and of images. What they draw follows from the keys of the samples."""

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


def cut_out(image: Tensor, keys: Tensor, share: float, name: str, fill: float = 0.5) -> tuple[Tensor, Tensor]:
    """Cover a rectangle of each image (B, bands, H, W) with a colour, anywhere inside it; and (B, H, W) bool, where.

    share: of its sides, of the image's. fill: in [0, 1] (Cutout, DeVries & Taylor 2017, arxiv.org/abs/1708.04552).
    """
    corner = uniform(keys, (2,), name)
    inside = []
    for axis, length in enumerate(image.shape[-2:]):
        side = round(share * length)
        start = (corner[:, axis] * (length - side + 1)).long()[:, None]
        place = torch.arange(length, device=keys.device)
        inside.append((place >= start) & (place < start + side))
    hole = inside[0][:, :, None] & inside[1][:, None, :]
    return torch.where(hole[:, None], fill, image), hole
