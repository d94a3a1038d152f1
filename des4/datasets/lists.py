"""Lists of samples, and the hash by which a result names the list it was made with.

A list is a text file with one sample a line: a stem (`train/a`) or an `image mask` pair of paths relative to the data
root (`JPEGImages/a.jpg SegmentationClass/a.png`). Spaces, a tab or a comma divide a pair; paths that hold spaces are
told apart by their suffixes, and may stand in quotes. It is UTF-8, or UTF-16 with its mark; line ends are anybody's,
and the last line needs none.
"""

from __future__ import annotations

import codecs
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from des4.data.ids import SortedIds
from des4.datasets.faults import stepping_over
from des4.images.pictures import IMAGE_SUFFIXES
from des4.types import DataError

Entry = tuple[str, str | None]
"""A line of a list: the stem or image path, and the mask path if the line is a pair."""


_SUFFIX = "|".join(sorted(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES))
_QUOTED = re.compile(r"""(["'])(.+?)\1(?:\s*[\s,;]\s*(["'])(.+?)\3)?""")
_PAIR = re.compile(rf"(.+?\.(?:{_SUFFIX}))\s*[\s,;]\s*(.+\.png)", re.IGNORECASE)


def read_list(path: Path, is_sample: Callable[[str], bool] = lambda line: False) -> tuple[Entry, ...]:
    """Read a list in its own order; blank lines are skipped. Raises DataError if unreadable, empty or repetitive.

    is_sample: whether a line with spaces or commas, taken as a whole, names a sample; then it is no pair.
    """
    lines = read_lines(path, "one stem or `image mask` pair")
    with stepping_over("repeated-line"):
        refuse_repeats(path, lines)
    return tuple(_split(line, is_sample) for line in lines)


def read_lines(path: Path, holds: str) -> list[str]:
    """Read the lines of a text file that are not blank, in UTF-8 or, if its first bytes say so, UTF-16.

    holds: what a line is, for the message. Raises DataError.
    """
    try:
        data = path.read_bytes()
        wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise DataError(
            f"{path}: the list cannot be read: {reason}; give a text file in UTF-8 with {holds} a line"
        ) from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise DataError(f"{path}: the list is empty; write {holds} a line, or remove the file")
    return lines


def unquoted(line: str) -> str:
    """Return a line without the quotes that may stand around it."""
    return quoted[2] if (quoted := _QUOTED.fullmatch(line)) else line


def refuse_repeats(path: Path, names: Sequence[str]) -> None:
    """Raise DataError if a name stands twice in the list at `path`."""
    for name, count in Counter(names).most_common(1):
        if count > 1:
            raise DataError(f"{path}: '{name}' is listed twice; keep one of the lines")


def _split(line: str, is_sample: Callable[[str], bool]) -> Entry:
    """Only a second part that ends in .png makes a pair, so that a stem may hold spaces."""
    if quoted := _QUOTED.fullmatch(line):
        return quoted[2], quoted[4]
    if not re.search(r"[\s,;]", line) or is_sample(line):
        return line, None
    if pair := _PAIR.fullmatch(line):
        return pair[1], pair[2]
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
