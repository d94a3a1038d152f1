"""What predictions on unlabeled images are held against: hard labels or distributions, with all that belongs to them.

A target is made on unmixed pixels and mixed as the strong view is, in one call. Its losses divide by the pixels of the
whole step, whoever computes it. When a loss is taken of it, it is shown to whoever watches the images that it is of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from des4.losses import cosine_gap, divergence, soft_cross_entropy, squared_gap
from des4.methods.ingredients.supervision import TINY, Supervision
from des4.ops.mixing import on_features
from des4.ops.reduce import mean_over, share
from des4.ops.resize import on_grid, shrink_label, upsample
from des4.types import Labeled, StrongView, TargetWatch, Unlabeled


@dataclass(frozen=True)
class Target:
    """Hard pseudo-labels. label: (B, H, W) int64. confidence: (B, H, W), its probability, or NaN where it is given.

    keep: (B, H, W) bool, where a label counts: nowhere but on `valid` pixels. valid: (B, H, W) bool. supervision: the
    run's cross-entropies. pixels: as of `Labeled`, of `valid`. watch: as of `Unlabeled`; it counts no given label.
    weight: (B, H, W) ≥ 0, of each label that counts; None = 1.
    """

    label: Tensor
    confidence: Tensor
    keep: Tensor
    valid: Tensor
    supervision: Supervision
    pixels: Tensor | None = None
    watch: TargetWatch | None = None
    weight: Tensor | None = None

    def mixed(self, view: StrongView, filling: Target | None = None) -> Target:
        """The target of a strong view once it is mixed. filling: of which boxes are filled, without weights; None: this
        one.
        """
        label, confidence, keep, valid = map(view.mix, self._maps, (filling or self)._maps)
        weight = None if self.weight is None else view.mix(self.weight)
        return replace(
            self, label=label, confidence=confidence, keep=keep, valid=valid, pixels=view.pixels, weight=weight
        )

    @property
    def _maps(self) -> tuple[Tensor, ...]:
        """What each pixel has."""
        return self.label, self.confidence, self.keep, self.valid

    def weighted(self, weight: Tensor) -> Target:
        """The target whose labels weigh so much, (B, H, W) ≥ 0, where they count; means divide by what they did."""
        return replace(self, weight=torch.where(self.keep, weight, 0.0))  # no confidence gives no number

    def weighted_by_image(self) -> Target:
        """The target whose labels weigh as much as their mean confidence in their image, over its valid pixels."""
        confidence = self.confidence.nan_to_num() * self.valid
        mean = confidence.sum((1, 2), keepdim=True) / self.valid.sum((1, 2), keepdim=True).clamp_min(1)
        return self.weighted(mean.expand_as(confidence))

    def only(self, where: Tensor) -> Target:
        """The target whose labels count in a mask (B, H, W) alone, if at all."""
        return replace(self, keep=self.keep & where)

    def cross_entropy(self, logits: Tensor) -> Tensor:
        """Cross-entropy of logits (B, C, h, w) on the labels that count, over all valid pixels; a scalar."""
        self._show(logits, *on_grid(_size(logits), self.label, self.confidence, self.keep, self.valid))
        return self.supervision.on_pseudo_labels(logits, self.label, self.keep, self.valid, self.pixels, self.weight)

    def class_masks(self, logits: Tensor) -> Tensor:
        """Where each class is on the grid of logits (B, C, h, w), of labels that count, for losses of their regions.

        Returns (B, C, h, w) bool. Whoever watches is shown the target, as by a loss.
        """
        label, confidence, keep, valid = on_grid(_size(logits), self.label, self.confidence, self.keep, self.valid)
        self._show(logits, label, confidence, keep, valid)
        classes = torch.arange(logits.shape[1], device=label.device)[:, None, None]
        return (label[:, None] == classes) & keep[:, None]

    def _show(self, logits: Tensor, *on_their_grid: Tensor) -> None:
        """Show the labels to whoever watches, with the logits as the loss sees them: adjusted, as the labels are."""
        if self.watch is not None:
            self.watch.collect(self.supervision.adjusted(logits), *on_their_grid)

    def mean_over_kept(self, logits: Tensor) -> Tensor:
        """Cross-entropy of logits (B, C, h, w) on the labels that count, over the pixels of these alone; a scalar.

        How many they are is seen of the images given together, as in published codes on each GPU; a part of a step
        weighs by its valid pixels. 0 where no label counts.
        """
        return self.cross_entropy(logits) / self.share_kept().clamp_min(TINY)

    def mean_confidence(self) -> Tensor:
        """Mean over valid pixels, a scalar for the log."""
        return mean_over(self.confidence * self.valid, self.valid)

    def share_kept(self) -> Tensor:
        """Share of the valid pixels whose label counts, a scalar for the log."""
        return mean_over(self.keep, self.valid)


@torch.no_grad()
def hard_target(logits: Tensor, unlabeled: Unlabeled, threshold: float | Tensor, supervision: Supervision) -> Target:
    """Most probable class and its probability at every pixel of the weak view. logits: (B, C, h, w)."""
    return soft_target(logits, unlabeled).hardened(threshold, supervision)


@dataclass(frozen=True)
class SoftTarget:
    """Class distributions. probs: (B, C, H, W), without gradient. valid, pixels, watch: as of `Target`.

    unwatched: so many images at the beginning are not shown to `watch`, since they are labeled. keep: (B, H, W) bool,
    where a distribution counts, on valid pixels; None = on all of these.
    """

    probs: Tensor
    valid: Tensor
    pixels: Tensor | None = None
    watch: TargetWatch | None = None
    unwatched: int = 0
    keep: Tensor | None = None

    def mixed(self, view: StrongView) -> SoftTarget:
        """The target of a strong view once it is mixed."""
        keep = None if self.keep is None else view.mix(self.keep)
        return replace(self, probs=view.mix(self.probs), valid=view.mix(self.valid), pixels=view.pixels, keep=keep)

    def only(self, where: Tensor) -> SoftTarget:
        """The target whose distributions count in a mask (B, H, W) alone, if at all; means divide by what they did."""
        return replace(self, keep=self.counted & where)

    def sharpened(self, temperature: float) -> SoftTarget:
        """The target whose distributions are raised to the power of 1 / temperature; at 0 all is on the most probable
        class.
        """
        if temperature == 1:
            return self
        if temperature == 0:
            return replace(self, probs=torch.zeros_like(self.probs).scatter_(1, self.label[:, None], 1.0))
        return replace(self, probs=(self.probs.clamp_min(TINY).log() / temperature).softmax(1))

    @property
    def label(self) -> Tensor:
        """Most probable class of each pixel, (B, H, W) int64."""
        return self.probs.argmax(1)

    @property
    def counted(self) -> Tensor:
        """Where a distribution counts, (B, H, W) bool."""
        return self.valid if self.keep is None else self.keep & self.valid

    @property
    def _area(self) -> tuple[Tensor, Tensor | None]:
        """Where a distribution counts, and what means divide by: whether it counts or not, a pixel is one."""
        if self.keep is None or self.pixels is not None:
            return self.counted, self.pixels
        return self.counted, self.valid.sum().clamp_min(1)

    def hardened(self, threshold: float | Tensor, supervision: Supervision, allowed: Tensor | None = None) -> Target:
        """The most probable class of each pixel; it counts where its probability is at least the threshold.

        Both are those of adjusted logits, if a user's `supervision` adjusts them, as the loss on the labels does.
        allowed: (B, C, h, w) bool, the classes that a pixel may be given; None = all.
        """
        probs = supervision.adjusted_probs(self.probs)
        if allowed is not None:
            probs = probs * on_grid(_size(probs), allowed)[0]
        confidence, label = probs.max(1)
        keep = (confidence >= threshold) & self.valid
        return Target(label, confidence, keep, self.valid, supervision, self.pixels, self.watch)

    def cross_entropy(self, logits: Tensor) -> Tensor:
        """Cross-entropy of logits (B, C, h, w) to the distributions, over valid pixels; a scalar.

        A user's `supervision` has no part in it: how frequent classes are, a distribution says itself.
        """
        self._show(logits)
        return soft_cross_entropy(logits, self.probs, *self._area)

    def mean_confidence(self) -> Tensor:
        """Mean probability of the most probable class over valid pixels, a scalar for the log."""
        return mean_over(self.probs.amax(1) * self.valid, self.valid)

    def and_also(self, other: SoftTarget) -> SoftTarget:
        """One target for labeled images and then the unlabeled ones of another; its means are over all their pixels.

        Whoever watches the other is shown its part.
        """
        pixels = None if self.pixels is None or other.pixels is None else self.pixels + other.pixels
        probs, valid = torch.cat([self.probs, other.probs]), torch.cat([self.valid, other.valid])
        keep = None if self.keep is None and other.keep is None else torch.cat([self.counted, other.counted])
        return SoftTarget(probs, valid, pixels, other.watch, len(self.probs) + other.unwatched, keep)

    def squared_gap(self, logits: Tensor) -> Tensor:
        """Squared difference to the distributions of logits (B, C, h, w), summed over classes; a scalar."""
        self._show(logits)
        return squared_gap(pixel_probs(logits, self.valid), self.probs, *self._area)

    def cosine_gap(self, logits: Tensor) -> Tensor:
        """1 - cosine of the distributions and those of logits (B, C, h, w); a scalar."""
        self._show(logits)
        return cosine_gap(pixel_probs(logits, self.valid), self.probs, *self._area)

    def divergence(self, logits: Tensor) -> Tensor:
        """Divergence of logits (B, C, h, w) from the distributions; a scalar."""
        self._show(logits)
        return divergence(upsample(logits.float(), _size(self.valid)), self.probs, *self._area)

    def share_sure(self, threshold: float) -> Tensor:
        """Share of valid pixels on which one class has at least this probability, over all ranks; a scalar."""
        return share((self.probs.amax(1) >= threshold) & self.valid, self.valid)

    def _show(self, logits: Tensor) -> None:
        """Show the most probable classes to whoever watches."""
        if self.watch is not None:
            seen = slice(self.unwatched, None)
            probs, counted, valid = on_grid(_size(logits), self.probs[seen], self.counted[seen], self.valid[seen])
            confidence, label = probs.max(1)
            self.watch.collect(logits[seen], label, confidence, counted, valid)


@torch.no_grad()
def soft_target(logits: Tensor, images: Labeled | Unlabeled) -> SoftTarget:
    """Distributions at every pixel of labeled images, or of the weak view. logits: (B, C, h, w)."""
    return target_of(pixel_probs(logits, images.valid), images)


@torch.no_grad()
def averaged_target(
    networks: Sequence[Callable[[Tensor], Tensor]], unlabeled: Unlabeled, scales: Sequence[float], mirror: bool
) -> SoftTarget:
    """Distributions on the weak view, the mean of those that networks give of it at several scales and mirrored.

    networks: map images (B, 3, H, W) to logits (B, C, h, w). scales: factors by which the view is
    resized for them, each with its mirror image if `mirror`.
    """
    total, count = torch.zeros(()), 0  # a running sum: the maps of all networks and views are large together
    for scale in scales:
        seen, scaled = unlabeled.weak, [max(1, round(side * scale)) for side in _size(unlabeled.valid)]
        if scale != 1:
            seen = F.interpolate(seen, size=scaled, mode="bilinear", antialias=True)
        for mirrored in (False, True) if mirror else (False,):
            view = seen.flip(-1) if mirrored else seen
            for network in networks:
                probs = pixel_probs(network(view), unlabeled.valid)
                probs = probs.flip(-1) if mirrored else probs
                total, count = total + probs if count else probs, count + 1
    return target_of(total / count, unlabeled)


def target_of(probs: Tensor, images: Labeled | Unlabeled, view: StrongView | None = None) -> SoftTarget:
    """The target of images of which `probs`, (B, C, H, W), is predicted; with an oracle, what is true of them.

    A user's distribution alignment comes first, so that thresholds and weights see what it says.
    Every target is made here: one that is put together by hand is neither watched nor replaced.
    Of unlabeled images `probs` may lie on a grid, (B, C, h, w), and so does the target then, each place of it being so
    many pixels; and it may be of a strong view of theirs, once that is mixed, instead of the weak one.
    """
    if not isinstance(images, Unlabeled):
        return SoftTarget(probs, images.valid, images.pixels)
    size, valid, truth, pixels = _size(probs), images.valid, images.truth, images.pixels
    if view is not None:
        valid, truth, pixels = view.mix(valid), None if truth is None else view.mix(truth), view.pixels
    if size != _size(valid):
        pixels = valid.sum().clamp_min(1) if pixels is None else pixels
        pixels = pixels * (size[0] * size[1] / valid[0].numel())
    valid = shrink_label(valid, size)
    if images.alignment is not None:
        probs = images.alignment.aligned(probs, valid)
    if truth is not None:
        probs = torch.zeros_like(probs).scatter_(1, shrink_label(truth, size)[:, None], 1.0)
    return SoftTarget(probs, valid, pixels, images.watch)


def labeled_on_grid(labeled: Labeled, size: tuple[int, int]) -> Labeled:
    """Labeled images whose labels are those of a grid of `size`; means divide as those of pixels do."""
    pixels = labeled.valid.sum().clamp_min(1) if labeled.pixels is None else labeled.pixels
    label, part = shrink_label(labeled.label, size), size[0] * size[1] / labeled.label[0].numel()
    return replace(labeled, label=label, pixels=pixels * part)


def view_on_grid(view: StrongView, unlabeled: Unlabeled, size: tuple[int, int]) -> StrongView:
    """A strong view as targets on a grid of `size` are mixed, whose means divide as those of pixels do."""
    pixels = view.mix(unlabeled.valid).sum().clamp_min(1) if view.pixels is None else view.pixels
    mix = on_features(view.mix, size)
    return StrongView(on_grid(size, view.image)[0], mix, pixels * (size[0] * size[1] / unlabeled.valid[0].numel()))


def _size(maps: Tensor) -> tuple[int, int]:
    return maps.shape[-2], maps.shape[-1]


def pixel_probs(logits: Tensor, valid: Tensor) -> Tensor:
    """Distributions (B, C, H, W) at the pixels of `valid`, (B, H, W), as predicted. logits: (B, C, h, w)."""
    return upsample(logits.float(), _size(valid)).softmax(1)
