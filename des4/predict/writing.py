"""The files of one image, written while its pieces come in: masks, overlays, entropy, probabilities; and its row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from des4.images.windows import Windows, show
from des4.predict.pieces import Piece, label_type
from des4.predict.png import PngWriter
from des4.predict.prediction import OVERLAY_PIXELS, grey_of_entropy, png_of_labels, reduction
from des4.predict.predictor import Predictor
from des4.predict.sources import Job
from des4.report.pictures import overlay

COLUMNS = ("file", "confidence", "entropy", "height", "width", "mask")
"""Of the table; a column for the share of each class follows."""


@dataclass(frozen=True)
class Outputs:
    """What is written beside masks and table. overlays: pictures under the classes' colours. entropy: grey PNG, 255
    being log C. probs: (C, H, W) float16, .npy.
    """

    overlays: bool = True
    entropy: bool = False
    probs: bool = False


def write_image(
    predictor: Predictor, job: Job, image: Windows, pieces: Iterable[Piece], out: Path, outputs: Outputs
) -> list[str]:
    """Write the files of one image, and return its row of the table. What is not complete is removed again."""
    num_classes = len(predictor.classes)
    paths = {name: out / name / f"{job.place}{suffix}" for name, suffix in _suffixes(outputs).items()}
    partial = {name: path.with_name(f".{path.name}.partial") for name, path in paths.items()}
    for path in paths.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    totals = _Totals(np.zeros(num_classes, np.int64))
    writers = [png_of_labels(partial["masks"], image.size, num_classes, predictor.palette)]
    if outputs.entropy:
        writers.append(PngWriter(partial["entropy"], image.size))
    picture = _Overlay(image, predictor.palette) if outputs.overlays else None
    probs = _Probs(partial["probs"], num_classes, image.size) if outputs.probs else None
    try:
        for band in _bands(pieces, image.size[1], num_classes, [totals.add, *([probs.put] if probs else [])]):
            writers[0].write(band.labels)
            if outputs.entropy:
                writers[1].write(band.entropy)
            if picture:
                picture.add(band)
        for writer in writers:
            writer.close()
        if picture:
            picture.save(partial["overlays"])
        for name, path in paths.items():
            partial[name].replace(path)
        if (place := image.located.place) is not None:
            for name in {"masks", "entropy"} & paths.keys():
                place.write_beside(paths[name])
    except BaseException:
        for writer in writers:
            writer.discard()
        for path in partial.values():
            with suppress(OSError):
                path.unlink(missing_ok=True)
        raise
    pixels = image.size[0] * image.size[1]
    figures = [f"{totals.confidence / pixels:.4f}", f"{totals.entropy / pixels:.4f}", *map(str, image.size)]
    mask = paths["masks"].relative_to(out).as_posix()
    return [str(job.source), *figures, mask, *(f"{value:.6f}" for value in totals.counts / pixels)]


def _suffixes(outputs: Outputs) -> dict[str, str]:
    every = {"masks": ".png", "overlays": ".jpg", "entropy": ".png", "probs": ".npy"}
    return {name: suffix for name, suffix in every.items() if getattr(outputs, name, True)}


@dataclass
class _Totals:
    """Sums over the pixels of an image. counts: (C,) of each class."""

    counts: NDArray[np.int64]
    confidence: float = 0.0
    entropy: float = 0.0

    def add(self, piece: Piece) -> None:
        self.counts += np.bincount(piece.labels.ravel(), minlength=len(self.counts))
        self.confidence += piece.confidence
        self.entropy += float(piece.entropy.sum(dtype=np.float64))


@dataclass(frozen=True)
class _Band:
    """Finished rows of an image, from one side to the other. entropy: in grey, 255 being log C."""

    top: int
    labels: NDArray[Any]
    entropy: NDArray[np.uint8]


def _bands(
    pieces: Iterable[Piece], width: int, num_classes: int, readers: Sequence[Callable[[Piece], None]]
) -> Iterator[_Band]:
    """Put pieces side by side until their rows are full. readers: see each piece before."""
    band: _Band | None = None
    for piece in pieces:
        for read in readers:
            read(piece)
        if band is None:
            shape = piece.rows.stop - piece.rows.start, width
            band = _Band(piece.rows.start, np.empty(shape, label_type(num_classes)), np.empty(shape, np.uint8))
        band.labels[:, piece.columns] = piece.labels
        band.entropy[:, piece.columns] = grey_of_entropy(piece.entropy, num_classes)
        if piece.columns.stop == width:
            yield band
            band = None


class _Overlay:
    """A picture of the classes over the image, made as the bands come in; every n-th pixel of a large one."""

    def __init__(self, image: Windows, palette: Sequence[tuple[int, int, int]]) -> None:
        self._image, self._palette = image, palette
        self._step = reduction(image.size, OVERLAY_PIXELS)
        self._rows: list[NDArray[np.uint8]] = []

    def add(self, band: _Band) -> None:
        first = -band.top % self._step  # the rows of the picture are those of the whole image
        labels = band.labels[first :: self._step, :: self._step]
        if len(labels):
            pixels = show(self._image, band.top, 0, len(band.labels), self._image.size[1])
            self._rows.append(overlay(pixels[first :: self._step, :: self._step], labels, self._palette))

    def save(self, path: Path) -> None:
        Image.fromarray(np.concatenate(self._rows)).save(path, "JPEG", quality=90)


class _Probs:
    """A .npy file that is filled piece by piece and never mapped for longer, so that it takes no memory."""

    def __init__(self, path: Path, num_classes: int, size: tuple[int, int]) -> None:
        self._path = path
        np.lib.format.open_memmap(path, "w+", np.float16, (num_classes, *size)).flush()

    def put(self, piece: Piece) -> None:
        file = np.lib.format.open_memmap(self._path, "r+")
        file[:, piece.rows, piece.columns] = piece.probs.half().cpu().numpy()
        file.flush()
