"""Regions as Label Studio writes them: coordinates in percent of the image's sides, turns in degrees clockwise.

A result is one mark of an annotator. https://labelstud.io/guide/task_format, and the pages of the tags BrushLabels,
PolygonLabels, RectangleLabels and EllipseLabels there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from des4.datasets.annotations.regions import RegionError, Runs, bitmap_runs, ellipse_runs, polygon_runs
from des4.datasets.annotations.rle import unpacked_words
from des4.datasets.annotations.shapes import class_name, coordinates, member, number, points, shown

_GEOMETRY = {"rle", "points", "x", "vertices", "imageDataURL"}
"""Keys by which the value of a result marks a place in the image."""


def regions(annotation: Any) -> Iterator[Any]:
    """Yield the results of an annotation that cover pixels. Raises RegionError for one that marks a place otherwise."""
    for result in member(annotation, "result", list):
        kind, value = member(result, "type", str), result.get("value")
        if kind in _REGIONS:
            yield result
        elif isinstance(value, dict) and _GEOMETRY & value.keys():
            raise RegionError(f"a region of type {shown(kind)} is not read, only {', '.join(_REGIONS)}")


def region_name(result: Any) -> str:
    """Return the label of a region. Raises RegionError."""
    names = member(member(result, "value", dict), result["type"], list)
    if len(names) != 1 or not isinstance(names[0], str):
        raise RegionError(f"a region has the labels {shown(names)}, expected one")
    return class_name(names[0])


def region_runs(result: Any, height: int, width: int) -> Runs:
    """Make a region. Raises RegionError."""
    if result.get("image_rotation"):
        raise RegionError("the image was turned in Label Studio; turn it back there")
    return _REGIONS[result["type"]](member(result, "value", dict), height, width)


def _brush(value: Any, height: int, width: int) -> Runs:
    packed = coordinates(member(value, "rle", list))
    if value.get("format") != "rle" or packed.ndim != 1 or not ((packed >= 0) & (packed <= 255)).all():
        raise RegionError("its brush mask is no list of bytes in the format 'rle'")
    words = unpacked_words(packed.astype(np.uint8), 4 * height * width)
    return bitmap_runs(words[3::4].reshape(height, width) > 0, 0, 0, height, width)


def _polygon(value: Any, height: int, width: int) -> Runs:
    return polygon_runs(points(member(value, "points", list)) * (width / 100, height / 100), height, width)


def _rectangle(value: Any, height: int, width: int) -> Runs:
    x, y, right, down = (number(value, key) for key in ("x", "y", "width", "height"))
    if right < 0 or down < 0:
        raise RegionError("its width or height is negative")
    corners = np.array([[0, 0], [right, 0], [right, down], [0, down]]) * (width / 100, height / 100)
    turn = np.radians(number(value, "rotation") if "rotation" in value else 0)
    about_corner = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return polygon_runs(corners @ about_corner + (x * width / 100, y * height / 100), height, width)


def _ellipse(value: Any, height: int, width: int) -> Runs:
    x, y, across, down = (number(value, key) for key in ("x", "y", "radiusX", "radiusY"))
    turn = number(value, "rotation") if "rotation" in value else 0
    across, down = across * width / 100, down * height / 100
    return ellipse_runs((x * width / 100, y * height / 100), (across, down), turn, height, width)


_REGIONS: dict[str, Callable[[Any, int, int], Runs]] = {
    "brushlabels": _brush,
    "polygonlabels": _polygon,
    "rectanglelabels": _rectangle,
    "ellipselabels": _ellipse,
}
"""How a region of each type is made."""
