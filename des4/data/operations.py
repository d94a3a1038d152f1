"""Random intensity augmentation: some of eleven operations, each with a strength of its own (AugSeg, Zhao et al., CVPR
2023, section 3.2; the operations are those of torchvision).

Images of a batch differ in their operations, so these go image by image, on the device where images lie. Differs: the
published code works on bytes; here numbers are rounded to bytes for equalising alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as ops

STRENGTHS: dict[str, tuple[float, float]] = {
    "identity": (0, 0),
    "autocontrast": (0, 0),
    "equalise": (0, 0),
    "blur": (0.1, 2.0),
    "contrast": (0.05, 0.95),
    "brightness": (0.05, 0.95),
    "colour": (0.05, 0.95),
    "sharpness": (0.05, 0.95),
    "posterise": (4, 8),
    "solarise": (0.0, 1.0),
    "hue": (0.0, 0.5),
}
"""Operation → range of its strength. blur: sigma in pixels. contrast, brightness, colour, sharpness: a factor, of which
0 leaves none. posterise: bits kept. solarise: value from which it is inverted. hue: in turns. [ours] are the ranges of
blur, posterise, solarise and hue: those of FixMatch's augmentation and of `unimatch`'s blur."""
MOST = 3
"""Operations on an image, at most; the same may come twice."""


@dataclass(frozen=True)
class Operations:
    """One image's draw: names and strengths, in the order in which they are applied."""

    steps: tuple[tuple[str, float], ...]


def draw_operations(rng: random.Random) -> Operations:
    """Draw one to three operations, each as likely, with strengths that are even in their ranges."""
    names = rng.choices(tuple(STRENGTHS), k=rng.randint(1, MOST))
    return Operations(tuple((name, rng.uniform(*STRENGTHS[name])) for name in names))


def operated(images: Tensor, draws: Sequence[Operations]) -> Tensor:
    """Apply to each of the images (B, 3, H, W) in [0, 1] its own operations."""
    return torch.stack([_all_of(image, draw) for image, draw in zip(images, draws, strict=True)])


def _all_of(image: Tensor, draw: Operations) -> Tensor:
    for name, strength in draw.steps:
        image = _APPLY[name](image, strength)
    return image


def _blur(image: Tensor, sigma: float) -> Tensor:
    radius = min(round(3 * sigma), min(image.shape[1:]) - 1)  # more would be read of a mirrored image
    return ops.gaussian_blur(image, [2 * radius + 1] * 2, [sigma] * 2)  # type: ignore[no-any-return]


_APPLY: dict[str, Callable[[Tensor, float], Tensor]] = {
    "identity": lambda image, _: image,
    "autocontrast": lambda image, _: ops.autocontrast(image),
    "equalise": lambda image, _: ops.equalize(image),
    "blur": _blur,
    "contrast": ops.adjust_contrast,
    "brightness": ops.adjust_brightness,
    "colour": ops.adjust_saturation,
    "sharpness": ops.adjust_sharpness,
    "posterise": lambda image, bits: ops.posterize(image, round(bits)),
    "solarise": ops.solarize,
    "hue": ops.adjust_hue,
}
"""Operation → function of an image (3, H, W) in [0, 1] and its strength."""
