"""Regions of an image as runs of pixels, and the painting of a label map from them.

Runs are an int64 array of places in the image read column by column (place = x·H + y). Starts and ends alternate,
strictly increasing: region = [r0, r1) ∪ [r2, r3) ∪ … However a region was drawn, it becomes runs, which are small,
united by sorting and painted at memory speed.

Coordinates are in pixels from the image's upper left corner, so that the centre of pixel (x, y) is (x + ½, y + ½).
Polygons are filled as the COCO API fills them, to the pixel; tests compare the two. ADR 0015 says why that API does not
do it here: it is slower on large images, and ends the process on broken files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Runs = Integers
"""(2n,) places where a region begins and ends, by turns."""

MAX_COORDINATE = 1_000_000
"""Pixels from the origin beyond which a point is taken for a mistake."""
MAX_CROSSINGS = 10_000_000
"""Column middles that one polygon's outline may cross; a sane outline crosses each a few times."""

_FINE = 5
"""Outlines are rounded to fifths of a pixel."""


class RegionError(Exception):
    """A region cannot be made. The message says why; whoever knows the file adds which region of which file it is."""


def refuse_far(points: Floats) -> None:
    """Raise RegionError unless all coordinates are numbers, and not far beyond any image."""
    if not (np.abs(points) <= MAX_COORDINATE).all():  # so that NaN is refused as well
        raise RegionError(f"a coordinate is no number within ±{MAX_COORDINATE}")


