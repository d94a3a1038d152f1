"""Images of any size in bounded memory: tiles are read, segmented, blended where they overlap, and handed on.

What is finished leaves at once, from top to bottom. What stays in memory is a tile or two, and the strip of scores in
which the next row of tiles overlaps this one: it grows with the image's width, not with its height, and lies on the
disk where it is large. An image that the network is to see at another size (`eval.resize`) is resized tile by tile; the
scores of a row of tiles, at that size, wait until it is done.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from des4.engine.inference import EvalConfig, scaled_size, starts, view_scores, window_stride
from des4.ops.pixels import unit
from des4.ops.resize import rows_known, upsample_area
from des4.types import RunError

ReadWindow = Callable[[int, int, int, int], NDArray[Any]]
"""Reads (height, width, bands) of an image, bytes or floats (`ops/pixels.py`), from top, left, height and width."""

SCRATCH_FROM = 256 * 2**20
"""Bytes; larger arrays of scores are kept in a file without a name, in the system's folder for temporary files."""


@dataclass(frozen=True)
class Tiling:
    """How an image is cut. side, stride: of the tiles, in pixels of the image as the network sees it.

    blend: how tiles are weighted where they overlap: `mean` = alike, `ramp` = less towards their edges.
    """

    side: int
    stride: int
    blend: Literal["mean", "ramp"]

    @classmethod
    def of(cls, config: EvalConfig, tile: int) -> Tiling:
        """Tiles for a config: its windows, if it has some, else tiles of side `tile` that share an eighth of it."""
        if config.mode == "sliding":
            return cls(config.window, window_stride(config), "mean")
        return cls(tile, tile - tile // 8, "ramp")

    def count(self, size: Sequence[int]) -> int:
        """Return the number of tiles of an image of this height and width."""
        return math.prod(len(starts(side, self.side, self.stride)) for side in size)


@dataclass(frozen=True)
class Area:
    """A finished part of an image. probs: (C, rows, columns) float32, on the device of the network."""

    rows: slice
    columns: slice
    probs: Tensor


def segment_by_tiles(
    model: nn.Module,
    read: ReadWindow,
    size: tuple[int, int],
    config: EvalConfig,
    tiling: Tiling,
    *,
    device: torch.device,
    batch: int = 1,
    progress: Callable[[], None] = lambda: None,
) -> Iterator[Area]:
    """Yield the areas of an image, row of tiles by row of tiles; together they cover each pixel once.

    model, config: as of `segment`. size: height and width of the image. batch: tiles that go through the network at a
    time. progress: called after each tile. Raises RunError if the disk has no room for scratch files.
    """
    height, width = scaled_size(size, config.resize)
    seen = (height, width)
    source = read if seen == size else _reader_of_resized(read, size, seen)
    areas = _blended(model, source, seen, config, tiling, device, batch, progress)
    if seen != size:
        areas = _enlarged(areas, seen, size, tiling)
    for area in areas:
        yield area if config.average == "probs" else Area(area.rows, area.columns, area.probs.softmax(0))


def _blended(
    model: nn.Module,
    read: ReadWindow,
    size: tuple[int, int],
    config: EvalConfig,
    tiling: Tiling,
    device: torch.device,
    batch: int,
    progress: Callable[[], None],
) -> Iterator[Area]:
    """Yield areas with the weighted mean of the scores of all tiles that see a pixel, in `probs`."""
    height, width = size
    tile = min(tiling.side, height), min(tiling.side, width)
    tops, lefts = (starts(length, tiling.side, tiling.stride) for length in size)
    weight = _weight(tile, tiling, device)
    strip: Tensor | None = None  # what tiles above have added to the rows of the next tiles, the weights last
    above = 0  # rows of it
    for top, next_top in zip(tops, [*tops[1:], height], strict=True):
        done_rows = next_top - top
        # Batches end with their row, so that a file is read from top to bottom by whoever reads it along with this.
        tiles = _scores(model, (read(top, left, *tile) for left in lefts), config, device, batch)
        live: Tensor | None = None  # sums over the tiles that see this row of tiles' current columns
        for number, (left, next_left) in enumerate(zip(lefts, [*lefts[1:], width], strict=True)):
            scores = next(tiles)
            sums = torch.cat([scores * weight, weight[None]])
            entered = 0  # columns of this tile that have been seen before
            if live is not None:
                entered = tile[1] - (left - lefts[number - 1])
                sums[..., :entered] += live[..., tile[1] - entered :]
            if strip is not None:
                sums[:, :above, entered:] += strip[:, :above, left + entered : left + tile[1]].to(device)
            live, done = sums, (..., slice(0, next_left - left))
            finished = live[:, :done_rows][done]
            yield Area(slice(top, next_top), slice(left, next_left), finished[:-1] / finished[-1])
            if next_top < height:
                if strip is None:
                    overlap = tile[0] - min(after - before for before, after in pairwise(tops))
                    strip = scratch(len(sums), overlap, width)
                strip[:, : tile[0] - done_rows, left:next_left] = live[:, done_rows:][done].cpu()
            progress()
        above = tile[0] - done_rows


def _weight(tile: tuple[int, int], tiling: Tiling, device: torch.device) -> Tensor:
    """How much each pixel of a tile counts: 1, or less towards the edges, over the width of the overlap."""
    if tiling.blend == "mean":
        return torch.ones(tile, device=device)
    overlap = tiling.side - tiling.stride
    sides = []
    for side in tile:
        place = torch.arange(1, side + 1, device=device)
        sides.append(torch.minimum(place, side + 1 - place).div(overlap + 1).clamp_max(1))
    return sides[0][:, None] * sides[1]


def _scores(
    model: nn.Module, windows: Iterable[NDArray[Any]], config: EvalConfig, device: torch.device, batch: int
) -> Iterator[Tensor]:
    """Yield the scores (C, h, w) of windows (h, w, bands) of one size, `batch` of them computed at a time."""
    pending = iter(windows)
    while group := list(islice(pending, batch)):
        images = unit(torch.from_numpy(np.stack(group)).to(device).permute(0, 3, 1, 2))
        with torch.inference_mode(), torch.compiler.set_stance("force_eager"):
            scores = view_scores(model, images, (images.shape[2], images.shape[3]), config)
        yield from scores
        del scores, images  # before the next ones are made


def _reader_of_resized(read: ReadWindow, size: tuple[int, int], seen: tuple[int, int]) -> ReadWindow:
    """Return what reads windows of an image resized from `size` to `seen`, as if it had been resized whole."""
    factors = size[0] / seen[0], size[1] / seen[1]

    def read_resized(top: int, left: int, height: int, width: int) -> NDArray[Any]:
        box, places = [], []
        for start, length, factor, side in zip((top, left), (height, width), factors, size, strict=True):
            first, last = start * factor, min((start + length) * factor, side)
            margin = max(1.0, factor) + 1  # what the filter reads beyond the edges
            place = slice(max(0, math.floor(first - margin)), min(side, math.ceil(last + margin)))
            places.append(place)
            box.append((first - place.start, last - place.start))
        (rows, columns), ((y0, y1), (x0, x1)) = places, box
        pixels = read(rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start)
        is_rgb = pixels.dtype == np.uint8 and pixels.shape[2] == 3
        pictures = [pixels] if is_rgb else [pixels[..., band] for band in range(pixels.shape[2])]
        smaller = [
            np.asarray(
                Image.fromarray(np.ascontiguousarray(one)).resize(
                    (width, height), Image.Resampling.BILINEAR, (x0, y0, x1, y1)
                )
            )
            for one in pictures
        ]
        return smaller[0] if is_rgb else np.stack(smaller, -1)

    return read_resized


def _enlarged(areas: Iterable[Area], seen: tuple[int, int], size: tuple[int, int], tiling: Tiling) -> Iterator[Area]:
    """Enlarge the scores of an image of size `seen` to `size`, in areas of at most `tiling.side`².

    A row of tiles is kept until it is whole, with the row of scores above it: what lies between two rows of tiles is
    taken from both.
    """
    tops = [*starts(seen[0], tiling.side, tiling.stride), seen[0]]
    tallest = max(after - before for before, after in pairwise(tops))
    kept: Tensor | None = None  # scores of the row above, then of the row of tiles
    done = 0  # rows of the image
    for area in areas:
        if kept is None:
            kept = scratch(len(area.probs), 1 + tallest, seen[1])
        top, bottom = area.rows.start, area.rows.stop
        kept[:, 1 : 1 + bottom - top, area.columns] = area.probs.cpu()
        if area.columns.stop < seen[1]:
            continue
        known = rows_known(seen[0], size[0], bottom)
        scores = kept[:, : 1 + bottom - top]
        for first in range(done, known, tiling.side):
            rows = slice(first, min(first + tiling.side, known))
            for left in range(0, size[1], tiling.side):
                columns = slice(left, min(left + tiling.side, size[1]))
                enlarged = upsample_area(scores, size, rows, columns, top=top - 1, height=seen[0])
                yield Area(rows, columns, enlarged.to(area.probs.device))
        kept[:, 0] = scores[:, -1]
        done = known


def scratch(*shape: int) -> Tensor:
    """Return float32 zeros: in memory or, where they are many, in a file that goes with them. Raises RunError."""
    size = math.prod(shape) * 4
    if size < SCRATCH_FROM:
        return torch.zeros(shape)
    file = tempfile.TemporaryFile()  # noqa: SIM115  # the array keeps it open
    try:
        if hasattr(os, "posix_fallocate"):  # else a full disk would only show when the array is written to: a crash
            os.posix_fallocate(file.fileno(), 0, size)
        return torch.from_numpy(np.memmap(file, np.float32, "w+", shape=shape))
    except OSError as error:
        raise RunError(f"{tempfile.gettempdir()}: {size / 2**30:.1f} GiB are needed there for scores "
                       f"({error.strerror}); free some, or name another folder in TMPDIR") from error  # fmt: skip
