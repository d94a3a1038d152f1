"""A folder of images and masks: the format users bring.

`images/…` and `masks/…` hold the same stems, in sub-folders if wanted (`images/train/a.jpg`, `masks/train/a.png`); an
id is the stem (`train/a`). Masks are single-channel or palette PNGs of class indices, 255 = ignore. An image without a
mask is unlabelled, and the mask of an unlabelled image is never opened. Nothing is written into the folder.

Who is who, in this order:
- val: the list; else the images with a mask under a sub-folder `val/`; else a drawn share of the labelled.
- labelled: the list; else every image with a mask that is not val and not on the unlabelled list.
- unlabelled: the list; else every image that is neither labelled nor val.
Lists come from the config, else from `labeled.txt`, `unlabeled.txt`, `val.txt` in the root.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import Field
from torch import Tensor

from des4.data.images import IMAGE_SUFFIXES, check_mask_format, read_header, read_image, read_mask
from des4.data.lists import Entry, read_list, refuse_repeats
from des4.types import IGNORE, Config, DataError


class FolderConfig(Config):
    """A data folder. Relative paths are relative to the working directory."""

    name: Literal["folder"] = "folder"
    root: Path
    labeled: Path | None = None
    unlabeled: Path | None = None
    val: Path | None = None
    classes: Path | None = None
    """One class name a line; default `classes.txt` in the root, if it is there."""
    num_classes: int | None = Field(default=None, ge=2, le=IGNORE)
    """Needed only without class names; default: the largest label of the labelled and val masks + 1."""
    val_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of the labelled images kept for validation where neither a val list nor `images/val/` exists."""
    val_seed: int = 0
    """Seed of that draw. It is apart from the training seed, so that runs with several seeds share one val set."""


