"""Reading image and mask files: the header first, then the pixels.

Sizes are checked in the header, before anything is decoded. An EXIF rotation is applied to images, so that every
picture stands upright. A mask cannot say whether it follows the rotation, so `read_header` reports one, and the data
set finds out from the sizes.

Where decoders change what is stored, the stored value counts: a grey mask of 2 or 4 bits, which Pillow stretches to
0..255, holds the numbers that its file has; and more than 8 bits a channel are refused, of which Pillow would keep the
upper 8 and turn 12-bit pictures nearly black. Of the two pictures in a phone's JPEG (MPO) the first is the photo.

Pillow reads every header and decodes everything but grey and RGB JPEGs, which go through simplejpeg (libjpeg-turbo
without copies: the same pixels in under two thirds of the time). It is told to refuse what libjpeg only warns of, above
all missing data, which Pillow lets pass as a grey area where the file has an end mark all the same.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image
from torch import Tensor

from des4.images.tiff import bits_of, broken, holds_one_picture, is_picture, tags_of
from des4.types import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
MAX_PIXELS = 100_000_000
"""Larger images are refused before decoding: at 3 bytes a pixel this is 300 MB."""

FAILURES = (OSError, ValueError, SyntaxError, RuntimeError, EOFError, struct.error, Image.DecompressionBombError)
"""What decoders raise on damaged files."""


@dataclass(frozen=True)
class Header:
    """What a file says about itself before decoding.

    size: (height, width) as stored. orientation: EXIF's number, 1-8; 1 = upright. bits: of a channel, or of an index
    into a palette.
    """

    size: tuple[int, int]
    format: str
    mode: str
    orientation: int = 1
    bits: int = 8

    @property
    def rotated(self) -> bool:
        """Whether EXIF asks for a turn or a reflection."""
        return self.orientation != 1

    @property
    def upright(self) -> tuple[int, int]:
        """(height, width) after what EXIF asks for."""
        return self.size[::-1] if self.orientation >= 5 else self.size


def read_header(path: Path) -> Header:
    """Read the header of an image or a mask. Raises DataError if it is broken, too large or animated."""
    return decode_header(path, read_bytes(path))


def decode_header(path: Path, data: bytes) -> Header:
    """Read the header of an image file, whose path is for messages. Raises DataError as `read_header` does.

    That of a TIFF of bands, which Pillow may not know, has the mode `bands`.
    """
    if (tags := tags_of(data)) and not is_picture(tags):
        return _header_of_bands(path, tags)
    with opened(path, data) as image:
        return header_of(path, image, data)


def read_image(path: Path) -> Tensor:
    """Read an image upright, as `decode_image` does. Raises DataError."""
    return decode_image(path, read_bytes(path))


def decode_image(path: Path, data: bytes) -> Tensor:
    """Decode an image file upright, (3, H, W) uint8 RGB; transparency is dropped. Raises DataError.

    path: names the file in messages. The memory is that of (H, W, 3), as it was decoded: crops are cut and resized
    fastest so, and a copy is saved.
    """
    with opened(path, data) as image:
        header = header_of(path, image, data)
        if header.bits > 8:
            raise _too_deep(path, header.bits)
        try:
            pixels = _decode_jpeg(image, data) if header.format in ("JPEG", "MPO") else _decode(image)
        except FAILURES as error:
            raise broken(path, error) from error
    return torch.from_numpy(turned_upright(pixels, header.orientation)).permute(2, 0, 1)


def _too_deep(path: Path, bits: int) -> DataError:
    return DataError(f"{path}: holds more than 8 bits a channel ({bits}); convert it to 8 bits")


def _decode(image: Image.Image) -> NDArray[np.uint8]:
    """Decode with Pillow, (H, W, 3) uint8."""
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _decode_jpeg(image: Image.Image, data: bytes) -> NDArray[np.uint8]:
    """Decode a JPEG, (H, W, 3) uint8. Raises ValueError at what libjpeg warns of."""
    if image.mode != "CMYK":
        return np.asarray(simplejpeg.decode_jpeg(data, "RGB"))
    simplejpeg.decode_jpeg(data, "CMYK")  # may refuse it; what the inks look like is Pillow's to say
    return _decode(image)


def turned_upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turn (H, W) or (H, W, 3) as an EXIF orientation asks: 5-8 exchange rows and columns, the others only mirror."""
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
    """Decode a mask of class indices, (H, W) uint8. Raises DataError as `decode_numbers` does, and beyond 255."""
    array = decode_numbers(path, data)
    if array.max() > 255:
        raise DataError(f"{path}: holds the label {array.max()}; labels are class indices 0..254, and 255 = ignore")
    return torch.from_numpy(array.astype(np.uint8, copy=False))


def decode_numbers(path: Path, data: bytes) -> NDArray[np.uint8 | np.uint16]:
    """Decode a mask of numbers, (H, W). Raises DataError if it is broken or in colour.

    path: names the file in messages. A mask with equal channels is one of numbers, and so is one whose transparency
    hides nothing.
    """
    with opened(path, data) as image:
        header = header_of(path, image, data)
        check_mask_format(path, header)
        try:
            array = np.array(image)
        except FAILURES as error:
            raise broken(path, error) from error
    if array.ndim == 3:
        array = _only_channel(path, array, header.mode)
    if step := _STRETCHED.get(header.bits) if header.mode == "L" else None:
        array = array // np.uint8(step)
    return array.astype(np.uint8 if header.bits <= 8 else np.uint16, copy=False)


_STRETCHED = {2: 85, 4: 17}
"""By what Pillow multiplies grey of so many bits."""


