"""Unlabeled images in tar files, so that millions of them need no file each.

An id is `shard/key`: the tar's name without `.tar`, and the image's key in it. Ids are never held as strings, images
are read where the index says they lie (`des4.datasets.tar_index`), and nothing is kept open, so that any number of
workers may read.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

from des4.data.ids import SortedIds
from des4.datasets.tar_index import index_of
from des4.types import DataError


class Shards(SortedIds):
    """The images of tar files, as a sorted sequence of their ids.

    places: tar files, and folders of them; sub-folders are not looked at. index_folder: where indexes are kept that do
    not lie beside their tar. Raises DataError if a tar cannot be read, two have one name, or there is no image.
    """

    def __init__(self, places: Sequence[Path], index_folder: Path) -> None:
        self._tars = _tar_files(places)
        self._indexes = {name: index_of(tar, index_folder) for name, tar in self._tars.items()}
        self._names = list(self._indexes)
        self._starts = list(accumulate((len(index) for index in self._indexes.values()), initial=0))
        if not len(self):
            raise DataError(f"{places[0]}: no shard holds an image; members are named KEY.jpg, KEY.png, …")

    @property
    def num_shards(self) -> int:
        """How many tar files there are."""
        return len(self._tars)

    def __len__(self) -> int:
        return self._starts[-1]

    def __iter__(self) -> Iterator[str]:
        for name, index in self._indexes.items():
            for place in range(len(index)):
                yield f"{name}/{index.key(place)}"

    def __contains__(self, sample_id: object) -> bool:
        return isinstance(sample_id, str) and self._find(sample_id) is not None

    def _at(self, index: int) -> str:
        shard = bisect_right(self._starts, index) - 1
        name = self._names[shard]
        return f"{name}/{self._indexes[name].key(index - self._starts[shard])}"

    def _find(self, sample_id: str) -> tuple[Path, int, int] | None:
        """Return the tar of an image, its offset and its length in there; None if there is no such image."""
        name, _, key = sample_id.partition("/")
        if (index := self._indexes.get(name)) is None or (place := index.find(key)) is None:
            return None
        return self._tars[name], int(index.offsets[place]), int(index.lengths[place])

    def tar(self, sample_id: str) -> Path:
        """Return the tar file that holds an image. Raises DataError."""
        return self._located(sample_id)[0]

    def read(self, sample_id: str) -> bytes:
        """Read an image file. Raises DataError."""
        tar, offset, length = self._located(sample_id)
        try:
            file = os.open(tar, os.O_RDONLY)
            try:
                data = os.pread(file, length, offset)
            finally:
                os.close(file)
        except OSError as error:
            raise DataError(f"{tar}: cannot be read ({error.strerror}); restore the file or leave it out") from error
        if len(data) < length:
            raise DataError(f"{tar}: ends within '{sample_id}'; restore the file or leave it out")
        return data

    def _located(self, sample_id: str) -> tuple[Path, int, int]:
        found = self._find(sample_id)
        if found is None:
            raise DataError(f"{sample_id}: no shard holds this image; restore the shard or take it off the list")
        return found


def _tar_files(places: Sequence[Path]) -> dict[str, Path]:
    """Return the tar files by name, in the order of their ids."""
    tars: dict[str, Path] = {}
    for place in places:
        found = sorted(path for path in place.glob("*.tar") if path.name[0] != ".") if place.is_dir() else [place]
        if not found:
            raise DataError(f"{place}: holds no .tar files; make some with: des4 data shard SRC --out {place}")
        for tar in found:
            if not tar.is_file():
                raise DataError(f"{tar}: no such shard; name .tar files, or a folder that holds them")
            if tar.stem in tars:
                raise DataError(f"{tar}: has the name of {tars[tar.stem]}, and names are part of the ids; rename one")
            tars[tar.stem] = tar
    return dict(sorted(tars.items(), key=lambda item: f"{item[0]}/"))
