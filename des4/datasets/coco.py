"""COCO's annotations of instances: polygons, and run-length codes in both of their forms.

```
annotations/instances_train2017.json  …_val2017.json                train2017/…  val2017/…  unlabeled2017/…
train/_annotations.coco.json  valid/_annotations.coco.json          beside the images
annotations/*.json, or *.json in the root                           images/…, or beside the file
```

Lin et al., ECCV 2014; https://cocodataset.org/#format-data. An id is the image's path without suffix, under `images/`
if that is there, else under the root. A file (or the folder of an `_annotations.coco.json`) with val or valid in its
name is for validation; one with test is not read, and neither val nor test images are unlabeled ones. An image that
has no annotation is unlabeled; a list may still call it labeled, and then all of it is background. Without images/,
unlabeled images are sought only in folders where annotated ones are, and in `unlabeled…`.

Classes are the categories in the order of their ids. Where regions overlap, crowds (`iscrowd`) are painted first, then
instances from the largest to the smallest, and equals in the order of the file, so that small things stay visible. A
crowd is pixels of its class, unless the config says that it is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from des4.datasets.annotations.coco_file import CocoFile, CocoMask, read_coco
from des4.datasets.annotations.json_files import head
from des4.datasets.annotations.shapes import ClassTable, ImageNames, ShapesConfig, class_table, naming, shown
from des4.datasets.files import Catalogue, FileDataset, existing_root, scan
from des4.types import IGNORE, DataError

_VAL = re.compile(r"(?!.*train).*(?<![a-z])(mini)?val(id(ation)?)?(?![a-z])", re.IGNORECASE)
_TEST = re.compile(r"(?<![a-z])test(?![a-z])", re.IGNORECASE)
_HEAD = re.compile(r'\s*\{\s*"(info|licenses|images|annotations|categories|type)"\s*:')
_MAX_FILES = 8
"""More JSON files than this in a folder are one an image, as other tools write them."""


class CocoConfig(ShapesConfig):
    """Images with COCO annotations of instances."""

    name: Literal["coco"] = "coco"
    annotations: Path | None = None
    """The annotation file; `null`: those that the layout names."""
    crowd: Literal["class", "ignore"] = "class"
    """Regions marked `iscrowd`: pixels of their `class`, or 255 (`ignore`)."""


class Coco(FileDataset):
    """The data set of a CocoConfig. Raises DataError as FileDataset does, and for an unsound annotation file."""

    Config = CocoConfig

    def __init__(self, config: CocoConfig) -> None:
        root = existing_root(config, "COCO annotations and images")
        sources = [_Source(config.annotations, "")] if config.annotations else _sources(root)
        if not sources:
            raise DataError(f"{root}: no COCO annotations found; name the file with data.annotations=PATH")
        images = ImageNames(_images(root, sources))
        files = {source: read_coco(source.path) for source in sources}
        table = _one_table(config, files.values())
        masks: dict[str, CocoMask] = {}
        annotated: dict[bool, list[str]] = {False: [], True: []}
        for source, file in files.items():
            labels = _labels(file, table, config.crowd)
            for row, name in enumerate(file.names):
                with naming(source.path, f"image {shown(name)}"):
                    sample_id = images.find(name, source.split)
                if sample_id in masks:
                    raise DataError(
                        f"{source.path}: the image {shown(name)} is listed in {masks[sample_id].path} too, or twice; "
                        "keep one entry, or name one file with data.annotations=PATH"
                    )
                if file.first[row] < file.first[row + 1]:
                    annotated[source.is_val].append(sample_id)
                elif sample_id not in images.files:
                    continue  # neither a picture nor an annotation: nothing is missed
                masks[sample_id] = CocoMask(file, row, labels, table.background)
        catalogue = Catalogue(
            images=images.files,
            masks=masks,
            classes=table.classes,
            labeled=annotated[False],
            unlabeled=_training_images(root, images.files, masks, sources),
            val=annotated[True],
            identify=images.identify,
        )
        super().__init__(config, catalogue)

    @staticmethod
    def recognises(root: Path) -> bool:
        """Whether `root` holds COCO annotations, and no folder of masks."""
        return not (root / "masks").is_dir() and bool(_sources(root))


@dataclass(frozen=True)
class _Source:
    """An annotation file. split: the name that its images' folder may have."""

    path: Path
    split: str

    @property
    def is_val(self) -> bool:
        return bool(_VAL.match(self.split))


def _sources(root: Path) -> list[_Source]:
    folder = root / "annotations"
    found = [_Source(path, path.stem.removeprefix("instances_")) for path in sorted(folder.glob("instances_*.json"))]
    found = found or [_Source(path, path.parent.name) for path in sorted(root.glob("*/_annotations.coco.json"))]
    found = found or [_Source(path, path.stem) for place in (folder, root) for path in _few_files(place)]
    return [source for source in found if not _TEST.search(source.split)]


def _few_files(folder: Path) -> list[Path]:
    """Return the COCO files of a folder, going by their first bytes, unless it holds a file an image."""
    paths = sorted(islice(folder.glob("[!.]*.json"), _MAX_FILES + 1))
    return [path for path in paths if _HEAD.match(head(path))] if len(paths) <= _MAX_FILES else []


def _images(root: Path, sources: Iterable[_Source]) -> dict[str, Path]:
    """Find the images by id: under images/, else in the folders of the splits, else anywhere in the root."""
    if (root / "images").is_dir():
        return scan(root / "images")
    splits = {source.split for source in sources}
    folders = sorted(path for path in root.iterdir() if path.name in splits or path.name.startswith("unlabeled"))
    if not any(folder.name in splits for folder in folders):
        return scan(root)
    return {f"{folder.name}/{stem}": path for folder in folders for stem, path in scan(folder).items()}


def _training_images(
    root: Path, images: Iterable[str], masks: Mapping[str, CocoMask], sources: Iterable[_Source]
) -> list[str]:
    """Return the images that may be trained on: neither val nor test, and of a folder that holds images by its name
    or by what the annotations list, since other folders may hold masks and overlays.
    """
    val_files = {source.path for source in sources if source.is_val}
    listed = {_folder(sample_id) for sample_id in masks}

    def may(sample_id: str) -> bool:
        folder = _folder(sample_id)
        if _VAL.match(folder) or _TEST.search(folder) or (sample_id in masks and masks[sample_id].path in val_files):
            return False
        return folder in listed or folder.startswith("unlabeled") or (root / "images").is_dir()

    return [sample_id for sample_id in images if may(sample_id)]


def _folder(sample_id: str) -> str:
    """Return the first folder of an id; '' without one."""
    return sample_id.partition("/")[0] if "/" in sample_id else ""


def _one_table(config: CocoConfig, files: Iterable[CocoFile]) -> ClassTable:
    """Number the classes. Raises DataError if two files have other categories."""
    first, *others = files
    table = class_table(first.json.path, first.categories.values(), config.background)
    for other in others:
        if other.categories != first.categories:
            raise DataError(
                f"{other.json.path}: its categories are not those of {first.json.path}; export both with the same"
            )
    return table


def _labels(file: CocoFile, table: ClassTable, crowd: Literal["class", "ignore"]) -> NDArray[np.uint8]:
    """Return what each annotation of a file is painted with, (M,) uint8."""
    of_category = np.array([table.labels[name] for name in file.categories.values()], np.uint8)
    labels = of_category[file.category]
    return np.where(file.crowd, IGNORE, labels).astype(np.uint8) if crowd == "ignore" else labels
