"""MATLAB 5 files, written from the format's description; the tests of the reader and of SBD's masks share it."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

CLASSES = {"f8": (6, 9), "f4": (7, 7), "i1": (8, 1), "u1": (9, 2), "i2": (10, 3), "u2": (11, 4), "i4": (12, 5)}
"""NumPy's name of a type → class of the array, type of the element."""


def element(kind: int, content: bytes, order: str = "<") -> bytes:
    """Write an element, in the short form where it fits."""
    if len(content) <= 4 and kind < 14:
        return struct.pack(f"{order}I", len(content) << 16 | kind) + content.ljust(4, b"\0")
    return struct.pack(f"{order}II", kind, len(content)) + content + b"\0" * (-len(content) % 8)


def array(name: str, kind: int, shape: tuple[int, ...], *parts: bytes, order: str = "<") -> bytes:
    """Write an array; `parts` follow flags, dimensions and name."""
    flags = element(6, struct.pack(f"{order}II", kind, 0), order)
    dimensions = element(5, struct.pack(f"{order}{len(shape)}i", *shape), order)
    return element(14, b"".join((flags, dimensions, element(1, name.encode(), order), *parts)), order)


def numbers(values: NDArray[np.generic], name: str = "", order: str = "<", stored: str | None = None) -> bytes:
    """Write an array of numbers; `stored` is a narrower type for its content, as MATLAB chooses one if it can."""
    code = values.dtype.str[1:]
    content = values.astype(f"{order}{stored or code}").tobytes("F")
    return array(name, CLASSES[code][0], values.shape, element(CLASSES[stored or code][1], content, order), order=order)


def struct_array(name: str, fields: dict[str, bytes], order: str = "<", shape: tuple[int, int] = (1, 1)) -> bytes:
    """Write a struct; its fields are arrays that are written already."""
    width = 32
    names = b"".join(field.encode().ljust(width, b"\0") for field in fields)
    head = (element(5, struct.pack(f"{order}i", width), order), element(1, names, order))
    return array(name, 2, shape, *head, *fields.values(), order=order)


def mat_file(*variables: bytes, order: str = "<", compressed: bool = True) -> bytes:
    """Write a file of variables that are written already."""
    head = b"MATLAB 5.0 MAT-file".ljust(124) + (b"\x00\x01IM" if order == "<" else b"\x01\x00MI")
    if not compressed:
        return head + b"".join(variables)
    packed = (zlib.compress(variable) for variable in variables)
    return head + b"".join(struct.pack(f"{order}II", 15, len(data)) + data for data in packed)


def sbd_mask(labels: NDArray[np.uint8]) -> bytes:
    """Write a mask as SBD does: beside the labels a cell of outlines, and the classes present."""
    outlines = array("", 1, (2, 1), numbers(np.zeros((1, 1))), array("", 5, (1, 1), element(5, b"")))
    present = numbers(np.unique(labels[labels > 0]).astype("f8")[:, None], stored="u1")
    fields = {"Boundaries": outlines, "Segmentation": numbers(labels), "CategoriesPresent": present}
    return mat_file(struct_array("GTcls", fields))
