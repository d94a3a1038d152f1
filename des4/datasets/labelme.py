"""labelme's annotations: a JSON file for each image, beside it or in a folder of its own.

```
a.jpg  a.json  sub/b.jpg  sub/b.json             beside the images, or
images/a.jpg  images/sub/b.jpg                   under images/, with the JSON files beside them, or under
annotations/a.json  annotations/sub/b.json       annotations/ or labels/
classes.txt or labels.txt                        optional: one class name a line, in the order of the indices
```

https://github.com/wkentaro/labelme. An id is the image's path without suffix. Image and annotation belong together by
their names; the `imagePath` inside must name the same picture, and is not opened. The `imageData` inside is not used.
An annotation without a shape says that all of the image is background.

Later shapes are painted over earlier ones. Polygons and rectangles are filled as COCO's polygons are, circles where a
pixel's centre lies inside; labelme's own export widens both by their outline. Points and lines cover no area: refused.
Without a list of classes they are the names in the labeled and val annotations by the alphabet, background first.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from des4.datasets.annotations.json_files import head, read_json
from des4.datasets.annotations.regions import RegionError, Runs, bitmap_runs, ellipse_runs, painted, polygon_runs
from des4.datasets.annotations.shapes import (
    ClassTable,
    ImageNames,
    ShapesConfig,
    class_name,
    class_table,
    extent,
    listed_classes,
    member,
    naming,
    points,
    shown,
    sorted_names,
    unseen,
)
from des4.datasets.faults import stepping_over
from des4.datasets.files import Catalogue, FileDataset, Oddity, composed, existing_root, scan, stem_of
from des4.images.pictures import decode_mask, read_header
from des4.types import DataError

_OUTLINES = ("polygon", "oriented_rectangle", "rotation")
"""Shapes whose points are corners; the last is what X-AnyLabeling, which writes this format too, calls the second."""
_HEAD = re.compile(r'\s*\{\s*("(shapes|image[A-Z]\w+|lineColor|fillColor)"|"(version|flags)"[^\0]*"shapes")')
_PROBED_FILES = 4


class LabelmeConfig(ShapesConfig):
    """Images with labelme annotations."""

    name: Literal["labelme"] = "labelme"
    annotations: Path | None = None
    """Folder of the JSON files; `null`: `annotations/` or `labels/` in the root if there, else where the images are."""
    classes: Path | None = None
    """File of class names, one a line; `null`: `classes.txt` or `labels.txt` in the root if there, else the names in
    the annotations."""


class Labelme(FileDataset):
    """The data set of a LabelmeConfig. Raises DataError as FileDataset does, and for annotations that are unsound."""

    Config = LabelmeConfig

    def __init__(self, config: LabelmeConfig) -> None:
        root = existing_root(config, "images and labelme's JSON files")
        self._background = config.background
        self._table: ClassTable | None = None  # of classes that are found in the annotations
        listed = listed_classes(config.classes, root / "classes.txt", root / "labels.txt")
        table = class_table(*listed, config.background) if listed else None
        images = scan(_image_folder(root))
        masks = {
            sample_id: LabelmeMask(path, images.get(sample_id), table)
            for sample_id, path in scan(_annotation_folder(config), {".json"}).items()
        }
        catalogue = Catalogue(
            images=images,
            masks=masks,
            classes=table.classes if table else None,
            identify=ImageNames(images).identify,
        )
        super().__init__(config, catalogue)

    @staticmethod
    def recognises(root: Path) -> bool:
        """Whether the first JSON files of `root` are labelme's, and it holds no folder of masks."""
        probed = (path for depth in ("", "*/", "*/*/") for path in islice(root.glob(f"{depth}*.json"), _PROBED_FILES))
        return not (root / "masks").is_dir() and any(_HEAD.match(head(path)) for path in probed)

    def _find_classes(self) -> tuple[str, ...]:
        """Take the names in the labeled and val annotations for the classes."""
        names: set[str] = set()
        for mask in self._masks.values():
            with stepping_over("bad-mask"):
                names |= cast(LabelmeMask, mask).names()
        self._table = class_table(self.root, sorted_names(names), self._background)
        self._tell_masks()
        self.notes += (f"classes: {len(self._table.classes)}, the names in the annotations; fix them in classes.txt",)
        return self._table.classes

    def reveal(self) -> Sequence[str]:
        """Let the masks of unlabeled images be read too; a name that no labeled one has stands for no class."""
        revealed = super().reveal()
        self._tell_masks()
        return revealed

    def _tell_masks(self) -> None:
        """Tell the masks which classes there are, where no list did."""
        if self._table is not None:
            masks = cast(dict[str, LabelmeMask], self._masks)
            self._masks = {sample_id: replace(mask, table=self._table) for sample_id, mask in masks.items()}


