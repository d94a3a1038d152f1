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
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import torch

from des4.config import changes
from des4.datasets.files.finding import as_text
from des4.predict.predictor import NO_PROGRESS, Predictor
from des4.predict.processes import segment_in_processes
from des4.predict.segmenting import MAKE_ROOM, Outcome, Segmenting, chunked
from des4.predict.sources import Job, find_images
from des4.predict.writing import COLUMNS, Outputs
from des4.runlog import read_json, replacing, write_json
from des4.types import RunError

TABLE, SUMMARY = "predictions.csv", "predictions.json"
FOLDERS = ("masks", "overlays", "entropy", "probs")


@dataclass
class Summary:
    """What a prediction came to. done: images, earlier ones included. skipped: file → reason, in one line.

    notes: on what the files are called, and of each kind of `Predictor.notes_on` that on the first image that has one.
    """

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
    tell: Callable[[str], None] = lambda note: None,
    devices: Sequence[torch.device] = (),
) -> Summary:
    """Segment image files into a folder. A file that cannot be read is skipped, and named in the summary.

    paths, lines: as of `find_images`. out: an empty folder, unless an earlier prediction in it may be overwritten, or
    is resumed: then images in its table are left as they are. expect: called with the number of images. progress:
    called with the part of an image that has been done since, for a bar. tell: called with notes as they come, one of
    each kind. devices: of processes that the images are shared out among, one for each; none: this process segments
    them. Memory does not depend on the images' number, and with the extra `large` on their width alone.
    Raises DataError or RunError before anything is written; RunError where the folder takes no more, or a process is
    lost.
    """
    out = Path(out)
    outputs = outputs or Outputs()
    found, notes = find_images(paths, lines)
    jobs = [job for job in found if _is_named(job)]
    settings = _settings(predictor, outputs)
    done = _prepare(out, paths, settings, overwrite, resume)
    summary = Summary(out, len(done), notes)
    unnamed = [as_text(job.source) for job in found if not _is_named(job)]
    summary.skipped |= {path: f"{path}: the name is not valid UTF-8; rename the file or its folder" for path in unnamed}
    for note in notes:
        tell(note)
    expect(len(jobs))
    waiting = [job for job in jobs if str(job.source) not in done]
    progress(len(jobs) - len(waiting))
    rank = _Rank(jobs)
    noted: dict[str | None, Outcome] = {}
    with _Table(out / TABLE, predictor.classes) as table:
        if devices:
            outcomes = segment_in_processes(predictor, devices, waiting, done, out, outputs, progress)
        else:
            outcomes = _segment(Segmenting(predictor, out, outputs, done, progress), waiting)
        with closing(outcomes):  # at once, also where something else fails: processes are ended then
            for outcome in outcomes:
                if outcome.row is not None:
                    table.add(outcome.row)
                    summary.done += 1
                elif outcome.skipped is not None:
                    summary.skipped[outcome.file] = outcome.skipped
                elif outcome.note is not None:
                    if outcome.kind not in noted:
                        tell(outcome.note)
                    before = noted.setdefault(outcome.kind, outcome)  # each process tells of the first of its own
                    if rank(outcome.file) < rank(before.file):
                        noted[outcome.kind] = outcome
    summary.notes += [outcome.note for _, outcome in sorted(noted.items(), key=str) if outcome.note is not None]
    summary.skipped = {file: summary.skipped[file] for file in sorted(summary.skipped, key=rank)}
    table.sort(rank)
    _write_summary(out, settings, summary)
    return summary


def _is_named(job: Job) -> bool:
    """Whether a table can hold the path of an image."""
    return as_text(job.source) == str(job.source)


def _segment(segmenting: Segmenting, jobs: Sequence[Job]) -> Generator[Outcome]:
    for outcomes in segmenting.chunks(chunked(jobs, segmenting.predictor.batch)):
        yield from outcomes


class _Rank:
    """Where a file stands in the list of all, and a frame in its video; those of an earlier list come first."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._places = {str(job.source): place for place, job in enumerate(jobs)}

    def __call__(self, file: str) -> tuple[int, int]:
        if (place := self._places.get(file)) is not None:
            return place, -1
        video, _, frame = file.rpartition("#")
        return self._places.get(video, -1), int(frame) if video in self._places else -1


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


# ── the table ────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Table:
    """predictions.csv: a row an image, on the disk as soon as it is there."""

    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        self._path, self._header = path, [*COLUMNS, *(f"share/{name}" for name in classes)]

    def __enter__(self) -> _Table:
        try:
            new = not self._path.exists() or not self._path.stat().st_size  # or its first line was torn
            self._file = self._path.open("a", newline="", encoding="utf-8")
        except OSError as error:
            raise RunError(f"{self._path}: cannot be written ({error.strerror})") from None
        if new:
            self.add(self._header)
        return self

    def add(self, row: Sequence[str]) -> None:
        try:
            csv.writer(self._file).writerow(row)
            self._file.flush()
        except OSError as error:
            raise RunError(f"{self._path}: cannot be written ({error.strerror or error}); {MAKE_ROOM}") from None

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def sort(self, rank: Callable[[str], tuple[int, int]]) -> None:
        """Put the rows of a file that is closed in order, as several processes may have done them in another."""
        with self._path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        ordered = sorted(rows, key=lambda row: rank(row[0]))
        if ordered == rows:
            return
        text = io.StringIO(newline="")
        csv.writer(text).writerows([header, *ordered])
        with replacing(self._path) as partial:
            partial.write_bytes(text.getvalue().encode())


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
    if changed := changes({key: before.get(key) for key in settings}, settings):
        raise RunError(f"{out}: was made with other weights or settings ({', '.join(changed)}); give the same ones, or "
                       "another folder")  # fmt: skip
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
    return {"file": row["file"], "mask": row["mask"], **figures_of_row(row)}


def figures_of_row(row: Mapping[str, str]) -> dict[str, Any]:
    """Return what a row of the table says of an image, as values."""
    figures = {name: float(row[name]) for name in ("confidence", "entropy")}
    shares = {name.removeprefix("share/"): float(value) for name, value in row.items() if name.startswith("share/")}
    size = {name: int(row[name]) for name in ("height", "width")}
    return {**size, **figures, "shares": shares}
