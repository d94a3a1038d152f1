"""Images read by windows, so that one too large for memory can be segmented: `read(top, left, height, width)`.

Small files are decoded whole, as `images` does it. Large ones are read through libvips (the extra `large`), rows from
top to bottom, never more of them than a row of tiles needs. It depends on the format what that saves:

- JPEG, PNG and TIFF (strips or tiles, compressed or not) are decoded row by row, so memory depends on the width alone.
- Progressive JPEG, interlaced PNG and WebP can only be decoded whole: 3 bytes a pixel.
- Where EXIF asks for a turn, libvips decodes the file once into a temporary file on the disk.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from des4.data.images import MAX_PIXELS, read_image
from des4.types import DataError

Pixels = NDArray[np.uint8]

WINDOWS_FROM = 50_000_000
"""Pixels; larger files are read by windows, if libvips is there: 150 MB once decoded."""
FETCHED = 64
"""Rows that are asked of libvips at a time, which keeps them more than once."""


class Windows(Protocol):
    """An image of which any part can be read. size: (height, width), upright. name: for messages, a path or a number.

    streamed: whether reading from top to bottom is cheap and going back is not. share: of its file, that it is.
    """

    name: str
    size: tuple[int, int]
    streamed: bool
    share: float

    def read(self, top: int, left: int, height: int, width: int) -> Pixels:
        """Read (height, width, 3) RGB, all of which lies inside the image. Raises DataError."""


class Decoded:
    """An image in memory, (H, W, 3) uint8 RGB."""

    streamed = False

    def __init__(self, pixels: Pixels, name: str, share: float = 1.0) -> None:
        self.pixels, self.name, self.share = pixels, name, share
        self.size = (pixels.shape[0], pixels.shape[1])

    def read(self, top: int, left: int, height: int, width: int) -> Pixels:
        """Cut a part out."""
        return self.pixels[top : top + height, left : left + width]


def open_windows(path: Path) -> Windows:
    """Open an image file upright, whole or by windows. Raises DataError, also for what `read_image` would refuse."""
    if _pixels_of(path) > WINDOWS_FROM:
        pyvips = _libvips()
        if pyvips is not None:
            return Streamed(path, pyvips)
        if _pixels_of(path) > MAX_PIXELS:
            raise DataError(f'{path}: has more than {MAX_PIXELS} pixels; pip install "des4[large]" for reading it by '
                            "windows, or cut it into tiles")  # fmt: skip
    return Decoded(read_image(path).permute(1, 2, 0).numpy(), str(path))


class Streamed:
    """An image file read through libvips, rows from top to bottom; going back means to begin again.

    pyvips: the module. Raises DataError for a file that is broken, has several frames, or more than 8 bits a channel.
    """

    streamed, share = True, 1.0

    def __init__(self, path: Path, pyvips: Any) -> None:
        self.path, self.name, self._vips = path, str(path), pyvips
        self._first, self._rows = 0, np.empty((0, 0, 3), np.uint8)
        image = self._open()
        self.size: tuple[int, int] = (image.height, image.width)

    def read(self, top: int, left: int, height: int, width: int) -> Pixels:
        """Read a part. Whole rows are kept: those of the last read that went further down than the one before."""
        if top < self._first:
            self._open()
        known = self._first + len(self._rows)
        if top + height > known:
            rows = np.empty((height, self.size[1], 3), np.uint8)
            kept = self._rows[top - self._first :]
            rows[: len(kept)] = kept
            try:
                for start in range(max(top, known), top + height, FETCHED):
                    count = min(FETCHED, top + height - start)
                    data = self._region.fetch(0, start, self.size[1], count)
                    rows[start - top : start - top + count] = np.frombuffer(data, np.uint8).reshape(count, -1, 3)
            except self._vips.Error as error:
                raise _broken(self.path, error) from None
            self._first, self._rows = top, rows
        return self._rows[top - self._first :][:height, left : left + width]

    def _open(self) -> Any:
        """Go to the top of the file."""
        try:
            image = self._vips.Image.new_from_file(str(self.path), access="sequential", fail_on="truncated")
            self._refuse(image)
            if image.get_typeof("orientation") and image.get("orientation") != 1:
                image = self._vips.Image.new_from_file(str(self.path), fail_on="truncated").autorot()
            image = image.colourspace("srgb")  # grey becomes RGB, and inks become light
            if image.bands > 3:
                image = image.extract_band(0, n=3)  # transparency is dropped
            self._region = self._vips.Region.new(image)
        except self._vips.Error as error:
            raise _broken(self.path, error) from None
        self._first, self._rows = 0, np.empty((0, image.width, 3), np.uint8)
        return image

    def _refuse(self, image: Any) -> None:
        if image.format != "uchar":
            raise DataError(f"{self.path}: holds more than 8 bits a channel ({image.format}); convert it to 8 bits")
        if image.get_typeof("n-pages") and image.get("n-pages") > 1:
            second = self._vips.Image.new_from_file(str(self.path), page=1)
            if (second.width, second.height) == (image.width, image.height):  # else it is a smaller copy
                raise DataError(f"{self.path}: holds several frames; save the one you want as a picture of its own")


def _pixels_of(path: Path) -> int:
    """Return the pixels that a file's header promises; 0 where it cannot be read, as `read_image` will say."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return image.width * image.height
    except Image.DecompressionBombError:  # Pillow does not say how many
        return max(MAX_PIXELS, WINDOWS_FROM) + 1
    except Exception:
        return 0


def _libvips() -> Any | None:
    try:
        import pyvips
    except (ImportError, OSError):  # OSError: the binding is there, and libvips is not
        return None
    return pyvips


def _broken(path: Path, error: Exception) -> DataError:
    lines = [line for line in str(error).splitlines() if line.strip()]
    reason = lines[-1].strip() if lines else type(error).__name__
    return DataError(f"{path}: cannot be read as an image ({reason}); replace the file or take it off the list")
