"""Data sets in files: what all formats share once a reader has found the images and the masks.

A reader (one file a format: `folder`, `voc`, …) turns a layout into a `Catalogue`, the one internal form.
`FileDataset` says from it who is labelled, unlabelled and val, and reads the pixels. Nothing is written into the data.

Who is who, in this order:
- val: the list; else the format's own; else the images with a mask under a sub-folder `val/`; else a drawn share of
  the labelled.
- labelled: the list; else the format's own; else every image with a mask that is neither val nor on the unlabelled
  list.
- unlabelled: the list; else every image (or every image the format says is for training) that is neither.
Lists come from the config, else from `labeled.txt`, `unlabeled.txt`, `val.txt` in the root. The mask of an unlabelled
image is never opened.
"""

from __future__ import annotations

import os
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar, Protocol

from pydantic import Field
from torch import Tensor

from des4.data.images import IMAGE_SUFFIXES, read_header, read_image
from des4.data.lists import Entry, read_list, refuse_repeats
from des4.types import IGNORE, Config, DataError

Palette = tuple[tuple[int, int, int], ...]


class FilesConfig(Config):
    """What every data set in files can be told. Relative paths are relative to the working directory."""

    root: Path
    labeled: Path | None = None
    unlabeled: Path | None = None
    val: Path | None = None
    val_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of the labelled images kept for validation where nothing names a val set."""
    val_seed: int = 0
    """Seed of that draw. It is apart from the training seed, so that runs with several seeds share one val set."""


class Mask(Protocol):
    """Where a label comes from: a PNG of indices or of colours, or shapes. Nothing is opened before it is asked."""

    @property
    def path(self) -> Path:
        """The file that holds it, for messages."""

    def size(self) -> tuple[int, int]:
        """Return (height, width) without decoding. Raises DataError if the file cannot be a mask of this format."""

    def read(self) -> Tensor:
        """Read it, (H, W) uint8 of class indices and IGNORE. Raises DataError."""


@dataclass(frozen=True)
class Catalogue:
    """What a reader finds in a data set.

    images: file of each id. masks: of each id that has one.
    classes: names; None: counted in the masks of the labelled and val images, and called class_0, class_1, …
    palette: colours of the classes; None: those of PASCAL VOC.
    labelled, unlabelled, val: ids by the format's own convention, None where it has none.
    identify: turns a listed name that is no id into the id it means.
    mask_at: opens the mask file of an `image mask` pair; None: the mask is found by the image's id, as all others are.
    """

    images: Mapping[str, Path]
    masks: Mapping[str, Mask]
    classes: tuple[str, ...] | None
    palette: Palette | None = None
    labelled: Sequence[str] | None = None
    unlabelled: Sequence[str] | None = None
    val: Sequence[str] | None = None
    identify: Callable[[str], str] = lambda name: name
    mask_at: Callable[[Path], Mask] | None = None


class FileDataset(ABC):
    """The data set of a Catalogue. A format is a subclass: `Config`, `recognises`, and a constructor that reads a tree.

    Config: a FilesConfig with a `name`.
    notes: what was decided beyond the files, one sentence each: a drawn val set, counted classes.
    Raises DataError if a listed image or mask is missing, or a val image is a training image as well.
    """

    Config: ClassVar[type[FilesConfig]]

    def __init__(self, config: FilesConfig, catalogue: Catalogue) -> None:
        self.root = config.root
        self.notes: tuple[str, ...] = ()
        self._images = dict(catalogue.images)
        self._masks = self._split(config, catalogue)
        self.classes = catalogue.classes or self._count_classes()
        self.palette = catalogue.palette or voc_palette(len(self.classes))

    @staticmethod
    @abstractmethod
    def recognises(root: Path) -> bool:
        """Whether `root` is laid out as this format is."""

    def image(self, sample_id: str) -> Tensor:
        """Read an image upright, (3, H, W) uint8 RGB. Raises DataError."""
        if sample_id not in self._images:
            raise DataError(f"{self.root}: has no image '{sample_id}'")
        return read_image(self._images[sample_id])

    def label(self, sample_id: str) -> Tensor:
        """Read the mask of a labelled or val image, (H, W) uint8 with classes 0..C-1 and IGNORE. Raises DataError."""
        self._check(sample_id)
        mask = self._masks[sample_id]
        label = mask.read()
        wrong = label[(label >= len(self.classes)) & (label != IGNORE)]
        if wrong.numel():
            raise DataError(
                f"{mask.path}: label {int(wrong[0])} is neither one of the {len(self.classes)} classes "
                f"(0..{len(self.classes) - 1}) nor {IGNORE} (ignore); mend the mask or the class list"
            )
        return label

    def check_labelled(self) -> None:
        """Read every labelled and val file's header: format, size, rotation. Raises DataError before training does."""
        for sample_id in (*self.labelled, *self.val):
            self._check(sample_id)

    def _check(self, sample_id: str) -> None:
        """Raise DataError unless the sample's mask fits its image, going by their headers."""
        if sample_id not in self._masks:
            raise DataError(
                f"{self.root}: '{sample_id}' is neither a labelled nor a val image, so its mask is not read"
            )
        path, mask = self._images[sample_id], self._masks[sample_id]
        image, size = read_header(path), mask.size()
        if image.rotated:
            raise DataError(
                f"{path}: EXIF asks for a rotation, and its mask cannot say whether it follows; "
                "save the image upright, without the tag"
            )
        if image.size != size:
            raise DataError(
                f"{mask.path}: is {size[1]}×{size[0]} pixels, its image {path.name} is "
                f"{image.size[1]}×{image.size[0]}; export the mask at the image's size"
            )

    def _split(self, config: FilesConfig, catalogue: Catalogue) -> dict[str, Mask]:
        """Set `labelled`, `unlabelled`, `val`; return the only masks ever opened."""
        known: dict[str, Mask] = {}

        def listed(name: str, path: Path | None) -> list[str] | None:
            path = path or if_file(config.root / f"{name}.txt")
            if path is None:
                return None
            ids = []
            for entry in read_list(path):
                sample_id, mask = self._locate(path, entry, catalogue)
                if name != "unlabeled":
                    if mask is None or not mask.path.is_file():
                        raise DataError(
                            f"{path}: '{sample_id}' has no mask {mask.path if mask else f'in {config.root}'}; "
                            "add the mask, move the line to the unlabelled list, or write an `image mask` pair"
                        )
                    known[sample_id] = mask
                ids.append(sample_id)
            refuse_repeats(path, ids)
            return ids

        labelled = listed("labeled", config.labeled)
        unlabelled = listed("unlabeled", config.unlabeled)
        val = listed("val", config.val)
        if not self._images:
            raise DataError(
                f"{config.root}: holds no images; put them in {config.root / 'images'}, or list pairs of paths"
            )
        if labelled is None:
            _refuse_orphans(catalogue)
        with_mask = [sample_id for sample_id in sorted(self._images) if sample_id in catalogue.masks]
        if val is None:
            val = list(catalogue.val or (i for i in with_mask if "val" in PurePosixPath(i).parts[:-1]))
        if labelled is None:
            labelled = sorted(set(catalogue.labelled or with_mask) - set(val) - set(unlabelled or ()))
        if not labelled:
            raise DataError(
                f"{config.root}: no image has a mask for training; put masks in masks/, named as their images"
            )
        for sample_id in (*labelled, *val):
            if sample_id not in known:
                known[sample_id] = self._mask_of(sample_id, catalogue)
        if not val:
            labelled, val = self._draw_val(labelled, config)
        if unlabelled is None:
            unlabelled = sorted(set(catalogue.unlabelled or self._images) - set(labelled) - set(val))
        for side, ids in (("labelled", labelled), ("unlabelled", unlabelled)):
            if both := sorted(set(ids) & set(val)):
                raise DataError(
                    f"{config.root}: '{both[0]}' is both {side} and val ({len(both)} such images); "
                    "a score on training images says nothing: take them off one list"
                )
        self.labelled: Sequence[str] = tuple(labelled)
        self.unlabelled: Sequence[str] = tuple(unlabelled)
        self.val: Sequence[str] = tuple(val)
        return {sample_id: known[sample_id] for sample_id in (*labelled, *val)}

    def _locate(self, path: Path, entry: Entry, catalogue: Catalogue) -> tuple[str, Mask | None]:
        """Find the id and mask of a list's line; an image that the reader did not find gets its path's stem as id."""
        name, mask = entry
        sample_id = name if name in self._images else catalogue.identify(name)
        if sample_id not in self._images:
            if not (self.root / name).is_file():
                raise DataError(f"{path}: no image '{name}' under {self.root}; mend the line or add the image")
            self._images[sample_id] = self.root / name
        if mask is None or catalogue.mask_at is None:
            return sample_id, catalogue.masks.get(sample_id)
        return sample_id, catalogue.mask_at(self.root / mask)

    def _mask_of(self, sample_id: str, catalogue: Catalogue) -> Mask:
        """Return the mask of an image that the format itself names for training or val."""
        for what, found in (("image", self._images), ("mask", catalogue.masks)):
            if sample_id not in found:
                raise DataError(f"{self.root}: '{sample_id}' has no {what}, though the data set lists it; restore it")
        return catalogue.masks[sample_id]

    def _draw_val(self, labelled: list[str], config: FilesConfig) -> tuple[list[str], list[str]]:
        if len(labelled) < 2:
            raise DataError(f"{config.root}: one labelled image cannot serve training and validation; add a val list")
        count = min(len(labelled) - 1, max(1, round(config.val_fraction * len(labelled))))
        val = set(random.Random(f"val/{config.val_seed}").sample(sorted(labelled), count))
        self.notes += (f"val: {count} of the {len(labelled)} labelled images, drawn with val_seed={config.val_seed}",)
        return [sample_id for sample_id in labelled if sample_id not in val], sorted(val)

    def _count_classes(self) -> tuple[str, ...]:
        count = 1 + max(_largest_label(self._masks[sample_id]) for sample_id in (*self.labelled, *self.val))
        if count < 2:
            raise DataError(f"{self.root}: the masks hold no class but 0 ({IGNORE} = ignore); number classes 0, 1, …")
        self.notes += (f"classes: {count}, counted in the labelled and val masks; name them in classes.txt",)
        return numbered_classes(count)


