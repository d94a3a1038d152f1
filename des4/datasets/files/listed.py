"""Which image a line of a list means, however it spells the path."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path, PureWindowsPath

from des4.datasets.files.catalogue import Catalogue, Mask
from des4.datasets.lists import Entry, sample_name
from des4.types import DataError


class ListedImages:
    """The images of a data set, found by the names that lists give them.

    root: the data folder. images: file of each id; an image that the reader did not find, but a list names, comes to
    them.
    """

    def __init__(self, root: Path, catalogue: Catalogue) -> None:
        self.root, self.catalogue = root, catalogue
        self.images = dict(catalogue.images)
        self._by_place: dict[str, str] | None = None  # real path of each image → id; made when a list asks for it

    def in_own_names(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Turn the entries of a published list into ids: its paths are those of its authors' disks, its names fit."""
        ids = {sample_name(sample_id): sample_id for sample_id in self.images}
        return ((ids.get(sample_name(name), name), None) for name, _ in entries)

    def locate(self, path: Path, entry: Entry) -> tuple[str, Mask | None]:
        """Find the id and mask of a list's line; an image that the reader did not find gets its path's stem as id."""
        name, mask = entry
        sample_id = self._find(name)
        if sample_id is None:
            raise DataError(f"{path}: no image '{name}' under {self.root}; mend the line or add the image")
        if mask is None or self.catalogue.mask_at is None:
            return sample_id, self.catalogue.masks.get(sample_id)
        return sample_id, self.catalogue.mask_at(self._file_called(mask) or self.root / mask)

    def is_whole(self, line: str) -> bool:
        """Whether a line of a list is one name, spaces and all."""
        return self._known(line) is not None or (self.root / line).is_file()

    def _known(self, name: str) -> str | None:
        """Return the id that a list calls `name`, if it is that of an image."""
        for spelling in self._spellings(name):
            for sample_id in (spelling, self.catalogue.identify(spelling)):
                if sample_id in self.images:
                    return sample_id
        return None

    def _find(self, name: str) -> str | None:
        """Return the id of the image that a list calls `name`, however it spells the path; None if there is none."""
        if (known := self._known(name)) is not None:
            return known
        if (place := self._file_called(name)) is None:
            return None
        if self._by_place is None:
            self._by_place = {os.path.realpath(image): sample_id for sample_id, image in self.images.items()}
        called = self.catalogue.identify([*self._spellings(name)][-1])
        sample_id = self._by_place.setdefault(os.path.realpath(place), called)
        self.images.setdefault(sample_id, place)
        return sample_id

    def _file_called(self, name: str) -> Path | None:
        """Return the file that a list calls `name`; None if there is none."""
        return next((path for spelling in self._spellings(name) if (path := self.root / spelling).is_file()), None)

    def _spellings(self, name: str) -> Iterator[str]:
        """Yield a listed path as it stands, and as it reads from the root.

        Of a path of another machine's that is what follows `images/`, `masks/` or a folder of the root's name.
        """
        yield name
        slashed = unicodedata.normalize("NFC", name).replace("\\", "/")
        if slashed != name:
            yield slashed
        if not (slashed.startswith("/") or PureWindowsPath(slashed).drive):
            return
        place = Path(slashed)
        for root in (Path(os.path.abspath(self.root)), Path(os.path.realpath(self.root))):  # noqa: PTH100  # keeps links
            if place.is_relative_to(root):
                yield place.relative_to(root).as_posix()
                return
        if place.is_file():
            return
        for folder in (os.path.basename(os.path.abspath(self.root)), "images", "masks"):  # noqa: PTH100, PTH119
            _, found, after = slashed.rpartition(f"/{folder}/")
            if found:
                yield f"{folder}/{after}" if folder == "masks" else after
