"""Walking over the folders of a data set: what is hidden is no data, and what is linked counts once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from des4.datasets.faults import stepping_over
from des4.types import DataError

_NOT_DATA = frozenset(
    {"$recycle.bin", "#recycle", "#snapshot", "@eadir", "__macosx", "__pycache__", "lost+found"}
    | {"system volume information"}
)
"""Folders that programs and disks make for themselves, in lower case; all others have a name that begins with a dot."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is none of the user's: `.ipynb_checkpoints`, `@eaDir`, `._a.jpg`."""
    return name.startswith(".") or name.lower() in _NOT_DATA


def walk(folder: Path) -> Iterator[tuple[Path, tuple[str, ...], list[str]]]:
    """Yield each folder under `folder` and itself: its path, its path's parts below `folder`, its sorted file names.

    Hidden files and folders are left out. Linked folders are entered after the others, and none a second time: a folder
    that is reached in two ways counts under its own name. A link to a folder above is not followed. Raises DataError
    where a folder cannot be looked into; yields nothing where `folder` is none.
    """
    own = Path(os.path.realpath(folder))
    seen: set[tuple[int, int]] = set()
    links: list[tuple[Path, tuple[str, ...]]] = [(folder, ())]
    while links:
        start, inner = links.pop(0)
        if inner and own.is_relative_to(os.path.realpath(start)):
            continue
        folders = [(start, inner)]
        while folders:
            place, inner = folders.pop()
            entered, linked, names = _entries(place, seen)
            links += [(place / name, (*inner, name)) for name in linked]
            folders += [(place / name, (*inner, name)) for name in reversed(entered)]
            yield place, inner, names


def _entries(place: Path, seen: set[tuple[int, int]]) -> tuple[list[str], list[str], list[str]]:
    """Return the sorted names of the folders, linked folders and files in a folder; none if it was seen before."""
    folders: list[str] = []
    linked: list[str] = []
    files: list[str] = []
    try:
        state = os.stat(place)  # noqa: PTH116  # a million folders, and a Path's takes twice as long
        if (identity := (state.st_dev, state.st_ino)) not in seen:
            seen.add(identity)
            with os.scandir(place) as entries:
                for entry in entries:
                    if not is_hidden(entry.name):
                        kind = files if not entry.is_dir() else linked if entry.is_symlink() else folders
                        kind.append(entry.name)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        with stepping_over("missing-file"):
            raise DataError(
                f"{place}: the folder cannot be looked into ({error.strerror}); make it readable, or move it elsewhere"
            ) from error
    return sorted(folders), sorted(linked), sorted(files)
