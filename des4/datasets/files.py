"""Data sets in files: what all formats share once a reader has found the images and the masks.

A reader (one file a format: `folder`, `voc`, …) turns a layout into a `Catalogue`, the one internal form.
`FileDataset` says from it who is labelled, unlabelled and val, and reads the pixels. Nothing is written into the data.

Who is who, in this order:
- val: the list; else the format's own; else the images with a mask under a sub-folder `val/`, `valid/` or
  `validation/`; else a drawn share of the labelled.
- labelled: the list; else the format's own; else every image with a mask that is neither val nor on the unlabelled
  list.
- unlabelled: the list; else every image (or every image the format says is for training) that is neither.
Where neither a list nor the format says who is trained on, images under sub-folders `test/`, `val/` and so on are not.
Lists come from the config, else from `labeled.txt`, `unlabeled.txt`, `val.txt` in the root (or `labelled.txt`, as some
spell it). The mask of an unlabelled image is not opened, unless `reveal` allows it. Unlabelled images in tar shards
come to those in files.
"""

from __future__ import annotations

import math
import os
import posixpath
import random
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, ClassVar, Literal, Protocol, Self

import numpy as np
import torch
from pydantic import Field, PositiveInt, field_validator, model_validator
from torch import Tensor

from des4.data.ids import MergedIds
from des4.datasets.faults import is_collecting, stepping_over
from des4.datasets.lists import Entry, read_list, refuse_repeats, sample_name
from des4.datasets.palettes import Palette, distinct_palette
from des4.datasets.protocols import PROTOCOLS, describe_lists, find_lists, known_protocol, require_protocol
from des4.datasets.shards import Shards
from des4.datasets.walk import walk
from des4.images.bands import LOOKED_AT, Chosen, UnlikeOthersError, choose, decode_bands, is_picture, layout_of, measure
from des4.images.cache import GIB, PixelCache, cache_folder
from des4.images.pictures import IMAGE_SUFFIXES, Header, decode_header, decode_image, read_bytes, turned_upright
from des4.images.tiff import MissingExtraError
from des4.ops.pixels import scaled
from des4.ops.tail import FEW_VAL
from des4.types import IGNORE, Bands, Config, DataError

VAL_FOLDERS = frozenset({"val", "valid", "validation"})
TEST_FOLDERS = frozenset({"test", "testing"})
"""Names, in lower case, of sub-folders that hold the images of a split."""


def spread(given: Any) -> Any:
    """Take numbers and names as a shell passes them on without quotes apart, `0,255` and `1-13`; leave all else."""
    if isinstance(given, int) and not isinstance(given, bool):
        return (given,)
    if not isinstance(given, str):
        return given
    found: list[int | str] = []
    for part in filter(None, (part.strip() for part in given.split(","))):
        first, dash, last = (end.strip() for end in part.partition("-"))
        if dash and first.isdecimal() and last.isdecimal():
            found += range(int(first), int(last) + 1)
        else:
            found.append(int(part) if part.isdecimal() else part)
    return tuple(found)


