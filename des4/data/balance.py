"""Rare classes shown more often: which labeled images are drawn oftener, and what is pasted into others.

Repeat-factor sampling (Gupta, Dollár & Girshick, LVIS, CVPR 2019, arxiv.org/abs/1908.03195, appendix A): a class that a
share f of the labeled images shows has the factor max(1, √(t / f)), an image the largest of its classes. Ours: how
often an image occurs in an epoch is drawn by systematic sampling (there: rounded at random, each on its own), so every
epoch is equally long, and a place in the endless row is still found by a division. Its length is rounded up and all
images share in that: one with the factor r occurs ⌊x⌋ or ⌈x⌉ times, where x is r · ⌈Σ r⌉ / Σ r.

Copy-paste (Ghiasi et al., CVPR 2021, arxiv.org/abs/2012.07177; of rare classes, as AEL's, Hu et al., NeurIPS 2021): a
rare class, an image that shows it, and a crop of that are drawn, and its pixels of rare classes are laid over another
crop, image and label alike. Ours: rare is the tail (`ops/tail.py`), its classes are drawn alike.

Everything drawn is a function of (seed, epoch, id), as all else in the loader.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, pairwise

import torch
from pydantic import Field
from torch import Tensor

from des4.data.class_pixels import class_pixels
from des4.data.order import Order
from des4.ops.tail import tail_classes
from des4.types import Config, Dataset

COPY = 1 << 32
"""A further copy of an image in an epoch is cut and recoloured as if it were so many epochs later."""
TRIES = 10
"""Crops of an image that are drawn until one shows the class that it was chosen for."""


class BalanceConfig(Config):
    """What makes labeled images show rare classes more often, in any method; see [imbalance](imbalance.md)."""

    repeat_threshold: float = Field(0.0, ge=0, le=1)
    """t: images that show a class which less than this share of the labeled images show are drawn √(t / share) times
    as often as others, that of their rarest class counting; 0: off."""
    paste_rare: float = Field(0.0, ge=0, le=1)
    """Probability with which a labeled crop gets the pixels of rare classes of another labeled image; 0: off. Rare
    are the classes with less than the median share of the labeled pixels."""

    @property
    def is_on(self) -> bool:
        """Whether any of it is."""
        return self.repeat_threshold > 0 or self.paste_rare > 0


class Balance:
    """What balancing needs to know of a labeled list: its masks are read for it, once.

    donors: rare class → ids of the images that show it, sorted; classes that none shows are left out. Raises DataError
    where a mask cannot be read, unless the data set skips such samples.
    """

    def __init__(self, config: BalanceConfig, dataset: Dataset) -> None:
        self.config = config
        pixels = dict(class_pixels(dataset, dataset.labeled))
        self.shown = {sample_id: (counts > 0).nonzero().flatten().tolist() for sample_id, counts in pixels.items()}
        total = torch.stack(list(pixels.values())).sum(0) if pixels else torch.zeros(len(dataset.classes))
        ids = sorted(self.shown)
        self.donors = {c: tuple(i for i in ids if c in self.shown[i]) for c in tail_classes(total)}
        self.rare = torch.tensor(list(self.donors), dtype=torch.uint8)

    def order(self, ids: Sequence[str], key: str) -> Order:
        """Return the order of the labeled list."""
        if not self.config.repeat_threshold:
            return Order(ids, key)
        factors = repeat_factors(self.shown, self.config.repeat_threshold)
        return RepeatedOrder(ids, key, factors)

    def donor(self, sample_id: str, rng: random.Random) -> tuple[int, str] | None:
        """Draw whether a crop of this image gets anything pasted: a rare class, and another image that shows it."""
        if rng.random() >= self.config.paste_rare or not self.donors:
            return None
        rare = rng.choice(list(self.donors))
        others = [one for one in self.donors[rare] if one != sample_id]
        return (rare, rng.choice(others)) if others else None

    def is_rare(self, label: Tensor) -> Tensor:
        """Where a label (H, W) uint8 is a rare class: (H, W) bool."""
        return torch.isin(label, self.rare)


def repeat_factors(shown: Mapping[str, Iterable[int]], threshold: float) -> dict[str, float]:
    """Return how often each image is due, ≥ 1: max over its classes of √(threshold / share of images that show it).

    shown: id → classes that it shows. threshold: in [0, 1].
    """
    images: dict[int, int] = {}
    for classes in shown.values():
        for one in classes:
            images[one] = images.get(one, 0) + 1
    factor = {one: max(1.0, math.sqrt(threshold * len(shown) / count)) for one, count in images.items()}
    return {sample_id: max((factor[one] for one in classes), default=1.0) for sample_id, classes in shown.items()}


class RepeatedOrder(Order):
    """An order in whose epochs images occur as often as they are due. factors: id → how often, ≥ 1; 1 where missing.

    An epoch has ⌈Σ factors⌉ places. A further copy of an image in it counts as of a later epoch, so that it is not cut
    alike.
    """

    def __init__(self, ids: Sequence[str], key: str, factors: Mapping[str, float]) -> None:
        super().__init__(ids, key)
        self.factors = [factors.get(sample_id, 1.0) for sample_id in self.ids]
        self.length = math.ceil(math.fsum(self.factors))
        self._rows: dict[int, list[tuple[int, int]]] = {}

    def batch(self, step: int, size: int) -> list[tuple[int, str]]:
        """Return the (epoch, id) of the positions [step·size, (step+1)·size); of a copy, that many COPY later."""
        places = (divmod(position, self.length) for position in range(step * size, (step + 1) * size))
        drawn = ((epoch, *self._row(epoch)[place]) for epoch, place in places)
        return [(epoch + copy * COPY, self.ids[index]) for epoch, index, copy in drawn]

    def _row(self, epoch: int) -> list[tuple[int, int]]:
        """Places of an epoch: index of the image, and number of its copy."""
        if epoch not in self._rows:
            self._rows = {e: row for e, row in self._rows.items() if e == epoch - 1}
            rng = random.Random(f"{self.key}/{epoch}")
            images = list(range(len(self.ids)))
            rng.shuffle(images)
            row = [(image, copy) for image, count in zip(images, self._counts(images, rng), strict=True)
                   for copy in range(count)]  # fmt: skip
            rng.shuffle(row)
            self._rows[epoch] = row
        return self._rows[epoch]

    def _counts(self, images: Sequence[int], rng: random.Random) -> list[int]:
        """Systematic sampling: marks 1 apart, from a random start on, lie on the images as each is long."""
        start, due = rng.random(), list(accumulate(self.factors[image] for image in images))
        ends = [0, *(math.ceil(end * self.length / due[-1] - start) for end in due[:-1]), self.length]
        return [end - begin for begin, end in pairwise(ends)]