class Folder:
    """The data set of a FolderConfig.

    notes: what was decided beyond the files, one sentence each: a drawn val set, counted classes.
    Raises DataError if a listed image or mask is missing, or a val image is a training image as well.
    """

    Config = FolderConfig

    def __init__(self, config: FolderConfig) -> None:
        self.root = config.root
        self.notes: tuple[str, ...] = ()
        if not config.root.is_dir():
            raise DataError(f"{config.root}: no such data folder; give the folder that holds images/ and masks/")
        self._images = _scan(config.root / "images", IMAGE_SUFFIXES)
        masks = _scan(config.root / "masks", IMAGE_SUFFIXES)
        self._masks = self._split(config, masks)
        self.classes = self._class_names(config)
        self.palette = voc_palette(len(self.classes))

    def image(self, sample_id: str) -> Tensor:
        """Read an image upright, (3, H, W) uint8 RGB. Raises DataError."""
        if sample_id not in self._images:
            raise DataError(f"{self.root}: has no image '{sample_id}'")
        return read_image(self._images[sample_id])

    def label(self, sample_id: str) -> Tensor:
        """Read the mask of a labelled or val image, (H, W) uint8 with classes 0..C-1 and IGNORE. Raises DataError."""
        self._check(sample_id)
        path = self._masks[sample_id]
        label = read_mask(path)
        wrong = label[(label >= len(self.classes)) & (label != IGNORE)]
        if wrong.numel():
            raise DataError(
                f"{path}: label {int(wrong[0])} is neither one of the {len(self.classes)} classes "
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
        path, mask_path = self._images[sample_id], self._masks[sample_id]
        image, mask = read_header(path), read_header(mask_path)
        check_mask_format(mask_path, mask)
        if image.rotated:
            raise DataError(
                f"{path}: EXIF asks for a rotation, and its mask cannot say whether it follows; "
                "save the image upright, without the tag"
            )
        if image.size != mask.size:
            raise DataError(
                f"{mask_path}: is {mask.size[1]}×{mask.size[0]} pixels, its image {path.name} is "
                f"{image.size[1]}×{image.size[0]}; export the mask at the image's size"
            )

    def _split(self, config: FolderConfig, masks: Mapping[str, Path]) -> dict[str, Path]:
        """Set `labelled`, `unlabelled`, `val`; return the only masks ever opened."""
        lists = {
            "labeled": config.labeled or _if_file(config.root / "labeled.txt"),
            "unlabeled": config.unlabeled or _if_file(config.root / "unlabeled.txt"),
            "val": config.val or _if_file(config.root / "val.txt"),
        }
        known: dict[str, Path] = {}

        def listed(name: str) -> list[str] | None:
            path = lists[name]
            if path is None:
                return None
            ids = []
            for entry in read_list(path):
                sample_id, mask = self._locate(path, entry, masks)
                if name != "unlabeled":
                    if mask is None or not mask.is_file():
                        raise DataError(
                            f"{path}: '{sample_id}' has no mask {mask or config.root / 'masks' / f'{sample_id}.png'}; "
                            "add the mask, move the line to the unlabelled list, or write an `image mask` pair"
                        )
                    known[sample_id] = mask
                ids.append(sample_id)
            refuse_repeats(path, ids)
            return ids

        labelled, unlabelled, val = listed("labeled"), listed("unlabeled"), listed("val")
        if not self._images:
            raise DataError(
                f"{config.root}: holds no images; put them in {config.root / 'images'}, or list pairs of paths"
            )
        if labelled is None:
            self._check_names(masks)
        with_mask = [sample_id for sample_id in sorted(self._images) if sample_id in masks]
        if val is None:
            val = [sample_id for sample_id in with_mask if "val" in PurePosixPath(sample_id).parts[:-1]]
        if labelled is None:
            labelled = sorted(set(with_mask) - set(val) - set(unlabelled or ()))
        if not labelled:
            raise DataError(
                f"{config.root}: no image has a mask for training; put masks in masks/, named as their images"
            )
        known.update({sample_id: masks[sample_id] for sample_id in (*labelled, *val) if sample_id not in known})
        if not val:
            labelled, val = self._draw_val(labelled, config)
        if unlabelled is None:
            unlabelled = sorted(set(self._images) - set(labelled) - set(val))
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

    def _locate(self, path: Path, entry: Entry, masks: Mapping[str, Path]) -> tuple[str, Path | None]:
        """Find the id and mask of a list's line; an image outside images/ is added under its path's stem."""
        name, mask = entry
        sample_id = name if name in self._images else _stem(name)
        if sample_id not in self._images:
            if not (self.root / name).is_file():
                raise DataError(f"{path}: no image '{name}' under {self.root}; mend the line or add the image")
            self._images[sample_id] = self.root / name
        if mask is None:
            return sample_id, masks.get(sample_id)
        return sample_id, self.root / mask

    def _check_names(self, masks: Mapping[str, Path]) -> None:
        """Without a labelled list, names alone say who is labelled; then a mask that no image claims is a mistake."""
        if orphans := sorted(set(masks) - set(self._images)):
            raise DataError(
                f"{masks[orphans[0]]}: no image {self.root / 'images' / orphans[0]}.* belongs to this mask "
                f"({len(orphans)} such masks); image and mask must have the same stem"
            )

    def _draw_val(self, labelled: list[str], config: FolderConfig) -> tuple[list[str], list[str]]:
        if len(labelled) < 2:
            raise DataError(f"{config.root}: one labelled image cannot serve training and validation; add a val list")
        count = min(len(labelled) - 1, max(1, round(config.val_fraction * len(labelled))))
        val = set(random.Random(f"val/{config.val_seed}").sample(sorted(labelled), count))
        self.notes += (f"val: {count} of the {len(labelled)} labelled images, drawn with val_seed={config.val_seed}",)
        return [sample_id for sample_id in labelled if sample_id not in val], sorted(val)

    def _class_names(self, config: FolderConfig) -> tuple[str, ...]:
        if path := config.classes or _if_file(config.root / "classes.txt"):
            names = tuple(name for name, _ in read_list(path))
            if not 2 <= len(names) <= IGNORE or config.num_classes not in (None, len(names)):
                wanted = config.num_classes or f"2..{IGNORE}"
                raise DataError(f"{path}: names {len(names)} classes, expected {wanted}; mend the list or num_classes")
            return names
        count = config.num_classes
        if count is None:
            count = 1 + max(_largest_label(self._masks[sample_id]) for sample_id in (*self.labelled, *self.val))
            if count < 2:
                raise DataError(
                    f"{config.root}: the masks hold no class but 0 ({IGNORE} = ignore); number classes 0, 1, …"
                )
            self.notes += (f"classes: {count}, counted in the labelled and val masks; name them in classes.txt",)
        return tuple(f"class_{c}" for c in range(count))


def voc_palette(num_classes: int) -> tuple[tuple[int, int, int], ...]:
    """Colours of the PASCAL VOC masks for classes 0..C-1: the bits of the index, spread over red, green and blue."""

    def colour(index: int) -> tuple[int, int, int]:
        red, green, blue = (sum((index >> (3 * k + c) & 1) << (7 - k) for k in range(3)) for c in range(3))
        return red, green, blue

    return tuple(colour(index) for index in range(num_classes))


def _scan(folder: Path, suffixes: Iterable[str]) -> dict[str, Path]:
    """Map the stem of each image file under `folder`, to its path. Raises DataError if two files share a stem."""
    found: dict[str, Path] = {}
    for place, _, names in os.walk(folder, followlinks=True):  # Path.rglob would not enter linked sub-folders
        for name in names:
            path = Path(place, name)
            if path.suffix.lower() not in suffixes or name.startswith("."):
                continue
            stem = path.relative_to(folder).with_suffix("").as_posix()
            if stem in found:
                raise DataError(f"{path}: has the same stem as {found[stem].name}; rename or remove one of the two")
            found[stem] = path
    return dict(sorted(found.items()))


def _stem(name: str) -> str:
    """Turn a listed path into an id: 'images/train/a.jpg' and 'train/a.jpg' into 'train/a'."""
    path = PurePosixPath(name)
    path = path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path
    return path.as_posix().removeprefix("images/")


def _if_file(path: Path) -> Path | None:
    return path if path.is_file() else None


def _largest_label(path: Path) -> int:
    label = read_mask(path)
    kept = label[label != IGNORE]
    return int(kept.max()) if kept.numel() else 0
