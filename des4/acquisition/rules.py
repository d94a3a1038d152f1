"""From scores of images to a batch of them, and the reason for each. Numbers alone: no network, no file.

Every image has
- its doubt u: entropy of a pixel as a share of log C, averaged over the pixels of each predicted class and then over
  the classes, so that a large class that is easy does not hide a small one that is not. Classes below MIN_SHARE of the
  pixels are left out;
- its gain r: the mean over the classes of log(1 + s_c / (n_c + ε)), s_c being the predicted share of class c and n_c
  the sum of its shares in the labeled images: by how much, relatively, the labeled pixels of each class would grow.
  Images that were picked before count among the labeled ones, with their predictions;
- its distance d: in features, to the nearest image that is labeled or was picked before.

The rule `balanced` picks, one after the other, the largest d/max(d) · (rank(u) + rank(r)) / 2; ranks are 0 to 1, that
of u, which does not change, among all images, those of r and d among the images that are left. `entropy` picks by u
alone, `rarity` by r, `diversity` by d (greedy k-centre: Sener & Savarese, "Active learning for convolutional neural
networks: a core-set approach", ICLR 2018), `random` by chance.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Rule = Literal["balanced", "entropy", "rarity", "diversity", "random"]
RULES: tuple[Rule, ...] = get_args(Rule)

MIN_SHARE = 1e-3
"""Part of an image's pixels below which a predicted class is taken for a mistake."""
EPSILON = 1e-3
"""ε above: a class that nobody has labeled counts as a thousandth of an image."""

_BLOCK = 4096
"""Images that are compared with the labeled ones at a time."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Scores:
    """What is known of N images after one look at each. names: of the images.

    entropy: (N,) mean entropy of the pixels, as a share of log C. class_entropy: (N, C) the same over the pixels of
    each predicted class, NaN where there are none. shares: (N, C) of the predicted classes. features: (N, D).
    """

    names: Sequence[str]
    entropy: Floats
    class_entropy: Floats
    shares: Floats
    features: Floats

    @property
    def counted(self) -> NDArray[np.bool_]:
        """Which classes are taken for seen, (N, C); the largest of each image always is."""
        largest = self.shares >= self.shares.max(1, keepdims=True)
        counted: NDArray[np.bool_] = (self.shares >= MIN_SHARE) | largest
        return counted

    @property
    def doubt(self) -> Floats:
        """u, (N,)."""
        counted = self.counted
        total: Floats = np.where(counted, self.class_entropy, 0).sum(1, dtype=np.float32) / counted.sum(1)
        return total.astype(np.float32)


@dataclass(frozen=True)
class Labeled:
    """What is labeled already. images: (C,) sums of the shares of each class. features: (M, D); names of the M."""

    images: NDArray[np.float64]
    features: Floats
    names: Sequence[str] = ()

    @property
    def share(self) -> NDArray[np.float64]:
        """The part of the labeled pixels that each class has, (C,)."""
        share: NDArray[np.float64] = self.images / max(self.images.sum(), 1e-12)
        return share


@dataclass(frozen=True)
class Pick:
    """An image to label. index: in the scores. value: that the rule picked it by; None by chance.

    doubt, gain, distance: u, r and d when it was picked. ranks: of the three, the part of the images that is below: of
        all for doubt, of those left for the others.
    distance: None where nothing was labeled or picked before. nearest: what d is the distance to.
    """

    index: int
    value: float | None
    doubt: float
    gain: float
    distance: float | None
    ranks: tuple[float, float, float]
    nearest: str | None


def pick(scores: Scores, labeled: Labeled, count: int, rule: Rule = "balanced", seed: int = 0) -> list[Pick]:
    """Pick `count` images, or all if there are fewer, in their order. seed: of `random`."""
    total = len(scores.names)
    doubt = scores.doubt
    doubt_rank = ranks(doubt)
    seen = np.where(scores.counted, scores.shares, 0)
    images = labeled.images.copy()
    distance, nearest = _nearest(scores.features, labeled.features)
    names = list(labeled.names)
    drawn = random.Random(f"next/{seed}").sample(range(total), min(count, total)) if rule == "random" else []
    left = np.ones(total, bool)
    picks: list[Pick] = []
    for turn in range(min(count, total)):
        gain = gain_of(seen, images)
        gain_rank, distance_rank = ranks(gain, left), ranks(distance, left)
        largest = float(distance[left].max())
        near = distance / largest if 0 < largest < math.inf else np.ones(total, np.float32)
        values: dict[str, NDArray[np.floating]] = {
            "balanced": near * (doubt_rank + gain_rank) / 2,
            "entropy": doubt,
            "rarity": gain,
            # the first of all, where nothing is labeled: the one that is most like the others
            "diversity": distance if largest < math.inf else -_from_centre(scores.features),
        }
        if rule == "random":
            best, value = drawn[turn], None
        else:
            best = int(np.where(left, values[rule], -np.inf).argmax())
            value = float(values[rule][best])
        known = nearest[best] >= 0
        picks.append(
            Pick(
                best,
                value,
                float(doubt[best]),
                float(gain[best]),
                float(distance[best]) if known else None,
                (float(doubt_rank[best]), float(gain_rank[best]), float(distance_rank[best])),
                names[nearest[best]] if known else None,
            )
        )
        left[best] = False
        images += seen[best]
        away = _distances(scores.features, scores.features[best])
        closer = away < distance
        distance, nearest = np.where(closer, away, distance), np.where(closer, len(names), nearest)
        names.append(scores.names[best])
    return picks


def gain_of(shares: Floats, images: NDArray[np.float64]) -> Floats:
    """R of images: shares (N, C) of their classes, images (C,) of each class that are labeled. Returns (N,)."""
    weight = (1 / (images + EPSILON)).astype(np.float32)
    gain: Floats = np.log1p(shares * weight).mean(1)
    return gain


def ranks(values: Floats, among: NDArray[np.bool_] | None = None) -> Floats:
    """Return for each value (N,) the part of those in `among`, or of all, that are smaller; ties share their mean."""
    pool = np.sort(values if among is None else values[among])
    below = np.searchsorted(pool, values, "left") + np.searchsorted(pool, values, "right")
    return ((below - 1) / 2 / max(len(pool) - 1, 1)).clip(0, 1).astype(np.float32)


def _nearest(features: Floats, others: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Return the distance of each image to the nearest of the others, (N,), and which it is; -1 without others."""
    distance = np.full(len(features), np.inf, np.float32)
    nearest = np.full(len(features), -1, np.int64)
    if len(others):
        lengths = np.square(others).sum(1)
        for start in range(0, len(features), _BLOCK):
            block = features[start : start + _BLOCK]
            nearest[start : start + _BLOCK] = (lengths - 2 * block @ others.T).argmin(1)
        distance = _distances(features, others[nearest])
    return distance, nearest


