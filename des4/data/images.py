"""Reading image and mask files: the header first, then the pixels.

Sizes are checked in the header, before anything is decoded. An EXIF rotation is applied to images, so that every
picture stands upright. A mask cannot say whether it follows the rotation, so `read_header` reports one and the data set
refuses a labelled image that has it, rather than guess.

Pillow reads every header and decodes everything but grey and RGB JPEGs, which go through simplejpeg (libjpeg-turbo
without copies: the same pixels in under two thirds of the time). It is told to refuse what libjpeg only warns of, above
all missing data, which Pillow lets pass as a grey area where the file has an end mark all the same.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image
from torch import Tensor

from des4.types import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
MAX_PIXELS = 100_000_000
"""Larger images are refused before decoding: at 3 bytes a pixel this is 300 MB."""

_FAILURES = (OSError, ValueError, SyntaxError, RuntimeError, EOFError, struct.error, Image.DecompressionBombError)
"""What decoders raise on damaged files."""


@dataclass(frozen=True)
class Header:
    """What a file says about itself before decoding.

    size: (height, width) as stored. orientation: EXIF's number, 1-8; 1 = upright.
    """

    size: tuple[int, int]
    format: str
    mode: str
    orientation: int = 1

    @property
    def rotated(self) -> bool:
        """Whether EXIF asks for a turn or a reflection."""
        return self.orientation != 1


def read_header(path: Path) -> Header:
    """Read the header of an image or a mask. Raises DataError if it is broken, too large or animated."""
    return decode_header(path, read_bytes(path))


def decode_header(path: Path, data: bytes) -> Header:
    """Read the header of an image file, whose path is for messages. Raises DataError as `read_header` does."""
    with _opened(path, data) as image:
        return _header(path, image)


def read_image(path: Path) -> Tensor:
    """Read an image upright, as `decode_image` does. Raises DataError."""
    return decode_image(path, read_bytes(path))


def decode_image(path: Path, data: bytes) -> Tensor:
    """Decode an image file upright, (3, H, W) uint8 RGB; transparency is dropped. Raises DataError.

    path: names the file in messages. The memory is that of (H, W, 3), as it was decoded: crops are cut and resized
    fastest so, and a copy is saved.
    """
    with _opened(path, data) as image:
        header = _header(path, image)
        if header.mode.startswith(("I", "F")):
            raise DataError(f"{path}: holds more than 8 bits a channel (mode {header.mode}); convert it to 8 bits")
        try:
            pixels = _decode_jpeg(image, data) if header.format == "JPEG" else _decode(image)
        except _FAILURES as error:
            raise _broken(path, error) from error
    return torch.from_numpy(_upright(pixels, header.orientation)).permute(2, 0, 1)


def _decode(image: Image.Image) -> NDArray[np.uint8]:
    """Decode with Pillow, (H, W, 3) uint8."""
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _decode_jpeg(image: Image.Image, data: bytes) -> NDArray[np.uint8]:
    """Decode a JPEG, (H, W, 3) uint8. Raises ValueError at what libjpeg warns of."""
    if image.mode != "CMYK":
        return np.asarray(simplejpeg.decode_jpeg(data, "RGB"))
    simplejpeg.decode_jpeg(data, "CMYK")  # may refuse it; what the inks look like is Pillow's to say
    return _decode(image)


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turn (H, W, 3) as an EXIF orientation asks: 5-8 have rows and columns exchanged, the others are only mirrored."""
    if orientation == 1:
        return pixels
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(pixels[rows, columns])


def read_mask(path: Path) -> Tensor:
    """Read a mask of class indices, as `decode_mask` does. Raises DataError."""
    return decode_mask(path, read_bytes(path))


def decode_mask(path: Path, data: bytes) -> Tensor:
    """Decode a mask of class indices, (H, W) uint8. Raises DataError if it is broken, in colour or beyond 255.

    path: names the file in messages.
    """
    with _opened(path, data) as image:
        check_mask_format(path, _header(path, image))
        try:
            array = np.array(image)
        except _FAILURES as error:
            raise _broken(path, error) from error
    if array.max() > 255:
        raise DataError(f"{path}: holds the label {array.max()}; labels are class indices 0..254, and 255 = ignore")
    return torch.from_numpy(array.astype(np.uint8, copy=False))


def read_colours(path: Path) -> NDArray[np.uint32]:
    """Read a mask of colours, (H, W) with red + 256·green + 256²·blue. Raises DataError if it is broken or grey."""
    with _opened(path, read_bytes(path)) as image:
        header = _header(path, image)
        check_colour_mask_format(path, header)
        try:
            pixels = (image.convert("RGB") if header.mode == "P" else image).tobytes("raw", "RGBX")
        except _FAILURES as error:
            raise _broken(path, error) from error
    return np.frombuffer(pixels, "<u4").reshape(header.size) & np.uint32(0xFFFFFF)


def check_colour_mask_format(path: Path, header: Header) -> None:
    """Raise DataError unless the mask is a PNG in colour without transparency (RGB, or P: a palette of colours)."""
    if header.format != "PNG":
        raise DataError(
            f"{path}: the mask is a {header.format} file; save masks as PNG, which keeps every colour exact"
        )
    if header.mode not in ("RGB", "P"):
        raise DataError(
            f"{path}: the mask has mode {header.mode}, not colours (RGB); export it as an RGB or palette PNG"
        )


def check_mask_format(path: Path, header: Header) -> None:
    """Raise DataError unless the mask is a PNG with a single channel (1, L, I;16, I) or a palette (P)."""
    if header.format != "PNG":
        raise DataError(f"{path}: the mask is a {header.format} file; save masks as PNG, which keeps every label exact")
    if header.mode not in ("1", "L", "P", "I", "I;16", "I;16B"):
        raise DataError(
            f"{path}: the mask is in colour (mode {header.mode}); save class indices as a single-channel or palette PNG"
        )


def read_bytes(path: Path) -> bytes:
    """Read a file whole. Raises DataError."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; restore it or take it off the list") from error
    except OSError as error:
        raise _broken(path, error) from error


def _opened(path: Path, data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data))
    except _FAILURES as error:
        raise _broken(path, error) from error


def _header(path: Path, image: Image.Image) -> Header:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DataError(f"{path}: {width}×{height} pixels exceed the limit of {MAX_PIXELS}; cut it into tiles")
    if getattr(image, "is_animated", False):
        raise DataError(f"{path}: holds several frames; save the one you want as a picture of its own")
    return Header((height, width), str(image.format), image.mode, _orientation(image))


def _orientation(image: Image.Image) -> int:
    try:
        exif = Image.Image.getexif(image)  # the base class's: a PNG's own would decode the pixels first
    except (SyntaxError, ValueError, struct.error):  # an EXIF block that nobody can read asks for nothing
        return 1
    orientation = exif.get(ExifTags.Base.Orientation, 1)
    return orientation if orientation in range(1, 9) else 1  # some cameras write 0, "unknown"


def _broken(path: Path, error: Exception) -> DataError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    reason = reason.split("<_io.BytesIO")[0].strip()  # pillow names the buffer's address; the path is said already
    return DataError(f"{path}: cannot be read as an image ({reason}); replace the file or take it off the list")
