"""Views of a sample: the weak one (scale, crop, flip) and what makes a view strong (colour, blur).

Crops are cut image by image, in bytes; what follows works on whole batches wherever they lie, so that a GPU does it
and little has to travel there: `padded_views` makes numbers of the bytes, `strong_view` recolours.

Everything drawn comes from a `random.Random` that the loader keys by (seed, epoch, id); nothing here owns a generator.
Presets: `unimatch` (Yang et al., CVPR 2023, github.com/LiheYoung/UniMatch, MIT, not copied), `french` (French et al.,
BMVC 2020) and `pseudoseg` (Zou et al., ICLR 2021); `augseg` is in `operations`. Differs: the colour operations of the
first come in one fixed order and are clamped once, at the end, which lets them be one affine map of RGB per image; hue
is a rotation of the YIQ colour plane, which keeps the luma, not HSV's. Bands that are no 8-bit RGB have no colours to
speak of: they get the same brightness, contrast, about the mean of each band, and blur.
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

from des4.data.operations import FROM_YIQ, TO_YIQ, Operations, draw_operations, operated
from des4.types import IGNORE, Config, CutMixPreset, StrongPreset, ViewSpec


class ViewsConfig(Config):
    """How training crops are made."""

    crop_size: PositiveInt | tuple[PositiveInt, PositiveInt] = 256
    """Pixels: one side of a square crop, or `[height, width]`."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Before the crop, an image is resized by a factor drawn uniformly from this range."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a left-right flip."""
    cutmix: CutMixPreset | Literal["auto"] = "auto"
    """CutMix boxes, as in the published training of that name; `auto`: the method's own."""
    mix_group: PositiveInt | Literal["auto"] = "auto"
    """How many neighbouring samples are mixed with each other. `auto`: pairs, as in the published trainings, which had
    two images on a GPU; fours under the boxes of `augseg`, whose order is random, so that half of all pairs would stay
    as they are; what does not divide a micro-batch gives way to pairs, and these to all its samples; 1 if nothing is
    mixed."""
    photometric: StrongPreset | Literal["auto"] = "auto"
    """Colour and blur of strong views, as in the published training of that name; `auto`: the method's own. Images that
    are not 8-bit RGB get brightness, contrast and blur only, and not `augseg`."""
    labeled_photometric: StrongPreset = "none"
    """Colour and blur of labeled images. With few masks it keeps a network from learning them by heart."""
    labeled_photometric_probability: float = Field(default=1.0, gt=0, le=1)
    """Probability that a labeled image gets them; the others stay as they are."""

    @model_validator(mode="after")
    def _scale_is_a_range(self) -> Self:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale {self.scale} must be (low, high) with 0 < low <= high")
        return self

    def cutmix_of(self, spec: ViewSpec) -> CutMixPreset:
        """Whose boxes are drawn for a method."""
        return spec.cutmix if self.cutmix == "auto" else self.cutmix

    def mixes(self, spec: ViewSpec) -> bool:
        """Whether unlabeled images are mixed with one another, by boxes or by the method."""
        return spec.reads_unlabeled and (spec.neighbours or self.cutmix_of(spec) != "none")

    def usual_group(self, spec: ViewSpec) -> int:
        """How many neighbours `mix_group=auto` mixes with each other for a method, where they can be so many."""
        return (4 if self.cutmix_of(spec) == "augseg" else 2) if self.mixes(spec) else 1

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

    @property
    def inside(self) -> tuple[slice, slice]:
        """Rows and columns of the crop that show the image; the rest is padding."""
        return (
            slice(self.out_top, self.out_top + self.out_height),
            slice(self.out_left, self.out_left + self.out_width),
        )

    def padding(self, crop: torch.Size) -> list[tuple[slice, slice]]:
        """Rows and columns of the padding above, below, left and right, of a crop of this size, where there is any."""
        rows, columns = self.inside
        every = slice(None)
        sides = [
            (self.out_top, (slice(rows.start), every)),
            (crop[0] - rows.stop, (slice(rows.stop, None), every)),
            (self.out_left, (rows, slice(columns.start))),
            (crop[1] - columns.stop, (rows, slice(columns.stop, None))),
        ]
        return [area for width, area in sides if width]

    def part(self, source: Tensor) -> Tensor:
        """Cut the source rectangle out of (..., H, W)."""
        return source[..., self.top : self.top + self.height, self.left : self.left + self.width]


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


