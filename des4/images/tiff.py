"""TIFF files whose values are no 8-bit pictures: any number of bands, of integers or floats, GeoTIFF and OME-TIFF too.

What a file says of itself is read with Pillow, which is there anyway; the values with tifffile (the extra `bands`),
which reads them as they are stored. The layout is TIFF 6.0's (Adobe, 1992), BigTIFF's, and GDAL's for the value that
stands for "no data".

The bands of a picture are its samples. Where a microscope has written each channel as a page of its own, the pages are
the bands; pages that are slices or moments are not.
"""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from des4.types import DataError

Values = NDArray[Any]

_SIGNATURES = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_BITS, _PHOTOMETRIC, _SAMPLES, _EXTRA_SAMPLES, _SAMPLE_FORMAT, _NODATA = 258, 262, 277, 338, 339, 42113
_KIND, _REDUCED_OR_MASK = 254, 1 | 4
"""Kinds of further pictures that belong to the first: a smaller copy, and where it is transparent."""
_BANDS_FIRST = ("SYX", "CYX")
_UNKNOWN_FIRST = ("IYX", "QYX")
"""Pages of one size of which the file does not say what they are."""


class MissingExtraError(DataError):
    """What is needed to read a file is not installed."""


def is_tiff(data: bytes) -> bool:
    """Whether a file is a TIFF, by how it begins."""
    return data[:4] in _SIGNATURES


def read_tags(file: IO[bytes]) -> dict[int, Any]:
    """Read the tags of the first picture of a TIFF, of any size: nothing else is read. Raises what Pillow does."""
    return next(_directories(file), {})


def _directories(file: IO[bytes]) -> Iterator[dict[int, Any]]:
    """Read the tags of one picture of a TIFF after the other."""
    head = file.read(8)
    if 43 in head[2:4]:  # BigTIFF, of either byte order
        head += file.read(8)
    directory = ImageFileDirectory_v2(head)
    seen: set[int] = set()
    while directory.next and directory.next not in seen:  # a damaged file may name one that was read already
        seen.add(directory.next)
        file.seek(directory.next)
        directory.load(file)
        yield dict(directory)


def tags_of(data: bytes) -> dict[int, Any]:
    """Read the tags of a TIFF in memory; none where that cannot be done."""
    if not is_tiff(data):
        return {}
    try:
        return read_tags(io.BytesIO(data))
    except Exception:  # damaged files raise anything, and whoever decodes them says what is wrong
        return {}


def bits_of(tags: Mapping[int, Any]) -> int:
    """Return the bits of a value, the most that a band has."""
    bits: Any = tags.get(_BITS, 1)
    return int(max(bits) if isinstance(bits, tuple) else bits)


def is_picture(tags: Mapping[int, Any]) -> bool:
    """Whether a TIFF is what Pillow reads without loss: grey, colours or inks, of at most 8 bits."""
    formats: Any = tags.get(_SAMPLE_FORMAT, 1)
    unsigned = set(formats if isinstance(formats, tuple) else (formats,)) <= {1, 4}
    samples, extra = int(tags.get(_SAMPLES, 1)), tags.get(_EXTRA_SAMPLES, ())
    colours = samples - len(_alpha(samples, extra if isinstance(extra, tuple | list) else (extra,)))
    inks = tags.get(_PHOTOMETRIC) == 5 and colours == 4
    return bits_of(tags) <= 8 and unsigned and (colours in (1, 3) or inks)


def holds_one_picture(data: bytes) -> bool:
    """Whether all further pages of a TIFF say that they are smaller copies of the first, or its transparency."""
    try:
        further = islice(_directories(io.BytesIO(data)), 1, None)
        return is_tiff(data) and all(int(tags.get(_KIND, 0)) & _REDUCED_OR_MASK for tags in further)
    except Exception:  # as in `tags_of`
        return False


