"""Online hard example mining: only the pixels that a network finds difficult are trained on."""

from __future__ import annotations

import torch
from torch import Tensor

from des4.losses.cross_entropy import pixel_cross_entropy, pixel_weights
from des4.ops.reduce import mean_over
from des4.types import IGNORE


def hard_cross_entropy(
    logits: Tensor,
    label: Tensor,
    pixels: Tensor | None = None,
    *,
    threshold: float = 0.7,
    min_share: float = 0.085,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy over the pixels whose own class has probability ≤ `threshold` (Shrivastava et al., CVPR 2016).

    At least the share `min_share` of the valid pixels counts, the hardest of them. Which these are is decided for the
    images given together, as published codes do on each GPU; a part of a step weighs by its valid pixels.
    logits: (B, C, h, w). label: (B, H, W) int64 in [0, C) or IGNORE. pixels: see `Labeled`. class_weights: (C,), of
    the loss of kept pixels. Returns a scalar ≥ 0. The host waits for nothing.
    """
    valid = label != IGNORE
    loss = pixel_cross_entropy(logits, label)
    keep = valid & _hard(loss.detach(), valid, threshold, min_share)
    if class_weights is not None:
        loss = loss * pixel_weights(class_weights, label)
    mean = mean_over(loss * keep, keep)
    return mean if pixels is None else mean * valid.sum() / pixels


def _hard(loss: Tensor, valid: Tensor, threshold: float, min_share: float) -> Tensor:
    """Mask of the pixels whose class has at most the larger of `threshold` and the probability at rank `min_share`."""
    probs = torch.where(valid, (-loss).exp(), 2.0)  # what is not valid is the easiest
    rank = (min_share * valid.sum()).ceil().long().clamp_min(1) - 1
    at_rank = probs.flatten().sort().values.gather(0, rank[None])
    return probs <= at_rank.clamp_min(threshold)
