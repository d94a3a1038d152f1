"""Which labeled pixels move the prototypes (DeS4, section 3.3 and table 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from des4.models.heads.prototypes import PrototypeClassifier
from des4.models.memory.base import Memory
from des4.ops.entropy import pixel_entropy
from des4.ops.reduce import sum_over_ranks, this_rank
from des4.ops.resize import shrink_label
from des4.ops.sampling import (
    class_quota,
    class_ratio,
    confidence_sample,
    entropy_bins,
    multi_entropy_sample,
    quantity_sample,
)

Sampling = Literal["multi_entropy", "quantity", "confidence", "all"]

BINS_A_ZONE = 4
"""Bins of the entropy histograms in a zone."""


class FeedFigures(NamedTuple):
    """What a watched step showed, over all processes; nan where there is nothing to say.

    low, high: (C,) the range of entropy, in nats, that the zones of a class divide: the mean over the parts of the step
    that hold the class, for each part has zones of its own. pixels, taken: (C, bins) labeled pixels of each class in
    equal bins of that range, BINS_A_ZONE to a zone, and those of them that moved the prototypes. cosine: (C, C) of the
    prototypes to one another. moved: (C,) degrees between each prototype now and at the watched step before.
    """

    low: Tensor
    high: Tensor
    pixels: Tensor
    taken: Tensor
    cosine: Tensor
    moved: Tensor


class PrototypeFeed(Memory):
    """Chooses the labeled pixels that move a classifier's prototypes: what is remembered is P, in the classifier.

    With gradient accumulation every micro-batch is collected and sampled on its own, and all are committed at once.

    pixel_counts: (C,) labeled pixels of each class over the labeled list, for the ratio R of section 3.3.
    sampling: `multi_entropy` | `quantity` | `confidence` | `all` (DeS4, table 4; `all` does not balance).
    zones, alpha: k and α of eqs. 10-11.
    watched: whether the next commit keeps what `figures` shows. Whoever asks for the figures sets it, and keeps
    `watched_before`, the prototypes when they were last asked for: (C, D), 0 of a class not seen yet; None at first.
    """

    ratio: Tensor

    def __init__(self, pixel_counts: Tensor, sampling: Sampling = "all", zones: int = 5, alpha: float = 0.1) -> None:
        super().__init__()
        self.sampling, self.zones, self.alpha = sampling, zones, alpha
        self.register_buffer("ratio", class_ratio(pixel_counts), persistent=False)
        self.watched = False
        self.watched_before: Tensor | None = None
        self._watched: tuple[list[tuple[Tensor, ...]], Tensor] | None = None

    def collect(self, features: Tensor, logits: Tensor, label: Tensor) -> None:
        """Remember this batch's labeled pixels. features: (B, D, h, w). logits: (B, C, h, w). label: (B, H, W)."""
        self._hold(features, logits, shrink_label(label, (features.shape[-2], features.shape[-1])))

    @torch.no_grad()
    def commit(
        self, classifier: PrototypeClassifier, generators: Callable[[int], torch.Generator] | None = None
    ) -> None:
        """Sample the collected pixels and move the prototypes once.

        generators: gives the random numbers of a part of the step. Parts are numbered over all processes, so that it
        makes no difference which of them samples a part.
        """
        held = self._take()
        if not held:
            return
        pixels, labels = [], []
        seen: list[tuple[Tensor, ...]] = []
        for part, (features, logits, label) in enumerate(held, this_rank() * len(held)):
            flat = label.flatten()
            keep = self.choose(logits, flat, generators(part) if generators else None)
            pixels.append(features.movedim(1, -1).flatten(0, -2))
            taken = self.unless_skipped(keep)
            labels.append(torch.where(taken, flat, -1))
            if self.watched:
                entropy = pixel_entropy(logits.float().softmax(1)).flatten()
                seen.append(entropy_bins(entropy, flat, taken, len(self.ratio), BINS_A_ZONE * self.zones))
        classifier.update(torch.cat(pixels), torch.cat(labels))
        if self.watched:
            self._watched = seen, torch.where(classifier.seen[:, None], classifier.prototypes, 0)

    def choose(self, logits: Tensor, labels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Mask (N,) of the pixels to use. logits: (B, C, h, w). labels: (N,) with N = B·h·w."""
        if self.sampling == "all":
            return torch.ones_like(labels, dtype=torch.bool)
        quota = class_quota(labels, self.ratio)
        if self.sampling == "quantity":
            return quantity_sample(labels, quota, generator=generator)
        probs = logits.float().softmax(1)
        if self.sampling == "confidence":
            return confidence_sample(probs.amax(1).flatten(), labels, quota, generator=generator)
        entropy = pixel_entropy(probs).flatten()
        return multi_entropy_sample(entropy, labels, quota, zones=self.zones, alpha=self.alpha, generator=generator)

    def figures(self) -> FeedFigures | None:
        """Return what the last commit showed if it was watched, once; every process has to ask."""
        if self._watched is None:
            return None
        (seen, prototypes), self._watched = self._watched, None
        pixels, taken, low, high = (torch.stack(each) for each in zip(*seen, strict=True))
        there = low.isfinite()
        sums = sum_over_ranks(
            pixels.sum(0), taken.sum(0), torch.where(there, low, 0).sum(0), torch.where(there, high, 0).sum(0),
            there.double().sum(0),
        )  # fmt: skip
        parts = torch.where(sums[4] > 0, sums[4], torch.nan)
        before = torch.zeros_like(prototypes) if self.watched_before is None else self.watched_before.to(prototypes)
        self.watched_before = prototypes
        cosine = _cosines(prototypes, prototypes)
        moved = _cosines(prototypes, before).diagonal().clamp(-1, 1).arccos().rad2deg()
        return FeedFigures(sums[2] / parts, sums[3] / parts, sums[0], sums[1], cosine, moved)


def _cosines(one: Tensor, other: Tensor) -> Tensor:
    """Cosine of each row to each, in float64; nan for rows of zeros."""
    one, other = (rows.double() / rows.double().norm(dim=1, keepdim=True) for rows in (one, other))
    return one @ other.T
