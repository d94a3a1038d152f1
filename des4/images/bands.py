"""Images of bands: which of a file's bands are read, and what their values mean, measured on the data.

What a data set's images are is seen from a few labeled ones (`choose`); of what values 0 and 1 stand for is measured
on many (`measure`). Everything else goes by the `Bands` that come of it: see docs/adr/0013.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from torch import Tensor

from des4.images import tiff
from des4.images.pictures import FAILURES, MAX_PIXELS, Header, decode_header, header_of, opened, turned_upright
from des4.ops.pixels import scaled
from des4.types import Bands, DataError

MAX_VALUES = 3 * MAX_PIXELS
"""Larger images are refused before decoding: as many values as the largest RGB picture has."""
LOOKED_AT = 9
"""Labeled images that say whether a data set is of bands."""
MEASURED = 100
"""Images of a list, labeled or unlabeled, on which ranges are measured."""
SAMPLED = 4096
"""Pixels of each of them, about, from a grid."""
PERCENTILES = (0.1, 99.9)
"""Between them lie the values that are kept apart; beyond are glints, dead pixels and the like."""
SMALLEST_STD = 1e-3
"""Of a band; one that varies less is constant, and is normalised by 1."""

_FULL_BYTE = (0.0, 255.0)


class UnlikeOthersError(DataError):
    """An image has other bands, or another type of values, than its data set or network."""


@dataclass(frozen=True)
class Chosen:
    """Which bands are read. numbers: in the file, from 1. type: of their stored values, as of `Bands`."""

    numbers: tuple[int, ...]
    type: str

    @classmethod
    def of(cls, bands: Bands) -> Chosen:
        """Return what of the bands decides how a file is read."""
        return cls(bands.numbers, bands.type)

    def __str__(self) -> str:
        names = ", ".join(map(str, self.numbers))
        return (
            f"band {names} of {self.type} values" if len(self.numbers) == 1 else f"bands {names} of {self.type} values"
        )


@dataclass(frozen=True)
class Layout:
    """What an image file holds. num_bands: all bands. alpha: the numbers, from 1, of those that are transparency.

    unnamed: whether the bands are pages of a TIFF of which nothing says that they are bands.
    """

    header: Header
    num_bands: int
    alpha: tuple[int, ...]
    type: str
    unnamed: bool = False


def choose(path: Path, data: bytes, numbers: Sequence[int] | None) -> Chosen:
    """Say which bands are read of files like this one: `numbers`, else all but transparency. Raises DataError."""
    layout = layout_of(path, data)
    if numbers is None and layout.unnamed:
        raise UnlikeOthersError(
            f"{path}: holds {layout.num_bands} pages, and does not say what they are; if they are bands, say "
            f"data.bands=1-{layout.num_bands}"
        )
    shown = (number for number in range(1, layout.num_bands + 1) if number not in layout.alpha)
    chosen = Chosen(tuple(numbers or shown), layout.type)
    refuse_unlike(path, layout, chosen)
    return chosen


def is_picture(path: Path, data: bytes) -> bool:
    """Whether an image file is an 8-bit picture in grey or colours. Raises DataError if nobody can tell."""
    if tags := tiff.tags_of(data):
        return tiff.is_picture(tags)
    return decode_header(path, data).bits <= 8


def layout_of(path: Path, data: bytes) -> Layout:
    """Read what an image file holds. Raises DataError if it is broken, too large or of several pictures."""
    if tiff.is_tiff(data):
        with tiff.opened(path, data) as file:
            return layout_of_tiff(path, file)
    with opened(path, data) as image:
        header = header_of(path, image, data)
        if header.bits > 8 and header.format != "PNG":
            raise UnlikeOthersError(
                f"{path}: is a {header.format} file of {header.bits} bits, which is not read; save it as TIFF"
            )
        channels = _PNG_CHANNELS[data[25]] if header.bits > 8 else len(_mode_of_bands(image).getbands())
    alpha = (channels,) if channels in (2, 4) else ()
    layout = Layout(header, channels, alpha, "uint16" if header.bits > 8 else "uint8")
    _refuse_large(path, layout)
    return layout


_PNG_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}
"""By the colour type, of PNG files of 16 bits."""


def layout_of_tiff(path: Path, file: tiff.Tiff) -> Layout:
    """Describe an open TIFF. Raises DataError if its values are no numbers that can be read."""
    if file.dtype.kind not in "buif":
        raise UnlikeOthersError(f"{path}: holds {file.dtype} values; save it as integers or floats")
    header = Header(file.size, "TIFF", "bands", file.orientation, 8 * file.dtype.itemsize)
    return Layout(header, file.num_bands, file.alpha, type_of(file.dtype), file.unnamed)


def type_of(dtype: np.dtype[Any]) -> str:
    """Name a type of values: floats of any precision are one, bits are bytes."""
    return "float" if dtype.kind == "f" else "uint8" if dtype.kind == "b" else dtype.name


def _refuse_large(path: Path, layout: Layout) -> None:
    height, width = layout.header.size
    if height * width * layout.num_bands > MAX_VALUES:
        raise DataError(
            f"{path}: {width}×{height} pixels of {layout.num_bands} bands exceed the limit of {MAX_VALUES} values; "
            "cut it into tiles"
        )


def refuse_unlike(path: Path, layout: Layout, chosen: Chosen) -> None:
    """Raise UnlikeOthersError unless a file holds the chosen bands, with values of their type."""
    if layout.type != chosen.type:
        raise UnlikeOthersError(
            f"{path}: holds {layout.type} values, where {chosen.type} is expected, whose range is another; "
            "convert it, or leave it out"
        )
    if layout.num_bands < max(chosen.numbers):
        raise UnlikeOthersError(
            f"{path}: has {layout.num_bands} bands, and number {max(chosen.numbers)} is to be read; leave it out, or "
            "say others with data.bands"
        )


# ── decoding ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def decode_bands(path: Path, data: bytes, chosen: Chosen) -> Tensor:
    """Decode the chosen bands of an image file upright, as stored: (bands, H, W) uint8, uint16, int16 or float32.

    Where the file says that there are no data, floats are not a number. The memory is that of (H, W, bands). Raises
    DataError, and UnlikeOthersError for a file that does not hold these bands.
    """
    if tiff.is_tiff(data):
        with tiff.opened(path, data) as file:
            layout = layout_of_tiff(path, file)
            _refuse_large(path, layout)
            refuse_unlike(path, layout, chosen)
            values = without_gaps(file.read(chosen.numbers), file.nodata)
    else:
        layout = layout_of(path, data)
        refuse_unlike(path, layout, chosen)
        values = _decode_picture(path, data, layout)[..., [number - 1 for number in chosen.numbers]]
    upright = turned_upright(values, layout.header.orientation)
    return torch.from_numpy(np.ascontiguousarray(upright)).permute(2, 0, 1)


def without_gaps(values: NDArray[Any], nodata: float | None) -> NDArray[Any]:
    """Return stored values in a type that torch knows; where they say that there are no data, they become no number."""
    if values.dtype.kind == "b":
        values = values.astype(np.uint8)
    single = values.dtype == np.float32
    gaps = None if nodata is None else values == (np.float32(nodata) if single else nodata)
    if values.dtype not in (np.uint8, np.uint16, np.int16, np.float32) or (gaps is not None and gaps.any()):
        values = values.astype(np.float32)
        if gaps is not None:
            values[gaps] = np.nan
    return values


def _decode_picture(path: Path, data: bytes, layout: Layout) -> NDArray[Any]:
    """Decode a file that is no TIFF with all its channels, (H, W, channels)."""
    try:
        if layout.type == "uint16" and layout.num_bands > 1:
            return _decode_deep_colours(path, data)
        with opened(path, data) as image:
            if layout.header.format in ("JPEG", "MPO"):
                simplejpeg.decode_jpeg(
                    data, "CMYK" if image.mode == "CMYK" else "RGB"
                )  # may refuse what Pillow lets pass
            pixels: NDArray[Any] = np.array(image if layout.type == "uint16" else _mode_of_bands(image))
    except FAILURES as error:
        raise tiff.broken(path, error) from None
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _decode_deep_colours(path: Path, data: bytes) -> NDArray[Any]:
    """Decode a PNG of 16 bits and several channels, of which Pillow would keep the upper 8."""
    try:
        import imagecodecs
    except ImportError:
        raise tiff.MissingExtraError(
            f'{path}: reading a PNG in colours of 16 bits needs imagecodecs; pip install "des4[bands]"'
        ) from None
    pixels: NDArray[Any] = imagecodecs.png_decode(data)
    return pixels


def _mode_of_bands(image: Any) -> Any:
    """Return a Pillow image whose channels are its bands: palettes and inks become colours, bits become bytes."""
    if image.mode in ("L", "LA", "RGB", "RGBA"):
        return image
    if image.mode == "1":
        return image.convert("L")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


# ── measuring ────────────────────────────────────────────────────────────────────────────────────────────────────────


def measure(
    read: Callable[[str], Tensor],
    lists: Iterable[Sequence[str]],
    chosen: Chosen,
    ranges: Sequence[tuple[float, float]] | None = None,
) -> Bands:
    """Measure ranges, means and standard deviations of bands on images that are evenly spaced in lists of ids.

    read: gives an image as stored. ranges: where they are known already, one or as many as bands. 8-bit values have the
    range 0-255. An image that cannot be read is left out. Raises DataError if none can be.
    """
    found: list[NDArray[np.float32]] = []
    failure: DataError | None = None
    for ids in lists:
        count = min(MEASURED, len(ids))
        for place in (number * len(ids) // count for number in range(count)):
            try:
                found.append(_sampled(read(ids[place])))
            except DataError as error:
                failure = error
    if not found:
        raise failure or DataError("the data set has no image on which its bands could be measured; add some")
    values = np.concatenate(found)
    limits = _given(ranges, chosen) or [_range(band) for band in values.T]
    unit = scaled(torch.from_numpy(values), limits).double().numpy()
    unit[~np.isfinite(values)] = np.nan
    with np.errstate(all="ignore"):
        mean, std = np.nan_to_num(np.nanmean(unit, 0)), np.nan_to_num(np.nanstd(unit, 0))
    return Bands(
        numbers=chosen.numbers,
        type=chosen.type,
        ranges=tuple(limits),
        mean=tuple(round(float(value), 6) for value in mean),
        std=tuple(round(float(value), 6) if value >= SMALLEST_STD else 1.0 for value in std),
    )


def _given(ranges: Sequence[tuple[float, float]] | None, chosen: Chosen) -> list[tuple[float, float]] | None:
    """Return the ranges that are known without looking, one a band; None if they are to be measured."""
    num_bands = len(chosen.numbers)
    if not ranges:
        return [_FULL_BYTE] * num_bands if chosen.type == "uint8" else None
    if len(ranges) not in (1, num_bands):
        raise DataError(
            f"data.value_range: has {len(ranges)} ranges for {num_bands} bands; give one for all, or one a band"
        )
    return [*ranges] * (num_bands if len(ranges) == 1 else 1)


def _sampled(image: Tensor) -> NDArray[np.float32]:
    """Return some pixels of (bands, H, W), from a grid over all of it: (pixels, bands)."""
    step = max(1, round((image.shape[1] * image.shape[2] / SAMPLED) ** 0.5))
    grid = image[:, step // 2 :: step, step // 2 :: step] if min(image.shape[1:]) > step else image
    return grid.float().flatten(1).T.numpy()


def _range(values: NDArray[np.float32]) -> tuple[float, float]:
    """Return between what percentiles of a band's values it lies, to six digits; not a number counts for nothing."""
    known = values[np.isfinite(values)].astype(np.float64)
    low, high = np.percentile(known, PERCENTILES) if len(known) else (0.0, 1.0)
    low, high = float(f"{low:.6g}"), float(f"{high:.6g}")
    return (low, high) if high > low else (low, low + 1)


def describe(bands: Bands) -> str:
    """Say in a line what bands are read, and what values become 0 and 1."""
    ranges = "; ".join(
        f"{number}: {low:g} to {high:g}" for number, (low, high) in zip(bands.numbers, bands.ranges, strict=True)
    )
    return f"{Chosen.of(bands)}; what becomes 0 to 1 of each: {ranges}"
