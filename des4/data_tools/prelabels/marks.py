"""A label map as regions that a person can correct: polygons with few points, or masks to the pixel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from des4.datasets.annotations.outlines import outlines
from des4.datasets.annotations.regions import Floats
from des4.datasets.annotations.shapes import BACKGROUND_NAMES

Shapes = Literal["polygons", "masks"]
Bitmap = NDArray[np.bool_]

SPECK = 1e-4
"""Part of an image's pixels; smaller regions are no polygons of their own: nobody could correct hundreds of them."""


@dataclass(frozen=True)
class Region:
    """A part of an image that has a class: a polygon, (N, 2) of (x, y) in pixels, or a bitmap (H, W)."""

    name: str
    points: Floats | None = None
    bitmap: Bitmap | None = None

    def cut(self) -> tuple[Bitmap, int, int]:
        """Return a bitmap without the empty rows and columns around it, and its left and top."""
        assert self.bitmap is not None  # noqa: S101  # whoever asks has seen that it is no polygon
        rows, columns = np.flatnonzero(self.bitmap.any(1)), np.flatnonzero(self.bitmap.any(0))
        top, left = int(rows[0]), int(columns[0])
        return self.bitmap[top : rows[-1] + 1, left : columns[-1] + 1], left, top


@dataclass(frozen=True)
class Marked:
    """An image and its regions, the later over the earlier. image: its path in the folder of images, with suffix.

    size: (height, width). score: how sure the network is of it, in [0, 1].
    """

    image: PurePosixPath
    size: tuple[int, int]
    regions: tuple[Region, ...]
    score: float


def mark(
    image: PurePosixPath,
    labels: NDArray[Any],
    classes: Sequence[str],
    score: float,
    shapes: Shapes,
    tolerance: float = 1.0,
) -> Marked:
    """Turn a label map (H, W) of class indices into regions.

    tolerance: pixels by which outlines of polygons may be moved, so that they have few points. A class called
    `background` gets none, for that is what lies under no region, in these tools and in the project's readers.
    """
    nothing = background_of(classes)
    if shapes == "masks":
        present = (int(index) for index in np.unique(labels))
        regions = tuple(Region(classes[index], bitmap=labels == index) for index in present if index != nothing)
    else:
        found = outlines(labels, tolerance=tolerance, smallest=round(SPECK * labels.size), nothing=nothing)
        regions = tuple(Region(classes[outline.label], outline.points) for outline in found)
    return Marked(image, (labels.shape[0], labels.shape[1]), regions, score)


def background_of(classes: Sequence[str]) -> int | None:
    """Return the index of the class that stands for what nobody marks; None if there is none."""
    return next((index for index, name in enumerate(classes) if name in BACKGROUND_NAMES), None)


def rounded(points: Floats) -> Iterator[tuple[float, float]]:
    """Yield points to a hundredth of a pixel, as tools write them."""
    yield from ((round(x, 2), round(y, 2)) for x, y in points.tolist())
