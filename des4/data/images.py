"""Reading image and mask files: the header first, then the pixels.

Sizes are checked in the header, before anything is decoded. An EXIF rotation is applied to images, so that every
picture stands upright. A mask cannot say whether it follows the rotation, so `read_header` reports one and the data set
refuses a labelled image that has it, rather than guess. Pillow decodes everything: torchvision's decoders are twice as
fast on JPEG, but deprecated since 0.29.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from des4.types import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
MAX_PIXELS = 100_000_000
"""Larger images are refused before decoding: at 3 bytes a pixel this is 300 MB."""

_FAILURES = (OSError, ValueError, SyntaxError, RuntimeError, EOFError, struct.error, Image.DecompressionBombError)
"""What decoders raise on damaged files."""


@dataclass(frozen=True)
class Header:
    """What a file says about itself before decoding. size: (height, width) as stored. rotated: EXIF asks for a turn."""

    size: tuple[int, int]
    format: str
    mode: str
    rotated: bool


def read_header(path: Path) -> Header:
    """Read the header of an image or a mask. Raises DataError if it is broken, too large or animated."""
    with _opened(path) as image:
        return _header(path, image)


def read_image(path: Path) -> Tensor:
    """Read an image upright, (3, H, W) uint8 RGB; transparency is dropped. Raises DataError."""
    with _opened(path) as image:
        header = _header(path, image)
        if header.mode.startswith(("I", "F")):
            raise DataError(f"{path}: holds more than 8 bits a channel (mode {header.mode}); convert it to 8 bits")
        try:
            upright = ImageOps.exif_transpose(image) if header.rotated else image
            array = np.array(upright.convert("RGB"))
        except _FAILURES as error:
            raise _broken(path, error) from error
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


def read_mask(path: Path) -> Tensor:
    """Read a mask of class indices, (H, W) uint8. Raises DataError if it is broken, in colour or beyond 255."""
    with _opened(path) as image:
        check_mask_format(path, _header(path, image))
        try:
            array = np.array(image)
        except _FAILURES as error:
            raise _broken(path, error) from error
    if array.max() > 255:
        raise DataError(f"{path}: holds the label {array.max()}; labels are class indices 0..254, and 255 = ignore")
    return torch.from_numpy(array.astype(np.uint8))


def check_mask_format(path: Path, header: Header) -> None:
    """Raise DataError unless the mask is a PNG with a single channel (1, L, I;16, I) or a palette (P)."""
    if header.format != "PNG":
        raise DataError(f"{path}: the mask is a {header.format} file; save masks as PNG, which keeps every label exact")
    if header.mode not in ("1", "L", "P", "I", "I;16", "I;16B"):
        raise DataError(
            f"{path}: the mask is in colour (mode {header.mode}); save class indices as a single-channel or palette PNG"
        )


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(io.BytesIO(path.read_bytes()))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; restore it or take it off the list") from error
    except _FAILURES as error:
        raise _broken(path, error) from error


def _header(path: Path, image: Image.Image) -> Header:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DataError(f"{path}: {width}×{height} pixels exceed the limit of {MAX_PIXELS}; cut it into tiles")
    if getattr(image, "is_animated", False):
        raise DataError(f"{path}: holds several frames; save the one you want as a picture of its own")
    return Header((height, width), str(image.format), image.mode, _rotated(image))


def _rotated(image: Image.Image) -> bool:
    try:
        exif = Image.Image.getexif(image)  # the base class's: a PNG's own would decode the pixels first
    except (SyntaxError, ValueError, struct.error):  # an EXIF block that nobody can read asks for nothing
        return False
    return bool(exif.get(ExifTags.Base.Orientation, 1) != 1)


def _broken(path: Path, error: Exception) -> DataError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    reason = reason.split("<_io.BytesIO")[0].strip()  # pillow names the buffer's address; the path is said already
    return DataError(f"{path}: cannot be read as an image ({reason}); replace the file or take it off the list")
