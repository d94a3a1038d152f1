"""Perturbations of features, and of images. What they draw follows from the keys of the samples."""

from __future__ import annotations

import torch
from torch import Tensor

from des4.ops.components import connected
from des4.ops.noise import bernoulli, uniform


def drop_channels(maps: tuple[Tensor, ...], keys: Tensor, name: str, p: float = 0.5) -> tuple[Tensor, ...]:
    """Set whole channels of an encoder's maps to 0, each with probability `p`; what stays is scaled by 1 / (1 - p).

    maps: (B, channels, h, w) each; every map has draws of its own. keys: (B,). name: of the draw. p: in [0, 1).
    """
    masks = (~bernoulli(keys, (each.shape[1],), f"{name}/{n}", p) for n, each in enumerate(maps))
    return tuple(
        each * (mask.to(each.dtype) / (1 - p))[:, :, None, None] for each, mask in zip(maps, masks, strict=True)
    )


def with_dropped(maps: tuple[Tensor, ...], keys: Tensor, name: str, p: float = 0.5) -> tuple[Tensor, ...]:
    """An encoder's maps, and behind them those of the last images, (B,) `keys`, once more with channels dropped."""
    dropped = drop_channels(tuple(each[-len(keys) :] for each in maps), keys, name, p)
    return tuple(torch.cat(pair) for pair in zip(maps, dropped, strict=True))


def share_channels(
    views: tuple[tuple[Tensor, ...], tuple[Tensor, ...]], keys: Tensor, name: str, whole: float = 0.5
) -> tuple[tuple[Tensor, ...], ...]:
    """Give each channel of an encoder's maps to one of two views of an image, twice as large, and 0 to the other.

    views: of each the maps, (B, channels, h, w) each; maps of as many channels have one draw, as those of a vision
    transformer do. keys: (B,). whole: probability with which an image is left as it is in both views.
    """
    left, shared = bernoulli(keys, (), f"{name}/whole", whole), []
    for pair in zip(*views, strict=True):
        channels = pair[0].shape[1]
        mine = bernoulli(keys, (channels,), f"{name}/{channels}")
        gains = (torch.where(left[:, None], 1.0, 2.0 * part) for part in (mine, ~mine))
        shared.append(
            tuple(each * gain.to(each.dtype)[:, :, None, None] for each, gain in zip(pair, gains, strict=True))
        )
    return tuple(zip(*shared, strict=True))


def drop_active(features: Tensor, valid: Tensor, keys: Tensor, name: str) -> Tensor:
    """Set the most active places of features (B, D, h, w) to 0: those whose mean over channels is above a share,
    U(0.7, 0.9), of the largest among the valid places, (B, h, w) bool, of their image.
    """
    active = features.detach().float().mean(1)
    largest = active.masked_fill(~valid, -torch.inf).amax((1, 2), keepdim=True)
    share = 0.7 + 0.2 * uniform(keys, (1, 1), name)
    return features * (active < share * largest)[:, None].to(features.dtype)


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


def holes_in_objects(mask: Tensor, keys: Tensor, name: str, share: float = 0.4, area: float = 0.005) -> Tensor:
    """Draw a rectangle in the box about each connected region of masks (B, h, w) bool; return where they are, alike.

    share: of the box's sides, of each side. area: share of h·w that a region takes up if it gets one. keys: (B,).
    """
    count, height, width = mask.shape
    inside, region = mask.flatten(1), connected(mask).flatten(1).clamp_min(0)  # each named by one of its places
    places = inside.shape[1]
    place = torch.arange(places, device=mask.device).expand(count, -1)
    sizes = torch.zeros_like(place).scatter_add(1, region, inside.long())
    large = sizes > area * places
    noise, spans = uniform(keys, (2, places), name), []
    for axis, at in enumerate((place // width, place % width)):
        first = torch.full_like(at, places).scatter_reduce(1, region, torch.where(inside, at, places), "amin")
        last = torch.full_like(at, -1).scatter_reduce(1, region, torch.where(inside, at, -1), "amax")
        length = last - first + 1
        side = (share * length).round().long().clamp_min(1)
        start = first + (noise[:, axis] * (length - side + 1)).long()
        spans.append((torch.where(large, start, 0), torch.where(large, start + side, 0)))
    (top, bottom), (left, right) = spans
    corners = torch.zeros(count, (height + 1) * (width + 1), dtype=torch.long, device=mask.device)
    for sign, row, column in ((1, top, left), (-1, top, right), (-1, bottom, left), (1, bottom, right)):
        corners.scatter_add_(1, row * (width + 1) + column, sign * large.long())
    return corners.view(count, height + 1, width + 1).cumsum(1).cumsum(2)[:, :height, :width] > 0
