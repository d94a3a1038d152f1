"""A folder of images and masks: the format users bring.

`images/…` and `masks/…` hold the same stems, in sub-folders if wanted (`images/train/a.jpg`, `masks/train/a.png`); an
id is the stem (`train/a`). Masks are single-channel or palette PNGs of class indices, 255 = ignore. An image without a
mask is unlabelled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from des4.data.formats.files import (
    Catalogue,
    FileDataset,
    FilesConfig,
    existing_root,
    if_file,
    numbered_classes,
    scan,
    stem_of,
)
from des4.data.formats.masks import IndexMask
from des4.data.lists import read_list
from des4.types import IGNORE, DataError


class FolderConfig(FilesConfig):
    """A data folder."""

    name: Literal["folder"] = "folder"
    classes: Path | None = None
    """One class name a line; default `classes.txt` in the root, if it is there."""
    num_classes: int | None = Field(default=None, ge=2, le=IGNORE)
    """Needed only without class names; default: the largest label of the labelled and val masks + 1."""


class Folder(FileDataset):
    """The data set of a FolderConfig. Raises DataError as FileDataset does, and for a class list that does not fit."""

    Config = FolderConfig

    def __init__(self, config: FolderConfig) -> None:
        root = existing_root(config, "images/ and masks/")
        catalogue = Catalogue(
            images=scan(root / "images"),
            masks={stem: IndexMask(path) for stem, path in scan(root / "masks").items()},
            classes=_class_names(config),
            identify=_identify,
            mask_at=IndexMask,
        )
        super().__init__(config, catalogue)

    @staticmethod
    def recognises(root: Path) -> bool:
        """Whether `root` is laid out like this."""
        return (root / "images").is_dir()


def _identify(name: str) -> str:
    return stem_of(name).removeprefix("images/")


def _class_names(config: FolderConfig) -> tuple[str, ...] | None:
    path = config.classes or if_file(config.root / "classes.txt")
    if path is None:
        return numbered_classes(config.num_classes) if config.num_classes else None
    names = tuple(name for name, _ in read_list(path))
    if not 2 <= len(names) <= IGNORE or config.num_classes not in (None, len(names)):
        wanted = config.num_classes or f"2..{IGNORE}"
        raise DataError(f"{path}: names {len(names)} classes, expected {wanted}; mend the list or num_classes")
    return names
