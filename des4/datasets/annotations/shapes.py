"""Label maps from drawn shapes: what the readers of COCO, labelme and Label Studio files share.

Pixels under no shape are background: a class of its own, or ignored. A shape's name becomes a class; `__ignore__`
stands for ignored pixels, and `_background_` or `background` for the background where that is a class.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal, TypeVar

import numpy as np
from torch import Tensor

from des4.datasets.annotations.regions import Floats, RegionError, Runs, refuse_far, shows
from des4.datasets.files import FilesConfig, Oddity, if_file, stem_of
from des4.datasets.lists import read_lines, refuse_repeats, unquoted
from des4.images.pictures import MAX_PIXELS
from des4.types import IGNORE, DataError

BACKGROUND_NAMES = ("_background_", "background")
IGNORE_NAME = "__ignore__"

Kind = TypeVar("Kind")

_SHOWN_CHARACTERS = 60
_LONGEST_NAME = 1024


class ShapesConfig(FilesConfig):
    """Settings of data in drawn shapes."""

    background: Literal["class", "ignore"] = "class"
    """Pixels under no shape: a `class` of its own, called `background`, or 255, which training and evaluation
    `ignore`."""


@dataclass(frozen=True)
class ClassTable:
    """What the names of shapes stand for. classes: names by index. labels: name → label. background: its label."""

    classes: tuple[str, ...]
    labels: Mapping[str, int]
    background: int

    def label(self, name: str) -> int:
        """Return the label of a shape's name. Raises RegionError."""
        if name not in self.labels:
            raise RegionError(f"its name {shown(name)} is not among the classes")
        return self.labels[name]


def class_table(path: Path, names: Iterable[str], background: Literal["class", "ignore"]) -> ClassTable:
    """Number class names in their order; a background class that they do not name comes first.

    path: the file that names them. Raises DataError if a name is no name, or the classes are too few or too many.
    """
    classes = [name for name in names if name != IGNORE_NAME]
    if background == "class" and not set(BACKGROUND_NAMES) & set(classes):
        classes.insert(0, "background")
    if not 2 <= len(classes) <= IGNORE:
        raise DataError(f"{path}: names {len(classes)} classes, expected 2..{IGNORE}; merge some, or name the missing")
    for name in classes:
        with naming(path, "the classes"):
            class_name(name)
    if repeated := [name for name in classes if classes.count(name) > 1]:
        raise DataError(f"{path}: names the class {shown(repeated[0])} twice; rename one of the two")
    labels = {name: index for index, name in enumerate(classes)} | {IGNORE_NAME: IGNORE}
    if background == "ignore":
        return ClassTable(tuple(classes), labels, IGNORE)
    nothing = labels[next(name for name in classes if name in BACKGROUND_NAMES)]
    return ClassTable(tuple(classes), dict.fromkeys(BACKGROUND_NAMES, nothing) | labels, nothing)


def unseen(regions: Sequence[tuple[str, Runs, int]], label_map: Tensor) -> Iterator[Oddity]:
    """Yield the regions that the label map (H, W) painted from them does not show. regions: title, runs and label."""
    by_column = np.ascontiguousarray(label_map.numpy().T).ravel()
    for title, runs, label in regions:
        if not runs.size:
            yield Oddity("region-without-pixels", f"{title} covers no pixel of the image", "mend or delete it")
        elif not shows(by_column, runs, label):
            remedy = "if it should be seen, bring it to the front; an export may have marked it as a crowd (iscrowd)"
            yield Oddity("region-hidden", f"{title} is wholly covered by other regions, so nobody learns it", remedy)


def class_name(name: str) -> str:
    """Return a name that may become a class. Raises RegionError if it cannot be printed."""
    if not name.strip() or not name.isprintable():
        raise RegionError(f"{shown(name)} is no name that can be printed")
    return name


def sorted_names(names: Iterable[str]) -> list[str]:
    """Return names that nobody has ordered by the alphabet, the background first."""
    return sorted(set(names), key=lambda name: (name not in BACKGROUND_NAMES, name))


def listed_classes(path: Path | None, *defaults: Path) -> tuple[Path, list[str]] | None:
    """Read a list of class names, one a line: the one at `path`, else the first default that is there."""
    found = path or next(filter(None, map(if_file, defaults)), None)
    if found is None:
        return None
    names = [unquoted(line) for line in read_lines(found, "one class")]
    refuse_repeats(found, names)
    return found, names


@contextmanager
def naming(path: Path, what: str) -> Iterator[None]:
    """Turn a RegionError into a DataError that says where it happened."""
    try:
        yield
    except RegionError as error:
        raise DataError(f"{path}: {what}: {error}; mend or delete it") from error