class FilesConfig(Config):
    """Settings of data in files. Relative paths are relative to the working directory.

    Without `data.name` the format is recognised by the layout of `data.root`. See [data](data.md).
    """

    root: Path
    """The data folder."""
    labeled: Path | None = None
    """List of labelled images; `null`: `labeled.txt` in the root if it is there."""
    unlabeled: Path | None = None
    """List of unlabelled images; `null`: `unlabeled.txt` in the root if it is there."""
    val: Path | None = None
    """List of validation images; `null`: `val.txt` in the root if it is there."""
    val_fraction: float | None = Field(default=None, gt=0, lt=1)
    """Share of the images with masks that is drawn for validation if there is no val list and no val folder; `null`: as
    many as make 20, but 10 to 30 %."""
    val_seed: int = 0
    """Seed of that draw. It is not the training seed, so that runs with several seeds share one val set."""
    protocol: str | None = None
    """Published protocol, such as `voc/u2pl/1323`, whose lists these must be; see [protocols](protocols.md)."""
    lists: Path | None = None
    """Folder with published lists: those of `protocol` are found in it by their content."""
    shards: Path | tuple[Path, ...] | None = None
    """Tar files with further unlabelled images, or folders of such files."""
    cache: float = Field(default=0.0, ge=0)
    """GiB of decoded images to keep on disk for the next time; 0: none. For images that take long to decode."""
    cache_dir: Path | None = None
    """Folder for them, for indexes of shards and for imports; `null`: `des4` in the user's cache folder."""
    skip_broken: bool = False
    """`true`: a labelled image or mask that cannot be read is replaced by another instead of stopping the run, as
    unlabelled ones always are."""
    allow_leak: bool = False
    """`true`: train although a labelled picture is a val picture too, as in some published data."""
    exif: Literal["auto", "upright", "stored"] = "auto"
    """For images with a rotation in EXIF: whether masks were drawn over the `upright` picture or over the `stored`
    pixels; `auto`: as the sizes say where they do."""
    bands: tuple[PositiveInt, ...] | None = None
    """Bands of the image files that the network sees, counted from 1, in this order: `4,3,2`. `null`: 8-bit pictures as
    RGB, all bands of [others](data.md#more-than-8-bits-other-bands-than-rgb)."""
    value_range: tuple[tuple[float, float], ...] | None = None
    """The values that become 0 and 1: `[0, 10000]`, or such a pair for each band; `null`: measured on the images. For
    8-bit values they are 0 and 255."""

    @field_validator("bands", mode="before")
    @classmethod
    def _with_commas(cls, given: Any) -> Any:
        return spread(given)

    @field_validator("bands")
    @classmethod
    def _has_bands(cls, bands: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if bands == ():
            raise ValueError("write one band or more, such as 4,3,2")
        return bands

    @field_validator("value_range", mode="before")
    @classmethod
    def _one_for_all(cls, given: Any) -> Any:
        """Take a single (low, high) for that of all bands."""
        if isinstance(given, str):
            given = [part.strip() for part in given.split(",")]
        return (
            (given,) if isinstance(given, list | tuple) and given and not isinstance(given[0], list | tuple) else given
        )

    @field_validator("value_range")
    @classmethod
    def _is_a_range(cls, ranges: tuple[tuple[float, float], ...] | None) -> tuple[tuple[float, float], ...] | None:
        if ranges is not None and not (ranges and all(-math.inf < low < high < math.inf for low, high in ranges)):
            raise ValueError("write (low, high) with low < high, such as [0, 10000]")
        return ranges

    @field_validator("protocol")
    @classmethod
    def _published(cls, name: str | None) -> str | None:
        return name if name is None else known_protocol(name)

    @model_validator(mode="after")
    def _one_source_of_lists(self) -> Self:
        if self.lists and not self.protocol:
            raise ValueError("lists: say which of its lists with protocol=NAME, e.g. voc/u2pl/1323")
        if self.lists and (self.labeled or self.unlabeled):
            raise ValueError("lists: the protocol's are searched there; leave out labeled and unlabeled, or lists")
        return self


@dataclass(frozen=True)
class Oddity:
    """What is odd about a mask. code: a key of `des4.data_tools.checks.findings.KINDS`."""

    code: str
    message: str
    remedy: str


class Mask(Protocol):
    """Where a label comes from: a PNG of indices or of colours, or shapes. Nothing is opened before it is asked."""

    @property
    def path(self) -> Path:
        """The file that holds it, for messages."""

    def size(self) -> tuple[int, int]:
        """Return (height, width) without decoding. Raises DataError if the file cannot be a mask of this format."""

    def read(self) -> Tensor:
        """Read it, (H, W) uint8 of class indices and IGNORE. Raises DataError."""

    def oddities(self) -> Iterable[Oddity]:
        """Name what can be read but is hardly meant, such as a region that nothing is seen of. Raises DataError."""


@dataclass(frozen=True)
class Catalogue:
    """What a reader finds in a data set.

    images: file of each id. masks: of each id that has one.
    classes: names; None: counted in the masks of the labelled and val images, and called class_0, class_1, …
    palette: colours of the classes; None: colours that one can tell apart.
    labelled, unlabelled, val: ids by the format's own convention, None where it has none.
    identify: turns a listed name that is no id into the id it means.
    mask_at: opens the mask file of an `image mask` pair; None: the mask is found by the image's id, as all others are.
    fine: ids of the images with finer masks than the others, None where masks are of one kind.
    """

    images: Mapping[str, Path]
    masks: Mapping[str, Mask]
    classes: tuple[str, ...] | None
    palette: Palette | None = None
    labelled: Sequence[str] | None = None
    unlabelled: Sequence[str] | None = None
    val: Sequence[str] | None = None
    identify: Callable[[str], str] = str
    mask_at: Callable[[Path], Mask] | None = None
    fine: Collection[str] | None = None


class FileDataset(ABC):
    """The data set of a Catalogue. A format is a subclass: `Config`, `recognises`, and a constructor that reads a tree.

    Config: a FilesConfig with a `name`.
    notes: what was decided beyond the files, one sentence each: a drawn val set, counted classes.
    val_is_drawn: whether nothing names the val set, so that it was drawn from the labelled images.
    catalogue: what the reader found, masks of unlabelled images included.
    unlabelled_files: the unlabelled images that do not lie in shards.
    Raises DataError if a listed image or mask is missing, or a val image is a training image as well. Where faults are
    collected (`datasets.faults`) it goes on without what is at fault, and leaves `classes` empty, not counted.
    """

    Config: ClassVar[type[FilesConfig]]
    labelled: Sequence[str]
    unlabelled: Sequence[str]
    val: Sequence[str]
    held_out: Sequence[str] = ()

    def __init__(self, config: FilesConfig, catalogue: Catalogue) -> None:
        self.root = config.root
        self.notes: tuple[str, ...] = ()
        self.val_is_drawn = False
        self.catalogue = catalogue
        self._by_place: dict[str, str] | None = None  # real path of each image → id; made when a list asks for it
        self._images = dict(catalogue.images)
        self._hidden: dict[str, Mask] = {}  # that a list pairs with its unlabelled images
        self._masks = self._split(config, catalogue)
        if config.protocol:
            with stepping_over("wrong-protocol"):
                require_protocol(config.protocol, self.labelled, self.unlabelled, config.lists or config.root)
        self.unlabelled_files = self.unlabelled
        self._shards = self._add_shards(config) if config.shards else None
        self.notes += tuple(describe_lists(self.labelled, self.unlabelled, self.val, catalogue.fine))
        self._cache = self._open_cache(config) if config.cache else None
        self.skip_broken = config.skip_broken
        self.allow_leak = config.allow_leak
        self._exif = config.exif
        self._numbers, self._value_range = config.bands, config.value_range
        self._bands: Bands | None = None
        self._bands_are_known = False
        self._turns: dict[str, int] = {}  # of the samples checked: the EXIF orientation that the mask is to be given
        self.classes = catalogue.classes or self._find_classes()
        self.palette = catalogue.palette or distinct_palette(self.classes)

    @staticmethod
    @abstractmethod
    def recognises(root: Path) -> bool:
        """Whether `root` is laid out as this format is."""

    def image(self, sample_id: str) -> Tensor:
        """Read an image upright: (3, H, W) uint8 RGB, or (bands, H, W) uint8 or float32 in [0, 1]. Raises DataError."""
        bands, stored = self.bands, self.stored_image(sample_id)
        if bands is None or bands.are_bytes:
            return stored
        return scaled(stored.permute(1, 2, 0), bands.ranges).permute(2, 0, 1)

    def stored_image(self, sample_id: str) -> Tensor:
        """Read an image upright, as its file holds it: see `decode`. Raises DataError."""
        if path := self._images.get(sample_id):
            return self._cached(path, lambda: self.decode(path, read_bytes(path)))
        if (shards := self._shards) is not None and sample_id in shards:
            source = self.image_file(sample_id)
            return self._cached(shards.tar(sample_id), lambda: self.decode(source, shards.read(sample_id)), sample_id)
        raise DataError(f"{self.root}: has no image '{sample_id}'")

    def _cached(self, source: Path, decode: Callable[[], Tensor], member: str = "") -> Tensor:
        if self._cache is None:
            return decode()
        if self.chosen is not None:
            member = f"{member}\0{self.chosen}"
        return self._cache.get(source, decode, member)

    def decode(self, path: Path, data: bytes) -> Tensor:
        """Decode an image file: (3, H, W) uint8 RGB; of bands their stored values, as `decode_bands` does.

        Raises DataError.
        """
        return decode_image(path, data) if self.chosen is None else decode_bands(path, data, self.chosen)

    def header(self, path: Path, data: bytes | None = None) -> Header:
        """Read the header of an image file, whose content may be given. Raises DataError."""
        data = read_bytes(path) if data is None else data
        return decode_header(path, data) if self.chosen is None else layout_of(path, data).header

    @property
    def bands(self) -> Bands | None:
        """What the images are made of; None: 8-bit pictures, read as RGB. It is measured when it is first asked for.

        Raises DataError if no image can be read for that.
        """
        if not self._bands_are_known:
            lists = (self.labelled, self.unlabelled)
            self.read_as(measure(self.stored_image, lists, self.chosen, self._value_range) if self.chosen else None)
        return self._bands

    def read_as(self, bands: Bands | None) -> None:
        """Read images as another data set's, which a network was trained on.

        Where `data.bands` is given it says which of these files' bands those are. Raises DataError if they are not as
        many, or 8-bit pictures are expected.
        """
        if bands is None and self._numbers is not None:
            raise DataError("data.bands: the network was trained on 8-bit pictures in RGB; leave it out")
        if bands is not None and self._numbers is not None and self._numbers != bands.numbers:
            if len(self._numbers) != len(bands.numbers):
                raise DataError(
                    f"data.bands: names {len(self._numbers)} bands, and the network was trained on {len(bands.numbers)}"
                )
            bands = bands.model_copy(update={"numbers": self._numbers})
        self._bands, self._bands_are_known = bands, True
        self.chosen = None if bands is None else Chosen.of(bands)

    @cached_property
    def chosen(self) -> Chosen | None:
        """Which bands are read of each file; None: the images are 8-bit pictures.

        It is seen from labelled and val images. Raises DataError if they do not hold the bands that the config names,
        or cannot be read without an extra.
        """
        ids = [*self.labelled, *self.val]
        found: Chosen | None = None
        failure: DataError | None = None
        for place in range(0, len(ids), max(1, len(ids) // LOOKED_AT)):
            path = self.image_file(ids[place])
            try:
                data = self.image_bytes(ids[place])
                pictures = self._numbers is None and is_picture(path, data)
                found = found or (None if pictures else choose(path, data, self._numbers))
            except DataError as error:
                failure = failure or error
                continue
            if pictures:
                self._refuse_range()
                return None
        if found is not None:
            self.notes += (f"images: {found}",)
        elif self._numbers is not None or isinstance(failure, MissingExtraError | UnlikeOthersError):
            raise failure or DataError(f"{self.root}: no labelled image says what its bands are; add some")
        return found  # if nothing could be read, whoever reads all files will say why

    def _refuse_range(self) -> None:
        if self._value_range is not None:
            raise DataError(
                f"{self.root}: data.value_range is for images of bands, and these are 8-bit pictures, read as RGB; "
                "leave it out, or say which bands with data.bands"
            )

    def label(self, sample_id: str) -> Tensor:
        """Read the mask of a labelled, val or revealed image, (H, W) uint8 with classes 0..C-1 and IGNORE.

        Raises DataError.
        """
        label = self.stored_label(sample_id)
        values = label.numpy()  # which compares bytes ten times as fast
        wrong = (values >= len(self.classes)) & (values != IGNORE)
        if wrong.any():
            raise DataError(
                f"{self._masks[sample_id].path}: label {values[wrong][0]} is neither one of the {len(self.classes)} "
                f"classes (0..{len(self.classes) - 1}) nor {IGNORE} (ignore); mend the mask or the class list"
            )
        return label

    def stored_label(self, sample_id: str) -> Tensor:
        """Read a mask as it lies on its upright image, (H, W) uint8, whatever labels it holds. Raises DataError."""
        orientation = self.orientation(sample_id)
        label = self._masks[sample_id].read()
        return label if orientation == 1 else torch.from_numpy(turned_upright(label.numpy(), orientation))

    def orientation(self, sample_id: str) -> int:
        """Return the EXIF orientation that a stored mask is to be given; 1 = none. Raises DataError if it is unfit."""
        if sample_id not in self._turns:
            self.check_sample(sample_id)
        return self._turns[sample_id]

    def check_labelled(self) -> None:
        """Read every labelled and val file's header: format, size, rotation. Raises DataError before training does.

        Labelled ones that may be skipped are left to be found in training.
        """
        for sample_id in (*(() if self.skip_broken else self.labelled), *self.val):
            self.check_sample(sample_id)

    def reveal(self) -> Sequence[str]:
        """From now on let `label` read the masks of unlabelled images too, and return the ids of those that have one.

        Images in shards have none.
        """
        for sample_id in self.unlabelled_files:
            mask = self._hidden.get(sample_id) or self.catalogue.masks.get(sample_id)
            if mask is not None and mask.path.is_file():
                self._masks[sample_id] = mask
        return tuple(sample_id for sample_id in self.unlabelled_files if sample_id in self._masks)

    def image_file(self, sample_id: str) -> Path:
        """Return the file of an image; of one in a shard, the tar's path with its key."""
        if path := self._images.get(sample_id):
            return path
        assert self._shards is not None  # noqa: S101  # all other images are in shards
        return self._shards.tar(sample_id) / sample_id.partition("/")[2]

    def image_bytes(self, sample_id: str) -> bytes:
        """Read an image file without decoding it. Raises DataError."""
        if path := self._images.get(sample_id):
            return read_bytes(path)
        assert self._shards is not None  # noqa: S101  # all other images are in shards
        return self._shards.read(sample_id)

    def mask(self, sample_id: str) -> Mask:
        """Return the mask of a labelled or val image, unopened."""
        return self._masks[sample_id]

    def check_sample(self, sample_id: str) -> None:
        """Raise DataError unless the sample's mask fits its image, going by their headers."""
        if sample_id not in self._masks:
            raise DataError(
                f"{self.root}: '{sample_id}' is neither a labelled nor a val image, so its mask is not read"
            )
        path, mask = self._images[sample_id], self._masks[sample_id]
        image, size = self.header(path), mask.size()
        drawn = self._exif
        if drawn == "auto" and size == image.size == image.upright and image.rotated:
            raise DataError(
                f"{path}: EXIF asks for a rotation, and its mask cannot say whether it follows; say data.exif=upright "
                "if masks lie on the pictures as viewers show them, data.exif=stored if they do not"
            )
        if drawn == "auto":
            drawn = "stored" if size == image.size and image.rotated else "upright"
        height, width = image.upright if drawn == "upright" else image.size
        if (height, width) != size:
            raise DataError(
                f"{mask.path}: is {size[1]}×{size[0]} pixels, its image {path.name} is {width}×{height}; "
                "export the mask at the image's size"
            )
        self._turns[sample_id] = image.orientation if drawn == "stored" else 1

    def _open_cache(self, config: FilesConfig) -> PixelCache:
        return PixelCache(cache_folder(config.cache_dir, config.root), config.root, int(config.cache * GIB))

    def _add_shards(self, config: FilesConfig) -> Shards:
        """Open the shards, and put their images among the unlabelled ones. Raises DataError if an id is taken."""
        places = [config.shards] if isinstance(config.shards, Path) else list(config.shards or ())
        shards = Shards(places, cache_folder(config.cache_dir, config.root) / "indexes")
        if taken := next((sample_id for sample_id in self._images if sample_id in shards), None):
            raise DataError(
                f"{shards.tar(taken)}: '{taken}' is an image under {self.root} as well; rename the shard, whose name "
                "begins the ids of its images"
            )
        self.notes += (f"shards: {len(shards)} unlabelled images in {shards.num_shards} tar files",)
        self.unlabelled = MergedIds(self.unlabelled, shards) if self.unlabelled else shards
        return shards

    def _split(self, config: FilesConfig, catalogue: Catalogue) -> dict[str, Mask]:
        """Set `labelled`, `unlabelled`, `val`; return the only masks ever opened."""
        known: dict[str, Mask] = {}
        labelled, unlabelled, val = self._read_lists(config, catalogue, known)
        if not self._images:
            raise DataError(
                f"{config.root}: holds no images; put them in {config.root / 'images'}, or list pairs of paths"
            )
        if labelled is None:
            _refuse_orphans(catalogue)
        usable = catalogue.labelled
        if usable is None:
            usable = [sample_id for sample_id in sorted(self._images) if sample_id in catalogue.masks]
        if val is None:
            val = list(catalogue.val or (i for i in usable if split_of(i) == "val"))
        spared = self._spared(labelled, unlabelled, val, catalogue)
        if labelled is None:
            labelled = sorted(set(usable) - set(val) - set(unlabelled or ()) - spared)
            if not labelled and spared.intersection(usable):
                raise DataError(
                    f"{config.root}: all images with masks are in val or test folders, which nothing is trained on; "
                    "move some, or name them with data.labeled=LIST"
                )
            if not labelled:
                raise DataError(
                    f"{config.root}: no image has a mask for training; put masks in masks/, named as their images "
                    "(other programs' formats: des4 data import)"
                )
        for sample_id in (*labelled, *val):
            if sample_id not in known:
                with stepping_over("missing-file"):
                    known[sample_id] = self._mask_of(sample_id, catalogue)
        labelled, val = ([sample_id for sample_id in ids if sample_id in known] for ids in (labelled, val))
        if not val:
            with stepping_over("too-few-labelled"):
                labelled, val = self._draw_val(labelled, config)
        if unlabelled is None:
            pool = self._images if catalogue.unlabelled is None else catalogue.unlabelled
            unlabelled = sorted(set(pool) - set(labelled) - set(val) - spared)
        self._refuse_val_images("labelled", labelled, val)
        self._refuse_val_images("unlabelled", unlabelled, val)
        self.labelled, self.unlabelled, self.val = tuple(labelled), tuple(unlabelled), tuple(val)
        return {sample_id: known[sample_id] for sample_id in (*labelled, *val)}

    def _spared(
        self, labelled: Sequence[str] | None, unlabelled: Sequence[str] | None, val: Sequence[str], catalogue: Catalogue
    ) -> set[str]:
        """Return the images that their folders keep from training: those of `test/`, and of `val/` but for `val`."""
        if catalogue.labelled is not None or None not in (labelled, unlabelled):
            return set()  # the format, or lists, say who is trained on
        listed = {*(labelled or ()), *(unlabelled or ()), *val}
        spared = {i: split for i in self._images if i not in listed and (split := split_of(i))}
        for split, count in sorted(Counter(spared.values()).items()):
            self.notes += (f"left out: {count} images in {split} folders, for no list names them",)
        return set(spared)

    def _read_lists(
        self, config: FilesConfig, catalogue: Catalogue, known: dict[str, Mask]
    ) -> tuple[list[str] | None, list[str] | None, list[str] | None]:
        """Read the labelled, unlabelled and val list: the config's, else the protocol's, else the root's, else None.

        known: takes the masks of labelled and val images.
        """
        published = find_lists(PROTOCOLS[config.protocol], config.lists) if config.protocol and config.lists else {}

        def ids(name: str, given: Path | None) -> list[str] | None:
            own = (config.root / f"{spelling}.txt" for spelling in (name, name.replace("labeled", "labelled")))
            path = given or published.get(name) or next(filter(None, map(if_file, own)), None)
            if path is None:
                return None
            found: list[str] = []
            with stepping_over("unreadable-list"):
                entries: Iterable[Entry] = read_list(path, lambda line: self._is_whole(line, catalogue))
                for entry in self._in_own_names(entries) if path in published.values() else entries:
                    with stepping_over("missing-file"):
                        sample_id, mask = self._locate(path, entry, catalogue)
                        if name != "unlabeled":
                            known[sample_id] = _existing(mask, path, sample_id, config.root)
                        elif mask is not None:
                            self._hidden[sample_id] = mask
                        found.append(sample_id)
            with stepping_over("repeated-line"):
                refuse_repeats(path, found)
            return found

        return ids("labeled", config.labeled), ids("unlabeled", config.unlabeled), ids("val", config.val)

    def _refuse_val_images(self, side: str, ids: Iterable[str], val: Iterable[str]) -> None:
        """Raise DataError if an image of a training list is a val image as well."""
        both = sorted(set(ids) & set(val))
        for sample_id in both:
            with stepping_over("in-val-too"):
                raise DataError(
                    f"{self.root}: '{sample_id}' is both {side} and val ({len(both)} such images); "
                    "a score on training images says nothing: take them off one list"
                )

    def _in_own_names(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Turn the entries of a published list into ids: its paths are those of its authors' disks, its names fit."""
        ids = {sample_name(sample_id): sample_id for sample_id in self._images}
        return ((ids.get(sample_name(name), name), None) for name, _ in entries)

    def _locate(self, path: Path, entry: Entry, catalogue: Catalogue) -> tuple[str, Mask | None]:
        """Find the id and mask of a list's line; an image that the reader did not find gets its path's stem as id."""
        name, mask = entry
        sample_id = self._find(name, catalogue)
        if sample_id is None:
            raise DataError(f"{path}: no image '{name}' under {self.root}; mend the line or add the image")
        if mask is None or catalogue.mask_at is None:
            return sample_id, catalogue.masks.get(sample_id)
        return sample_id, catalogue.mask_at(self._file_called(mask) or self.root / mask)

    def _is_whole(self, line: str, catalogue: Catalogue) -> bool:
        """Whether a line of a list is one name, spaces and all."""
        return self._known(line, catalogue) is not None or (self.root / line).is_file()

    def _known(self, name: str, catalogue: Catalogue) -> str | None:
        """Return the id that a list calls `name`, if it is that of an image."""
        for spelling in self._spellings(name):
            for sample_id in (spelling, catalogue.identify(spelling)):
                if sample_id in self._images:
                    return sample_id
        return None

    def _find(self, name: str, catalogue: Catalogue) -> str | None:
        """Return the id of the image that a list calls `name`, however it spells the path; None if there is none."""
        if (known := self._known(name, catalogue)) is not None:
            return known
        if (place := self._file_called(name)) is None:
            return None
        if self._by_place is None:
            self._by_place = {os.path.realpath(image): sample_id for sample_id, image in self._images.items()}
        sample_id = self._by_place.setdefault(os.path.realpath(place), catalogue.identify([*self._spellings(name)][-1]))
        self._images.setdefault(sample_id, place)
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

    def _mask_of(self, sample_id: str, catalogue: Catalogue) -> Mask:
        """Return the mask of an image that the format itself names for training or val."""
        for what, found in (("image", self._images), ("mask", catalogue.masks)):
            if sample_id not in found:
                raise DataError(f"{self.root}: '{sample_id}' has no {what}, though the data set lists it; restore it")
        return catalogue.masks[sample_id]

    def _draw_val(self, labelled: list[str], config: FilesConfig) -> tuple[list[str], list[str]]:
        if len(labelled) < 2:
            raise DataError(f"{config.root}: one labelled image cannot serve training and validation; add a val list")
        share = config.val_fraction or share_for_val(len(labelled))
        count = min(len(labelled) - 1, max(1, round(share * len(labelled))))
        val = set(random.Random(f"val/{config.val_seed}").sample(sorted(labelled), count))
        self.val_is_drawn = True
        self.notes += (f"val: {count} of the {len(labelled)} labelled images, drawn with val_seed={config.val_seed}",)
        return [sample_id for sample_id in labelled if sample_id not in val], sorted(val)

    def _find_classes(self) -> tuple[str, ...]:
        """Find the classes that nobody names in the labelled and val masks; () where faults are collected."""
        return () if is_collecting() else self._count_classes()

    def _count_classes(self) -> tuple[str, ...]:
        seen = np.zeros(256, np.bool_)
        for sample_id in (*self.labelled, *self.val):
            seen[self._masks[sample_id].read().numpy()] = True
        count = 1 + int(np.flatnonzero(seen[:IGNORE]).max(initial=0))
        if count < 2 and seen[IGNORE]:
            raise DataError(
                f"{self.root}: the masks hold no class but 0, and {IGNORE}, which means 'ignore'; "
                f"say data.values=0,{IGNORE} if {IGNORE} is the foreground"
            )
        if count < 2:
            raise DataError(f"{self.root}: the masks hold no class but 0 ({IGNORE} = ignore); number classes 0, 1, …")
        self.notes += (f"classes: {count}, counted in the labelled and val masks; name them in classes.txt",)
        return numbered_classes(count)


def share_for_val(num_masks: int) -> float:
    """Return the share of the images with masks that is drawn for validation: FEW_VAL of them, but 10 to 30 %."""
    return round(min(0.3, max(0.1, FEW_VAL / num_masks)), 2)


def numbered_classes(count: int) -> tuple[str, ...]:
    """Names for classes that nobody has named."""
    return tuple(f"class_{index}" for index in range(count))


def scan(folder: Path, suffixes: Iterable[str] = IMAGE_SUFFIXES, *, strip: str = "") -> dict[str, Path]:
    """Map the stem of each file under `folder` with one of these suffixes, in lower case, to its path, sorted by stem.

    strip: an ending of the stem that names the kind of file, not the sample (`_leftImg8bit`); files without it are left
    out. Hidden files are left out as well, and linked folders count once (`des4.datasets.walk`). Raises DataError if
    two files share a stem, or a name cannot be written.
    """
    found: dict[str, Path] = {}
    for place, inner, names in walk(folder):
        for name in names:  # by strings: a Path of each name takes ten times as long
            stem, dot, suffix = name.rpartition(".")
            if dot + suffix.lower() not in suffixes or not stem.endswith(strip):
                continue
            path = place / name
            stem = composed("/".join((*inner, stem.removesuffix(strip))))
            if not is_writable(stem):
                with stepping_over("unwritable-name"):
                    raise DataError(
                        f"{os.fsencode(path).decode(errors='backslashreplace')}: the name is no text in UTF-8 on one "
                        "line, so no list and no report can hold it; rename the file or its folder"
                    )
                continue
            if stem in found:
                with stepping_over("same-stem"):
                    raise DataError(f"{path}: has the same stem as {found[stem].name}; rename or remove one of the two")
            found.setdefault(stem, path)
    return dict(sorted(found.items()))


def is_writable(name: str) -> bool:
    """Whether a name can be written into a text: not the bytes of another encoding, not several lines."""
    if name.isprintable():
        return True
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return len(name.splitlines()) == 1


def composed(name: str) -> str:
    """Write accents in one spelling (NFC): macOS and zip files take the other, annotation tools this one."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def split_of(sample_id: str) -> Literal["val", "test"] | None:
    """Name the split whose folder an image lies in; None: it may be trained on."""
    folders = {part.lower() for part in PurePosixPath(sample_id).parts[:-1]}
    if folders & TEST_FOLDERS:
        return "test"
    return "val" if folders & VAL_FOLDERS else None


def stem_of(name: str) -> str:
    """Drop an image suffix from a listed path: 'train/a.jpg' and 'train/a' name the same sample."""
    path = posixpath.normpath(composed(name))
    stem, dot, suffix = path.rpartition(".")
    return stem if dot + suffix.lower() in IMAGE_SUFFIXES else path


def if_file(path: Path) -> Path | None:
    """Return the path if a file is there."""
    return path if path.is_file() else None


def existing_root(config: FilesConfig, holds: str, folders: Iterable[str] = ()) -> Path:
    """Return the data folder. Raises DataError if it is not there, or one of `folders` is not in it.

    holds: what it should hold, for the message.
    """
    for folder in (config.root, *(config.root / name for name in folders)):
        if not os.path.isdir(folder):  # noqa: PTH112  # Path.is_dir raises where a name is too long or nobody may look
            raise DataError(f"{folder}: no such data folder; give as root the folder that holds {holds}")
    return config.root


def _existing(mask: Mask | None, path: Path, sample_id: str, root: Path) -> Mask:
    """Return the mask of an image that the list at `path` names. Raises DataError if there is none."""
    if mask is None or not mask.path.is_file():
        raise DataError(
            f"{path}: '{sample_id}' has no mask {mask.path if mask else f'in {root}'}; "
            "add the mask, move the line to the unlabelled list, or write an `image mask` pair"
        )
    return mask


def _refuse_orphans(catalogue: Catalogue) -> None:
    """Without a labelled list, names alone say who is labelled; then a mask that no image claims is a mistake."""
    orphans = sorted(set(catalogue.masks) - set(catalogue.images))
    for sample_id in orphans:
        with stepping_over("orphan-mask"):
            raise DataError(
                f"{catalogue.masks[sample_id].path}: no image belongs to the mask '{sample_id}' "
                f"({len(orphans)} such masks); image and mask must have the same stem"
            )
