"""A COCO annotation file, walked once, and the masks of its images.

The file may be a gigabyte. Of an annotation no more is kept than its image, its category and where it stands; it is
decoded each time the mask of its image is read, so that annotations of unlabeled images never are.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from des4.datasets.annotations.json_files import JsonFile, Span
from des4.datasets.annotations.regions import (
    Integers,
    RegionError,
    Runs,
    counted_runs,
    num_pixels,
    painted,
    polygon_runs,
    united,
)
from des4.datasets.annotations.rle import counts_of_text
from des4.datasets.annotations.shapes import coordinates, extent, member, naming, shown, unseen
from des4.datasets.files import Oddity
from des4.types import DataError

Id = int | str
"""What a file numbers its images and categories with."""

_KINDS = {"images": "image", "categories": "category", "annotations": "annotation"}


@dataclass(frozen=True, eq=False)
class CocoFile:
    """What is kept of an annotation file with N images and M annotations.

    names: (N) file name of each image. sizes: (N, 2) height and width, 0 where they are not stated. categories: name by
    id, in the order of the ids. first: (N + 1), annotations first[n] to first[n + 1] are those of image n, in the order
    of the file. spans: (M, 2) where each annotation stands. category: (M) its category's place in `categories`.
    crowd: (M) whether it is one.
    """

    json: JsonFile
    names: tuple[str, ...]
    sizes: Integers
    categories: Mapping[Id, str]
    first: Integers
    spans: Integers
    category: Integers
    crowd: NDArray[np.bool_]


def read_coco(path: Path) -> CocoFile:
    """Walk an annotation file. Raises DataError where it is unsound, beside the annotations' regions."""
    json, content = JsonFile(path), _Content()
    take = {"images": content.take_image, "categories": content.take_category, "annotations": content.take_annotation}
    missing = set(_KINDS)
    for key, value, span in json.elements(spread=_KINDS):
        if key not in take:
            continue
        missing.discard(key)
        try:
            take[key](value, span)
        except RegionError as error:
            number = value.get("id") if isinstance(value, dict) else None
            raise DataError(f"{path}: {_KINDS[key]} {shown(number)}: {error}; mend or delete it") from error
    if missing:
        raise DataError(
            f"{path}: holds no {min(missing)}; export the instances, with images, categories and annotations"
        )
    return content.arranged(json)


class _Content:
    """Collects what a file holds, in whatever order its parts come."""

    def __init__(self) -> None:
        self.rows: dict[Id, int] = {}
        self.names: list[str] = []
        self.sizes: list[tuple[int, int]] = []
        self.categories: dict[Id, str] = {}
        self.image_ids: list[Id] = []
        self.category_ids: list[Id] = []
        self.crowd = bytearray()
        self.spans = array("q")

    def take_image(self, image: Any, span: Span) -> None:
        number = _id(image, "id")
        if number in self.rows:
            raise RegionError("another image has the same id")
        self.rows[number] = len(self.names)
        self.names.append(member(image, "file_name", str))
        try:
            self.sizes.append(extent(image.get("height"), image.get("width")))
        except RegionError:
            self.sizes.append((0, 0))  # it matters only if the image turns out to be labeled

    def take_category(self, category: Any, span: Span) -> None:
        number = _id(category, "id")
        if number in self.categories:
            raise RegionError("another category has the same id")
        self.categories[number] = member(category, "name", str)

    def take_annotation(self, annotation: Any, span: Span) -> None:
        self.image_ids.append(_id(annotation, "image_id"))
        self.category_ids.append(_id(annotation, "category_id"))
        self.crowd.append(bool(annotation.get("iscrowd")))
        self.spans.extend(span)

    def arranged(self, json: JsonFile) -> CocoFile:
        """Sort categories by id and annotations by image. Raises DataError if one refers to what is not there."""
        categories = dict(sorted(self.categories.items(), key=lambda item: (isinstance(item[0], str), item[0])))
        places = {number: place for place, number in enumerate(categories)}
        spans = np.array(self.spans, np.int64).reshape(-1, 2)
        row = self._resolved("image", self.image_ids, self.rows, json, spans)
        category = self._resolved("category", self.category_ids, places, json, spans)
        order = np.argsort(row, kind="stable")
        return CocoFile(
            json,
            tuple(self.names),
            np.array(self.sizes, np.int64).reshape(-1, 2),
            categories,
            np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(self.names)))]),
            spans[order],
            category[order],
            np.frombuffer(self.crowd, np.bool_)[order],
        )

    @staticmethod
    def _resolved(what: str, ids: list[Id], known: Mapping[Id, int], json: JsonFile, spans: Integers) -> Integers:
        """Return what the annotations' ids of images or categories stand for."""
        found = np.array([known.get(number, -1) for number in ids], np.int64)
        if (found < 0).any():
            first = int((found < 0).argmax())
            (annotation,) = json.parts([tuple(spans[first].tolist())])
            raise DataError(
                f"{json.path}: annotation {shown(annotation.get('id'))}: its {what} {shown(ids[first])} is not in the "
                f"file; delete the annotation, or export the {what} as well"
            )
        return found


