"""The images that may be labeled next: the unlabeled ones of a data set, or files."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

from PIL import Image

from des4.datasets import FileDataset
from des4.images.windows import Decoded, Windows, open_windows
from des4.predict.sources import Job
from des4.types import Bands, DataError, Dataset


class Pool(Protocol):
    """Images by name, read when they are asked for."""

    names: Sequence[str]

    def open(self, name: str) -> Windows:
        """Open an image. Raises DataError."""

    def copy(self, name: str, folder: Path) -> PurePosixPath:
        """Copy an image's file into a folder, in its sub-folder, and return its place there. Raises DataError."""


class DatasetPool:
    """Images of a data set, by their ids: of files, of shards, or painted."""

    def __init__(self, dataset: Dataset, names: Sequence[str]) -> None:
        self._dataset, self.names = dataset, names

    def open(self, name: str) -> Windows:
        """Open an image. Raises DataError."""
        if (path := self._file(name)) is not None:
            return open_windows(path, self._dataset.bands)
        pixels = self._dataset.image(name).permute(1, 2, 0).numpy()
        return Decoded(pixels, name, bands=self._dataset.bands)

    def copy(self, name: str, folder: Path) -> PurePosixPath:
        """Copy an image's file; one of a shard as it is in there, a painted one as PNG. Raises DataError."""
        if (path := self._file(name)) is not None:
            return _copied(path, folder, PurePosixPath(f"{name}{path.suffix.lower()}"))
        if isinstance(self._dataset, FileDataset):
            data = self._dataset.image_bytes(name)
            place = PurePosixPath(f"{name}{_suffix(data)}")
        else:
            buffer = io.BytesIO()
            Image.fromarray(self._dataset.image(name).permute(1, 2, 0).numpy()).save(buffer, "PNG")
            data, place = buffer.getvalue(), PurePosixPath(f"{name}.png")
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(data)
        return place

    def part(self, names: Sequence[str]) -> DatasetPool:
        """Return a pool of some of the images."""
        return DatasetPool(self._dataset, names)

    def _file(self, name: str) -> Path | None:
        if not isinstance(self._dataset, FileDataset):
            return None
        path = self._dataset.image_file(name)
        return None if any(part.suffix == ".tar" for part in path.parents) else path


class FilePool:
    """Image files, by their paths."""

    def __init__(self, jobs: Sequence[Job], bands: Bands | None) -> None:
        self._places = {str(job.source): job.place for job in jobs}
        self._bands = bands
        self.names: Sequence[str] = list(self._places)

    def part(self, names: Sequence[str]) -> FilePool:
        """Return a pool of some of the images."""
        return FilePool([Job(Path(name), self._places[name]) for name in names], self._bands)

    def open(self, name: str) -> Windows:
        """Open an image. Raises DataError."""
        return open_windows(Path(name), self._bands)

    def copy(self, name: str, folder: Path) -> PurePosixPath:
        """Copy an image's file, under its path below the folder that was given. Raises DataError."""
        path = Path(name)
        return _copied(path, folder, PurePosixPath(f"{self._places[name].as_posix()}{path.suffix.lower()}"))


class JoinedPool:
    """The images of one pool, and then those of another."""

    def __init__(self, first: Pool, second: Pool) -> None:
        self._first, self._second = first, second
        self._own = frozenset(first.names)
        self.names: Sequence[str] = [*first.names, *second.names]

    def open(self, name: str) -> Windows:
        """Open an image. Raises DataError."""
        return self._home(name).open(name)

    def copy(self, name: str, folder: Path) -> PurePosixPath:
        """Copy an image's file into a folder. Raises DataError."""
        return self._home(name).copy(name, folder)

    def _home(self, name: str) -> Pool:
        return self._first if name in self._own else self._second


def _copied(path: Path, folder: Path, place: PurePosixPath) -> PurePosixPath:
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(path, folder / place)
    except OSError as error:
        raise DataError(f"{path}: cannot be copied into {folder} ({error.strerror or error})") from error
    return place


def _suffix(data: bytes) -> str:
    kind = str(Image.open(io.BytesIO(data)).format).lower()
    return {"jpeg": ".jpg", "mpo": ".jpg", "tiff": ".tif"}.get(kind, f".{kind}")
