"""Random intensity augmentation: some of eleven operations, each with a strength of its own (AugSeg, Zhao et al., CVPR
2023, section 3.2; ranges as in its code, the operations are those of torchvision).

Images of a batch differ in their operations, so these go image by image, on the device where images lie. Differs: the
published code works on bytes; here numbers are rounded to bytes for equalising alone. Nothing waits for the device.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as ops

TO_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
FROM_YIQ = torch.linalg.inv(TO_YIQ)
"""Of colours RGB to luma and the plane of colour, and back."""

STRENGTHS: dict[str, tuple[float, float]] = {
    "identity": (0, 0),
    "autocontrast": (0, 0),
    "equalise": (0, 0),
    "blur": (0.1, 2.0),
    "contrast": (0.05, 0.95),
    "brightness": (0.05, 0.95),
    "colour": (0.05, 0.95),
    "sharpness": (0.05, 0.95),
    "posterise": (3.5, 7.5),
    "solarise": (1 / 255, 1.0),
    "hue": (-0.5, 0.5),
}
"""Operation → range of its strength. blur: sigma in pixels. contrast, brightness, colour, sharpness: a factor, of which
0 leaves none. posterise: bits kept once rounded, 4 to 7. solarise: value from which it is inverted. hue: in turns."""
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


def _sharpened(image: Tensor, factor: float) -> Tensor:
    """Blend with a smoothed image, of which pixels at the border stay; 0 is the smoothed one. As torchvision's, which
    sends its kernel from the host.
    """
    if min(image.shape[1:]) < 3:
        return image
    smooth = image.clone()
    smooth[:, 1:-1, 1:-1] = (9 * F.avg_pool2d(image, 3, stride=1) + 4 * image[:, 1:-1, 1:-1]) / 13
    return smooth.lerp(image, factor)


def _turned(image: Tensor, turns: float) -> Tensor:
    """Turn the hue, in the YIQ colour plane as all views do; torchvision's, in HSV, sends a table from the host."""
    cos, sin = math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns)
    turn = torch.tensor([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]])
    red, green, blue = image
    rows: list[list[float]] = (FROM_YIQ @ turn @ TO_YIQ).tolist()
    return torch.stack([r * red + g * green + b * blue for r, g, b in rows]).clamp(0, 1)


_APPLY: dict[str, Callable[[Tensor, float], Tensor]] = {
    "identity": lambda image, _: image,
    "autocontrast": lambda image, _: ops.autocontrast(image),
    "equalise": lambda image, _: ops.equalize(image),
    "blur": _blur,
    "contrast": ops.adjust_contrast,
    "brightness": ops.adjust_brightness,
    "colour": ops.adjust_saturation,
    "sharpness": _sharpened,
    "posterise": lambda image, bits: ops.posterize(image, round(bits)),
    "solarise": ops.solarize,
    "hue": _turned,
}
"""Operation → function of an image (3, H, W) in [0, 1] and its strength."""