def crop_image(image: Tensor, box: CropBox, config: ViewsConfig) -> Tensor:
    """Crop an image (bands, H, W) to (*crop, bands) of its type, resized bilinearly with antialias; padding is 0.

    An image in the memory of (H, W, bands), as files are decoded, needs no copy of the whole for it. One that lies on a
    GPU is cropped there; its bytes may differ by one from those that the CPU makes.
    """
    part = box.part(image)[None].contiguous(memory_format=torch.channels_last)  # the fast layout; 1×1 needs it
    if part.shape[2:] != (size := (box.out_height, box.out_width)):
        if part.device.type != "cpu" and part.dtype == torch.uint8:  # GPUs resize no bytes
            part = F.interpolate(part.float(), size, mode="bilinear", antialias=True).round_().to(torch.uint8)
        else:
            part = F.interpolate(part, size, mode="bilinear", antialias=True)
    return _placed(part[0].permute(1, 2, 0), box, config.crop, 0)


def crop_label(label: Tensor, box: CropBox, config: ViewsConfig) -> Tensor:
    """Crop a label (H, W) uint8 to (*crop) uint8, resized by the nearest pixel; padding is IGNORE."""
    part = box.part(label)
    if part.shape != (size := (box.out_height, box.out_width)):
        # "nearest-exact" has the pixel centres of "bilinear", so image and label stay aligned
        part = F.interpolate(part[None, None], size, mode="nearest-exact")[0, 0]
    return _placed(part, box, config.crop, IGNORE)


def _placed(part: Tensor, box: CropBox, crop: tuple[int, int], padding: int) -> Tensor:
    """Put a resized part (rows, columns, …) at its place in the crop, mirrored if the box says so."""
    part = part.flip(1) if box.flip else part
    if part.shape[:2] == crop:
        return part
    canvas = part.new_full((*crop, *part.shape[2:]), padding)
    canvas[box.inside] = part
    return canvas


