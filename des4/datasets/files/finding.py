"""Files of a data folder, and their ids: stems of paths, spelled in one way."""

from __future__ import annotations

import os
import posixpath
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from des4.datasets.faults import stepping_over
from des4.datasets.files.config import FilesConfig
from des4.datasets.walk import walk
from des4.images.pictures import IMAGE_SUFFIXES
from des4.types import DataError


def existing_root(config: FilesConfig, holds: str, folders: Iterable[str] = ()) -> Path:
    """Return the data folder. Raises DataError if it is not there, or one of `folders` is not in it.

    holds: what it should hold, for the message.
    """
    for folder in (config.root, *(config.root / name for name in folders)):
        if not os.path.isdir(folder):  # noqa: PTH112  # Path.is_dir raises where a name is too long or nobody may look
            here = "" if folder.is_absolute() else f" (a relative path counts from {Path.cwd()})"
            raise DataError(f"{folder}: no such data folder; give data=FOLDER, the folder that holds {holds}{here}")
    return config.root


def scan(folder: Path, suffixes: Iterable[str] = IMAGE_SUFFIXES, *, strip: str = "") -> dict[str, Path]:
    """Map the stem of each file under `folder` with one of these suffixes, in lower case, to its path, sorted by stem.

    strip: an ending of the stem that names the kind of file, not the sample (`_leftImg8bit`); files without it are left
    out. Hidden files are left out as well, and linked folders count once (`des4.datasets.walk`). Raises DataError if
    two files share a stem, or a name cannot be written.
    """
    found: dict[str, Path] = {}
    for place, inner, names in walk(folder):
        for name in names:  # by strings: a Path of each name takes ten times as long
            stem, dot, suffix = name.rpartition(".")
            if dot + suffix.lower() not in suffixes or not stem.endswith(strip):
                continue
            path = place / name
            stem = composed("/".join((*inner, stem.removesuffix(strip))))
            if not is_writable(stem):
                with stepping_over("unwritable-name"):
                    raise DataError(
                        f"{as_text(path)}: the name is no text in UTF-8 on one line, so no list and no report can "
                        "hold it; rename the file or its folder"
                    )
                continue
            if stem in found:
                with stepping_over("same-stem"):
                    raise DataError(f"{path}: has the same stem as {found[stem].name}; rename or remove one of the two")
            found.setdefault(stem, path)
    return dict(sorted(found.items()))


def is_writable(name: str) -> bool:
    """Whether a name can be written into a text: not the bytes of another encoding, not several lines."""
    if name.isprintable():
        return True
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return len(name.splitlines()) == 1


def as_text(path: Path) -> str:
    """Write a path so that any text can hold it: a byte that is no character as its number."""
    return os.fsencode(path).decode(errors="backslashreplace")


def composed(name: str) -> str:
    """Write accents in one spelling (NFC): macOS and zip files take the other, annotation tools this one."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def stem_of(name: str) -> str:
    """Drop an image suffix from a listed path: 'train/a.jpg' and 'train/a' name the same sample."""
    path = posixpath.normpath(composed(name))
    stem, dot, suffix = path.rpartition(".")
    return stem if dot + suffix.lower() in IMAGE_SUFFIXES else path


def if_file(path: Path) -> Path | None:
    """Return the path if a file is there."""
    return path if path.is_file() else None
