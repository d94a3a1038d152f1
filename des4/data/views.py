"""Views of a sample: the weak one (scale, crop, flip) and what makes a view strong (colour, blur).

Everything drawn comes from a `random.Random` that the loader keys by (seed, epoch, id); nothing here owns a generator.
Presets: `unimatch` (Yang et al., CVPR 2023, github.com/LiheYoung/UniMatch, MIT, not copied) and `french` (French et
al., BMVC 2020). Differs: the colour operations come in one fixed order and are clamped once, at the end, which lets
them be one affine map of RGB per image; hue is a rotation of the YIQ colour plane, which keeps the luma, not HSV's.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from des4.types import IGNORE, Config, CutMixPreset, StrongPreset


class ViewsConfig(Config):
    """How training crops are made."""

    crop_size: PositiveInt | tuple[PositiveInt, PositiveInt] = 256
    """Pixels: one side of a square crop, or (height, width)."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Range of the factor, drawn uniformly, by which an image is resized before it is cropped."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a left-right flip."""
    cutmix: CutMixPreset | Literal["auto"] = "auto"
    """`auto`: what the method was published with."""
    photometric: StrongPreset | Literal["auto"] = "auto"
    """Colour and blur of strong views; `auto`: what the method was published with."""

    @model_validator(mode="after")
    def _scale_is_a_range(self) -> Self:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale {self.scale} must be (low, high) with 0 < low <= high")
        return self

    @property
    def crop(self) -> tuple[int, int]:
        """Height and width of the crop, in pixels."""
        return self.crop_size if isinstance(self.crop_size, tuple) else (self.crop_size, self.crop_size)


@dataclass(frozen=True)
class CropBox:
    """A crop: the source rectangle of whole pixels, the size it is resized to, and where that lies in the crop.

    One box serves image and mask, so both are resized by exactly the same factors. Rounding the source to whole pixels
    changes the drawn factor by at most one source pixel a side.
    """

    top: int
    left: int
    height: int
    width: int
    out_height: int
    out_width: int
    out_top: int
    out_left: int
    flip: bool

    def place(self, source: Tensor, canvas: Tensor) -> None:
        """Write the crop of `source` (channels, H, W) over `canvas` (channels, *crop); padding stays as it is.

        Floating canvas: bilinear with antialias, values 0-255 become 0-1. Integer canvas (labels): nearest.
        """
        part = source[:, self.top : self.top + self.height, self.left : self.left + self.width][None]
        size = (self.out_height, self.out_width)
        if canvas.is_floating_point():
            if part.shape[-2:] != size:
                part = part.contiguous(
                    memory_format=torch.channels_last
                )  # the fast layout; torch 2.15 fails on 1×1 else
                part = F.interpolate(part, size, mode="bilinear", antialias=True)
            part = part / 255
        elif part.shape[-2:] != size:
            part = F.interpolate(part, size, mode="nearest-exact")  # its pixel centres are those of "bilinear"
        target = canvas[
            :, self.out_top : self.out_top + self.out_height, self.out_left : self.out_left + self.out_width
        ]
        target.copy_(part[0].flip(-1) if self.flip else part[0])


def draw_crop(config: ViewsConfig, height: int, width: int, rng: random.Random) -> CropBox:
    """Draw a crop of an image of height × width pixels; a smaller scaled image lies anywhere in the crop."""
    scale = rng.uniform(*config.scale)
    top, source_height, out_top, out_height = _draw_span(height, config.crop[0], scale, rng)
    left, source_width, out_left, out_width = _draw_span(width, config.crop[1], scale, rng)
    flip = rng.random() < config.flip
    return CropBox(top, left, source_height, source_width, out_height, out_width, out_top, out_left, flip)


def _draw_span(length: int, crop: int, scale: float, rng: random.Random) -> tuple[int, int, int, int]:
    """Draw one axis of a crop: start and length in the source, start and length in the crop."""
    wanted = max(1, round(crop / scale))
    if wanted <= length:
        return rng.randint(0, length - wanted), wanted, 0, crop
    out = min(crop, max(1, round(length * scale)))
    return 0, length, rng.randint(0, crop - out), out


def labelled_view(
    image: Tensor, label: Tensor, box: CropBox, config: ViewsConfig, fill: Tensor
) -> tuple[Tensor, Tensor]:
    """Crop an image (3, H, W) uint8 and its label (H, W) uint8 to (3, *crop) float in [0, 1] and (*crop) int64.

    fill: (3,), the colour of padding in [0, 1]; its label is IGNORE.
    """
    cropped = torch.full((1, *config.crop), IGNORE, dtype=torch.uint8)
    box.place(label[None], cropped)
    return weak_view(image, box, config, fill), cropped[0].long()


def weak_view(image: Tensor, box: CropBox, config: ViewsConfig, fill: Tensor) -> Tensor:
    """Crop an image (3, H, W) uint8 to (3, *crop) float in [0, 1], padded with the colour `fill` (3,)."""
    view = fill[:, None, None].repeat(1, *config.crop)
    box.place(image, view)
    return view


def valid_pixels(box: CropBox, config: ViewsConfig) -> Tensor:
    """(*crop) bool, False on padding."""
    valid = torch.zeros(config.crop, dtype=torch.bool)
    valid[box.out_top : box.out_top + box.out_height, box.out_left : box.out_left + box.out_width] = True
    return valid


@dataclass(frozen=True)
class Photometric:
    """One image's draw of strong augmentation; the defaults change nothing.

    brightness, contrast, saturation: factors. hue: in turns. grey: drop the colour. sigma: of the blur, in pixels.
    """

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    grey: float = 0.0
    sigma: float = 0.0


@dataclass(frozen=True)
class _Preset:
    jitter: float
    """Brightness, contrast and saturation factors are drawn from 1 ± jitter, with probability 0.8 together with hue."""
    hue: float
    blur: float
    """Probability of a blur with sigma ~ U(0.1, 2) pixels."""


_PRESETS: dict[StrongPreset, _Preset] = {"french": _Preset(0.4, 0.1, 0.0), "unimatch": _Preset(0.5, 0.25, 0.5)}


def draw_photometric(preset: StrongPreset, rng: random.Random) -> Photometric:
    """Draw one image's strong augmentation: colour jitter with probability 0.8, grey with 0.2, blur by preset."""
    if preset == "none":
        return Photometric()
    ranges = _PRESETS[preset]
    jitter, grey, blur = rng.random() < 0.8, rng.random() < 0.2, rng.random() < ranges.blur
    brightness, contrast, saturation = (rng.uniform(1 - ranges.jitter, 1 + ranges.jitter) for _ in range(3))
    hue, sigma = rng.uniform(-ranges.hue, ranges.hue), rng.uniform(0.1, 2.0)
    if not jitter:
        brightness, contrast, saturation, hue = 1.0, 1.0, 1.0, 0.0
    return Photometric(brightness, contrast, saturation, hue, float(grey), sigma if blur else 0.0)


