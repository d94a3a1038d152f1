"""Masks in image files: class indices, or numbers and colours that stand for classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from des4.datasets.files import Oddity
from des4.images.pictures import (
    check_colour_mask_format,
    check_mask_format,
    decode_numbers,
    read_bytes,
    read_colours,
    read_header,
    read_mask,
)
from des4.types import DataError

Colour = tuple[int, int, int]
Table = NDArray[np.uint8]
"""What each stored number or 24-bit colour means: a class index, IGNORE, or nothing (_UNKNOWN)."""

_UNKNOWN = 254
MAX_CLASSES = _UNKNOWN
"""How many classes a Table can tell apart."""
MAX_NUMBER = 0xFFFF
"""The largest number that a PNG can hold."""


def table_of_numbers(meanings: Mapping[int, int]) -> Table:
    """Make the table of an IndexMask: (2^16,), from stored number to class index or IGNORE."""
    return _table(MAX_NUMBER + 1, meanings)


def table_of_colours(meanings: Mapping[Colour, int]) -> Table:
    """Make the table of a ColourMask: (2^24,), from colour to class index or IGNORE; 16 MiB, shared by all masks."""
    return _table(1 << 24, {_code(*colour): index for colour, index in meanings.items()})


class _FileMask:
    """A mask in an image file, which holds no regions that could be odd."""

    def oddities(self) -> tuple[Oddity, ...]:
        """Return none."""
        return ()


@dataclass(frozen=True, eq=False)
class IndexMask(_FileMask):
    """A single-channel or palette PNG of class indices, 255 = ignore.

    table: what the stored numbers mean where they are no class indices (`table_of_numbers`).
    """

    path: Path
    table: Table | None = None

    def size(self) -> tuple[int, int]:
        """Return (height, width) from the header. Raises DataError unless the file is such a PNG."""
        header = read_header(self.path)
        check_mask_format(self.path, header)
        return header.size

    def read(self) -> Tensor:
        """Read it, (H, W) uint8. Raises DataError, also for a number that is not in the table."""
        if self.table is None:
            return read_mask(self.path)
        stored = decode_numbers(self.path, read_bytes(self.path))
        return _look_up(self.path, self.table, stored, lambda number: f"number {number}")


@dataclass(frozen=True, eq=False)
class ColourMask(_FileMask):
    """A PNG whose colours stand for classes. table: which colours there are (`table_of_colours`)."""

    path: Path
    table: Table

    def size(self) -> tuple[int, int]:
        """Return (height, width) from the header. Raises DataError unless the file is a PNG in colour."""
        header = read_header(self.path)
        check_colour_mask_format(self.path, header)
        return header.size

    def read(self) -> Tensor:
        """Read it, (H, W) uint8. Raises DataError, also for a colour that is not in the table."""
        return _look_up(self.path, self.table, read_colours(self.path), lambda code: f"colour {_colour(code)}")


@dataclass(frozen=True, eq=False)
class TableMask(_FileMask):
    """A PNG of colours or of numbers, as it turns out to be. colours, numbers: what they mean, as for the other masks.

    A palette PNG is read by its colours if they are in the table, else by its indices.
    """

    path: Path
    colours: Table
    numbers: Table | None = None

    def size(self) -> tuple[int, int]:
        """Return (height, width) from the header. Raises DataError unless the file is a PNG that can be a mask."""
        header = read_header(self.path)
        check_mask_format(self.path, header)
        return header.size

    def read(self) -> Tensor:
        """Read it, (H, W) uint8. Raises DataError, also for a colour or number that means nothing."""
        mode = read_header(self.path).mode
        if mode in ("RGB", "RGBA"):
            return ColourMask(self.path, self.colours).read()
        if mode == "P" and ((label := np.take(self.colours, read_colours(self.path))) != _UNKNOWN).all():
            return torch.from_numpy(label)
        return IndexMask(self.path, self.numbers).read()


def _table(length: int, meanings: Mapping[int, int]) -> Table:
    table = np.full(length, _UNKNOWN, np.uint8)
    table[list(meanings)] = list(meanings.values())
    return table


def _look_up(path: Path, table: Table, stored: NDArray[np.unsignedinteger], name: Callable[[int], str]) -> Tensor:
    """Translate a mask (H, W). Raises DataError with the first pixel that means nothing."""
    label = np.take(table, stored)
    if (unknown := label == _UNKNOWN).any():
        row, column = np.unravel_index(unknown.argmax(), label.shape)
        raise DataError(
            f"{path}: the {name(int(stored[row, column]))} at row {row}, column {column} stands for no class "
            f"({np.count_nonzero(unknown)} such pixels); mend the mask or the list of classes"
        )
    return torch.from_numpy(label)


def _code(red: int, green: int, blue: int) -> int:
    """Number a colour as `read_colours` does."""
    return red | green << 8 | blue << 16


def _colour(code: int) -> Colour:
    return code & 255, code >> 8 & 255, code >> 16