def _alpha(num_bands: int, extra: Sequence[Any]) -> tuple[int, ...]:
    """Return which bands, from 1, are declared to be transparency. extra: the kinds of those beyond the colours."""
    first = num_bands - len(extra) + 1
    return tuple(number for number, kind in enumerate(extra, first) if int(kind) in (1, 2))


class Tiff:
    """An open TIFF. size: (height, width) as stored. num_bands: all bands. alpha: the numbers, from 1, of those that
    are declared to be transparency. dtype: of the values. orientation: EXIF's number.

    unnamed: whether the bands are pages of which the file does not say what they are.
    """

    def __init__(self, path: Path, file: Any) -> None:
        self._path, self._file = path, file
        series = [one for one in file.series if not one.keyframe.subfiletype & _REDUCED_OR_MASK] or file.series[:1]
        if not series:
            raise DataError(f"{path}: holds no picture; replace the file or take it off the list")
        axes, self._pages = series[0].axes, list(series[0].pages)
        page = self._page = series[0].keyframe
        if len(series) > 1 or axes not in ("YX", "YXS", *_BANDS_FIRST, *_UNKNOWN_FIRST):
            what = f"pictures along {axes}" if len(series) == 1 else f"{len(series)} pictures"
            raise DataError(
                f"{path}: holds several {what}; save the one you want, with its bands, as a file of its own"
            )
        self.unnamed = axes in _UNKNOWN_FIRST
        self.size = (int(page.imagelength), int(page.imagewidth))
        self.num_bands = len(self._pages) if len(self._pages) > 1 else int(page.samplesperpixel)
        self.alpha = _alpha(self.num_bands, tuple(page.extrasamples)) if len(self._pages) == 1 else ()
        self.dtype: np.dtype[Any] = np.dtype(page.dtype)
        orientation = page.tags.valueof(274, default=1)
        self.orientation = orientation if orientation in range(1, 9) else 1
        self.nodata = _number(page.tags.valueof(_NODATA, default=None))

    @property
    def segment_values(self) -> int:
        """How many values have to be decoded together to get at one of them."""
        page = self._page
        if page.is_memmappable:
            return 1
        rows, columns = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, self.size[1])
        return int(min(rows, self.size[0]) * columns * self._samples_together)

    @property
    def _samples_together(self) -> int:
        separate = len(self._pages) > 1 or self._page.planarconfig == 2
        return 1 if separate else self.num_bands

    def read(self, bands: Sequence[int], top: int = 0, bottom: int | None = None) -> Values:
        """Read rows of some bands, numbered from 1: (rows, W, bands), as stored. Raises DataError."""
        bottom = self.size[0] if bottom is None else bottom
        try:
            if len(self._pages) > 1:
                return np.stack([self._rows(self._pages[band - 1], [1], top, bottom)[..., 0] for band in bands], -1)
            return self._rows(self._pages[0], bands, top, bottom)
        except Exception as error:  # tifffile and its codecs raise anything on damaged files
            raise broken(self._path, error) from None

    def _rows(self, page: Any, bands: Sequence[int], top: int, bottom: int) -> Values:
        places = [band - 1 for band in bands]
        if self._page.is_memmappable:
            return self._stored_rows(page, places, top, bottom)
        return self._decoded_rows(page, places, top, bottom)

    def _stored_rows(self, page: Any, places: list[int], top: int, bottom: int) -> Values:
        """Read rows of a file that holds them in one piece, uncompressed."""
        height, width = self.size
        dtype = self.dtype.newbyteorder(self._file.byteorder)
        together = self._samples_together
        planes = places if together == 1 and self.num_bands > 1 and len(self._pages) == 1 else [0]
        found = []
        for plane in planes:
            offset = page.dataoffsets[0] + (plane * height + top) * width * together * dtype.itemsize
            count = (bottom - top) * width * together
            data = self._bytes(offset, count * dtype.itemsize)
            found.append(np.frombuffer(data, dtype).reshape(bottom - top, width, together))
        values = np.concatenate(found, -1) if together == 1 else found[0][..., places]
        return values.astype(self.dtype, copy=False)

    def _decoded_rows(self, page: Any, places: list[int], top: int, bottom: int) -> Values:
        """Read rows of a file in strips or tiles: those that hold them are decoded, one at a time."""
        (height, width), frame = self.size, self._page
        length, breadth = (frame.tilelength, frame.tilewidth) if frame.is_tiled else (frame.rowsperstrip, width)
        down, across = math.ceil(height / length), math.ceil(width / breadth)
        separate = frame.planarconfig == 2 and self._samples_together == 1 and self.num_bands > 1
        values = np.zeros((bottom - top, width, len(places)), self.dtype)
        if self.nodata is not None and _can_hold(self.dtype, self.nodata):
            values[:] = self.nodata  # what a sparse file leaves out
        for number, plane in enumerate(places if separate else [0]):
            filled = values[..., number : number + 1] if separate else values
            for row in range(top // length, math.ceil(bottom / length)):
                for column in range(across):
                    index = (plane * down + row) * across + column
                    segment, shape = self._segment(page, index)
                    if segment is None:
                        continue
                    first, last = max(top, row * length), min(bottom, row * length + shape[0])
                    left, right = column * breadth, min(width, column * breadth + shape[1])  # tiles are padded
                    part = segment[first - row * length : last - row * length, : right - left]
                    filled[first - top : last - top, left:right] = part if separate else part[..., places]
        return values

    def _segment(self, page: Any, index: int) -> tuple[Values | None, tuple[int, int]]:
        """Decode a strip or tile, (rows, columns, samples); None if the file leaves it out. Also how much is in use."""
        count = page.databytecounts[index]
        if not count:
            return None, (0, 0)
        data = self._bytes(page.dataoffsets[index], count)
        segment, _, shape = self._page.decode(
            data, index, jpegtables=self._page.jpegtables, jpegheader=self._page.jpegheader
        )
        return (None, (0, 0)) if segment is None else (segment[0], (int(shape[1]), int(shape[2])))

    def _bytes(self, offset: int, count: int) -> bytes:
        self._file.filehandle.seek(offset)
        data: bytes = self._file.filehandle.read(count)
        if len(data) < count:
            raise ValueError("the file is truncated")
        return data


@contextmanager
def opened(path: Path, data: bytes | None = None) -> Iterator[Tiff]:
    """Open a TIFF, from memory where its bytes are given. Raises DataError, also without the extra `bands`."""
    tifffile = _library(path)
    with ExitStack() as stack:
        try:
            file = stack.enter_context(tifffile.TiffFile(io.BytesIO(data) if data is not None else path))
            tiff = Tiff(path, file)
        except DataError:
            raise
        except Exception as error:
            raise broken(path, error) from None
        yield tiff


def _library(path: Path) -> Any:
    try:
        import imagecodecs  # noqa: F401  # without it tifffile reads some compressions, and stops at others
        import tifffile
    except ImportError:
        raise MissingExtraError(f'{path}: reading such a TIFF needs tifffile; pip install "des4[bands]"') from None
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it thinks of odd files is in our messages
    return tifffile


def _number(text: Any) -> float | None:
    """Return GDAL's "no data" value, which is a text."""
    try:
        return None if text is None else float(str(text).strip("\x00 "))
    except ValueError:
        return None


def _can_hold(dtype: np.dtype[Any], value: float) -> bool:
    """Whether a type of values has this one."""
    if dtype.kind == "f":
        return True
    limits = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return value.is_integer() and limits[0] <= value <= limits[1]


def broken(path: Path, error: Exception) -> DataError:
    """Word what a decoder says of a damaged image file."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    reason = reason.split("<_io.BytesIO")[0].strip()  # pillow names the buffer's address; the path is said already
    return DataError(f"{path}: cannot be read as an image ({reason}); replace the file or take it off the list")
