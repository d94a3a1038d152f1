"""What a reader finds in a data set: images, masks, and what the format itself says of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from des4.datasets.palettes import Palette


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
    classes: names; None: counted in the masks of the labeled and val images, and called class_0, class_1, …
    palette: colours of the classes; None: colours that one can tell apart.
    labeled, unlabeled, val: ids by the format's own convention, None where it has none.
    identify: turns a listed name that is no id into the id it means.
    mask_at: opens the mask file of an `image mask` pair; None: the mask is found by the image's id, as all others are.
    fine: ids of the images with finer masks than the others, None where masks are of one kind.
    no_images, no_masks: what to say where there is no image, or none with a mask for training.
    """

    images: Mapping[str, Path]
    masks: Mapping[str, Mask]
    classes: tuple[str, ...] | None
    palette: Palette | None = None
    labeled: Sequence[str] | None = None
    unlabeled: Sequence[str] | None = None
    val: Sequence[str] | None = None
    identify: Callable[[str], str] = str
    mask_at: Callable[[Path], Mask] | None = None
    fine: Collection[str] | None = None
    no_images: str = "holds no images; put them in images/, or list pairs of paths"
    no_masks: str = (
        "no image has a mask for training; put masks in masks/, named as their images "
        "(other programs' formats: des4 data import)"
    )
