"""Images read by windows, so that one too large for memory can be segmented: `read(top, left, height, width)`.

Small files are decoded whole, as `images` does it. Large ones are read through libvips (the extra `large`), rows from
top to bottom, never more of them than a row of tiles needs. It depends on the format what that saves:

- JPEG, PNG and TIFF (strips or tiles, compressed or not) are decoded row by row, so memory depends on the width alone.
- Progressive JPEG, interlaced PNG and WebP can only be decoded whole: 3 bytes a pixel.
- Where EXIF asks for a turn, libvips decodes the file once into a temporary file on the disk.

Of bands, large TIFFs are read through tifffile, row by row too: the strips or tiles that hold them are decoded. What is
read is scaled on the way out, so that a part is an image: bytes, or float32 in [0, 1] (`ops/pixels.py`).
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from des4.images import tiff
from des4.images.bands import MAX_VALUES, Chosen, decode_bands, layout_of_tiff, refuse_unlike, without_gaps
from des4.images.georeference import NOWHERE, Located, locate
from des4.images.pictures import MAX_PIXELS, read_bytes, read_image
from des4.ops.pixels import as_image, picture
from des4.types import Bands, DataError

Pixels = NDArray[Any]

WINDOWS_FROM = 50_000_000
"""Pixels; larger files are read by windows, if libvips is there: 150 MB once decoded. Bands are, from as many bytes."""
FETCHED = 64
"""Rows that are asked of libvips at a time, which keeps them more than once."""


class Windows(Protocol):
    """An image of which any part can be read. size: (height, width), upright. name: for messages, a path or a number.

    streamed: whether reading from top to bottom is cheap and going back is not. share: of its file, that it is.
    bands: None for 8-bit RGB. located: where on a map its file says that it lies.
    """

    name: str
    size: tuple[int, int]
    streamed: bool
    share: float
    bands: Bands | None
    located: Located

    def read(self, top: int, left: int, height: int, width: int) -> Pixels:
        """Read (height, width, bands), all of which lies inside the image. Raises DataError."""


def show(image: Windows, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
    """Read a part as people are shown it: (height, width, 3) uint8. Raises DataError."""
    return picture(image.read(top, left, height, width), image.bands)


class Decoded:
    """An image in memory, (H, W, 3) uint8 RGB, or (H, W, bands)."""

    streamed = False

    def __init__(
        self, pixels: Pixels, name: str, share: float = 1.0, bands: Bands | None = None, located: Located = NOWHERE
    ) -> None:
        self.pixels, self.name, self.share, self.bands, self.located = pixels, name, share, bands, located
        self.size = (pixels.shape[0], pixels.shape[1])

    def read(self, top: int, left: int, height: int, width: int) -> Pixels:
        """Cut a part out."""
        return self.pixels[top : top + height, left : left + width]


def open_windows(path: Path, bands: Bands | None = None) -> Windows:
    """Open an image file upright, whole or by windows. Raises DataError, also for what `read_image` would refuse.

    bands: what a network was trained on; None: 8-bit RGB.
    """
    if bands is not None:
        return _open_bands(path, bands)
    num_pixels, of_pillow = _look(path)
    if num_pixels > MAX_PIXELS or (num_pixels > WINDOWS_FROM and not of_pillow):
        pyvips = _libvips()
        if pyvips is not None:
            return Streamed(path, pyvips)
        if num_pixels > MAX_PIXELS:
            raise DataError(f'{path}: has more than {MAX_PIXELS} pixels; pip install "des4[large]" for reading it by '
                            "windows, or cut it into tiles")  # fmt: skip
    return Decoded(read_image(path).permute(1, 2, 0).numpy(), str(path), located=locate(path))


def _open_bands(path: Path, bands: Bands) -> Windows:
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError:
        head = b""  # `read_bytes` says what is wrong
    if tiff.is_tiff(head):
        with tiff.opened(path) as file:
            upright, num_pixels = file.orientation == 1, file.size[0] * file.size[1]
        if upright and num_pixels * len(bands.numbers) * (1 if bands.are_bytes else 4) > 3 * WINDOWS_FROM:
            return StreamedBands(path, bands)
    values = decode_bands(path, read_bytes(path), Chosen.of(bands)).permute(1, 2, 0).numpy()
    return decoded_bands(values, str(path), bands, locate(path))


def decoded_bands(values: Pixels, name: str, bands: Bands, located: Located = NOWHERE) -> Decoded:
    """Return stored values (H, W, bands) as an image."""
    return Decoded(_scaled(values, bands), name, bands=bands, located=located)


def _scaled(values: Pixels, bands: Bands) -> Pixels:
    if values.dtype == np.uint8 and bands.are_bytes:
        return values  # a caller's array may be one that is not to be written, of which torch warns
    return as_image(torch.from_numpy(values), bands).numpy()


class StreamedBands:
    """A TIFF of bands, read rows from top to bottom. Raises DataError for a file that is broken or of other bands."""

    streamed, share = True, 1.0

    def __init__(self, path: Path, bands: Bands) -> None:
        self.path, self.name, self.located = path, str(path), locate(path)
        self.bands: Bands | None = bands
        self._of = bands
        with tiff.opened(path) as file:
            refuse_unlike(path, layout_of_tiff(path, file), Chosen.of(bands))
            if file.segment_values > MAX_VALUES:
                raise DataError(f"{path}: is stored in one piece too large to decode; save it in tiles")
            self.size = file.size
        self._first, self._rows = 0, np.empty((0, self.size[1], len(bands.numbers)), np.uint8)

    def read(self, top: int, left: int, height: int, width: int) -> Pixels:
        """Read a part. Whole rows are kept: those of the last read that went further down than the one before."""
        known = self._first + len(self._rows)
        if top < self._first or top + height > known:
            start = max(top, known) if top >= self._first else top
            with tiff.opened(self.path) as file:
                rows = without_gaps(file.read(self._of.numbers, start, top + height), file.nodata)
            kept = self._rows[top - self._first :] if start > top else rows[:0]
            self._first, self._rows = top, np.concatenate([kept, rows])
        return _scaled(self._rows[top - self._first :][:height, left : left + width], self._of)


class Streamed:
    """An image file read through libvips, rows from top to bottom; going back means to begin again.

    pyvips: the module. Raises DataError for a file that is broken, has several frames, or more than 8 bits a channel.
    """

    streamed, share = True, 1.0
    bands: Bands | None = None

    def __init__(self, path: Path, pyvips: Any) -> None:
        self.path, self.name, self._vips, self.located = path, str(path), pyvips, locate(path)
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


def _look(path: Path) -> tuple[int, bool]:
    """Return the pixels that a file's header promises; 0 where it cannot be read, as `read_image` will say.

    Also whether it is of a kind that libvips does not read, or reads unlike Pillow, as it does with inks.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return image.width * image.height, image.mode == "CMYK" or image.format == "BMP"
    except Image.DecompressionBombError:  # Pillow does not say how many
        return max(MAX_PIXELS, WINDOWS_FROM) + 1, False
    except Exception:
        return 0, False


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