@dataclass(frozen=True, eq=False)
class CocoMask:
    """The regions annotated in image `row` of a file. labels: (M) what each annotation is painted with."""

    file: CocoFile
    row: int
    labels: NDArray[np.uint8]
    background: int

    @property
    def path(self) -> Path:
        """The annotation file."""
        return self.file.json.path

    def size(self) -> tuple[int, int]:
        """Return (height, width) as the file states them. Raises DataError."""
        height, width = self.file.sizes[self.row].tolist()
        if not height:
            raise DataError(
                f"{self.path}: the image {shown(self.file.names[self.row])} has no usable height and width; add them"
            )
        return height, width

    def read(self) -> Tensor:
        """Paint the image's regions, (H, W) uint8. Raises DataError."""
        return painted(((runs, label) for _, runs, label in self._regions()), *self.size(), self.background)

    def oddities(self) -> Iterator[Oddity]:
        """Yield the regions that cover nothing, or that others cover wholly. Raises DataError."""
        return unseen(self._regions(), self.read())

    def _regions(self) -> list[tuple[str, Runs, int]]:
        """Return title, runs and label of the image's regions, in the order in which they are painted."""
        size = self.size()
        own = slice(*self.file.first[self.row : self.row + 2])
        regions = []
        annotations = self.file.json.parts(map(tuple, self.file.spans[own].tolist()))
        for annotation, crowd, label in zip(annotations, self.file.crowd[own], self.labels[own], strict=True):
            title = f"annotation {shown(annotation.get('id'))}"
            with naming(self.path, title):
                runs = _runs(annotation.get("segmentation"), *size)
            title += ", a crowd," if crowd else ""
            regions.append((not crowd, -num_pixels(runs), (title, runs, int(label))))
        return [region for _, _, region in sorted(regions, key=lambda one: one[:2])]


def _runs(segmentation: Any, height: int, width: int) -> Runs:
    """Make the region of an annotation. Raises RegionError."""
    if not segmentation:
        raise RegionError("it has no segmentation, a box at most")
    if isinstance(segmentation, list):
        return united([_polygon(numbers, height, width) for numbers in segmentation])
    size, counts = member(segmentation, "size", list), segmentation.get("counts")
    if size != [height, width]:
        raise RegionError(f"its 'size' {shown(size)} is not that of the image, {[height, width]}")
    return counted_runs(counts_of_text(counts) if isinstance(counts, str) else _whole(counts), height, width)


def _whole(counts: Any) -> Integers:
    """Return counts that are not compressed. Raises RegionError."""
    numbers = coordinates(counts) if isinstance(counts, list) else np.array(np.nan)
    if numbers.ndim != 1 or not ((numbers == np.trunc(numbers)) & (np.abs(numbers) < 2**53)).all():
        raise RegionError("its counts are neither text nor whole numbers")
    return numbers.astype(np.int64)


def _polygon(numbers: Any, height: int, width: int) -> Runs:
    flat = coordinates(numbers)
    if flat.ndim != 1 or len(flat) % 2:
        raise RegionError("a polygon is no list of x, y, x, y, …")
    return polygon_runs(flat.reshape(-1, 2), height, width)


def _id(record: Any, key: str) -> Id:
    value = record.get(key) if isinstance(record, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise RegionError(f"'{key}' is missing, or neither number nor text")
    return value
