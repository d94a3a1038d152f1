"""From an image of any size to class probabilities: in one pass, or by windows."""

from __future__ import annotations

import math
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from des4.ops.resize import upsample
from des4.types import Config


class EvalConfig(Config):
    """How images are segmented when a model is evaluated or used.

    mode: `whole` = the image in one pass, at its own size; `sliding` = overlapping windows, averaged.
    window: side of a square window, in pixels. A side of the image that is shorter is taken as it is.
    stride: pixels between windows, at most `window`; null = two thirds of it, rounded up.
    average: what is averaged where windows overlap, `probs` or `logits`.
    """

    mode: Literal["whole", "sliding"] = "whole"
    window: int = Field(513, ge=1)
    stride: int | None = Field(None, ge=1)
    average: Literal["probs", "logits"] = "probs"

    @model_validator(mode="after")
    def _windows_touch(self) -> Self:
        if self.stride is not None and self.stride > self.window:
            raise ValueError(f"stride {self.stride} is wider than the window {self.window}: pixels would be missed")
        return self


@torch.inference_mode()
def segment(model: nn.Module, image: Tensor, config: EvalConfig) -> Tensor:
    """Segment one image: (3, H, W) float in [0, 1] → (C, H, W) class probabilities.

    model: maps (1, 3, H, W) to logits (1, C, h, w) of any resolution, and is in eval mode. It is on the image's device.
    """
    if config.mode == "whole":
        return _logits(model, image).softmax(0)

    height, width = image.shape[1:]
    stride = config.stride or math.ceil(config.window * 2 / 3)
    total, visits = None, image.new_zeros(height, width)
    for top in _starts(height, config.window, stride):
        for left in _starts(width, config.window, stride):
            area = (slice(top, top + config.window), slice(left, left + config.window))
            scores = _logits(model, image[:, *area])
            if config.average == "probs":
                scores = scores.softmax(0)
            if total is None:
                total = scores.new_zeros(len(scores), height, width)
            total[:, *area] += scores
            visits[area] += 1
    assert total is not None  # noqa: S101  # an image has at least one window
    mean = total.div_(visits)
    return mean if config.average == "probs" else mean.softmax(0)


def _logits(model: nn.Module, image: Tensor) -> Tensor:
    """Logits at the image's size, (C, H, W) float32."""
    logits: Tensor = model(image[None])
    return upsample(logits.float(), (image.shape[1], image.shape[2]))[0]


def _starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin so that all of `length` is seen; the last one is shifted back to end with the image."""
    last = max(length - window, 0)
    return [*range(0, last, stride), last]
