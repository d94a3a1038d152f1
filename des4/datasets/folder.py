"""A folder of images and masks: the format users bring.

`images/…` and `masks/…` hold the same stems, in sub-folders if wanted (`images/train/a.jpg`, `masks/train/a.png`); an
id is the stem (`train/a`). Masks are PNGs of class indices, 255 = ignore, with one channel, a palette or equal
channels; or of colours, if the file of the classes names them. An image without a mask is unlabeled.

Other names for the two folders are understood, VOC's among them (`JPEGImages`, `SegmentationClass`), and so is an
ending that all masks add to the names of their images (`a_mask.png`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from des4.datasets.class_files import CLASS_FILES, find_classes, read_classes
from des4.datasets.files import (
    Catalogue,
    FileDataset,
    FilesConfig,
    Mask,
    existing_root,
    if_file,
    numbered_classes,
    scan,
    spread,
    stem_of,
)
from des4.datasets.lists import read_list
from des4.datasets.masks import MAX_CLASSES, MAX_NUMBER, IndexMask, TableMask, table_of_colours, table_of_numbers
from des4.datasets.palettes import Palette
from des4.datasets.walk import is_hidden, walk
from des4.images.pictures import IMAGE_SUFFIXES
from des4.types import IGNORE, DataError

_IMAGES = ("images", "imgs", "image", "img", "JPEGImages", "img_dir")
MASK_FOLDERS = (
    "masks",
    "mask",
    "SegmentationClass",
    "SegmentationClassPNG",
    "labels",
    "label",
    "annotations",
    "ann_dir",
)
"""Names of the two folders, the project's own first."""