def padded_views(crops: Tensor, boxes: Sequence[CropBox], fill: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Turn crops (B, H, W, bands), uint8 or float32 in [0, 1], into views (B, bands, H, W) float32 in [0, 1].

    fill: the colour of padding, one number a band.

    Also returns where the views show their images: (B, H, W) bool, False on padding.
    """
    views = crops.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    if crops.dtype == torch.uint8:
        views.div_(255)
    valid = torch.ones(crops.shape[:3], dtype=torch.bool, device=crops.device)
    colour = _send(torch.tensor(fill)[:, None, None], crops.device)
    for view, inside, box in zip(views, valid, boxes, strict=True):
        for rows, columns in box.padding(inside.shape):
            inside[rows, columns] = False
            view[:, rows, columns] = colour
    return views, valid


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
    jitter: tuple[float, float, float]
    """Brightness, contrast and saturation factors are drawn from 1 ± these, and hue in turns from ± hue."""
    hue: float
    blur: float
    """Probability of a blur with sigma ~ U(0.1, blurred) pixels."""
    changed: float = 0.8
    grey: float = 0.2
    """Probabilities of the change of colours, and of dropping them."""
    blurred: float = 2.0


_PRESETS: dict[StrongPreset, _Preset] = {
    "french": _Preset((0.4, 0.4, 0.4), 0.1, 0.0),
    "unimatch": _Preset((0.5, 0.5, 0.5), 0.25, 0.5),
    "pseudoseg": _Preset((0.5, 0.5, 0.5), 0.25, 0.0, changed=1.0, grey=0.0),
    "cmb": _Preset((0.25, 0.25, 0.125), 1 / 12, 0.2, grey=0.0, blurred=1.5),
}


Strong = Photometric | Operations
"""One image's draw of strong augmentation, by any preset."""


def draw_photometric(preset: StrongPreset, rng: random.Random, probability: float = 1.0) -> Strong:
    """Draw one image's strong augmentation by a preset: colour jitter, grey and blur, each with a probability.

    probability: that the image gets any; else the draw changes nothing.
    """
    changed = probability == 1 or rng.random() < probability
    if preset == "augseg":
        return draw_operations(rng) if changed else Operations(())
    if preset == "none" or not changed:
        return Photometric()
    ranges = _PRESETS[preset]
    jitter, grey, blur = (rng.random() < p for p in (ranges.changed, ranges.grey, ranges.blur))
    brightness, contrast, saturation = (rng.uniform(1 - most, 1 + most) for most in ranges.jitter)
    hue, sigma = rng.uniform(-ranges.hue, ranges.hue), rng.uniform(0.1, ranges.blurred)
    if not jitter:
        brightness, contrast, saturation, hue = 1.0, 1.0, 1.0, 0.0
    return Photometric(brightness, contrast, saturation, hue, float(grey), sigma if blur else 0.0)


def strong_view(images: Tensor, draws: Sequence[Strong], colour: bool = True) -> Tensor:
    """Recolour and blur images (B, bands, H, W) in [0, 1], each by its own draw; without a change return `images`.

    draws: all of one preset. colour: whether the images are RGB; else of the draws brightness, contrast and blur are
    made use of. Works on the images' device, and never waits for it.
    """
    operations = [draw for draw in draws if isinstance(draw, Operations)]
    if operations:
        return operated(images, operations)
    photometric = [draw for draw in draws if isinstance(draw, Photometric)]
    if all(draw == Photometric() for draw in photometric):
        return images
    *factors, sigma = torch.tensor([astuple(draw) for draw in photometric]).unbind(1)
    if colour:
        matrix, offset = _colour_map(images, *factors)
        out = torch.baddbmm(offset[..., None], matrix, images.flatten(2)).clamp_(0, 1).view_as(images)
    else:
        out = _brightened(images, *factors[:2])
    if len(blurred := sigma.nonzero()[:, 0]):
        place = _send(blurred, images.device)
        out[place] = _blur(out[place], sigma[blurred])
    return out


def _send(values: Tensor, device: torch.device) -> Tensor:
    """Copy a few numbers to the device without waiting for it, which takes pinned memory."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def _brightened(images: Tensor, brightness: Tensor, contrast: Tensor) -> Tensor:
    """Change brightness, then contrast about the mean of each band: (B, bands, H, W), by factors (B,) on the CPU."""
    gain, lost = (
        _send(factors, images.device)[:, None, None, None]
        for factors in (brightness * contrast, brightness * (1 - contrast))
    )
    return torch.addcmul(lost * images.mean((2, 3), keepdim=True), gain, images).clamp_(0, 1)


_LUMA = torch.tensor([0.299, 0.587, 0.114])


def _colour_map(
    images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor, grey: Tensor
) -> tuple[Tensor, Tensor]:
    """Compose brightness, contrast, saturation, hue and grey into x → matrix·x + offset; (B, 3, 3) and (B, 1).

    Contrast keeps the image's mean luma (after brightness), saturation and hue keep each pixel's. The draws lie on the
    CPU, and so does their small arithmetic; what is returned lies with the images.
    """
    identity, to_grey = torch.eye(3), _LUMA.expand(3, 3)
    cos, sin = torch.cos(2 * math.pi * hue), torch.sin(2 * math.pi * hue)
    zero, one = torch.zeros_like(hue), torch.ones_like(hue)
    turn = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], 1).view(-1, 3, 3)

    def towards_grey(keep: Tensor) -> Tensor:
        return keep[:, None, None] * identity + (1 - keep)[:, None, None] * to_grey

    colour = towards_grey(1 - grey) @ FROM_YIQ @ turn @ TO_YIQ @ towards_grey(saturation)
    matrix, luma, gain, lost = (
        _send(numbers, images.device)
        for numbers in (colour * (brightness * contrast)[:, None, None], _LUMA, brightness, 1 - contrast)
    )
    mean = gain * (images.mean((2, 3)) @ luma)
    return matrix, (lost * mean)[:, None]  # the offset is a grey, which `colour` leaves as it is


_BLUR_RADIUS = 6
"""Pixels; three times the largest sigma."""


def _blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of (B, bands, H, W) with sigma (B,) pixels, edges repeated. sigma: on the CPU.

    Shifted sums along each axis: twice as fast as a grouped convolution on a CPU, and the same with any thread count.
    """
    taps = torch.arange(-_BLUR_RADIUS, _BLUR_RADIUS + 1)
    weights = torch.exp(-0.5 * (taps[:, None] / sigma) ** 2)
    weights = _send((weights / weights.sum(0))[:, :, None, None, None], images.device)
    for axis, padding in ((2, (0, 0, _BLUR_RADIUS, _BLUR_RADIUS)), (3, (_BLUR_RADIUS, _BLUR_RADIUS, 0, 0))):
        padded = F.pad(images, padding, mode="replicate")
        length = images.shape[axis]
        images = weights[0] * padded.narrow(axis, 0, length)
        for shift in range(1, len(taps)):
            images.addcmul_(weights[shift], padded.narrow(axis, shift, length))
    return images
