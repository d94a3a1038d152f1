"""Which labelled pixels move the prototypes (DeS4, section 3.3 and table 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from des4.models.memory.base import Memory
from des4.models.prototypes import PrototypeClassifier
from des4.ops.entropy import pixel_entropy
from des4.ops.reduce import this_rank
from des4.ops.resize import shrink_label
from des4.ops.sampling import class_quota, class_ratio, confidence_sample, multi_entropy_sample, quantity_sample

Sampling = Literal["multi_entropy", "quantity", "confidence", "all"]


class PrototypeFeed(Memory):
    """Chooses the labelled pixels that move a classifier's prototypes: what is remembered is P, in the classifier.

    With gradient accumulation every micro-batch is collected and sampled on its own, and all are committed at once.

    pixel_counts: (C,) labelled pixels of each class over the labelled list, for the ratio R of section 3.3.
    sampling: `multi_entropy` | `quantity` | `confidence` | `all` (DeS4, table 4; `all` does not balance).
    zones, alpha: k and α of eqs. 10-11.
    """

    ratio: Tensor

    def __init__(self, pixel_counts: Tensor, sampling: Sampling = "all", zones: int = 5, alpha: float = 0.1) -> None:
        super().__init__()
        self.sampling, self.zones, self.alpha = sampling, zones, alpha
        self.register_buffer("ratio", class_ratio(pixel_counts), persistent=False)

    def collect(self, features: Tensor, logits: Tensor, label: Tensor) -> None:
        """Remember this batch's labelled pixels. features: (B, D, h, w). logits: (B, C, h, w). label: (B, H, W)."""
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
        for part, (features, logits, label) in enumerate(held, this_rank() * len(held)):
            flat = label.flatten()
            keep = self.choose(logits, flat, generators(part) if generators else None)
            pixels.append(features.movedim(1, -1).flatten(0, -2))
            labels.append(torch.where(self.unless_skipped(keep), flat, -1))
        classifier.update(torch.cat(pixels), torch.cat(labels))

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
