"""Cross-entropy against labels and pseudo-labels, plain, on kept pixels, and re-weighted towards uncertain pixels.

Logits of any resolution are first resized to the label's size. Pixels labeled IGNORE take part in nothing; a batch
without any valid pixel gives 0, with a gradient of 0.

pixels: what a mean divides by, see `Labeled`; None = the valid pixels of this batch. class_weights: (C,), a pixel's
loss is multiplied by that of its class; the mean still divides by pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from des4.ops.reduce import mean_over
from des4.ops.resize import upsample
from des4.types import IGNORE


def cross_entropy(
    logits: Tensor,
    label: Tensor,
    pixels: Tensor | None = None,
    *,
    class_weights: Tensor | None = None,
    focal_gamma: float = 0.0,
) -> Tensor:
    """Mean cross-entropy over the valid pixels of the batch (DeS4, eqs. 1 and 6).

    logits: (B, C, h, w). label: (B, H, W) int64 in [0, C) or IGNORE. focal_gamma: γ ≥ 0, a pixel's loss is multiplied
    by (1 - p)^γ, p the probability of its class (Lin et al., ICCV 2017, eq. 4). Returns a scalar ≥ 0.
    """
    loss = pixel_cross_entropy(logits, label)
    if focal_gamma:
        # 1 - p without cancellation; the bound keeps the slope of a power below 1 finite where p = 1
        loss = loss * (-torch.expm1(-loss)).clamp_min(1e-12).pow(focal_gamma)
    if class_weights is not None:
        loss = loss * pixel_weights(class_weights, label)
    return mean_over(loss, label != IGNORE, pixels)


def kept_cross_entropy(
    logits: Tensor,
    pseudo: Tensor,
    keep: Tensor,
    valid: Tensor,
    pixels: Tensor | None = None,
    *,
    class_weights: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Cross-entropy against pseudo-labels on kept pixels, divided by the number of *valid* ones (FixMatch; DeS4, eq.
    3).

    Dividing by all valid pixels lets few confident pixels weigh little; with `keep` = `valid` it is the plain mean.
    logits: (B, C, h, w). pseudo: (B, H, W) int64 in [0, C). keep, valid: (B, H, W) bool, False on padding. weight:
    (B, H, W) ≥ 0, a pixel's loss is multiplied by it. Returns a scalar.
    """
    target = pseudo.masked_fill(~(keep & valid), IGNORE)
    loss = pixel_cross_entropy(logits, target)
    if class_weights is not None:
        loss = loss * pixel_weights(class_weights, target)
    if weight is not None:
        loss = loss * weight
    return mean_over(loss, valid, pixels)


def reweighted_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy whose pixels count by their uncertainty, `W ∝ (1 - max softmax)²` (DeS4, eqs. 7-8).

    The weights of an image sum to 1 over its valid pixels and carry no gradient; the result is the mean over images, an
    image without a valid pixel contributing 0. The paper prints arg max where the maximum is meant.
    logits: (B, C, H, W), or smaller. target: (B, H, W) int64 in [0, C) or IGNORE. Returns a scalar ≥ 0.
    """
    log_probs = F.log_softmax(upsample(logits.float(), _size(target)), dim=1)
    loss = F.nll_loss(log_probs, target, ignore_index=IGNORE, reduction="none")
    doubt = _uncertainty(log_probs.detach()) * (target != IGNORE)
    # Only ratios count: measured by the image's most uncertain pixel, squares of tiny numbers are no 0.
    weight = (doubt / doubt.amax((1, 2), keepdim=True).clamp_min(torch.finfo(doubt.dtype).tiny)).square()
    weight = weight / weight.sum((1, 2), keepdim=True).clamp_min(1)  # the most uncertain pixel has 1, if there is one
    return (weight * loss).sum((1, 2)).mean()


def soft_cross_entropy(logits: Tensor, probs: Tensor, valid: Tensor, pixels: Tensor | None = None) -> Tensor:
    """Mean cross-entropy against distributions, `-Σ_c p_c log q_c`, over the valid pixels of the batch.

    logits: (B, C, h, w). probs: (B, C, H, W), without gradient. valid: (B, H, W) bool. Returns a scalar ≥ 0.
    """
    log_probs = F.log_softmax(upsample(logits.float(), _size(valid)), dim=1)
    return mean_over(-(probs * log_probs).sum(1) * valid, valid, pixels)


def _uncertainty(log_probs: Tensor) -> Tensor:
    """Probability of all classes but the most probable one, 1 - q of eq. 7: (B, C, H, W) to (B, H, W).

    As a sum of the others, not as a difference, which is rounded to 0 where a network is very sure.
    """
    return log_probs.exp().scatter(1, log_probs.argmax(1, keepdim=True), 0.0).sum(1)


def pixel_cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy of each pixel, (B, H, W), 0 where the label is IGNORE."""
    return F.cross_entropy(upsample(logits.float(), _size(label)), label, ignore_index=IGNORE, reduction="none")


def pixel_weights(class_weights: Tensor, label: Tensor) -> Tensor:
    """Weight of each pixel's class, (B, H, W); of pixels labeled IGNORE some class's. class_weights: (C,)."""
    return class_weights[label.clamp_max(len(class_weights) - 1)]


def _size(label: Tensor) -> tuple[int, int]:
    return label.shape[-2], label.shape[-1]
