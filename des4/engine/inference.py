"""From an image of any size to class probabilities: in one pass, or by windows."""

from __future__ import annotations

import math
from typing import Literal, Self

import torch
import torch.nn.functional as F
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
    resize: factor by which an image is resized before the network sees it; what comes out has the image's own size. For
        models that were trained on smaller images than they are scored on.
    """

    mode: Literal["whole", "sliding"] = "whole"
    window: int = Field(513, ge=1)
    stride: int | None = Field(None, ge=1)
    average: Literal["probs", "logits"] = "probs"
    resize: float = Field(1.0, gt=0, le=4)

    @model_validator(mode="after")
    def _windows_touch(self) -> Self:
        if self.stride is not None and self.stride > self.window:
            raise ValueError(f"stride {self.stride} is wider than the window {self.window}: pixels would be missed")
        return self


@torch.inference_mode()
def segment(model: nn.Module, image: Tensor, config: EvalConfig) -> Tensor:
    """Segment one image: (3, H, W) float in [0, 1] → (C, H, W) class probabilities.

    model: maps (1, 3, H, W) to logits (1, C, h, w) of any resolution, and is in eval mode. It is on the image's device.
    One that was compiled runs uncompiled here: it would be compiled again for each size of image.
    """
    with torch.compiler.set_stance("force_eager"):
        return _segment(model, image, config)


def _segment(model: nn.Module, image: Tensor, config: EvalConfig) -> Tensor:
    size = (image.shape[1], image.shape[2])
    seen = image[None]
    if config.resize != 1:
        seen = F.interpolate(
            seen, size=[max(1, round(side * config.resize)) for side in size], mode="bilinear", antialias=True
        )
    if config.mode == "whole":
        return _logits(model, seen, size).softmax(1)[0]
    scores = _slide(model, seen, config)
    mean = upsample(scores, size)[0]
    return mean if config.average == "probs" else mean.softmax(0)


def _slide(model: nn.Module, image: Tensor, config: EvalConfig) -> Tensor:
    """Mean over the windows that see a pixel, (1, C, H, W): of probabilities or of logits."""
    height, width = image.shape[2:]
    stride = config.stride or math.ceil(config.window * 2 / 3)
    total, visits = None, image.new_zeros(height, width)
    for top in _starts(height, config.window, stride):
        for left in _starts(width, config.window, stride):
            area = (..., slice(top, top + config.window), slice(left, left + config.window))
            window = image[area]
            scores = _logits(model, window, (window.shape[2], window.shape[3]))
            if config.average == "probs":
                scores = scores.softmax(1)
            if total is None:
                total = scores.new_zeros(1, scores.shape[1], height, width)
            total[area] += scores
            visits[area] += 1
    assert total is not None  # noqa: S101  # an image has at least one window
    return total.div_(visits)


def _logits(model: nn.Module, image: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits of an image (1, 3, H, W) at another size, (1, C, *size) float32."""
    logits: Tensor = model(image)
    return upsample(logits.float(), size)


def _starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin so that all of `length` is seen; the last one is shifted back to end with the image."""
    last = max(length - window, 0)
    return [*range(0, last, stride), last]
