"""What is pasted by class: all labeled pixels of some classes, or the box about one object (AEL, Hu et al., 2021)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from des4.ops.components import connected
from des4.ops.noise import uniform
from des4.ops.sampling import spread_draw
from des4.types import Config, Labeled, Mix, StrongView, TargetAlignment, Unlabeled


class PastingConfig(Config):
    """Settings of methods that paste labeled pixels of badly predicted classes."""

    confidence_momentum: float = Field(0.999, ge=0, lt=1)
    """Of v, the averages that say how well each class is predicted; they start warm."""
    paste: float = Field(0.5, ge=0, le=1)
    """Probability with which an image is given labeled pixels."""
    pasted_classes: int = Field(1, ge=1)
    """Classes that are drawn for it; 3 in AEL on Cityscapes."""
    never_pasted: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Numbers of classes that are never drawn for it, such as 0 on VOC; 0, 1, 2, 8, 10 on Cityscapes."""


def draw_classes(probs: Tensor, keys: Tensor, count: int, name: str) -> Tensor:
    """Draw classes for each sample, (B, count) int64, independently. probs: (C,), whose sum is 1."""
    noise = uniform(keys, (count,), name).to(probs.dtype) * probs.sum()
    return torch.searchsorted(probs.cumsum(0), noise, right=True).clamp_max(len(probs) - 1)


def paste_classes(labeled: Labeled, chosen: Tensor) -> Labeled:
    """Paste from donors all pixels of some classes, labels and all. chosen: (B, C) bool.

    Nothing is pasted where there was no label, so that as many pixels count as before.
    """
    donor = labeled.donor
    assert donor is not None  # noqa: S101  # the loader follows the ViewSpec
    paste = pixels_of(donor, chosen) & labeled.valid
    image = torch.where(paste[:, None], donor.image, labeled.image)
    return replace(labeled, image=image, label=torch.where(paste, donor.label, labeled.label))


def pixels_of(labeled: Labeled, chosen: Tensor) -> Tensor:
    """Mark the pixels of some classes, (B, H, W) bool. chosen: (B, C) bool."""
    named = labeled.label.masked_fill(~labeled.valid, 0)
    return chosen.gather(1, named.flatten(1)).view_as(named) & labeled.valid


def object_boxes(label: Tensor, where: Tensor, classes: Tensor, area: float, keys: Tensor) -> Tensor:
    """Draw of each image an object, a connected region of one class, and return the box about it: (B, h, w) bool.

    label: (B, h, w). where: bool of that shape, pixels that are looked at. classes: (B,), of the objects. area: share
    of h·w above which a region is one. No box where there is none.
    """
    mask = (label == classes[:, None, None]) & where
    region = connected(mask)
    pixels = torch.zeros_like(region, dtype=torch.float32).flatten(1)
    pixels.scatter_add_(1, region.clamp_min(0).flatten(1), mask.flatten(1).float())
    place, drawn = spread_draw(pixels > area * pixels.shape[1], uniform(keys, (1,), "object"))
    inside = (region == place[..., None]) & mask & drawn[..., None]
    return _span(inside.any(2))[:, :, None] & _span(inside.any(1))[:, None, :]


def _span(some: Tensor) -> Tensor:
    """From the first True of each row (B, n) to the last one."""
    return (some.cumsum(1) > 0) & (some.flip(1).cumsum(1).flip(1) > 0)


def with_donors(unlabeled: Unlabeled, donors: Unlabeled) -> Unlabeled:
    """One batch of unlabeled images and, behind them, as many donors."""
    pairs = ((unlabeled.weak, donors.weak), (unlabeled.valid, donors.valid), (unlabeled.keys, donors.keys))
    weak, valid, keys = map(torch.cat, pairs)
    truth = None if unlabeled.truth is None or donors.truth is None else torch.cat([unlabeled.truth, donors.truth])
    alignment = None if unlabeled.alignment is None else _OfFirst(unlabeled.alignment, len(unlabeled.weak))
    return replace(unlabeled, weak=weak, valid=valid, keys=keys, truth=truth, alignment=alignment)


@dataclass(frozen=True)
class _OfFirst:
    """Aligns all images as `alignment` does, and lets the first `count` alone into its running mean.

    Donors are drawn by their class: they would tell it that badly predicted classes are frequent.
    """

    alignment: TargetAlignment
    count: int

    def aligned(self, probs: Tensor, valid: Tensor) -> Tensor:
        first = torch.arange(len(valid), device=valid.device) < self.count
        return self.alignment.aligned(probs, valid & first[:, None, None])


def pasted_view(view: StrongView, donors: Tensor, box: Tensor) -> StrongView:
    """A view into which each sample's donor is pasted, or the view's own partner where there is no box.

    donors: (B, bands, H, W). box: (B, h, w) bool. What is mixed as the view is has donors behind the B samples; its
    means are over images: they divide by B.
    """
    count, size = len(box), (donors.shape[-2], donors.shape[-1])
    pasted = box.flatten(1).any(1)
    whole = F.interpolate(box[:, None].float(), size, mode="nearest-exact").squeeze(1) > 0
    mix = Mix(
        torch.where(pasted, count + torch.arange(count, device=box.device), view.mix.partner),
        torch.where(pasted[:, None, None], whole, view.mix.box),
        view.mix.group,
    )
    return StrongView(torch.cat([view.image, donors]), mix, torch.full((), float(count), device=box.device))
