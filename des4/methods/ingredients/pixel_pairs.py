"""Contrast of pixels seen twice with pixels of other images that are likely of another class (Zhong et al., 2021)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from des4.losses import paired_info_nce
from des4.ops.mixing import on_features
from des4.ops.noise import uniform
from des4.ops.resize import shrink_label
from des4.ops.sampling import spread_draw, take_places, weighted_draw
from des4.types import Config, StrongView, Unlabeled


class PixelPairsConfig(Config):
    """Settings of methods that hold pixels against those of other images."""

    anchors: int = Field(256, ge=1)
    """Pixels of an image that are drawn [ours]."""
    candidates: int = Field(512, ge=1)
    """Pixels of other images from which the negatives of each are drawn [ours]."""
    negatives: int = Field(200, ge=1)
    """N, negatives of each."""
    contrast_temperature: float = Field(0.07, gt=0)
    """τ, divides cosines."""


def pixel_pairs(
    weak: Tensor, strong: Tensor, probs: Tensor, unlabeled: Unlabeled, view: StrongView, config: PixelPairsConfig
) -> Tensor:
    """Mean over images, and their drawn pixels, of the cross-entropy of finding a pixel again; a scalar.

    weak, strong: (B, D, h, w), embeddings of the weak view, and of the mixed strong one. probs: (B, C, h, w), of the
    weak view. Another image's pixel is drawn with a probability in proportion to 1 - the product of the distributions:
    that of another class. Other images are those that the view is mixed within. float32, whatever autocast says.
    """
    group, size = view.mix.group, (weak.shape[-2], weak.shape[-1])
    mix = on_features(view.mix, size)
    valid, keys, number = shrink_label(unlabeled.valid, size), unlabeled.keys, torch.arange(group, device=weak.device)
    image = number.repeat(len(weak) // group)[:, None, None].expand(valid.shape)

    def folded(rows: Tensor) -> Tensor:
        """(B, k, ...) of images to (groups, group · k, ...)."""
        return rows.reshape(-1, group * rows.shape[1], *rows.shape[2:])

    places, drawn = spread_draw(mix(valid).flatten(1), uniform(keys, (config.anchors,), "anchors"))
    count = -(-config.candidates // (group - 1))  # of each of the others
    others, there = spread_draw(valid.flatten(1), uniform(keys, (count,), "candidates"))
    anchors, positives, said = (
        folded(take_places(each, places)) for each in (mix(weak), strong, mix(probs.detach().float()))
    )
    rows, said_there = (folded(take_places(each, others)) for each in (weak, probs.detach().float()))
    apart = folded(mix(image).flatten(1).gather(1, places))[..., None] != number.repeat_interleave(count)
    with torch.autocast(weak.device.type, enabled=False):
        weight = (1 - said @ said_there.transpose(-1, -2)).clamp_min(0) * apart * folded(there)[:, None]
    noise = folded(uniform(keys, (config.anchors, group * count), "negatives"))
    chosen = weighted_draw(weight, noise, config.negatives)
    loss = paired_info_nce(anchors, positives, rows, chosen, config.contrast_temperature).view(drawn.shape)
    return ((loss * drawn).sum(1) / drawn.sum(1).clamp_min(1)).mean()
