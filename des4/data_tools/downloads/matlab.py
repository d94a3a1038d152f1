"""Reading one array out of a MATLAB file: a field of a struct, as SBD keeps its masks.

The format is level 5 (MATLAB 5 to 7), of MathWorks' "MAT-File Format". A file is a header of 128 bytes and a sequence
of elements: type, length, content. An array is an element whose content is more elements: flags with the class,
dimensions, name, then numbers (column by column), or field names and one array a field. Elements on the way are stepped
over, whatever they hold; nothing is ever executed. SciPy reads the whole format, and is a large dependency for a field.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from des4.types import DataError

MAX_BYTES = 64 << 20
"""Larger variables are refused, before they are unpacked: SBD's are below 1 MB."""

_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""Types of elements that hold numbers, in NumPy's names."""

_STRUCT, _NUMERIC = 2, range(6, 16)
"""Classes of arrays: a struct; double, single, and integers of all widths."""


@dataclass(frozen=True)
class _Array:
    kind: int
    shape: tuple[int, ...]
    name: str
    parts: Iterator[tuple[int, bytes]]
    """The elements behind flags, dimensions and name."""


def read_field(data: bytes, variable: str, field: str, where: str) -> NDArray[Any]:
    """Read a field of a 1×1 struct from the bytes of a file: an array of numbers with MATLAB's shape.

    where: what the bytes come from, for messages. Raises DataError if it is not there or the file is damaged.
    """
    try:
        return _read_field(data, variable, field)
    except (struct.error, zlib.error, ValueError, KeyError, StopIteration, UnicodeDecodeError) as error:
        reason = str(error) or type(error).__name__
        raise DataError(f"{where}: holds no readable {variable}.{field} ({reason}); fetch the archive anew") from error


def _read_field(data: bytes, variable: str, field: str) -> NDArray[Any]:
    if data[124:128] == b"\x00\x01IM":
        order = "<"
    elif data[124:128] == b"\x01\x00MI":
        order = ">"
    else:
        raise ValueError("no MATLAB 5 file")
    for kind, content in _elements(data[128:], order):
        for inner_kind, inner in _elements(_inflate(content), order) if kind == _COMPRESSED else [(kind, content)]:
            if inner_kind == _MATRIX and (array := _array(inner, order)).name == variable:
                return _numbers(_field(array, field, order), order)
    raise ValueError(f"no variable {variable}")


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Yield type and content of each element. Up to 4 bytes of content may share 8 bytes with type and length."""
    position = 0
    while position + 8 <= len(data):
        kind, length = struct.unpack_from(f"{order}II", data, position)
        if kind >> 16:
            kind, length, start, end = kind & 0xFFFF, kind >> 16, position + 4, position + 8
        else:
            start = position + 8
            end = start + length + (0 if kind == _COMPRESSED else -length % 8)
        if start + length > len(data):
            raise ValueError("an element is cut short")
        yield kind, data[start : start + length]
        position = end


def _inflate(data: bytes) -> bytes:
    stream = zlib.decompressobj()
    unpacked = stream.decompress(data, MAX_BYTES)
    if stream.unconsumed_tail:
        raise ValueError(f"a variable of more than {MAX_BYTES} bytes")
    if not stream.eof:
        raise ValueError("a compressed element is cut short")
    return unpacked


def _array(content: bytes, order: str) -> _Array:
    parts = _elements(content, order)
    (_, flags), (_, dimensions), (_, name) = next(parts), next(parts), next(parts)
    (word,) = struct.unpack_from(f"{order}I", flags)
    shape = struct.unpack(f"{order}{len(dimensions) // 4}i", dimensions)
    return _Array(word & 0xFF, shape, name.decode("ascii"), parts)


def _field(array: _Array, field: str, order: str) -> _Array:
    if array.kind != _STRUCT or array.shape != (1, 1):
        raise ValueError("not a single struct")
    (_, length), (_, names) = next(array.parts), next(array.parts)
    (width,) = struct.unpack(f"{order}i", length)
    fields = [names[start : start + width].split(b"\0")[0].decode("ascii") for start in range(0, len(names), width)]
    for name, (kind, content) in zip(fields, array.parts, strict=True):
        if name == field and kind == _MATRIX:
            return _array(content, order)
    raise ValueError(f"no field {field}")


def _numbers(array: _Array, order: str) -> NDArray[Any]:
    if array.kind not in _NUMERIC:
        raise ValueError("not an array of numbers")
    kind, content = next(array.parts)
    numbers = np.frombuffer(content, f"{order}{_NUMBERS[kind]}")  # may be narrower than the class
    return numbers.reshape(array.shape, order="F")
