"""A data set in files, once a reader has found its images and masks: their pixels, and the checks of both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from des4.data.ids import MergedIds
from des4.datasets.faults import is_collecting, stepping_over
from des4.datasets.files.catalogue import Catalogue, Mask
from des4.datasets.files.config import FilesConfig
from des4.datasets.files.listed import ListedImages
from des4.datasets.files.roles import find_roles
from des4.datasets.palettes import distinct_palette
from des4.datasets.protocols import describe_lists, require_protocol
from des4.datasets.shards import Shards
from des4.images.bands import LOOKED_AT, Chosen, UnlikeOthersError, choose, decode_bands, is_picture, layout_of, measure
from des4.images.cache import GIB, PixelCache, cache_folder
from des4.images.pictures import Header, decode_header, decode_image, read_bytes, turned_upright
from des4.images.tiff import MissingExtraError
from des4.ops.pixels import as_image
from des4.types import IGNORE, Bands, DataError


class FileDataset(ABC):
    """The data set of a Catalogue. A format is a subclass: `Config`, `recognises`, and a constructor that reads a tree.

    Config: a FilesConfig with a `name`; config: the one that it was opened with.
    notes: what was decided beyond the files, one sentence each: a drawn val set, counted classes.
    val_is_drawn: whether nothing names the val set, so that it was drawn from the labeled images.
    catalogue: what the reader found, masks of unlabeled images included.
    unlabeled_files: the unlabeled images that do not lie in shards.
    Raises DataError if a listed image or mask is missing, or a val image is a training image as well. Where faults are
    collected (`datasets.faults`) it goes on without what is at fault, and leaves `classes` empty, not counted.
    """

    Config: ClassVar[type[FilesConfig]]
    labeled: Sequence[str]
    unlabeled: Sequence[str]
    val: Sequence[str]
    held_out: Sequence[str] = ()

    def __init__(self, config: FilesConfig, catalogue: Catalogue) -> None:
        self.config, self.root = config, config.root
        self.catalogue = catalogue
        listed = ListedImages(config.root, catalogue)
        roles = find_roles(config, catalogue, listed)
        self.labeled, self.unlabeled, self.val = roles.labeled, roles.unlabeled, roles.val
        self._images, self._masks, self._hidden = listed.images, roles.masks, roles.hidden
        self.notes, self.val_is_drawn = roles.notes, roles.val_is_drawn
        if config.protocol:
            with stepping_over("wrong-protocol"):
                require_protocol(config.protocol, self.labeled, self.unlabeled, config.lists or config.root)
        self.unlabeled_files = self.unlabeled
        self._shards = self._open_shards(config) if config.shards else None
        self.unlabeled = self._with_shards()
        self.notes += tuple(describe_lists(self.labeled, self.unlabeled, self.val, catalogue.fine))
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
        return stored if bands is None else as_image(stored.permute(1, 2, 0), bands).permute(2, 0, 1)

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
            lists = (self.labeled, self.unlabeled)
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

        It is seen from labeled and val images. Raises DataError if they do not hold the bands that the config names,
        or cannot be read without an extra.
        """
        ids = [*self.labeled, *self.val]
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
            raise failure or DataError(f"{self.root}: no labeled image says what its bands are; add some")
        return found  # if nothing could be read, whoever reads all files will say why

    def _refuse_range(self) -> None:
        if self._value_range is not None:
            raise DataError(
                f"{self.root}: data.value_range is for images of bands, and these are 8-bit pictures, read as RGB; "
                "leave it out, or say which bands with data.bands"
            )

    def label(self, sample_id: str) -> Tensor:
        """Read the mask of a labeled, val or revealed image, (H, W) uint8 with classes 0..C-1 and IGNORE.

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

    def check_labeled(self) -> None:
        """Read every labeled and val file's header: format, size, rotation. Raises DataError before training does.

        Labeled ones that may be skipped are left to be found in training.
        """
        for sample_id in (*(() if self.skip_broken else self.labeled), *self.val):
            self.check_sample(sample_id)

    def reveal(self) -> Sequence[str]:
        """From now on let `label` read the masks of unlabeled images too, and return the ids of those that have one.

        Images in shards have none.
        """
        for sample_id in self.unlabeled_files:
            mask = self._hidden.get(sample_id) or self.catalogue.masks.get(sample_id)
            if mask is not None and mask.path.is_file():
                self._masks[sample_id] = mask
        return tuple(sample_id for sample_id in self.unlabeled_files if sample_id in self._masks)

    def hold_out(self, ids: Iterable[str]) -> None:
        """Take labeled images out of training, off the unlabeled list too where that repeats them; none is in shards.

        They are `held_out` from now on.
        """
        held_out = frozenset(ids)

        def rest(listed: Sequence[str]) -> tuple[str, ...]:
            return tuple(sample_id for sample_id in listed if sample_id not in held_out)

        self.labeled, self.unlabeled_files = rest(self.labeled), rest(self.unlabeled_files)
        self.unlabeled, self.held_out = self._with_shards(), tuple(sorted(held_out))

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
        """Return the mask of a labeled or val image, unopened."""
        return self._masks[sample_id]

    def check_sample(self, sample_id: str) -> None:
        """Raise DataError unless the sample's mask fits its image, going by their headers."""
        if sample_id not in self._masks:
            raise DataError(f"{self.root}: '{sample_id}' is neither a labeled nor a val image, so its mask is not read")
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

    def _open_shards(self, config: FilesConfig) -> Shards:
        """Open the shards of unlabeled images. Raises DataError if an id is taken."""
        places = [config.shards] if isinstance(config.shards, Path) else list(config.shards or ())
        shards = Shards(places, cache_folder(config.cache_dir, config.root) / "indexes")
        if taken := next((sample_id for sample_id in self._images if sample_id in shards), None):
            raise DataError(
                f"{shards.tar(taken)}: '{taken}' is an image under {self.root} as well; rename the shard, whose name "
                "begins the ids of its images"
            )
        self.notes += (f"shards: {len(shards)} unlabeled images in {shards.num_shards} tar files",)
        return shards

    def _with_shards(self) -> Sequence[str]:
        """Return the unlabeled images, those in shards in their places among the files."""
        if self._shards is None or not self.unlabeled_files:
            return self._shards or self.unlabeled_files
        return MergedIds(self.unlabeled_files, self._shards)

    def _find_classes(self) -> tuple[str, ...]:
        """Find the classes that nobody names in the labeled and val masks; () where faults are collected."""
        return () if is_collecting() else self._count_classes()

    def _count_classes(self) -> tuple[str, ...]:
        seen = np.zeros(256, np.bool_)
        for sample_id in (*self.labeled, *self.val):
            seen[self._masks[sample_id].read().numpy()] = True
        count = 1 + int(np.flatnonzero(seen[:IGNORE]).max(initial=0))
        if count < 2 and seen[IGNORE]:
            raise DataError(
                f"{self.root}: the masks hold no class but 0, and {IGNORE}, which means 'ignore'; "
                f"say data.values=0,{IGNORE} if {IGNORE} is the foreground"
            )
        if count < 2:
            raise DataError(f"{self.root}: the masks hold no class but 0 ({IGNORE} = ignore); number classes 0, 1, …")
        self.notes += (f"classes: {count}, counted in the labeled and val masks; name them in classes.txt",)
        return numbered_classes(count)


def numbered_classes(count: int) -> tuple[str, ...]:
    """Names for classes that nobody has named."""
    return tuple(f"class_{index}" for index in range(count))