class FolderConfig(FilesConfig):
    """A data folder."""

    name: Literal["folder"] = "folder"
    images: Path | None = None
    """Folder of the images; `null`: `images` in the root, else another usual name."""
    masks: Path | None = None
    """Folder of the masks; `null`: `masks` in the root, else another usual name."""
    mask_suffix: str | None = None
    """What the names of masks add to those of their images, such as `_mask`; `null`: what all of them add, if they
    do."""
    classes: Path | None = None
    """File of class names, one a line, with their colours if masks are in colours; `null`: `classes.txt` in the root if
    there, else another usual name."""
    num_classes: int | None = Field(default=None, ge=2, le=IGNORE)
    """Needed only without class names; `null`: the largest label of the labeled and val masks + 1."""
    values: tuple[int, ...] | None = None
    """The numbers in the masks that stand for the classes, in their order: `0,255` or `1-150`; `null`: 0, 1, 2, …"""
    ignore: tuple[int | str, ...] = ()
    """Numbers in the masks, or names of classes, that are read as 255: nobody is taught them, nobody scores them."""

    @field_validator("values", "ignore", mode="before")
    @classmethod
    def _spread(cls, given: Any) -> Any:
        return spread(given)

    @field_validator("values")
    @classmethod
    def _are_numbers(cls, values: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if values is not None and not (1 < len(values) <= MAX_CLASSES and all(0 <= v <= MAX_NUMBER for v in values)):
            raise ValueError(f"write 2 to {MAX_CLASSES} numbers of 0-{MAX_NUMBER}, such as 0,255")
        if values is not None and len(set(values)) < len(values):
            raise ValueError("write every number once")
        return values

    @field_validator("ignore")
    @classmethod
    def _can_be_in_masks(cls, ignore: tuple[int | str, ...]) -> tuple[int | str, ...]:
        if any(isinstance(one, int) and not 0 <= one <= MAX_NUMBER for one in ignore):
            raise ValueError(f"write numbers of 0-{MAX_NUMBER}, or names of classes")
        return ignore


class Folder(FileDataset):
    """The data set of a FolderConfig. Raises DataError as FileDataset does, and for a class list that does not fit."""

    Config = FolderConfig

    def __init__(self, config: FolderConfig) -> None:
        root = existing_root(config, "images/ and masks/")
        folders = _folder(config.images, root, _IMAGES), _folder(config.masks, root, MASK_FOLDERS, ".png")
        images = scan(folders[0])
        stems = scan(folders[1], strip=config.mask_suffix or "")
        suffix = _common_suffix(images, stems) if config.mask_suffix is None else config.mask_suffix
        if config.mask_suffix is None and suffix:
            stems = {stem.removesuffix(suffix): path for stem, path in stems.items()}
        if not stems:
            _refuse_other_formats(root)
        meaning = _meaning(config)
        catalogue = Catalogue(
            images=images,
            masks={stem: meaning.mask(path) for stem, path in stems.items()},
            classes=meaning.classes,
            palette=meaning.palette,
            identify=partial(_identify, folder=folders[0].name),
            mask_at=meaning.mask,
            no_images=Catalogue.no_images if images else _no_images(config, folders[0]),
            no_masks=Catalogue.no_masks if stems else _no_masks(config, folders[1]),
            **_subsets(root, images, stems),
        )
        super().__init__(config, catalogue)
        self.notes += tuple(_notes(root, folders, suffix, meaning))

    @staticmethod
    def recognises(root: Path) -> bool:
        """Whether `root` is laid out like this."""
        return any((root / name).is_dir() for name in _IMAGES)


@dataclass(frozen=True)
class _Meaning:
    """What masks hold. mask: opens one. palette: the colours that masks may have. source: the file that says so."""

    classes: tuple[str, ...] | None
    mask: Callable[[Path], Mask]
    palette: Palette | None = None
    source: Path | None = None


def _folder(given: Path | None, root: Path, names: tuple[str, ...], suffix: str = "") -> Path:
    """Find the folder of images or masks. suffix: of a file that it has to hold, unless it has the project's own name.

    Raises DataError if two could be it.
    """
    if given is not None:
        if not given.is_dir():
            raise DataError(f"{given}: no such folder; mend data.images or data.masks")
        return given
    own = root / names[0]
    if own.is_dir():
        return own
    there = {path.name for path in root.iterdir()}  # by name, since a disk may not tell Images from images
    found = [root / name for name in names if name in there and (root / name).is_dir()]
    if suffix:
        found = [folder for folder in found if scan(folder, {suffix})]
    if len(found) > 1:
        raise DataError(f"{root}: {found[0].name}/ and {found[1].name}/ could both be meant; say data.images=FOLDER or "
                        "data.masks=FOLDER")  # fmt: skip
    return found[0] if found else own


def _refuse_other_formats(root: Path) -> None:
    """Raise DataError for a folder without masks that is annotated in a format that has to be imported."""
    instead = f"or put PNGs of class indices into {root / 'masks'}"
    if (root / "annotations.xml").is_file():
        raise DataError(f"{root / 'annotations.xml'}: 'CVAT for images' has to be imported: des4 data import {root}; "
                        f"{instead}")  # fmt: skip
    if (root / "labels").is_dir() and scan(root / "labels", {".txt"}):
        raise DataError(f"{root / 'labels'}: YOLO's text files need a data.yaml beside it, with names: of classes and "
                        f"train: FOLDER, to be imported; {instead}")  # fmt: skip


def _no_images(config: FolderConfig, folder: Path) -> str:
    """Say where images lie instead of in their folder, and what to do."""
    if config.images is not None:
        return f"{folder} holds no images; mend data.images"
    root = config.root
    own = sum(path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(path.name) for path in root.iterdir())
    if own:
        return (
            f"its {own} image files lie in the folder itself, none in images/; put images into images/ and masks into "
            "masks/, for validation into images/val/ and masks/val/, or list pairs of paths"
        )
    parts = sorted(path for path in root.glob("*/*") if path.name in _IMAGES and path.is_dir())
    if parts:
        there = [f"{path.parent.name}/{path.name}/" for path in parts]
        splits = [f"{path.parent.name}/" for path in parts]
        return (
            f"its images lie in {_some(there)}; make these {_some(f'images/{split}' for split in splits)} and their "
            f"masks {_some(f'masks/{split}' for split in splits)}"
        )
    return "holds no images; put them in images/, or say data.images=FOLDER and data.masks=FOLDER"


def _no_masks(config: FolderConfig, folder: Path) -> str:
    """Say why the files in the folder of the masks are none, and what to do."""
    none = "no image has a mask for training"
    if config.mask_suffix and (others := scan(folder)):
        first = next(iter(others.values())).name
        ends = f"no mask's name ends in '{config.mask_suffix}', the first is {first}"
        return f"{none}: {ends}; mend data.mask_suffix, or leave it out"
    for kind, count in Counter(Path(name).suffix for _, _, names in walk(folder) for name in names).most_common(1):
        held = f"{folder.name}/ holds {count} {kind or 'other'} file{'s' * (count > 1)}, which no reader knows"
        return f"{none}: {held}; save masks as PNGs of class indices"
    return Catalogue.no_masks


def _some(names: Iterable[str]) -> str:
    """Write the first three of some names."""
    first = [*names]
    return ", ".join([*first[:3], *(["…"] if first[3:] else [])])


def _identify(name: str, folder: str) -> str:
    return stem_of(name).removeprefix(f"{folder}/")


def _common_suffix(images: Mapping[str, Path], masks: Collection[str]) -> str:
    """Return what all masks add to the names of images, '' if it is nothing, or not the same for all."""
    if not masks or not images or any(stem in images for stem in masks):
        return ""
    first = min(masks)
    added = sorted({first[len(stem) :] for stem in images if first.startswith(stem)}, key=len)
    return next(
        (end for end in added if all(stem.endswith(end) and stem.removesuffix(end) in images for stem in masks)), ""
    )


def _subsets(root: Path, images: Collection[str], masks: Collection[str]) -> dict[str, list[str]]:
    """Return what lists in VOC's place (ImageSets/Segmentation) say of who is who; nothing without them."""
    lists = root / "ImageSets" / "Segmentation"
    subsets = {
        name: {stem_of(line).rpartition("JPEGImages/")[2] for line, _ in read_list(path)}
        for name in ("train", "val", "test")
        if (path := if_file(lists / f"{name}.txt")) and path.stat().st_size
    }
    if not subsets:
        return {}
    kept_out = subsets.get("val", set()) | subsets.get("test", set())
    return {
        "val": sorted(subsets.get("val", set()) & set(masks)),
        "labeled": sorted(subsets.get("train", set(masks)) & set(masks) - kept_out),
        "unlabeled": sorted(set(images) - kept_out),
    }


def _meaning(config: FolderConfig) -> _Meaning:
    """Find out what is in the masks. Raises DataError where names, numbers and colours do not fit together."""
    found = read_classes(config.classes) if config.classes else find_classes(config.root)
    if found is None:
        return _numbered(config)
    names, values = found.names, config.values or found.numbers
    if config.num_classes not in (None, len(names)) or (values and len(values) != len(names)):
        wanted = config.num_classes if config.num_classes not in (None, len(names)) else len(values or ())
        raise DataError(f"{found.path}: names {len(names)} classes, expected {wanted}; mend the list, num_classes or "
                        "data.values")  # fmt: skip
    if unknown := [name for name in config.ignore if isinstance(name, str) and name not in names]:
        raise DataError(
            f"{found.path}: has no class '{unknown[0]}', which data.ignore names; it has {', '.join(names)}"
        )
    classes = tuple(name for name in names if name not in config.ignore)
    if len(classes) < 2 <= len(names):
        raise DataError(
            f"{found.path}: data.ignore leaves {len(classes)} of its {len(names)} classes, and two or more are needed; "
            "ignore fewer"
        )
    if not 2 <= len(classes) <= IGNORE:
        raise DataError(
            f"{found.path}: names {len(classes)} classes, expected 2..{IGNORE}; mend the list or num_classes"
        )
    index = {name: classes.index(name) if name in classes else IGNORE for name in names}
    numbers = _numbers(config, dict(zip(values or range(len(names)), (index[name] for name in names), strict=True)))
    if values is None and len(classes) == len(names) and not config.ignore:
        numbers = {}
    table = table_of_numbers(numbers) if numbers else None
    if found.colours is None:
        return _Meaning(classes, partial(IndexMask, table=table), source=found.path)
    if len(classes) > MAX_CLASSES:
        raise DataError(f"{found.path}: gives colours to {len(classes)} classes, of which {MAX_CLASSES} can be told "
                        "apart; use masks of class indices")  # fmt: skip
    colour_of = dict(zip(names, found.colours, strict=True))
    if all(red == green == blue for red, green, blue in colour_of.values()):
        table = table_of_numbers({IGNORE: IGNORE} | {colour[0]: index[name] for name, colour in colour_of.items()})
    colours = table_of_colours({colour: index[name] for name, colour in colour_of.items()})
    return _Meaning(
        classes,
        partial(TableMask, colours=colours, numbers=table),
        tuple(colour_of[name] for name in classes),
        found.path,
    )


def _numbered(config: FolderConfig) -> _Meaning:
    """Read masks of numbers whose classes have no names. Raises DataError."""
    if names := [name for name in config.ignore if isinstance(name, str)]:
        raise DataError(
            f"{config.root}: data.ignore names '{names[0]}', but no file names the classes; add classes.txt"
        )
    if config.values is not None:
        count = len(config.values)
        if config.num_classes not in (None, count):
            raise DataError(f"{config.root}: data.values has {count} numbers, data.num_classes is {config.num_classes}")
        table = table_of_numbers(_numbers(config, dict(zip(config.values, range(count), strict=True))))
        return _Meaning(numbered_classes(count), partial(IndexMask, table=table))
    if config.ignore:
        raise DataError(f"{config.root}: data.ignore needs data.values or a classes.txt beside it, so that the other "
                        "numbers keep their meaning; say e.g. data.values=1-20")  # fmt: skip
    return _Meaning(numbered_classes(config.num_classes) if config.num_classes else None, IndexMask)


def _numbers(config: FolderConfig, index: Mapping[int, int]) -> dict[int, int]:
    """Return what the numbers in masks mean: those of the classes, those ignored, and 255 unless it is a class."""
    return {IGNORE: IGNORE} | dict(index) | {number: IGNORE for number in config.ignore if isinstance(number, int)}


def _notes(root: Path, folders: tuple[Path, Path], suffix: str, meaning: _Meaning) -> list[str]:
    """Say what was found out beyond the usual names."""
    notes = []
    if [folder.name for folder in folders] != [_IMAGES[0], MASK_FOLDERS[0]]:
        notes.append(f"folders: images are in {folders[0].name}/, masks in {folders[1].name}/")
    if suffix:
        notes.append(f"masks: named as their images, with '{suffix}' at the end")
    if meaning.source and meaning.palette:
        notes.append(f"classes: named by {meaning.source.name}, and masks in colour are read by its colours")
    elif meaning.source and meaning.source.name != CLASS_FILES[0]:
        notes.append(f"classes: named by {meaning.source.name}")
    return notes
