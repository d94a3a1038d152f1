"""Cross-entropy against labels and pseudo-labels, plain, on kept pixels, and re-weighted towards uncertain pixels.

Logits of any resolution are first resized to the label's size. Pixels labelled IGNORE take part in nothing; a batch
without any valid pixel gives 0, with a gradient of 0.

pixels: what a mean divides by, see `Labelled`; None = the valid pixels of this batch.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from des4.ops.reduce import mean_over
from des4.ops.resize import upsample
from des4.types import IGNORE


def cross_entropy(logits: Tensor, label: Tensor, pixels: Tensor | None = None) -> Tensor:
    """Mean cross-entropy over the valid pixels of the batch (DeS4, eqs. 1 and 6).

    logits: (B, C, h, w). label: (B, H, W) int64 in [0, C) or IGNORE. Returns a scalar ≥ 0.
    """
    return mean_over(_per_pixel(logits, label), label != IGNORE, pixels)


def kept_cross_entropy(
    logits: Tensor, pseudo: Tensor, keep: Tensor, valid: Tensor, pixels: Tensor | None = None
) -> Tensor:
    """Cross-entropy against pseudo-labels on kept pixels, divided by the number of *valid* ones (FixMatch; DeS4, eq.
    3).

    Dividing by all valid pixels lets few confident pixels weigh little; with `keep` = `valid` it is the plain mean.
    logits: (B, C, h, w). pseudo: (B, H, W) int64 in [0, C). keep, valid: (B, H, W) bool, False on padding. Returns a
    scalar.
    """
    target = pseudo.masked_fill(~(keep & valid), IGNORE)
    return mean_over(_per_pixel(logits, target), valid, pixels)


def reweighted_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy whose pixels count by their uncertainty, `W ∝ (1 - max softmax)²` (DeS4, eqs. 7-8).

    The weights of an image sum to 1 over its valid pixels and carry no gradient; the result is the mean over images, an
    image without a valid pixel contributing 0. The paper prints arg max where the maximum is meant.
    logits: (B, C, H, W), or smaller. target: (B, H, W) int64 in [0, C) or IGNORE. Returns a scalar ≥ 0.
    """
    log_probs = F.log_softmax(upsample(logits.float(), _size(target)), dim=1)
    loss = F.nll_loss(log_probs, target, ignore_index=IGNORE, reduction="none")
    confidence = log_probs.detach().amax(1).exp()
    weight = (1 - confidence).square() * (target != IGNORE)
    weight = weight / weight.sum((1, 2), keepdim=True).clamp_min(1e-8)
    return (weight * loss).sum((1, 2)).mean()


def _per_pixel(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy of each pixel, (B, H, W), 0 where the label is IGNORE."""
    return F.cross_entropy(upsample(logits.float(), _size(label)), label, ignore_index=IGNORE, reduction="none")


def _size(label: Tensor) -> tuple[int, int]:
    return label.shape[-2], label.shape[-1]
