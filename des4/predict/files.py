"""Image files in, files out: masks, overlays, entropy, probabilities, a table; whatever the number and size of images.

    masks/….png   overlays/….jpg   entropy/….png   probs/….npy   predictions.csv   predictions.json

A row of the table is written when the files of its image are complete, so the table says where an interrupted command
has to go on.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from des4.images.georeference import read_georeference
from des4.images.video import is_video, read_frames
from des4.images.windows import Decoded, Windows, open_windows, show
from des4.predict.pieces import Piece, label_type
from des4.predict.png import PngWriter
from des4.predict.prediction import OVERLAY_PIXELS, grey_of_entropy, png_of_labels, reduction
from des4.predict.predictor import NO_PROGRESS, Predictor
from des4.predict.sources import Job, find_images
from des4.report.pictures import overlay
from des4.runlog import read_json, write_json
from des4.types import Bands, DataError, RunError, UserError

TABLE, SUMMARY = "predictions.csv", "predictions.json"
FOLDERS = ("masks", "overlays", "entropy", "probs")
COLUMNS = ("file", "confidence", "entropy", "height", "width", "mask")
READ_AHEAD = 2
"""Images that are decoded while another one is segmented."""


@dataclass(frozen=True)
class Outputs:
    """What is written beside masks and table. overlays: pictures under the classes' colours. entropy: grey PNG, 255
    being log C. probs: (C, H, W) float16, .npy.
    """

    overlays: bool = True
    entropy: bool = False
    probs: bool = False


@dataclass
class Summary:
    """What a prediction came to. done: images, earlier ones included. skipped: file → reason, in one line."""

    out: Path
    done: int = 0
    notes: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def predict_files(
    predictor: Predictor,
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    outputs: Outputs | None = None,
    lines: Iterable[str] = (),
    overwrite: bool = False,
    resume: bool = False,
    expect: Callable[[int], None] = lambda images: None,
    progress: Callable[[float], None] = NO_PROGRESS,
) -> Summary:
    """Segment image files into a folder. A file that cannot be read is skipped, and named in the summary.

    paths, lines: as of `find_images`. out: an empty folder, unless an earlier prediction in it may be overwritten, or
    is resumed: then images in its table are left as they are. expect: called with the number of images. progress:
    called with the part of an image that has been done since, for a bar. Memory does not depend on the images' number,
    and with the extra `large` on their width alone.
    Raises DataError or RunError before anything is written; RunError where the folder takes no more.
    """
    out = Path(out)
    outputs = outputs or Outputs()
    jobs, notes = find_images(paths, lines)
    settings = _settings(predictor, outputs)
    done = _prepare(out, paths, settings, overwrite, resume)
    summary = Summary(out, len(done), notes)
    expect(len(jobs))
    waiting = [job for job in jobs if str(job.source) not in done]
    progress(len(jobs) - len(waiting))
    told = False
    with _Table(out / TABLE, predictor.classes) as table:
        for job, image, pieces in _read_ahead(predictor, waiting, done, summary.skipped, progress):
            if not told and (note := predictor.note_on_size(image)):
                told = True
                summary.notes.append(note)
            try:
                row = _write(predictor, job, image, pieces, out, outputs)
            except UserError as error:
                if isinstance(error, RunError):
                    raise
                summary.skipped[str(job.source)] = str(error)
                continue
            except OSError as error:
                raise RunError(f"{out}: cannot be written to ({error.strerror or error}); "
                               "free some disk space, then go on with --resume") from None  # fmt: skip
            table.add(row)
            summary.done += 1
    _write_summary(out, settings, summary)
    return summary


def free_folder(name: str, continued: bool, folder: Path = Path("predictions")) -> Path:
    """Return where results go when nobody says: `predictions/NAME`, or that with the next free number.

    continued: the last one that exists, to overwrite or to resume it.
    """
    places = (folder / (name if number == 1 else f"{name}-{number}") for number in count(1))
    last = None
    for place in places:
        if not (place.is_dir() and any(place.iterdir())):
            return (last or place) if continued else place
        last = place
    raise AssertionError  # `count` does not end


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _read_ahead(
    predictor: Predictor,
    jobs: Sequence[Job],
    done: Collection[str],
    skipped: dict[str, str],
    progress: Callable[[float], None],
) -> Iterator[tuple[Job, Windows, Iterable[Piece]]]:
    """Yield images, and the frames of videos, with their pieces, while the next files are being decoded."""
    places: dict[int, Job] = {}

    def images() -> Iterator[Windows]:
        for job, opened in _opened(jobs, predictor.info.bands):
            try:
                if not is_video(job.source):
                    image = opened.result()
                    places[id(image)] = job
                    yield image
                    continue
                if predictor.info.bands is not None:
                    raise DataError(f"{job.source}: is a video, and the network reads images of bands; give such")
                for frame, image in _frames(job):
                    if str(frame.source) in done:
                        progress(image.share)
                    else:
                        places[id(image)] = frame
                        yield image
            except UserError as error:
                skipped[str(job.source)] = str(error)
                progress(1)

    for image, pieces in predictor.pieces(images(), progress):
        yield places.pop(id(image)), image, pieces


def _opened(jobs: Sequence[Job], bands: Bands | None) -> Iterator[tuple[Job, Future[Windows]]]:
    """Open image files one after the other, a few ahead; a video is opened by whoever reads its frames."""
    with ThreadPoolExecutor(1, "read") as reader:
        ahead: deque[tuple[Job, Future[Windows]]] = deque()
        for job in jobs:
            ahead.append((job, Future() if is_video(job.source) else reader.submit(open_windows, job.source, bands)))
            if len(ahead) > READ_AHEAD:
                yield ahead.popleft()
        yield from ahead


def _frames(job: Job) -> Iterator[tuple[Job, Windows]]:
    """Yield the frames of a video as images of their own."""
    for number, total, pixels in read_frames(job.source):
        name = f"{job.source}#{number}"
        yield Job(Path(name), job.place / f"{number:06d}"), Decoded(pixels, name, 1 / total if total else 0.0)


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _write(
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
        if (place := read_georeference(job.source)) is not None:
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


class _Table:
    """predictions.csv: a row an image, on the disk as soon as it is there."""

    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        self._path, self._header = path, [*COLUMNS, *(f"share/{name}" for name in classes)]

    def __enter__(self) -> _Table:
        try:
            new = not self._path.exists()
            self._file = self._path.open("a", newline="", encoding="utf-8")
        except OSError as error:
            raise RunError(f"{self._path}: cannot be written ({error.strerror})") from None
        if new:
            self.add(self._header)
        return self

    def add(self, row: Sequence[str]) -> None:
        csv.writer(self._file).writerow(row)
        self._file.flush()

    def __exit__(self, *_: object) -> None:
        self._file.close()


# ── the folder ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _prepare(
    out: Path, paths: Sequence[str | Path], settings: Mapping[str, Any], overwrite: bool, resume: bool
) -> set[str]:
    """Make the output folder fit to be written to, and return the files whose results it has already.

    An existing one is emptied only if we filled it and `overwrite` says so.
    """
    for path in map(Path, paths):
        if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
            raise RunError(f"{out} lies inside the input folder {path}; choose an output folder outside it")
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file; choose another output folder")
    if overwrite and resume:
        raise RunError("--resume goes on with a prediction, --overwrite replaces one; give one of the two")
    done: set[str] = set()
    if out.is_dir() and any(out.iterdir()):
        if not (overwrite or resume):
            raise RunError(f"{out} is not empty; go on with --resume, replace a prediction with --overwrite, "
                           "or choose another folder")  # fmt: skip
        table = out / TABLE
        ours = (out / SUMMARY).is_file() or (
            table.is_file() and table.read_text(encoding="utf-8", errors="replace").startswith(",".join(COLUMNS[:2]))
        )
        if not ours:
            raise RunError(f"{out} holds something other than a prediction, so --overwrite and --resume leave it alone")
        if resume:
            done = _resume(out, settings)
        else:
            for folder in (out / name for name in FOLDERS):
                if folder.is_dir() and not folder.is_symlink():
                    shutil.rmtree(folder)
            table.unlink(missing_ok=True)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{out}: the output folder cannot be made: {error.strerror}") from None
    write_json(out / SUMMARY, {**settings, "finished": False})
    return done


def _resume(out: Path, settings: Mapping[str, Any]) -> set[str]:
    """Return the files in the table, whose last line may be torn. Raises RunError if they were made otherwise."""
    before = read_json(out / SUMMARY)
    for key, value in settings.items():
        if before.get(key) != value:
            raise RunError(f"{out}: was made with other weights or settings ({key}: {before.get(key)} -> {value}); "
                           "give the same ones, or another folder")  # fmt: skip
    table = out / TABLE
    if not table.exists():
        return set()
    text = table.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        os.truncate(table, len(whole))
    rows = csv.DictReader(io.StringIO(whole.decode("utf-8")))
    return {row["file"] for row in rows}


def _settings(predictor: Predictor, outputs: Outputs) -> dict[str, Any]:
    """Return what decides how results look, in plain values."""
    return {
        **predictor.about(),
        "outputs": asdict(outputs),
    }


def _write_summary(out: Path, settings: Mapping[str, Any], summary: Summary) -> None:
    """Write predictions.json: settings, and what the table says, by image."""
    with (out / TABLE).open(newline="", encoding="utf-8") as file:
        images = [_of_row(row) for row in csv.DictReader(file)]
    write_json(out / SUMMARY, {**settings, "finished": True, "images": images, "skipped": summary.skipped})


def _of_row(row: Mapping[str, str]) -> dict[str, Any]:
    figures = {name: float(row[name]) for name in ("confidence", "entropy")}
    shares = {name.removeprefix("share/"): float(value) for name, value in row.items() if name.startswith("share/")}
    size = {name: int(row[name]) for name in ("height", "width")}
    return {"file": row["file"], "mask": row["mask"], **size, **figures, "shares": shares}
