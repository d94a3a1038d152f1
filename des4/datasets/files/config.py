"""The settings of data in files, whatever their format."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from des4.datasets.protocols import known_protocol
from des4.types import Config

NAME_LISTS = {
    "labeled": ("labeled", "val_fraction", "val_seed", "protocol", "lists"),
    "unlabeled": ("unlabeled", "shards"),
    "val": ("val",),
}
"""Kind of list → settings that decide which images are on it."""


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
    """List of labeled images; `null`: `labeled.txt` in the root if it is there."""
    unlabeled: Path | None = None
    """List of unlabeled images; `null`: `unlabeled.txt` in the root if it is there."""
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
    """Tar files with further unlabeled images, or folders of such files."""
    cache: float = Field(default=0.0, ge=0)
    """GiB of decoded images to keep on disk for the next time; 0: none. For images that take long to decode."""
    cache_dir: Path | None = None
    """Folder for them, for indexes of shards and for imports; `null`: `des4` in the user's cache folder."""
    skip_broken: bool = False
    """`true`: a labeled image or mask that cannot be read is replaced by another instead of stopping the run, as
    unlabeled ones always are."""
    allow_leak: bool = False
    """`true`: train although a labeled picture is a val picture too, as in some published data."""
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