def strong_view(images: Tensor, draws: Sequence[Photometric]) -> Tensor:
    """Recolour and blur images (B, 3, H, W) in [0, 1], each by its own draw; without a change return `images`."""
    if all(draw == Photometric() for draw in draws):
        return images
    columns = zip(*map(astuple, draws), strict=True)
    *colour, sigma = (torch.tensor(column) for column in columns)
    matrix, offset = _colour_map(images, *colour)
    out = torch.baddbmm(offset[..., None], matrix, images.flatten(2)).clamp_(0, 1).view_as(images)
    if (blurred := sigma > 0).any():
        out[blurred] = _blur(out[blurred], sigma[blurred])
    return out


_LUMA = torch.tensor([0.299, 0.587, 0.114])
_TO_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
_FROM_YIQ = torch.linalg.inv(_TO_YIQ)


def _colour_map(
    images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor, grey: Tensor
) -> tuple[Tensor, Tensor]:
    """Compose brightness, contrast, saturation, hue and grey into x → matrix·x + offset; (B, 3, 3) and (B, 3).

    Contrast keeps the image's mean luma (after brightness), saturation and hue keep each pixel's.
    """
    identity, to_grey = torch.eye(3), _LUMA.expand(3, 3)
    cos, sin = torch.cos(2 * math.pi * hue), torch.sin(2 * math.pi * hue)
    zero, one = torch.zeros_like(hue), torch.ones_like(hue)
    turn = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], 1).view(-1, 3, 3)

    def towards_grey(keep: Tensor) -> Tensor:
        return keep[:, None, None] * identity + (1 - keep)[:, None, None] * to_grey

    colour = towards_grey(1 - grey) @ _FROM_YIQ @ turn @ _TO_YIQ @ towards_grey(saturation)
    mean = brightness * (images.mean((2, 3)) @ _LUMA)
    offset = ((1 - contrast) * mean)[:, None].expand(-1, 3)  # a grey, which `colour` leaves as it is
    return colour * (brightness * contrast)[:, None, None], offset


_BLUR_RADIUS = 6
"""Pixels; three times the largest sigma."""


def _blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of (B, 3, H, W) with sigma (B,) pixels, edges repeated.

    Shifted sums along each axis: twice as fast as a grouped convolution on a CPU, and the same with any thread count.
    """
    taps = torch.arange(-_BLUR_RADIUS, _BLUR_RADIUS + 1)
    weights = torch.exp(-0.5 * (taps[:, None] / sigma) ** 2)
    weights = (weights / weights.sum(0))[:, :, None, None, None]
    for axis, padding in ((2, (0, 0, _BLUR_RADIUS, _BLUR_RADIUS)), (3, (_BLUR_RADIUS, _BLUR_RADIUS, 0, 0))):
        padded = F.pad(images, padding, mode="replicate")
        length = images.shape[axis]
        images = weights[0] * padded.narrow(axis, 0, length)
        for shift in range(1, len(taps)):
            images.addcmul_(weights[shift], padded.narrow(axis, shift, length))
    return images