def shown(value: object) -> str:
    """Return a stranger's value for a message: on one line, printable, not endless."""
    if isinstance(value, dict) or (isinstance(value, list) and not all(isinstance(one, int) for one in value)):
        return f"a {type(value).__name__}"  # it may be nested too deeply to be printed
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def member(record: Any, key: str, kind: type[Kind]) -> Kind:
    """Return a member of a JSON object. Raises RegionError if it is missing or of another kind."""
    value = record.get(key) if isinstance(record, dict) else None
    if not isinstance(value, kind):
        raise RegionError(f"'{key}' is missing or no {_KINDS[kind]}")
    return value


_KINDS: Mapping[type, str] = {str: "text", list: "list", dict: "object"}


def number(record: Any, key: str) -> float:
    """Return a number of a JSON object. Raises RegionError."""
    value = record.get(key) if isinstance(record, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RegionError(f"'{key}' is missing or no number")
    refuse_far(coordinates([value]))
    return float(value)


def coordinates(values: Any) -> Floats:
    """Turn JSON numbers, however nested, into an array. Raises RegionError if they are none or unevenly nested."""
    try:
        array = np.array(values)
    except (ValueError, OverflowError) as error:
        raise RegionError("its coordinates are unevenly nested") from error
    if array.dtype.kind not in "if" and array.size:
        raise RegionError("its coordinates are not all numbers")
    return array.astype(np.float64)


def points(values: Any) -> Floats:
    """Turn a list of [x, y] into an (N, 2) array. Raises RegionError."""
    array = coordinates(values)
    if array.ndim != 2 or array.shape[1] != 2:
        raise RegionError("its points are no list of [x, y]")
    refuse_far(array)
    return array


def extent(height: Any, width: Any) -> tuple[int, int]:
    """Return an image's size as its annotation states it. Raises RegionError if it is none, or too large to paint."""
    if not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in (height, width)):
        raise RegionError(f"its width {shown(width)} and height {shown(height)} are no size in pixels")
    if height * width > MAX_PIXELS:
        raise RegionError(f"its {shown(width)}×{shown(height)} pixels exceed the limit of {MAX_PIXELS}")
    return height, width


class ImageNames:
    """The images of a data set, found by the names that annotations and lists give them. files: by id.

    Folders in a name are believed where they can be: `b/1.jpg` is not the image `a/1`, whose copy under b/ is missing.
    Only paths of another machine's (`/data/upload/3/1.jpg`) may lie in folders of their own.
    """

    def __init__(self, files: Mapping[str, Path]) -> None:
        self.files = files
        self._by_last_part: dict[str, list[str]] = {}
        for sample_id in files:
            self._by_last_part.setdefault(PurePosixPath(sample_id).name, []).append(sample_id)

    def find(self, name: str, folder: str = "") -> str:
        """Return the id of the image that is called `name`: its path from `folder`, its id, or the end of its path.

        Without such an image, the id that it would have. Raises RegionError if the name fits several.
        """
        if not name.isprintable() or not 0 < len(name) <= _LONGEST_NAME:
            raise RegionError(f"{shown(name)} is no name of an image file")
        path = stem_of(name.replace("\\", "/"))
        stem = path.removeprefix("/").removeprefix("images/")
        for exact in (f"{folder}/{stem}", stem):
            if exact in self.files:
                return exact
        fits = self._by_last_part.get(PurePosixPath(stem).name, [])
        shared = [_shared_end(stem, sample_id) for sample_id in fits]
        best = [sample_id for sample_id, length in zip(fits, shared, strict=True) if length == max(shared)]
        if not _is_foreign(path):
            best = [sample_id for sample_id in best if max(shared) > 1 or "/" not in stem or "/" not in sample_id]
        if len(best) > 1:
            raise RegionError(f"its name {shown(name)} fits {shown(best[0])} and {shown(best[1])}")
        return best[0] if best else stem

    def identify(self, name: str) -> str:
        """Return the id that a list's line means; the line itself if it fits several images."""
        try:
            return self.find(name)
        except RegionError:
            return name


def _is_foreign(path: str) -> bool:
    """Whether a path begins outside of the data set: at the root of a disk or an address, or above."""
    return path.startswith(("/", "../")) or bool(PureWindowsPath(path).drive)


def _shared_end(one: str, other: str) -> int:
    """Count the last parts that two paths have in common."""
    pairs = zip(reversed(PurePosixPath(one).parts), reversed(PurePosixPath(other).parts), strict=False)
    return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
