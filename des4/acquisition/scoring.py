"""Scores of many images, one after the other: a row of numbers each, and nothing else is kept.

Rows are appended to a file as they come, so that a scoring which was stopped goes on where it stood. Memory is that of
the rows: 4 · (1 + 2C + DIMENSIONS) bytes an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from des4.acquisition.features import DIMENSIONS, FeatureTap
from des4.acquisition.pool import Pool
from des4.acquisition.rules import Scores
from des4.images.windows import Windows
from des4.ops.entropy import pixel_entropy
from des4.predict import Predictor
from des4.types import DataError

Row = NDArray[np.float32]


class Ledger:
    """The rows that are known, by the image's number in the pool, in a file that only grows.

    path: of the file; one that is there already is read, but for a row that is not whole. width: numbers in a row.
    A row of NaN is that of an image which could not be read; why stands in a text file beside it.
    """

    def __init__(self, path: Path, width: int) -> None:
        self._type = np.dtype([("number", "<u4"), ("row", "<f4", (width,))])
        self._reasons = path.with_suffix(".skipped")
        self.rows: dict[int, Row] = {}
        if path.is_file():
            whole = path.stat().st_size // self._type.itemsize
            known = np.fromfile(path, self._type, whole)
            self.rows = {int(number): row for number, row in zip(known["number"], known["row"], strict=True)}
            with path.open("r+b") as file:
                file.truncate(whole * self._type.itemsize)
        self._file = path.open("ab")
        self._path = path

    def add(self, number: int, row: Row) -> None:
        """Keep a row."""
        self.rows[number] = row
        np.array([(number, row)], self._type).tofile(self._file)
        self._file.flush()

    @property
    def num_read(self) -> int:
        """Images that could be read."""
        return sum(not np.isnan(row[0]) for row in self.rows.values())

    def skip(self, number: int, reason: str) -> None:
        """Note an image that could not be read."""
        with self._reasons.open("a", encoding="utf-8") as file:
            file.write(f"{number}\t{reason}\n")
        self.add(number, np.full(self._type["row"].shape, np.nan, np.float32))

    def skipped(self) -> dict[int, str]:
        """Return why images could not be read, by number."""
        if not self._reasons.is_file():
            return {}
        lines = (line.partition("\t") for line in self._reasons.read_text(encoding="utf-8").splitlines())
        return {int(number): reason for number, tab, reason in lines if tab and int(number) in self.rows}

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def remove(self) -> None:
        """Close and delete the files, when what came of them is written."""
        self._file.close()
        self._path.unlink(missing_ok=True)
        self._reasons.unlink(missing_ok=True)


def row_width(num_classes: int) -> int:
    """Numbers in a row: mean entropy, entropy and share of each class, and the features."""
    return 1 + 2 * num_classes + DIMENSIONS


def score(
    predictor: Predictor, pool: Pool, ledger: Ledger, progress: Callable[[float], None], enough: int | None = None
) -> list[str]:
    """Score the images of a pool that the ledger does not know. One that cannot be read is noted and passed over.

    progress: called with the part of an image that is done. enough: images that have to be scored, the first of the
    pool that can be read; None: all. Returns what is to be known of the images' sizes.
    """
    notes: list[str] = []
    while True:  # an image may turn out unreadable when others have been opened already
        missing = None if enough is None else enough - ledger.num_read
        if (missing is not None and missing <= 0) or len(ledger.rows) == len(pool.names):
            return notes
        told = _score(predictor, pool, ledger, progress, missing)
        notes += [note for note in told if note not in notes]


def _score(
    predictor: Predictor, pool: Pool, ledger: Ledger, progress: Callable[[float], None], most: int | None
) -> list[str]:
    notes: dict[str, str] = {}
    numbers: dict[int, int] = {}

    def images() -> Iterator[Windows]:
        opened = 0
        for number, name in enumerate(pool.names):
            if opened == most:
                return
            if number in ledger.rows:
                continue
            try:
                image = pool.open(name)
            except DataError as error:
                ledger.skip(number, str(error))
                progress(1)
                continue
            numbers[id(image)] = number
            opened += 1
            yield image

    with FeatureTap(predictor.segmenter) as tap:
        predictor.on_retry = tap.forget  # what a pass without enough memory has let it hear
        for image, pieces in predictor.pieces(images(), progress):
            number = numbers.pop(id(image))
            notes = {**predictor.notes_on(image), **notes}
            cut = predictor.is_cut(image)
            summary = _Summary(len(predictor.classes))
            try:
                for piece in pieces:
                    summary.add(piece.labels, piece.entropy)
            except DataError as error:
                tap.forget()
                ledger.skip(number, str(error))
                continue
            ledger.add(number, summary.row(tap.take(tiles=cut)))
    return [note for kind, note in notes.items() if kind != "place"]


def as_scores(names: Sequence[str], rows: dict[int, Row], num_classes: int) -> Scores:
    """Lay the rows of images that could be read side by side, in the order of the pool."""
    numbers = [number for number in sorted(rows) if not np.isnan(rows[number][0])]
    table: Row = np.empty((len(numbers), row_width(num_classes)), np.float32)
    for place, number in enumerate(numbers):
        table[place] = rows[number]
    entropy, shares = table[:, 1 : 1 + num_classes], table[:, 1 + num_classes : 1 + 2 * num_classes]
    return Scores(
        [names[number] for number in numbers],
        table[:, 0],
        np.where(shares > 0, entropy, np.nan).astype(np.float32),
        shares,
        table[:, 1 + 2 * num_classes :],
    )


class _Summary:
    """Sums over the pixels of an image, by predicted class."""

    def __init__(self, num_classes: int) -> None:
        self._pixels = np.zeros(num_classes, np.int64)
        self._entropy = np.zeros(num_classes)
        self._most = most_entropy(num_classes)

    def add(self, labels: NDArray[np.unsignedinteger], entropy: NDArray[np.float32]) -> None:
        flat = labels.ravel()
        self._pixels += np.bincount(flat, minlength=len(self._pixels))
        self._entropy += np.bincount(flat, entropy.ravel(), len(self._pixels))

    def row(self, features: NDArray[np.float32]) -> Row:
        """Return mean entropy, that of each class, shares and features."""
        total = self._pixels.sum()
        by_class = self._entropy / np.maximum(self._pixels, 1) / self._most
        padded = np.pad(features, (0, DIMENSIONS - len(features)))
        mean = self._entropy.sum() / total / self._most
        row: Row = np.concatenate([[mean], by_class, self._pixels / total, padded]).astype(np.float32)
        return row


def most_entropy(num_classes: int) -> float:
    """Return the entropy of a pixel of which nothing is known, in nats, as it is computed here."""
    return float(pixel_entropy(torch.full((num_classes,), 1 / num_classes), dim=0))
