"""Pseudo-labels that spread over regions of places that have to do with one another (CorrMatch, Sun et al., 2024)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from des4.methods.ingredients.targets import Target
from des4.ops.resize import on_grid, shrink_label, upsample


@torch.no_grad()
def propagated(target: Target, found: Tensor, threshold: Tensor, classes: int, where: Tensor) -> Target:
    """Give whole regions one label each, if nearly all of it is sure of that label.

    found: (B, R, h, w) bool, where R regions are. threshold: scalar t. A region gets the label of which there is most
    in it, if at least t of its pixels count already and more than t of these have that label; of the regions of a pixel
    the last one decides. where: (B, H, W) bool, pixels that regions may have. classes: C.
    """
    label, keep, valid = on_grid((found.shape[-2], found.shape[-1]), target.label, target.keep, target.valid & where)
    region = (found & valid[:, None]).flatten(2)
    named = (label.flatten(1)[..., None] == torch.arange(classes, device=label.device)) & keep.flatten(1)[..., None]
    with torch.autocast(label.device.type, enabled=False):  # these are counts
        of_class = region.float() @ named.float()  # (B, R, C)
    sure, pixels = of_class.sum(2), region.sum(2)
    most, new = of_class.max(2)
    taken = (sure > 0) & (sure >= threshold * pixels) & (most > threshold * sure)
    number = torch.arange(1, region.shape[1] + 1, device=label.device)[:, None]
    last = torch.where(region & taken[..., None], number, 0).amax(1).view_as(label)
    (last,) = on_grid((where.shape[-2], where.shape[-1]), last)
    spread = (last > 0) & where & target.valid
    new = new.gather(1, (last - 1).clamp_min(0).flatten(1)).view_as(last)
    return replace(target, label=torch.where(spread, new, target.label), keep=target.keep | spread)


def regions(shares: Tensor, places: Tensor, valid: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Regions of places, (B, R, *size) bool: what a place has more to do with than the middle of the range of its row.

    shares: (B, n, n), rows of them over an n = h·w grid. places: (B, R). valid: (B, H, W) bool, of the images that the
    shares are of; what lies elsewhere is in no range and no region.
    """
    rows = shares.detach().gather(1, places[..., None].expand(-1, -1, shares.shape[2]))
    padding = ~shrink_label(valid, grid).flatten(1)[:, None]
    low, high = rows.masked_fill(padding, torch.inf).amin(2, keepdim=True), rows.amax(2, keepdim=True)
    part = ((rows - low) / (high - low).clamp_min(torch.finfo(rows.dtype).tiny)).masked_fill(padding, 0)
    return upsample(part.view(*part.shape[:2], *grid), size) > 0.5
