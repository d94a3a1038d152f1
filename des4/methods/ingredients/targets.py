"""What predictions on unlabelled images are held against: hard labels or distributions, with all that belongs to them.

A target is made on unmixed pixels and mixed as the strong view is, in one call. Its losses divide by the pixels of the
whole step, whoever computes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from des4.losses import divergence, soft_cross_entropy, squared_gap
from des4.methods.ingredients.supervision import Supervision
from des4.ops.reduce import mean_over, share
from des4.ops.resize import upsample
from des4.types import Labelled, StrongView, Unlabelled


@dataclass(frozen=True)
class Target:
    """Hard pseudo-labels. label: (B, H, W) int64. confidence: (B, H, W) in [0, 1]. valid: (B, H, W) bool.

    threshold: confidence that a label needs to count, a number or a scalar. supervision: the run's cross-entropies.
    pixels: as of `Labelled`, of `valid`.
    """

    label: Tensor
    confidence: Tensor
    valid: Tensor
    threshold: float | Tensor
    supervision: Supervision
    pixels: Tensor | None = None

    @property
    def keep(self) -> Tensor:
        """Where a label counts, (B, H, W) bool: on valid pixels of enough confidence."""
        return (self.confidence >= self.threshold) & self.valid

    def mixed(self, view: StrongView) -> Target:
        """The target of a strong view once it is mixed."""
        label, confidence, valid = (view.mix(tensor) for tensor in (self.label, self.confidence, self.valid))
        return replace(self, label=label, confidence=confidence, valid=valid, pixels=view.pixels)

    def cross_entropy(self, logits: Tensor) -> Tensor:
        """Cross-entropy of logits (B, C, h, w) on the labels that count, over all valid pixels; a scalar."""
        return self.supervision.on_pseudo_labels(logits, self.label, self.keep, self.valid, self.pixels)

    def mean_over_kept(self, logits: Tensor) -> Tensor:
        """Cross-entropy of logits (B, C, h, w) on the labels that count, over the pixels of these alone; a scalar.

        How many they are is seen of the images given together, as in published codes on each GPU; a part of a step
        weighs by its valid pixels. 0 where no label counts.
        """
        return self.cross_entropy(logits) / self.share_kept().clamp_min(torch.finfo(torch.float32).tiny)

    def mean_confidence(self) -> Tensor:
        """Mean over valid pixels, a scalar for the log."""
        return mean_over(self.confidence * self.valid, self.valid)

    def share_kept(self) -> Tensor:
        """Share of the valid pixels whose label counts, a scalar for the log."""
        return mean_over(self.keep, self.valid)


@torch.no_grad()
def hard_target(logits: Tensor, unlabelled: Unlabelled, threshold: float | Tensor, supervision: Supervision) -> Target:
    """Most probable class and its probability at every pixel of the weak view. logits: (B, C, h, w)."""
    return soft_target(logits, unlabelled).hardened(threshold, supervision)


@dataclass(frozen=True)
class SoftTarget:
    """Class distributions. probs: (B, C, H, W), without gradient. valid, pixels: as of `Target`."""

    probs: Tensor
    valid: Tensor
    pixels: Tensor | None = None

    def mixed(self, view: StrongView) -> SoftTarget:
        """The target of a strong view once it is mixed."""
        return SoftTarget(view.mix(self.probs), view.mix(self.valid), view.pixels)

    def hardened(self, threshold: float | Tensor, supervision: Supervision) -> Target:
        """The most probable class of each pixel, with its probability."""
        confidence, label = self.probs.max(1)
        return Target(label, confidence, self.valid, threshold, supervision, self.pixels)

    def cross_entropy(self, logits: Tensor) -> Tensor:
        """Cross-entropy of logits (B, C, h, w) to the distributions, over valid pixels; a scalar.

        A user's `supervision` has no part in it: how frequent classes are, a distribution says itself.
        """
        return soft_cross_entropy(logits, self.probs, self.valid, self.pixels)

    def mean_confidence(self) -> Tensor:
        """Mean probability of the most probable class over valid pixels, a scalar for the log."""
        return mean_over(self.probs.amax(1) * self.valid, self.valid)

    def and_also(self, other: SoftTarget) -> SoftTarget:
        """One target for the images of this and then those of another; its means are over the pixels of both."""
        pixels = None if self.pixels is None or other.pixels is None else self.pixels + other.pixels
        return SoftTarget(torch.cat([self.probs, other.probs]), torch.cat([self.valid, other.valid]), pixels)

    def squared_gap(self, logits: Tensor) -> Tensor:
        """Squared difference to the distributions of logits (B, C, h, w), summed over classes; a scalar."""
        return squared_gap(_probs(logits, self.valid), self.probs, self.valid, self.pixels)

    def divergence(self, logits: Tensor) -> Tensor:
        """Divergence of logits (B, C, h, w) from the distributions; a scalar."""
        return divergence(upsample(logits.float(), _size(self.valid)), self.probs, self.valid, self.pixels)

    def share_sure(self, threshold: float) -> Tensor:
        """Share of valid pixels on which one class has at least this probability, over all ranks; a scalar."""
        return share((self.probs.amax(1) >= threshold) & self.valid, self.valid)


@torch.no_grad()
def soft_target(logits: Tensor, images: Labelled | Unlabelled) -> SoftTarget:
    """Distributions at every pixel of labelled images, or of the weak view. logits: (B, C, h, w)."""
    return SoftTarget(_probs(logits, images.valid), images.valid, images.pixels)


@torch.no_grad()
def averaged_target(
    predict: Callable[[Tensor], Sequence[Tensor]], unlabelled: Unlabelled, scales: Sequence[float], mirror: bool
) -> SoftTarget:
    """Distributions on the weak view, the mean of those that networks give of it at several scales and mirrored.

    predict: images (B, 3, H, W) to logits (B, C, h, w), one entry a network. scales: factors by which the view is
    resized for them, each with its mirror image if `mirror`.
    """
    size, found = (unlabelled.valid.shape[-2], unlabelled.valid.shape[-1]), []
    for scale in scales:
        seen, scaled = unlabelled.weak, [max(1, round(side * scale)) for side in size]
        if scale != 1:
            seen = F.interpolate(seen, size=scaled, mode="bilinear", antialias=True)
        found += [_probs(logits, unlabelled.valid) for logits in predict(seen)]
        if mirror:
            found += [_probs(logits, unlabelled.valid).flip(-1) for logits in predict(seen.flip(-1))]
    return SoftTarget(sum(found[1:], found[0]) / len(found), unlabelled.valid, unlabelled.pixels)


def _probs(logits: Tensor, valid: Tensor) -> Tensor:
    return upsample(logits.float(), _size(valid)).softmax(1)


def _size(valid: Tensor) -> tuple[int, int]:
    return valid.shape[-2], valid.shape[-1]
