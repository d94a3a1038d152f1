"""Outlines of the regions of a label map, as annotation tools have them: polygons, painted one over the other.

The reverse of `regions.polygon_runs`. A polygon has no holes: what lies in a hole is painted later, over it, for larger
outlines come first. Outlines are traced by contourpy (Marching Squares) half-way between the centres of pixels, so that
filling them gives back the label map, and then simplified (Douglas & Peucker 1973).

Simplified neighbours would leave gaps between them. Therefore a region reaches a few pixels under those that are
painted over it, and each border is that of the upper of its two regions: moving one polygon mends a border.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from contourpy import FillType, contour_generator
from numpy.typing import NDArray

from des4.datasets.annotations.regions import Floats, Runs, polygon_runs

Labels = NDArray[np.integer]
Bitmap = NDArray[np.bool_]

_UNKNOWN = -1
_UNDERLAP = 2
"""Pixels that a region reaches under the next one, more than outlines are moved by simplification."""


@dataclass(frozen=True)
class Outline:
    """A polygon of one class. points: (N, 2) of (x, y) in pixels from the upper left corner of the image."""

    label: int
    points: Floats


def outlines(labels: Labels, *, tolerance: float = 1.0, smallest: int = 0, nothing: int | None = None) -> list[Outline]:
    """Return polygons that give a label map (H, W) when they are filled in their order, later over earlier.

    tolerance: pixels by which an outline may be moved to have fewer points; 0: painted, they give the very label map.
    smallest: regions of fewer pixels are given to their neighbours before. nothing: a class that stands for what no
    polygon covers; its regions are left out, but for those in holes of others.
    """
    wanted = without_specks(labels, smallest) if smallest > 1 else labels.astype(np.int64)
    height, width = wanted.shape
    regions = sorted(_regions(wanted), key=lambda region: -_area(region.points))
    order = np.full((height, width), _UNKNOWN, np.int64)
    """Which region each pixel is of; those that are left out count as below all others."""
    kept: list[tuple[int, Outline, Bitmap, tuple[slice, slice]]] = []
    for number, region in enumerate(regions):
        filled, box = _filled(region.points, height, width)
        enclosed = bool((order[box][filled] != _UNKNOWN).any())
        if region.label == nothing and not enclosed:
            continue
        order[box][filled] = number
        kept.append((number, region, filled, box))
    if not tolerance:
        return [region for _, region, _, _ in kept]
    reach = math.ceil(tolerance) + _UNDERLAP
    found = []
    for number, region, filled, box in kept:
        wide, place = _grown(filled, box, order, number, reach)
        points = max(_traced(wide), key=_area) + np.array([place[1].start, place[0].start])
        found.append(
            Outline(region.label, simplified(_up_to_the_edge(points, height, width), tolerance, height, width))
        )
    return found


def without_specks(labels: Labels, smallest: int) -> NDArray[np.int64]:
    """Give regions of fewer pixels than `smallest` to the neighbours that surround them, (H, W)."""
    cleaned = labels.astype(np.int64)
    height, width = cleaned.shape
    for region in _regions(cleaned):
        if _area(region.points) < smallest:  # what is larger has more pixels, or holes of which each is looked at
            filled, box = _filled(region.points, height, width)
            if int(filled.sum()) < smallest:
                cleaned[box][filled] = _UNKNOWN
    if (cleaned == _UNKNOWN).all():
        return labels.astype(np.int64)
    while (unknown := cleaned == _UNKNOWN).any():
        framed = np.pad(cleaned, 1, constant_values=_UNKNOWN)
        for shifted in (framed[:-2, 1:-1], framed[2:, 1:-1], framed[1:-1, :-2], framed[1:-1, 2:]):
            cleaned = np.where(unknown & (cleaned == _UNKNOWN), shifted, cleaned)
    return cleaned


def simplified(points: Floats, tolerance: float, height: int, width: int) -> Floats:
    """Drop points of a closed outline (N, 2) that are within `tolerance` pixels of the line without them.

    Where the outline meets the image's edge its points stay, so that nothing is cut off there.
    """
    on_edge = np.stack([points[:, 0] <= 0, points[:, 0] >= width, points[:, 1] <= 0, points[:, 1] >= height], 1)
    turns = on_edge.any(1) & ~((on_edge & np.roll(on_edge, 1, 0)).any(1) & (on_edge & np.roll(on_edge, -1, 0)).any(1))
    corners = on_edge.sum(1) > 1
    fixed = np.flatnonzero(turns | corners).tolist()
    if len(fixed) < 2:
        first = fixed[0] if fixed else 0
        far = int(np.square(points - points[first]).sum(1).argmax())
        fixed = sorted({first, far})
    closed = [*fixed, fixed[0] + len(points)]
    parts = (_kept(points, start, end, tolerance) for start, end in pairwise(closed))
    keep = sorted({place % len(points) for part in parts for place in part})
    return points[keep] if len(keep) > 2 else points


def _kept(points: Floats, start: int, end: int, tolerance: float) -> Iterator[int]:
    """Yield the places, from `start` to before `end` round the outline, whose points have to stay."""
    stack = [(start, end)]
    while stack:
        first, last = stack.pop()
        yield first
        if last - first < 2:
            continue
        between = points[np.arange(first + 1, last) % len(points)]
        origin, along = points[first % len(points)], points[last % len(points)] - points[first % len(points)]
        length = float(np.hypot(*along))
        gap = between - origin
        away = np.abs(gap[:, 0] * along[1] - gap[:, 1] * along[0]) / length if length else np.hypot(*gap.T)
        if away.max() > tolerance:
            middle = first + 1 + int(away.argmax())
            stack += [(first, middle), (middle, last)]


def _regions(labels: NDArray[np.int64]) -> Iterator[Outline]:
    """Yield the outer outline of each region of each class."""
    for label in np.unique(labels):
        if label != _UNKNOWN:
            yield from (Outline(int(label), points) for points in _traced(labels == label))


def _traced(bitmap: Bitmap) -> Sequence[Floats]:
    """Trace the outer outlines of a bitmap (H, W), each (N, 2) without its first point once more."""
    framed = np.pad(bitmap, 1).astype(np.float64)
    generator: Any = contour_generator(z=framed, fill_type=FillType.OuterOffset)
    polygons, offsets = generator.filled(0.5, np.inf)
    # a pixel's centre is ½ from its corner, and the frame moves all by 1
    return [points[: ends[1] - 1] - 0.5 for points, ends in zip(polygons, offsets, strict=True)]


def _area(points: Floats) -> float:
    x, y = points[:, 0], points[:, 1]
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2


def _filled(points: Floats, height: int, width: int) -> tuple[Bitmap, tuple[slice, slice]]:
    """Fill an outline: its pixels within a box, and that box, as rows and columns."""
    left, top = np.maximum(np.floor(points.min(0)).astype(int), 0)
    right, bottom = np.minimum(np.ceil(points.max(0)).astype(int), (width, height))
    rows, columns = int(bottom - top), int(right - left)
    runs = polygon_runs(points - np.array([left, top]), rows, columns)
    return _bitmap(runs, rows, columns), (slice(int(top), int(bottom)), slice(int(left), int(right)))


def _bitmap(runs: Runs, height: int, width: int) -> Bitmap:
    steps = np.zeros(height * width + 1, np.int8)
    steps[runs[::2]] += 1
    steps[runs[1::2]] -= 1
    return np.ascontiguousarray(np.cumsum(steps[:-1], dtype=np.int8).astype(np.bool_).reshape(width, height).T)


def _grown(
    filled: Bitmap, box: tuple[slice, slice], order: NDArray[np.int64], number: int, reach: int
) -> tuple[Bitmap, tuple[slice, slice]]:
    """Let a region grow by so many pixels, there alone where others are painted over it; return it and its new box."""
    before = [min(reach, part.start) for part in box]
    after = [min(reach, side - part.stop) for part, side in zip(box, order.shape, strict=True)]
    rows, columns = (slice(p.start - b, p.stop + a) for p, b, a in zip(box, before, after, strict=True))
    wide = np.pad(filled, [(before[0], after[0]), (before[1], after[1])])
    free = order[rows, columns] > number
    for _ in range(reach):
        near = np.zeros_like(wide)
        near[1:] |= wide[:-1]
        near[:-1] |= wide[1:]
        near[:, 1:] |= wide[:, :-1]
        near[:, :-1] |= wide[:, 1:]
        wide |= near & free
    return wide, (rows, columns)


def _up_to_the_edge(points: Floats, height: int, width: int) -> Floats:
    """Lead an outline straight to the image's edge: traced, it turns half a pixel before, and cuts corners off."""
    after = np.roll(points, -1, 0)
    diagonal = (np.abs(after - points) == 0.5).all(1)
    added: dict[int, tuple[float, float]] = {}
    for axis, edge in ((0, 0), (0, width), (1, 0), (1, height)):
        here, there = points[:, axis] == edge, after[:, axis] == edge
        for place in np.flatnonzero(diagonal & (here != there)).tolist():
            x, y = after[place] if here[place] else points[place]
            added[place + 1] = (edge, y) if axis == 0 else (x, edge)
    return np.insert(points, list(added), list(added.values()), axis=0) if added else points