def _distances(features: Floats, other: Floats) -> Floats:
    gap: Floats = np.sqrt(np.square(features - other).sum(1))
    return gap


def _from_centre(features: Floats) -> Floats:
    return _distances(features, features.mean(0))


def reasons(scores: Scores, labeled: Labeled, chosen: Pick, rule: Rule, classes: Sequence[str]) -> list[str]:
    """Say why an image was picked: a sentence for each score that the rule reads."""
    if rule == "random":
        return ["drawn by chance"]
    said = []
    shares, counted = scores.shares[chosen.index], scores.counted[chosen.index]
    if rule in ("balanced", "entropy"):
        entropy = np.where(counted, scores.class_entropy[chosen.index], -1)
        worst = int(entropy.argmax())
        said.append(
            f"unsure: {100 * chosen.doubt:.0f} % of the most entropy there can be, more than "
            f"{100 * chosen.ranks[0]:.0f} % of the images; most in {classes[worst]} ({100 * entropy[worst]:.0f} %)"
        )
    if rule in ("balanced", "rarity"):
        growth = np.where(counted, shares / (labeled.images + EPSILON), -1)
        rarest = int(growth.argmax())
        said.append(
            f"rare: {_percent(shares[rarest])} {classes[rarest]}, which has {_percent(labeled.share[rarest])} of the "
            f"labeled pixels; more gain than {100 * chosen.ranks[1]:.0f} % of the images"
        )
    if rule in ("balanced", "diversity") and chosen.nearest is not None:
        said.append(
            f"unlike the others: farther from what is labeled or picked than {100 * chosen.ranks[2]:.0f} % of the "
            f"images; the nearest is {chosen.nearest}"
        )
    return said or ["the image that is most like the others"]


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"
