"""From an image of any size to class probabilities: in one pass or by windows, from one view or several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from des4.ops.resize import upsample
from des4.types import Config, Factor


class EvalConfig(Config):
    """How images are segmented when a model is evaluated or used."""

    mode: Literal["whole", "sliding"] = "whole"
    """The `whole` image in one pass, at its own size; or `sliding` windows that overlap, averaged."""
    window: int = Field(513, ge=1)
    """Side of a square window, in pixels. A side of the image that is shorter is taken as it is."""
    stride: int | None = Field(None, ge=1)
    """Pixels between windows, at most `window`; `null`: two thirds of it, rounded up."""
    average: Literal["probs", "logits"] = "probs"
    """What is averaged where windows overlap, and over views."""
    resize: Factor = 1.0
    """Factor by which an image is resized before the network sees it; results have the image's own size. For models
    that were trained on smaller images than they are scored on. A prediction takes
    [`auto`](prediction.md#the-size-of-things) too."""
    scales: tuple[Factor, ...] = Field((1.0,), min_length=1)
    """Further factors: the network sees the image, or each window, once at each of them, and the average counts."""
    mirror: bool = False
    """At each scale, see the mirror image too."""

    @model_validator(mode="after")
    def _windows_touch(self) -> Self:
        if self.stride is not None and self.stride > self.window:
            raise ValueError(f"stride {self.stride} is wider than the window {self.window}: pixels would be missed")
        return self


@torch.inference_mode()
def segment(model: nn.Module, image: Tensor, config: EvalConfig) -> Tensor:
    """Segment one image: (bands, H, W) float in [0, 1] → (C, H, W) class probabilities.

    model: maps (B, bands, H, W) to logits (B, C, h, w) of any resolution, and is in eval mode. It is on the image's
    device. One that was compiled runs uncompiled here: it would be compiled again for each size of image.
    """
    return segment_batch(model, image[None], config)[0]


@torch.inference_mode()
def segment_batch(model: nn.Module, images: Tensor, config: EvalConfig) -> Tensor:
    """Segment images of one size, as `segment` does one: (B, bands, H, W) → (B, C, H, W)."""
    with torch.compiler.set_stance("force_eager"):
        size = (images.shape[2], images.shape[3])
        if config.mode == "whole":
            scores = view_scores(model, images, size, config, config.resize)
        else:
            scores = upsample(_slide(model, resized(images, config.resize), config), size)
    return scores if config.average == "probs" else scores.softmax(1)


def view_scores(
    model: nn.Module, images: Tensor, size: tuple[int, int], config: EvalConfig, factor: float = 1.0
) -> Tensor:
    """Mean over the views of a config, of probabilities or of logits: (B, bands, H, W) → (B, C, *size) float32.

    factor: by which the images are resized, besides the scales.
    """
    total: Tensor | None = None
    for scale in config.scales:
        seen = resized(images, scale * factor)
        for mirrored in (False, True) if config.mirror else (False,):
            scores = upsample(model(seen.flip(-1) if mirrored else seen).float(), size)
            if config.average == "probs":
                scores = scores.softmax(1)
            if mirrored:
                scores = scores.flip(-1)
            total = scores if total is None else total.add_(scores)
    assert total is not None  # noqa: S101  # a config has at least one scale
    views = len(config.scales) * (1 + config.mirror)
    return total if views == 1 else total.div_(views)


def resized(images: Tensor, factor: float) -> Tensor:
    """Resize images (B, bands, H, W) bilinearly, averaging where they shrink; at least one pixel stays of each side."""
    if factor == 1:
        return images
    return F.interpolate(images, size=scaled_size(images.shape[2:], factor), mode="bilinear", antialias=True)


def scaled_size(size: Sequence[int], factor: float) -> list[int]:
    """Sides of an image after resizing, at least one pixel each."""
    return [max(1, round(side * factor)) for side in size]


def _slide(model: nn.Module, images: Tensor, config: EvalConfig) -> Tensor:
    """Mean over the windows that see a pixel, (B, C, H, W): of probabilities or of logits."""
    height, width = images.shape[2:]
    total, visits = None, images.new_zeros(height, width)
    for top in starts(height, config.window, window_stride(config)):
        for left in starts(width, config.window, window_stride(config)):
            area = (..., slice(top, top + config.window), slice(left, left + config.window))
            window = images[area]
            scores = view_scores(model, window, (window.shape[2], window.shape[3]), config)
            if total is None:
                total = scores.new_zeros(*scores.shape[:2], height, width)
            total[area] += scores
            visits[area] += 1
    assert total is not None  # noqa: S101  # an image has at least one window
    return total.div_(visits)


def window_stride(config: EvalConfig) -> int:
    """Pixels between the windows of a config."""
    return config.stride or math.ceil(config.window * 2 / 3)


def starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin so that all of `length` is seen; the last one is shifted back to end with the image."""
    last = max(length - window, 0)
    return [*range(0, last, stride), last]