def numbered_classes(count: int) -> tuple[str, ...]:
    """Names for classes that nobody has named."""
    return tuple(f"class_{index}" for index in range(count))


def voc_palette(num_classes: int) -> Palette:
    """Colours of the PASCAL VOC masks for classes 0..C-1: the bits of the index, spread over red, green and blue."""

    def colour(index: int) -> tuple[int, int, int]:
        red, green, blue = (sum((index >> (3 * k + c) & 1) << (7 - k) for k in range(3)) for c in range(3))
        return red, green, blue

    return tuple(colour(index) for index in range(num_classes))


def scan(folder: Path, suffixes: Iterable[str] = IMAGE_SUFFIXES, *, strip: str = "") -> dict[str, Path]:
    """Map the stem of each file under `folder` with one of these suffixes, in lower case, to its path, sorted by stem.

    strip: an ending of the stem that names the kind of file, not the sample (`_leftImg8bit`); files without it are left
    out. Hidden files are left out as well. Raises DataError if two files share a stem.
    """
    found: dict[str, Path] = {}
    for place, _, names in os.walk(folder, followlinks=True):  # Path.rglob would not enter linked sub-folders
        for name in names:
            path = Path(place, name)
            stem = path.relative_to(folder).with_suffix("").as_posix()
            if path.suffix.lower() not in suffixes or name.startswith(".") or not stem.endswith(strip):
                continue
            stem = stem.removesuffix(strip)
            if stem in found:
                raise DataError(f"{path}: has the same stem as {found[stem].name}; rename or remove one of the two")
            found[stem] = path
    return dict(sorted(found.items()))


def stem_of(name: str) -> str:
    """Drop an image suffix from a listed path: 'train/a.jpg' and 'train/a' name the same sample."""
    path = PurePosixPath(name)
    return (path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path).as_posix()


def if_file(path: Path) -> Path | None:
    """Return the path if a file is there."""
    return path if path.is_file() else None


def existing_root(config: FilesConfig, holds: str) -> Path:
    """Return the data folder. holds: what it should hold, for the message. Raises DataError if it is not there."""
    if not config.root.is_dir():
        raise DataError(f"{config.root}: no such data folder; give the folder that holds {holds}")
    return config.root


def _refuse_orphans(catalogue: Catalogue) -> None:
    """Without a labelled list, names alone say who is labelled; then a mask that no image claims is a mistake."""
    if orphans := sorted(set(catalogue.masks) - set(catalogue.images)):
        raise DataError(
            f"{catalogue.masks[orphans[0]].path}: no image belongs to the mask '{orphans[0]}' "
            f"({len(orphans)} such masks); image and mask must have the same stem"
        )


def _largest_label(mask: Mask) -> int:
    label = mask.read()
    kept = label[label != IGNORE]
    return int(kept.max()) if kept.numel() else 0