@dataclass(frozen=True)
class LabelmeMask:
    """The shapes of one annotation file. image: the picture it belongs to. table: None until the classes are known."""

    path: Path
    image: Path | None
    table: ClassTable | None

    def names(self) -> set[str]:
        """Return the names of its shapes. Raises DataError."""
        with naming(self.path, "the annotation"):
            return {class_name(member(shape, "label", str)) for shape in self._shapes(self._document())}

    def size(self) -> tuple[int, int]:
        """Return (height, width) as stated; old versions of labelme leave it to the image. Raises DataError."""
        return self._size(self._document())

    def read(self) -> Tensor:
        """Paint the shapes, (H, W) uint8. Raises DataError."""
        assert self.table is not None  # noqa: S101  # the data set has found the classes before it hands out a mask
        regions, (height, width) = self._regions(self.table)
        return painted(((runs, label) for _, runs, label in regions), height, width, self.table.background)

    def oddities(self) -> Iterator[Oddity]:
        """Yield the shapes that cover nothing, or that others cover wholly. Raises DataError."""
        assert self.table is not None  # noqa: S101  # as above
        return unseen(self._regions(self.table)[0], self.read())

    def _regions(self, table: ClassTable) -> tuple[list[tuple[str, Runs, int]], tuple[int, int]]:
        """Return title, runs and label of the shapes, and the image's height and width."""
        document = self._document()
        height, width = self._size(document)
        regions = []
        for number, shape in enumerate(self._shapes(document), 1):
            with naming(self.path, title := f"shape {number}"):
                label = table.label(member(shape, "label", str))
                regions.append((title, self._runs(shape, height, width), label))
        return regions, (height, width)

    def _document(self) -> dict[str, Any]:
        """Read the file. Raises DataError, also if it was made for another picture."""
        document = read_json(self.path)
        if not isinstance(document, dict):
            raise DataError(f"{self.path}: is no labelme annotation; take it out of the folder")
        name = document.get("imagePath")
        if isinstance(name, str) and PurePosixPath(stem_of(name.replace("\\", "/"))).name != composed(self.path.stem):
            raise DataError(
                f"{self.path}: was made for {shown(name)}, going by its imagePath; give it the name of its image, "
                "or mend the imagePath"
            )
        return document

    def _shapes(self, document: dict[str, Any]) -> list[Any]:
        with naming(self.path, "the annotation"):
            return member(document, "shapes", list)

    def _size(self, document: dict[str, Any]) -> tuple[int, int]:
        height, width = document.get("imageHeight"), document.get("imageWidth")
        if height is None and width is None and self.image is not None:
            return read_header(self.image).size
        with naming(self.path, "the image"):
            return extent(height, width)

    def _runs(self, shape: Any, height: int, width: int) -> Runs:
        """Make the region of a shape. Raises RegionError, and DataError for a bitmap that cannot be read."""
        kind, corners = shape.get("shape_type") or "polygon", points(member(shape, "points", list))
        if kind in _OUTLINES or (kind == "rectangle" and len(corners) == 4):
            return polygon_runs(corners, height, width)
        if kind not in ("rectangle", "circle", "mask"):
            raise RegionError(f"a shape of type {shown(kind)} covers no area, a polygon would")
        if len(corners) != 2:
            raise RegionError(f"a {kind} needs 2 points, this one has {len(corners)}")
        (x0, y0), (x1, y1) = corners.tolist()
        if kind == "rectangle":
            return polygon_runs(np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]), height, width)
        if kind == "circle":
            radius = float(np.hypot(x1 - x0, y1 - y0))
            return ellipse_runs((x0, y0), (radius, radius), 0, height, width)
        return bitmap_runs(self._bitmap(shape), round(x0), round(y0), height, width)

    def _bitmap(self, shape: Any) -> NDArray[np.bool_]:
        text = member(shape, "mask", str)
        try:
            data = base64.b64decode(text, validate=True)
        except ValueError as error:
            raise RegionError("its mask is no base64 text") from error
        return decode_mask(self.path, data).numpy() > 0


def _image_folder(root: Path) -> Path:
    return root / "images" if (root / "images").is_dir() else root


def _annotation_folder(config: LabelmeConfig) -> Path:
    if config.annotations and not config.annotations.is_dir():
        raise DataError(f"{config.annotations}: no such folder; give the one that holds labelme's JSON files")
    own = (config.root / name for name in ("annotations", "labels"))
    return config.annotations or next((folder for folder in own if folder.is_dir()), _image_folder(config.root))