def _only_channel(path: Path, array: NDArray[np.uint8], mode: str) -> NDArray[np.uint8]:
    """Return the one channel (H, W) that a mask of several (H, W, 2..4) amounts to. Raises DataError if there is none.

    mode: LA, RGB or RGBA.
    """
    grey, alpha = mode.removesuffix("A"), array[..., -1] if mode.endswith("A") else None
    first = array[..., 0]
    if (grey == "RGB" and (array[..., 1:3] != first[..., None]).any()) or (alpha is not None and (alpha < 255).any()):
        raise DataError(
            f"{path}: the mask is in colour (mode {mode}); save class indices as a single-channel or palette PNG, or "
            "name the colours in classes.txt"
        )
    return np.ascontiguousarray(first)


def read_colours(path: Path) -> NDArray[np.uint32]:
    """Read a mask of colours, (H, W) with red + 256·green + 256²·blue. Raises DataError if it is broken or grey."""
    data = read_bytes(path)
    with opened(path, data) as image:
        header = header_of(path, image, data)
        check_colour_mask_format(path, header)
        try:
            pixels = (image.convert("RGB") if header.mode != "RGB" else image).tobytes("raw", "RGBX")
            clear = header.mode == "RGBA" and image.getchannel("A").getextrema()[0] != 255
        except FAILURES as error:
            raise broken(path, error) from error
    if clear:
        raise DataError(f"{path}: the mask has transparent pixels; export it as an RGB or palette PNG")
    return np.frombuffer(pixels, "<u4").reshape(header.size) & np.uint32(0xFFFFFF)


def check_colour_mask_format(path: Path, header: Header) -> None:
    """Raise DataError unless the mask is a PNG in colour: RGB, RGBA if nothing is transparent, or P, a palette."""
    if header.format != "PNG":
        raise DataError(
            f"{path}: the mask is a {header.format} file; save masks as PNG, which keeps every colour exact"
        )
    if header.mode not in ("RGB", "RGBA", "P") or header.bits > 8:
        raise DataError(
            f"{path}: the mask has mode {header.mode} of {header.bits} bits, not colours (RGB); export it as an RGB "
            "or palette PNG"
        )


def check_mask_format(path: Path, header: Header) -> None:
    """Raise DataError unless the mask is a PNG with one channel or a palette, or may have channels that are equal."""
    if header.format != "PNG":
        raise DataError(f"{path}: the mask is a {header.format} file; save masks as PNG, which keeps every label exact")
    if header.mode in ("1", "L", "P", "I", "I;16", "I;16B") or (
        header.mode in ("LA", "RGB", "RGBA") and header.bits == 8
    ):
        return
    raise DataError(
        f"{path}: the mask is in colour (mode {header.mode}, {header.bits} bits a channel); save class indices as a "
        "single-channel or palette PNG"
    )


def read_bytes(path: Path) -> bytes:
    """Read a file whole. Raises DataError."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; restore it or take it off the list") from error
    except OSError as error:
        raise broken(path, error) from error


def opened(path: Path, data: bytes) -> Image.Image:
    """Open an image file with Pillow; nothing is decoded yet. Raises DataError."""
    try:
        image = Image.open(io.BytesIO(data))
    except FAILURES as error:
        if (tags := tags_of(data)) and bits_of(tags) > 8:  # of a kind that Pillow does not know
            raise _too_deep(path, bits_of(tags)) from None
        if tags and not is_picture(tags):
            raise DataError(f"{path}: holds bands, and is no picture in RGB; save three of them as RGB") from None
        raise broken(path, error) from error
    if image.format == "EPS":  # Pillow would let Ghostscript run it
        raise DataError(f"{path}: is PostScript, a program, which is not run; save it as PNG")
    return image


def header_of(path: Path, image: Image.Image, data: bytes) -> Header:
    """Describe an open image. Raises DataError if it is too large or animated."""
    width, height = image.size
    _refuse_large(path, (height, width))
    if getattr(image, "is_animated", False) and image.format != "MPO" and not holds_one_picture(data):
        raise DataError(f"{path}: holds several frames; save the one you want as a picture of its own")
    return Header((height, width), str(image.format), image.mode, _orientation(image), _bits(image, data))


def _header_of_bands(path: Path, tags: Mapping[int, Any]) -> Header:
    size = int(tags.get(257, 0)), int(tags.get(256, 0))  # ImageLength, ImageWidth
    _refuse_large(path, size)
    orientation = tags.get(274, 1)
    return Header(size, "TIFF", "bands", orientation if orientation in range(1, 9) else 1, bits_of(tags))


def _refuse_large(path: Path, size: tuple[int, int]) -> None:
    height, width = size
    if width * height > MAX_PIXELS:
        raise DataError(f"{path}: {width}×{height} pixels exceed the limit of {MAX_PIXELS}; cut it into tiles")


def _bits(image: Image.Image, data: bytes) -> int:
    """Return how many bits a channel has in the file, which Pillow's mode does not always say."""
    if image.format == "PNG":
        return data[24]  # of the header, which a PNG begins with
    if image.format == "TIFF":
        return bits_of(getattr(image, "tag_v2", {}))
    return {"1": 1, "I": 32, "F": 32}.get(image.mode, 16 if image.mode.startswith("I;16") else 8)


def _orientation(image: Image.Image) -> int:
    try:
        exif = Image.Image.getexif(image)  # the base class's: a PNG's own would decode the pixels first
    except (SyntaxError, ValueError, struct.error):  # an EXIF block that nobody can read asks for nothing
        return 1
    orientation = exif.get(ExifTags.Base.Orientation, 1)
    return orientation if orientation in range(1, 9) else 1  # some cameras write 0, "unknown"
