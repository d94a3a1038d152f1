"""Masks painted in CVAT and exported as "Segmentation mask 1.1".

```
labelmap.txt                       # label:color_rgb:parts:actions
SegmentationClass/…                PNGs whose colours are those of the label map
ImageSets/Segmentation/*.txt       one list a subset: default, train, val, test
JPEGImages/…                       if the images were saved along; else put them in images/, under the same names
```

Format: docs.cvat.ai, "Segmentation Mask". An id is an image's path without its suffix. The classes are the labels in
the order of labelmap.txt, `background` among them. Without lists a subset `val` (or `validation`) is val, `test` stays
out, and all else is for training.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from des4.datasets.files import Catalogue, FileDataset, FilesConfig, existing_root, scan, stem_of
from des4.datasets.lists import read_lines, read_list
from des4.datasets.masks import MAX_CLASSES, Colour, ColourMask, table_of_colours
from des4.datasets.walk import is_hidden
from des4.types import IGNORE, DataError

_VAL = ("val", "valid", "validation")
"""Names of a subset that is val, in lower case."""


class CvatConfig(FilesConfig):
    """An export of CVAT's, or one laid out like it."""

    name: Literal["cvat"] = "cvat"
    images: Path | None = None
    """Folder of the images; `null`: `JPEGImages` in the root, else `images`."""
    ignore: tuple[str, ...] = ()
    """Labels whose pixels have no class, such as `[background]`: they are 255, and nobody scores them."""


class Cvat(FileDataset):
    """The data set of a CvatConfig. Raises DataError as FileDataset does, and for a label map that is ambiguous."""

    Config = CvatConfig

    def __init__(self, config: CvatConfig) -> None:
        root = existing_root(config, "labelmap.txt and SegmentationClass/", ("SegmentationClass",))
        colours = _read_label_map(root / "labelmap.txt")
        classes, meanings = _classes(root / "labelmap.txt", colours, config.ignore)
        table = table_of_colours(meanings)
        images = scan(_image_folder(config))
        masks = scan(root / "SegmentationClass", {".png"})
        subsets = _subsets(root)
        val = [sample_id for subset in _VAL for sample_id in subsets.get(subset, ())]
        kept_out = {*val, *subsets.get("test", ())}
        catalogue = Catalogue(
            images=images,
            masks={sample_id: ColourMask(path, table) for sample_id, path in masks.items()},
            classes=classes,
            palette=tuple(colours[name] for name in classes),
            labeled=[sample_id for sample_id in masks if sample_id not in kept_out],
            unlabeled=[sample_id for sample_id in images if sample_id not in kept_out],
            val=[sample_id for sample_id in val if sample_id in masks],
            identify=_identify,
            mask_at=partial(ColourMask, table=table),
        )
        super().__init__(config, catalogue)

    @staticmethod
    def recognises(root: Path) -> bool:
        """Whether `root` is laid out like this."""
        return (root / "labelmap.txt").is_file() and (root / "SegmentationClass").is_dir()


def _image_folder(config: CvatConfig) -> Path:
    if config.images:
        if not config.images.is_dir():
            raise DataError(f"{config.images}: no such folder of images; mend data.images")
        return config.images
    for folder in (config.root / "JPEGImages", config.root / "images"):
        if folder.is_dir():
            return folder
    raise DataError(
        f'{config.root / "JPEGImages"}: the export holds no images; export them along ("Save images"), '
        "put them in images/ beside it, or name their folder with data.images"
    )


def _read_label_map(path: Path) -> dict[str, Colour]:
    """Read name and colour of each label, in the order of the file. Raises DataError."""
    if not path.is_file():
        raise DataError(f'{path}: no such label map; give the folder that CVAT exported as "Segmentation mask 1.1"')
    colours: dict[str, Colour] = {}
    for line in read_lines(path, "one label:red,green,blue::"):
        if line.startswith("#"):
            continue
        name, *rest = (part.strip() for part in line.rsplit(":", 3))  # a label's name may hold a colon
        if not name or name in colours or len(rest) != 3:
            raise DataError(f"{path}: '{line}' is not a new label written as label:red,green,blue::; export it anew")
        colours[name] = _colour(path, line, rest[0])
    return colours


def _colour(path: Path, line: str, text: str) -> Colour:
    values = [int(value) if value.strip().isdecimal() else -1 for value in text.split(",")]
    if len(values) != 3 or not all(0 <= value <= 255 for value in values):
        raise DataError(f"{path}: '{line}' gives the label no colour red,green,blue of 0-255; export it anew")
    return values[0], values[1], values[2]


def _classes(
    path: Path, colours: dict[str, Colour], ignore: tuple[str, ...]
) -> tuple[tuple[str, ...], dict[Colour, int]]:
    """Return the class names, and what each colour means. Raises DataError where a colour has two meanings."""
    if unknown := [name for name in ignore if name not in colours]:
        raise DataError(f"{path}: has no label '{unknown[0]}', which data.ignore names; it has {', '.join(colours)}")
    classes = tuple(name for name in colours if name not in ignore)
    if not 2 <= len(classes) <= MAX_CLASSES:
        raise DataError(f"{path}: leaves {len(classes)} classes, expected 2-{MAX_CLASSES}; see data.ignore")
    meanings: dict[Colour, int] = {}
    for name, colour in colours.items():
        index = IGNORE if name in ignore else classes.index(name)
        if meanings.setdefault(colour, index) != index:
            twin = next(other for other in colours if colours[other] == colour)
            raise DataError(
                f"{path}: '{twin}' and '{name}' share the colour {colour}, so masks cannot tell them apart; "
                "give them colours of their own in CVAT, or name both in data.ignore"
            )
    return classes, meanings


def _subsets(root: Path) -> dict[str, tuple[str, ...]]:
    """Read the list of each subset, its name in lower case → ids; one without annotations is exported empty."""
    found = (root / "ImageSets" / "Segmentation").glob("*.txt")
    lists = sorted(path for path in found if not is_hidden(path.name) and path.stat().st_size)
    return {path.stem.lower(): tuple(_identify(name) for name, _ in read_list(path)) for path in lists}


def _identify(name: str) -> str:
    """Reduce a listed name to an id; names with spaces are exported in quotes."""
    return stem_of(name.strip('"')).removeprefix("JPEGImages/").removeprefix("images/")
