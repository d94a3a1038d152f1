"""Draws which of the images with masks count as labeled.

A draw takes `count` of the images with masks; the rest, with the images without masks, is unlabeled. A fraction is
rounded up, as in the published lists (1/8 of 10,582 is 1,323). Nested draws are taken from one another, the largest
first, so that each contains the smaller ones; others are independent of each other. Everything is a function of the
ids, the seed, the rule and the counts.

`random`: every set of `count` images is as likely as any other.

`stratified`: so that rare classes occur, and each class in its due number of images.
1. From the class that the fewest images show to the one that most do: a class that the draw does not show yet brings an
   image that shows it and the most of the other classes still missing. So every class that occurs among the images
   occurs in the draw if it has as many images as there are classes, and often with fewer.
2. The other images are dealt to the draw and to the rest by iterative stratification (Sechidis, Tsoumakas & Vlahavas,
   ECML PKDD 2011): class by class, the one with the fewest undealt images first, each of its images to the side that
   lacks more of that class, until a side is full. Images that show no class fill up the draw.
Ties are broken by the seed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from des4.datasets.files import FileDataset
from des4.types import IGNORE, ConfigError, DataError

Rule = Literal["random", "stratified"]


@dataclass(frozen=True)
class Draw:
    """What was drawn. name: of its folder, `1_8` or a number of images. labeled, unlabeled: ids, sorted."""

    name: str
    labeled: tuple[str, ...]
    unlabeled: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """What a class has in some images. images: that show it. pixels: it fills. share: of all labeled pixels."""

    images: int
    pixels: int
    share: float


@dataclass(frozen=True)
class Contents:
    """What masks show. pixels: (N, C) int64, of each image and class; ids: of the rows."""

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    pixels: NDArray[np.int64]

    def of(self, ids: Iterable[str]) -> NDArray[np.int64]:
        """Return the rows of these images."""
        rows = {sample_id: row for row, sample_id in enumerate(self.ids)}
        return self.pixels[[rows[sample_id] for sample_id in ids]]

    def parts(self, ids: Iterable[str]) -> dict[str, Part]:
        """Sum up these images by class."""
        pixels = self.of(ids)
        total = max(1, int(pixels.sum()))
        columns = zip(self.classes, (pixels > 0).sum(0).tolist(), pixels.sum(0).tolist(), strict=True)
        return {name: Part(images, count, count / total) for name, images, count in columns}


@dataclass(frozen=True)
class Preset:
    """Pool and sizes that the paper draws, to be drawn anew.

    fine: whether VOC's finely annotated images alone are drawn. pool: number of images to draw from.
    """

    fine: bool
    pool: int
    counts: tuple[int, ...]


PRESETS = {
    "voc_train": Preset(True, 1464, (92, 183, 366, 732, 1464)),
    "voc_aug": Preset(False, 10_582, (331, 662, 1323, 2646, 5291)),
    "cityscapes": Preset(False, 2975, (186, 372, 744, 1488)),
}
"""Name → what tables 1, 2 and 5 of the paper draw: 1/16 to 1/2 of each pool, all of VOC Train, and 1/32 of VOC Aug."""


def preset_named(name: str) -> Preset:
    """Return a preset. Raises ConfigError if there is none of that name."""
    if name not in PRESETS:
        raise ConfigError(f"--preset {name}: is none of {', '.join(PRESETS)}")
    return PRESETS[name]


def pool_of(dataset: FileDataset, preset: Preset | None = None) -> tuple[str, ...]:
    """Return the ids to draw from: training images with masks, for some presets the finely annotated ones alone.

    Raises DataError if the data set does not hold the preset's pool.
    """
    if preset is None:
        return tuple(sorted(dataset.labeled))
    fine = set(dataset.catalogue.fine or ())
    pool = tuple(sorted(i for i in dataset.labeled if i in fine or not preset.fine))
    if len(pool) != preset.pool:
        kind = "finely annotated training images" if preset.fine else "training images with masks"
        raise DataError(
            f"{dataset.root}: has {len(pool)} {kind}, and the preset draws from {preset.pool}; "
            "complete the data set, or give fractions of what there is"
        )
    return pool


def counts_of(
    pool: int, fractions: Iterable[str] = (), numbers: Iterable[int] = (), option: str = "--count"
) -> dict[str, int]:
    """Name the draws, and turn fractions such as `1/8` or `0.125` of the pool into numbers of images, rounded up.

    option: that the numbers were given by, for messages.
    Raises ConfigError for what is no fraction in (0, 1], a number of images that there are not, two draws of one name,
    or nothing at all.
    """
    counts: dict[str, int] = {}

    def add(name: str, number: int, said: str) -> None:
        if counts.setdefault(name, number) != number:
            raise ConfigError(
                f"{said}: both {number} and {counts[name]} images would be drawn into the folder {name}; write the "
                "fraction as 1/1"
            )

    for text in fractions:
        try:
            share = Fraction(text)
        except (ValueError, ZeroDivisionError):
            share = Fraction(0)
        if not 0 < share <= 1:
            raise ConfigError(f"--fraction {text}: is no fraction; write 1/8, or 0.125, above 0 and at most 1")
        add(text.strip().replace("/", "_"), math.ceil(share * pool), f"--fraction {text}")
    for number in numbers:
        if not 1 <= number <= pool:
            raise ConfigError(f"{option} {number}: there are {pool} images with masks to draw from; give 1 to {pool}")
        add(str(number), number, f"{option} {number}")
    if not counts:
        raise ConfigError("say how many images are labeled: --fraction 1/8, --count 100, or --preset NAME")
    return counts


def read_contents(
    dataset: FileDataset, ids: Sequence[str], progress: Callable[[Sequence[str]], Iterable[str]] = iter
) -> Contents:
    """Count the pixels of each class in the masks of `ids`. progress: walks over the ids. Raises DataError."""
    rows = [np.bincount(dataset.label(sample_id).numpy().ravel(), minlength=IGNORE + 1) for sample_id in progress(ids)]
    pixels = np.array(rows, np.int64).reshape(len(rows), IGNORE + 1)[:, : len(dataset.classes)]
    return Contents(tuple(ids), dataset.classes, pixels)


def draw(
    dataset: FileDataset,
    pool: Sequence[str],
    counts: Mapping[str, int],
    *,
    seed: int = 0,
    nested: bool = False,
    contents: Contents | None = None,
) -> tuple[Draw, ...]:
    """Draw labeled images from the pool: one Draw a name, in the order of `counts`.

    counts: name → number of images, of `counts_of`. contents: of the pool's masks; given, the draws are stratified.
    """
    everything = {*dataset.labeled, *dataset.unlabeled_files}
    source = sorted(pool)
    drawn: dict[str, Draw] = {}
    for name, count in sorted(counts.items(), key=lambda item: -item[1]):
        rng = random.Random(f"splits/{seed}/{count}")
        if contents is None:
            labeled = rng.sample(source, count)
        else:
            labeled = [source[i] for i in stratified(contents.of(source) > 0, count, rng)]
        drawn[name] = Draw(name, tuple(sorted(labeled)), tuple(sorted(everything - set(labeled))))
        source = sorted(labeled) if nested else source
    return tuple(drawn[name] for name in counts)


def stratified(presence: NDArray[np.bool_], count: int, rng: random.Random) -> list[int]:
    """Draw `count` rows so that every class occurs, and in its due share of them; the rule is told above.

    presence: (N, C), whether image n shows class c.
    """
    order = rng.sample(range(len(presence)), len(presence))
    shows = presence[order]
    chosen = _one_of_each(shows, count)
    dealt = np.zeros(len(shows), bool)
    dealt[chosen] = True
    room = [count - len(chosen), len(shows) - count]
    share = count / len(shows)
    lacking = np.stack([shows.sum(0) * share - shows[chosen].sum(0), shows.sum(0) * (1 - share)])
    while (left := shows[~dealt].sum(0)).any():
        rarest = int(np.where(left > 0, left, len(shows) + 1).argmin())
        for row in np.flatnonzero(shows[:, rarest] & ~dealt):
            side = int(lacking[0, rarest] < lacking[1, rarest])
            side = side if room[side] else 1 - side
            dealt[row] = True
            room[side] -= 1
            lacking[side] -= shows[row]
            if side == 0:
                chosen.append(int(row))
    chosen += np.flatnonzero(~dealt)[: room[0]].tolist()
    return sorted(order[row] for row in chosen)


def _one_of_each(shows: NDArray[np.bool_], count: int) -> list[int]:
    """Choose at most `count` rows among which every class occurs, rare classes first."""
    chosen: list[int] = []
    frequency = shows.sum(0)
    missing = frequency > 0
    for rarest in np.argsort(frequency, kind="stable"):
        if missing[rarest] and len(chosen) < count:
            candidates = np.flatnonzero(shows[:, rarest])
            best = candidates[shows[candidates][:, missing].sum(1).argmax()]
            chosen.append(int(best))
            missing &= ~shows[best]
    return chosen