def polygon_runs(points: Floats, height: int, width: int) -> Runs:
    """Fill a polygon, (N, 2) of (x, y), N ≥ 3, by the even-odd rule; parts outside the image are cut off.

    The outline is drawn on a grid of fifths of pixels. Wherever it crosses the middle of a column, that is steps
    between its fifths 2 and 3, the pixels below the upper end of the step change sides. Raises RegionError.
    """
    if len(points) < 3:
        raise RegionError(f"a polygon needs 3 points, this one has {len(points)}")
    refuse_far(points)
    # Truncation rounds negative coordinates the other way. It is the COCO API's, and it moves the edges that enter the
    # image from there.
    corners = np.trunc(_FINE * points + 0.5).astype(np.int64)
    column, fine_row = _crossings(corners, np.roll(corners, -1, axis=0), width)
    row = np.clip((fine_row + 2) // _FINE, 0, height)  # the first pixel whose centre is not above the crossing
    return _without_pairs(column * height + row)


def ellipse_runs(
    centre: tuple[float, float], radii: tuple[float, float], degrees: float, height: int, width: int
) -> Runs:
    """Fill an ellipse: the pixels whose centre lies in it. degrees: clockwise turn of the first radius from the x axis.

    Raises RegionError.
    """
    (cx, cy), (rx, ry) = centre, radii
    refuse_far(np.array([[cx, cy], [rx, ry], [degrees, 0]]))
    if rx <= 0 or ry <= 0:
        raise RegionError("the radius is not above 0")
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    reach = np.hypot(rx * cos, ry * sin)
    column = np.arange(max(0, np.floor(cx - reach)), min(width, np.ceil(cx + reach)), dtype=np.int64)
    # (x cos + y sin)² / rx² + (y cos − x sin)² / ry² ≤ 1 is, in a given column, a quadratic inequality in y.
    x = column + 0.5 - cx
    a = (sin / rx) ** 2 + (cos / ry) ** 2
    b = x * sin * cos * (rx**-2 - ry**-2)
    c = x**2 * ((cos / rx) ** 2 + (sin / ry) ** 2) - 1
    met = b**2 >= a * c
    column, b, root = column[met], b[met], np.sqrt((b**2 - a * c)[met])
    first = np.clip(np.ceil(cy - (b + root) / a - 0.5), 0, height).astype(np.int64)
    end = np.clip(np.floor(cy - (b - root) / a - 0.5) + 1, 0, height).astype(np.int64)
    end = np.maximum(first, end)
    return _without_pairs(np.concatenate([column * height + first, column * height + end]))


def bitmap_runs(bitmap: NDArray[np.bool_], left: int, top: int, height: int, width: int) -> Runs:
    """Return the True pixels of a bitmap with its corner laid at (left, top) of the image; what sticks out is cut."""
    rows, columns = bitmap.shape
    inside = bitmap[max(0, -top) : max(0, height - top), max(0, -left) : max(0, width - left)]
    if not inside.any():
        return np.empty(0, np.int64)
    if inside.shape != (height, width):
        canvas = np.zeros((height, width), np.bool_)
        canvas[max(0, top) : top + rows, max(0, left) : left + columns] = inside
        inside = canvas
    by_column = np.concatenate([[False], inside.T.ravel(), [False]])
    return np.flatnonzero(by_column[1:] != by_column[:-1])


def counted_runs(counts: Integers, height: int, width: int) -> Runs:
    """Return the runs of alternating counts: pixels outside, pixels inside, … column by column. Raises RegionError."""
    pixels = height * width
    if (counts < 0).any() or (counts > pixels).any() or counts.sum() != pixels:
        raise RegionError(f"the counts do not add up to the {width}×{height} pixels of the image")
    ends = np.cumsum(counts)
    return _without_pairs(ends[: len(ends) // 2 * 2])


def united(parts: Sequence[Runs]) -> Runs:
    """Return the union of regions."""
    if len(parts) == 1:
        return parts[0]
    places = np.concatenate(parts)
    steps = np.concatenate([np.resize([1, -1], len(part)) for part in parts])
    order = np.argsort(places, kind="stable")
    places, depth = places[order], np.cumsum(steps[order])
    settled = np.append(places[1:] != places[:-1], True)[: len(places)]  # after all that happens at a place
    inside = depth[settled] > 0
    union: Runs = places[settled][np.diff(inside, prepend=False)]
    return union


def num_pixels(runs: Runs) -> int:
    """Return a region's size in pixels."""
    return int((runs[1::2] - runs[::2]).sum())


def painted(regions: Iterable[tuple[Runs, int]], height: int, width: int, background: int) -> Tensor:
    """Paint regions, each (runs, label), in their order: the later over the earlier. (H, W) uint8."""
    canvas = np.full(height * width, background, np.uint8)
    for runs, label in regions:
        if runs.size:
            inside = np.repeat(np.arange(len(runs) - 1) % 2 == 0, np.diff(runs))
            canvas[runs[0] : runs[-1]][inside] = label
    return torch.from_numpy(np.ascontiguousarray(canvas.reshape(width, height).T))


def shows(by_column: NDArray[np.uint8], runs: Runs, label: int) -> bool:
    """Whether a painted label map, its pixels column by column (W·H), has the label anywhere in a region."""
    inside = np.repeat(np.arange(len(runs) - 1) % 2 == 0, np.diff(runs))
    return bool((by_column[runs[0] : runs[-1]][inside] == label).any())


def _crossings(start: Integers, end: Integers, width: int) -> tuple[Integers, Integers]:
    """Return column and fine row of every crossing of a column's middle by the edges from `start` to `end`, (N, 2)."""
    span = np.abs(end - start)
    flat = span[:, 0] >= span[:, 1]
    edges, along = np.arange(len(start)), np.where(flat, 0, 1)
    turned = (start[edges, along] > end[edges, along])[:, None]  # an edge is drawn upwards along its longer side
    start, end = np.where(turned, end, start), np.where(turned, start, end)

    left, right = np.minimum(start[:, 0], end[:, 0]), np.maximum(start[:, 0], end[:, 0])
    first = np.maximum((left + 2) // _FINE, 0)
    number = np.maximum(np.minimum((right - 3) // _FINE, width - 1) - first + 1, 0)
    if number.sum() > MAX_CROSSINGS:
        raise RegionError(f"the polygon's outline crosses more than {MAX_CROSSINGS} columns")
    edge = np.repeat(edges, number)
    column = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(number) - number, number)

    (x, y), (dx, dy), right_of_step = start[edge].T, (end - start)[edge].T, _FINE * column + 3
    with np.errstate(divide="ignore", invalid="ignore"):  # each edge is worked out in both ways, and one is taken
        on_flat, on_steep = _row_of_flat(x, y, dy / dx, right_of_step), _row_of_steep(x, y, dx / dy, right_of_step)
    return column, np.where(flat[edge], on_flat, on_steep).astype(np.int64)


def _row_of_flat(x: Integers, y: Integers, slope: Floats, right_of_step: Integers) -> Floats:
    """Return the upper of the rows to which the edge y + slope · t is rounded on the two sides of a step."""
    t = right_of_step - x
    row: Floats = np.minimum(np.floor(y + slope * (t - 1) + 0.5), np.floor(y + slope * t + 0.5))
    return row


def _row_of_steep(x: Integers, y: Integers, slope: Floats, right_of_step: Integers) -> Floats:
    """Return the last row of the edge x + slope · t before its rounded x has taken a step."""
    t: Floats = np.floor((right_of_step - 0.5 - x) / slope) - 1
    for _ in range(3):  # the division is rounded; where the edge is, the rounding of its own points decides
        taken = (x + slope * t + 0.5 >= right_of_step) == (slope > 0)
        t = t + ~taken
    return y + t - 1


def _without_pairs(places: Integers) -> Runs:
    """Sort places; two changes of side at one place undo each other."""
    unique, counts = np.unique(places, return_counts=True)
    remaining: Runs = unique[counts % 2 == 1]
    return remaining
