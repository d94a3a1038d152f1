"""Label Studio's export, the format called JSON: brush masks, polygons, rectangles and ellipses.

```
project-1-at-2026-05-04.json           the export, in the root
images/…                               the pictures, or anywhere under the root
```

https://labelstud.io/guide/task_format. An id is the image's path without suffix, under `images/` if that is there, else
under the root. A task names its picture by a path of Label Studio's (`/data/upload/1/0a1b2c3d-name.jpg`,
`/data/local-files/?d=folder/name.jpg`) or a URL; the file under the root with that name is meant, with or without the
eight characters that Label Studio puts before uploads.

Of several annotations of a task the one marked as ground truth counts, else the one that was last updated; cancelled
ones, drafts and predictions do not. A task without an annotation is unlabeled, one with an empty annotation is all
background. Later regions are painted over earlier ones; a brush covers the pixels whose alpha is above 0. What marks no
region (choices, text, relations) is passed over, a region without area (key points) is refused.

Without a list of classes they are the names in the export by the alphabet, background first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from torch import Tensor

from des4.datasets.annotations.json_files import JsonFile, Span, head
from des4.datasets.annotations.label_studio_regions import region_name, region_runs, regions
from des4.datasets.annotations.regions import RegionError, Runs, painted
from des4.datasets.annotations.shapes import (
    ClassTable,
    ImageNames,
    ShapesConfig,
    class_table,
    extent,
    listed_classes,
    member,
    naming,
    shown,
    sorted_names,
    unseen,
)
from des4.datasets.files import Catalogue, FileDataset, Oddity, existing_root, scan
from des4.images.pictures import IMAGE_SUFFIXES, read_header
from des4.types import DataError

_HEAD = re.compile(r'\s*\[\s*\{[^\0]*?"(annotations|data)"\s*:')
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")
_PROBED_FILES = 8


class LabelStudioConfig(ShapesConfig):
    """Images with an export of Label Studio."""

    name: Literal["label_studio"] = "label_studio"
    annotations: Path | None = None
    """The export; `null`: the one in the root."""
    classes: Path | None = None
    """File of class names, one a line; `null`: `classes.txt` in the root if it is there, else the names in the
    export."""


class LabelStudio(FileDataset):
    """The data set of a LabelStudioConfig. Raises DataError as FileDataset does, and for an unsound export."""

    Config = LabelStudioConfig

    def __init__(self, config: LabelStudioConfig) -> None:
        root = existing_root(config, "images and an export of Label Studio")
        file = JsonFile(config.annotations or _export(root))
        images = ImageNames(scan(root / "images" if (root / "images").is_dir() else root))
        tasks: dict[str, _Task] = {}
        for task in _annotated_tasks(file):
            with naming(file.path, task.title):
                sample_id = task.image_in(images)
            if sample_id in tasks:
                raise DataError(
                    f"{file.path}: {tasks[sample_id].title} and {task.title} are of one image, '{sample_id}'; "
                    "delete one of the two"
                )
            tasks[sample_id] = task
        names = sorted_names(name for task in tasks.values() for name in task.names)
        listed = listed_classes(config.classes, root / "classes.txt") or (file.path, names)
        table = class_table(*listed, config.background)
        catalogue = Catalogue(
            images=images.files,
            masks={i: LabelStudioMask(file, task, table, images.files.get(i)) for i, task in tasks.items()},
            classes=table.classes,
            identify=images.identify,
        )
        super().__init__(config, catalogue)

    @staticmethod
    def recognises(root: Path) -> bool:
        """Whether `root` holds an export, and no folder of masks."""
        return not (root / "masks").is_dir() and bool(_exports(root))


@dataclass(frozen=True, eq=False)
class LabelStudioMask:
    """The annotated regions of a task. image: its picture, whose size counts where no region states one."""

    file: JsonFile
    task: _Task
    table: ClassTable
    image: Path | None

    @property
    def path(self) -> Path:
        """The export."""
        return self.file.path

    def size(self) -> tuple[int, int]:
        """Return (height, width) as a region states it, else the upright image's. Raises DataError."""
        if self.task.extent is None and self.image is not None:
            return read_header(self.image).upright
        with naming(self.path, self.task.title):
            return extent(*(self.task.extent or (None, None)))

    def read(self) -> Tensor:
        """Paint the regions, (H, W) uint8. Raises DataError."""
        shapes = self._regions()
        return painted(((runs, label) for _, runs, label in shapes), *self.size(), self.table.background)

    def oddities(self) -> Iterator[Oddity]:
        """Yield the regions that cover nothing, or that others cover wholly. Raises DataError."""
        return unseen(self._regions(), self.read())

    def _regions(self) -> list[tuple[str, Runs, int]]:
        """Return title, runs and label of the regions. Raises DataError."""
        height, width = self.size()
        shapes = []
        (task,) = self.file.parts([self.task.span])
        for result in regions(_chosen(task)):
            title = f"{self.task.title}, region {shown(result.get('id'))}"
            with naming(self.path, title):
                if _extent(result) not in (None, (height, width)):
                    raise RegionError(f"it was not drawn on an image of {width}×{height} pixels, as the first one was")
                shapes.append((title, region_runs(result, height, width), self.table.label(region_name(result))))
        return shapes


