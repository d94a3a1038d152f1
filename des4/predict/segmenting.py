"""Image files through the network and into files, a chunk at a time: what one process does of a prediction.

Images of a chunk may go through the network together, those of two chunks never do. So the same images meet in a batch
however many processes share the chunks out, and what comes out is the same to the bit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from des4.images.video import is_video, read_frames
from des4.images.windows import Decoded, Windows, open_windows
from des4.predict.pieces import Piece
from des4.predict.predictor import NO_PROGRESS, Predictor
from des4.predict.sources import Job
from des4.predict.writing import Outputs, write_image
from des4.types import Bands, DataError, RunError, UserError

MAKE_ROOM = "free some disk space, then go on with --resume"
READ_AHEAD = 2
"""Images that are decoded while another one is segmented."""


@dataclass(frozen=True)
class Outcome:
    """What came of a file: a row of the table, the reason why it is skipped, or a note on the image, of some kind."""

    file: str
    row: list[str] | None = None
    skipped: str | None = None
    note: str | None = None
    kind: str | None = None


@dataclass
class Segmenting:
    """How one process segments files, and what it has said so far.

    done: frames of videos that are left as they are. progress: called with the part of a file that has been done since.
    """

    predictor: Predictor
    out: Path
    outputs: Outputs
    done: Collection[str] = ()
    progress: Callable[[float], None] = NO_PROGRESS
    _noted: set[str] = field(default_factory=set, init=False)

    def chunks(self, chunks: Iterable[Sequence[Job]]) -> Iterator[Iterator[Outcome]]:
        """Yield what comes of each chunk, to be read before the next one. `READ_AHEAD` images beyond it are asked for.

        Raises RunError where `out` takes no more.
        """
        opened = _opened(chunks, self.predictor.info.bands)
        for first in opened:
            yield self._chunk(_until_the_end_of_a_chunk(chain([first], opened)))

    def _chunk(self, opened: Iterator[_Opened]) -> Iterator[Outcome]:
        places: dict[int, Job] = {}
        skipped: list[Outcome] = []
        images = self._images(opened, places, skipped)
        for image, pieces in self.predictor.pieces(images, self.progress):
            job = places.pop(id(image))
            for kind, note in self.predictor.notes_on(image).items():
                if kind not in self._noted:
                    self._noted.add(kind)
                    yield Outcome(str(job.source), note=note, kind=kind)
            try:
                yield Outcome(str(job.source), row=self._write(job, image, pieces))
            except RunError:
                raise
            except UserError as error:
                yield Outcome(str(job.source), skipped=str(error))
            yield from skipped
            skipped.clear()
        yield from skipped

    def _images(self, opened: Iterator[_Opened], places: dict[int, Job], skipped: list[Outcome]) -> Iterator[Windows]:
        """Yield images, and the frames of videos. places: is told of each. skipped: is told what cannot be read."""
        for job, image_to_come, _ in opened:
            try:
                for one, image in self._of(job, image_to_come):
                    places[id(image)] = one
                    yield image
            except UserError as error:
                skipped.append(Outcome(str(job.source), skipped=str(error)))
                self.progress(1)

    def _of(self, job: Job, image_to_come: Future[Windows]) -> Iterator[tuple[Job, Windows]]:
        if not is_video(job.source):
            yield job, image_to_come.result()
            return
        if self.predictor.info.bands is not None:
            raise DataError(f"{job.source}: is a video, and the network reads images of bands; give such")
        for number, total, pixels in read_frames(job.source):
            name, share = f"{job.source}#{number}", 1 / total if total else 0.0
            if name in self.done:
                self.progress(share)
            else:
                yield Job(Path(name), job.place / f"{number:06d}"), Decoded(pixels, name, share)

    def _write(self, job: Job, image: Windows, pieces: Iterable[Piece]) -> list[str]:
        try:
            return write_image(self.predictor, job, image, pieces, self.out, self.outputs)
        except OSError as error:
            raise RunError(f"{self.out}: cannot be written to ({error.strerror or error}); {MAKE_ROOM}") from None


class _Opened(NamedTuple):
    """A file of which the image is there, or will be. ends: whether its chunk does."""

    job: Job
    image: Future[Windows]
    ends: bool


def _opened(chunks: Iterable[Sequence[Job]], bands: Bands | None) -> Iterator[_Opened]:
    """Open image files one after the other, a few ahead; a video is opened by whoever reads its frames."""
    with ThreadPoolExecutor(1, "read") as reader:
        ahead: deque[_Opened] = deque()
        for job, ends in ((job, job is chunk[-1]) for chunk in chunks for job in chunk):
            image: Future[Windows] = (
                Future() if is_video(job.source) else reader.submit(open_windows, job.source, bands)
            )
            ahead.append(_Opened(job, image, ends))
            if len(ahead) > READ_AHEAD:
                yield ahead.popleft()
        yield from ahead


def _until_the_end_of_a_chunk(opened: Iterator[_Opened]) -> Iterator[_Opened]:
    for one in opened:
        yield one
        if one.ends:
            return


def chunked(jobs: Sequence[Job], size: int) -> Iterator[Sequence[Job]]:
    """Cut a list into chunks of so many."""
    return (jobs[start : start + size] for start in range(0, len(jobs), size))


def frames_of(jobs: Sequence[Job], done: Iterable[str]) -> list[str]:
    """Return those of the files that are done that are frames of videos among the jobs."""
    videos = tuple(f"{job.source}#" for job in jobs if is_video(job.source))
    return [file for file in done if file.startswith(videos)] if videos else []
