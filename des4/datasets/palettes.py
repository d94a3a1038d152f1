"""Colours of classes: those of PASCAL VOC's masks, and colours that one can tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

Palette = tuple[tuple[int, int, int], ...]

_BACKGROUND = frozenset({"background", "_background_"})
_STEP = 17
_LIGHTNESS, _CHROMA = (40.0, 88.0), 35.0
"""Of the colours that are chosen from: neither close to black, white and grey, nor to each other."""


def voc_palette(num_classes: int) -> Palette:
    """Colours of the PASCAL VOC masks for classes 0..C-1: the bits of the index, spread over red, green and blue."""

    def colour(index: int) -> tuple[int, int, int]:
        red, green, blue = (sum((index >> (3 * k + c) & 1) << (7 - k) for k in range(3)) for c in range(3))
        return red, green, blue

    return tuple(colour(index) for index in range(num_classes))


def distinct_palette(classes: Sequence[str]) -> Palette:
    """Colours for class names that nobody gave colours; a background at the beginning is black.

    Each is the one that is farthest from all before it in CIELAB, so that few classes look least alike, and a longer
    list begins with the colours of a shorter one.
    """
    dark = classes[0].lower() in _BACKGROUND if classes else False
    return ((0, 0, 0),) * dark + _farthest()[: len(classes) - dark]


@cache
def _farthest() -> Palette:
    """Order 255 colours, each farthest from those before it; red comes first."""
    levels = np.arange(0, 256, _STEP)
    colours = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    places = _lab(colours)
    chroma = np.hypot(places[:, 1], places[:, 2])
    kept = (places[:, 0] > _LIGHTNESS[0]) & (places[:, 0] < _LIGHTNESS[1]) & (chroma > _CHROMA)
    colours, places = colours[kept], places[kept]
    chosen = int(np.abs(colours - (238, 34, 51)).sum(1).argmin())
    distance = np.full(len(colours), np.inf)
    order = []
    for _ in range(255):
        order.append(chosen)
        distance = np.minimum(distance, np.linalg.norm(places - places[chosen], axis=1))
        chosen = int(distance.argmax())
    return tuple((int(red), int(green), int(blue)) for red, green, blue in colours[order])


def _lab(colours: NDArray[np.int64]) -> NDArray[np.float64]:
    """Turn sRGB, (N, 3) of 0-255, into CIELAB under D65 (IEC 61966-2-1; CIE 15)."""
    part = colours / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    relative = linear @ to_xyz.T / (0.9505, 1.0, 1.089)
    root = np.where(relative > (6 / 29) ** 3, np.cbrt(relative), relative * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = root.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)
