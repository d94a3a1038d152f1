"""The two resizings of the project: logits up to the pixels, labels and their like down to the feature grid."""

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
    return on_grid(size, label)[0]


def on_grid(size: tuple[int, int], *maps: Tensor) -> list[Tensor]:
    """Take maps (..., H, W) of one size at the positions that a grid of `size` lies on in `upsample`: one pixel a cell.

    Returns (..., *size) each.
    """
    full = maps[0].shape[-2:]
    if full == size:
        return list(maps)
    rows, columns = (
        torch.linspace(0, length - 1, small, device=maps[0].device).round().long()
        for length, small in zip(full, size, strict=True)
    )
    return [each[..., rows[:, None], columns] for each in maps]


def upsample_area(
    maps: Tensor, size: tuple[int, int], rows: slice, columns: slice, *, top: int = 0, height: int | None = None
) -> Tensor:
    """Cut `rows` and `columns` out of `upsample(maps, size)`, and compute no more than those.

    maps: (C, h, w), which may lie on the disk: only the part that is needed is read. top, height: where maps are rows
    of larger ones, the first of them and how many there are in all; those that `rows` lie between have to be among them
    (`rows_known`). Returns (C, rows, columns).
    """
    row, row_part = _neighbours(height or maps.shape[1], size[0], rows)
    column, column_part = _neighbours(maps.shape[2], size[1], columns)
    row -= top
    near = maps[:, row[0] : row[-1] + 2, column[0] : column[-1] + 2].float()
    row, column = row - row[0], column - column[0]
    tall = near[:, row].lerp(near[:, (row + 1).clamp_max(near.shape[1] - 1)], row_part[:, None])
    return tall[:, :, column].lerp(tall[:, :, (column + 1).clamp_max(near.shape[2] - 1)], column_part)


def rows_known(height: int, full: int, known: int) -> int:
    """Return how many rows `upsample` from `height` to `full` rows takes from the first `known` rows alone."""
    if known == height:
        return full
    before, _ = _neighbours(height, full, slice(0, full))
    return int(torch.searchsorted(before, known - 1))


def _neighbours(small: int, full: int, part: slice) -> tuple[Tensor, Tensor]:
    """Return where each position of `part` of `full` lies among `small`: the position before it, and the rest."""
    place = torch.arange(part.start, part.stop, dtype=torch.float64) * ((small - 1) / max(full - 1, 1))
    before = place.floor().long().clamp_max(small - 1)
    return before, (place - before).float()
