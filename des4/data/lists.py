"""Lists of samples, and the hash by which a result names the list it was made with.

A list is a UTF-8 text file with one sample a line: a stem (`train/a`) or an `image mask` pair of paths relative to the
data root (`JPEGImages/a.jpg SegmentationClass/a.png`; a tab may separate paths that hold spaces). The list need not end
with a newline.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from des4.data.faults import stepping_over
from des4.data.ids import SortedIds
from des4.data.images import IMAGE_SUFFIXES
from des4.types import DataError

Entry = tuple[str, str | None]
"""A line of a list: the stem or image path, and the mask path if the line is a pair."""


def read_list(path: Path) -> tuple[Entry, ...]:
    """Read a list in its own order; blank lines are skipped. Raises DataError if unreadable, empty or repetitive."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: the list cannot be read ({error}); give a UTF-8 text file, one sample a line"
        ) from error
    lines = [line for line in lines if line]
    if not lines:
        raise DataError(f"{path}: the list is empty; write one stem or `image mask` pair a line, or remove the file")
    with stepping_over("repeated-line"):
        refuse_repeats(path, lines)
    return tuple(_split(line) for line in lines)


def refuse_repeats(path: Path, names: Sequence[str]) -> None:
    """Raise DataError if a name stands twice in the list at `path`."""
    for name, count in Counter(names).most_common(1):
        if count > 1:
            raise DataError(f"{path}: '{name}' is listed twice; keep one of the lines")


def _split(line: str) -> Entry:
    """Only a second part that ends in .png makes a pair, so that a stem may hold spaces."""
    parts = line.split("\t") if "\t" in line else line.rsplit(maxsplit=1)
    if len(parts) == 2 and parts[1].lower().endswith(".png"):
        return parts[0].strip(), parts[1].strip()
    return line, None


def sample_name(name: str) -> str:
    """Name a sample apart from where its file lies: published lists of the same images then agree, whatever their form.

    It is the last part of the path, without an image suffix and without Cityscapes' `_leftImg8bit`.
    """
    last = name.rpartition("/")[2]
    stem, dot, suffix = last.rpartition(".")
    return (stem if dot + suffix.lower() in IMAGE_SUFFIXES else last).removesuffix("_leftImg8bit")


def content_hash(ids: Iterable[str]) -> str:
    """SHA-256 (hex) of the sorted ids, one a line; a list's order does not count, as training permutes the ids."""
    digest = hashlib.sha256()
    for sample_id in ids if isinstance(ids, SortedIds) else sorted(ids):
        digest.update(f"{sample_id}\n".encode())
    return digest.hexdigest()