# ── tasks ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Task:
    """What is kept of an annotated task. extent: height and width as a region states them; None if none does."""

    title: str
    picture: str
    names: frozenset[str]
    extent: tuple[Any, Any] | None
    span: Span

    def image_in(self, images: ImageNames) -> str:
        """Return the id of the picture, or the one that it would have. Raises RegionError if it could be several."""
        folder, _, name = self.picture.rpartition("/")
        sample_id = images.find(self.picture)
        if sample_id not in images.files and _UPLOAD_PREFIX.match(name):
            return images.find(f"{folder}/{_UPLOAD_PREFIX.sub('', name)}")
        return sample_id


def _exports(root: Path) -> list[Path]:
    return [path for path in sorted(islice(root.glob("[!.]*.json"), _PROBED_FILES)) if _HEAD.match(head(path))]


def _export(root: Path) -> Path:
    """Return the only export in the root. Raises DataError."""
    found = _exports(root)
    if len(found) != 1:
        which = f"{found[0].name} and {found[1].name} are both" if found else "holds no JSON file that is"
        raise DataError(f"{root}: {which} an export of Label Studio (JSON); name it with data.annotations=PATH")
    return found[0]


def _annotated_tasks(file: JsonFile) -> Iterator[_Task]:
    """Walk the export. Raises DataError where a task cannot be understood."""
    for place, (key, task, span) in enumerate(file.elements()):
        if key or not isinstance(task, dict):
            raise DataError(f"{file.path}: is no list of tasks; export the project from Label Studio as JSON")
        title = f"task {shown(task.get('id', place))}"
        if "annotations" not in task:
            raise DataError(f"{file.path}: {title} has no 'annotations'; export as JSON, not as JSON-MIN")
        with naming(file.path, title):
            if (annotation := _chosen(task)) is None:
                continue
            found = list(regions(annotation))
            stated = next(filter(None, map(_extent, found)), None)
            described = _Task(title, _picture(task), frozenset(map(region_name, found)), stated, span)
        yield described


def _chosen(task: Any) -> Any:
    """Return the annotation of a task that counts; None if there is none. Raises RegionError."""
    annotations = member(task, "annotations", list)
    if not all(isinstance(annotation, dict) for annotation in annotations):
        raise RegionError("its 'annotations' are not written out")
    ranked = sorted(
        (annotation for annotation in annotations if not annotation.get("was_cancelled")),
        key=lambda annotation: (bool(annotation.get("ground_truth")), str(annotation.get("updated_at"))),
    )
    return ranked[-1] if ranked else None


def _extent(result: Any) -> tuple[Any, Any] | None:
    """Return the height and width of the image as a region states them; None if it does not."""
    stated = result.get("original_height"), result.get("original_width")
    return None if stated == (None, None) else stated


def _picture(task: Any) -> str:
    """Return the path of a task's picture within whatever place holds it. Raises RegionError."""
    data = member(task, "data", dict)
    if isinstance(image := data.get("image"), str):
        return _path(image)
    found = [value for value in data.values() if isinstance(value, str) and _names_image(value)]
    if len(found) != 1:
        raise RegionError(f"its data name {len(found)} pictures, expected 'image' or one file name")
    return _path(found[0])


def _names_image(text: str) -> bool:
    return PurePosixPath(text.partition("?")[0]).suffix.lower() in IMAGE_SUFFIXES or "?d=" in text


def _path(reference: str) -> str:
    """Return the path in a reference to a file: the query `d` of Label Studio's local files, else a URL's path."""
    try:
        parts = urlsplit(reference)
    except ValueError as error:
        raise RegionError(f"{shown(reference)} is no address of a file") from error
    if parts.scheme == "data":
        raise RegionError("its picture is written into the export; save it as a file and name that")
    local = parse_qs(parts.query).get("d")
    return (local[0] if local else unquote(parts.path)).replace("\\", "/")
