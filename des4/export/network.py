"""The network as other programs get it: 8-bit pictures in, labels and probabilities out, of any number and size.

A network of bands takes the values that files hold, and scales them itself. Prototypes, normalised and divided by the
temperature, become the weights of a convolution; the normalisation of the input is part of the network anyway.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import Tensor, nn

from des4.models import PrototypeClassifier, Segmenter
from des4.ops.pixels import scaled_by
from des4.ops.resize import upsample
from des4.types import IGNORE, Bands

TRACED = (2, 101, 131)
"""Images, height and width of the example that exporters follow. Its sides are no multiple of any stride or patch: at
such a size a network may leave out a resizing, and what is exported would leave it out always."""


class Deployed(nn.Module):
    """A trained segmenter in one piece. It is copied; the original stays as it is.

    bands: what an image is made of; None: 8-bit RGB.
    forward: (N, H, W, 3) uint8 RGB, or (N, H, W, bands) of stored values, uint8 or float32 → labels (N, H, W), uint8,
    or int32 above 255 classes, and probs (N, C, H, W)
    float32: what `des4.engine.segment` gives with `eval.mode=whole` and `eval.resize=1`.
    """

    ranges: Tensor

    def __init__(self, segmenter: Segmenter, num_classes: int, bands: Bands | None = None) -> None:
        super().__init__()
        self.scales = bands is not None and not bands.are_bytes
        if bands is not None and self.scales:
            self.register_buffer("ranges", torch.tensor(bands.ranges), persistent=False)
        self.network = copy.deepcopy(segmenter).cpu().eval().requires_grad_(False)
        self.label_type = torch.uint8 if num_classes <= IGNORE else torch.int32
        if isinstance(self.network.head, PrototypeClassifier):
            self.network.head = CosineHead(self.network.head)
        _replace_padding(self.network)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Segment (N, H, W, bands)."""
        seen = scaled_by(image, *self.ranges.unbind(1)) if self.scales else image.float() / 255
        logits = self.network(seen.permute(0, 3, 1, 2))
        logits = upsample(logits, (image.shape[1], image.shape[2]))
        return logits.argmax(1).to(self.label_type), logits.softmax(1)


class CosineHead(nn.Module):
    """A prototype classifier at rest: unit features, and one convolution."""

    weight: Tensor

    def __init__(self, head: PrototypeClassifier) -> None:
        super().__init__()
        weight = F.normalize(head.prototypes, dim=1) / head.temperature
        self.register_buffer("weight", weight[:, :, None, None].clone())

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) to logits (B, C, h, w)."""
        return F.conv2d(F.normalize(features, dim=1), self.weight)


class PaddedConv(nn.Module):
    """TensorFlow's SAME convolution of stride 2, in a form whose sizes an exporter can follow.

    timm computes the padding from the image's size by minima, maxima and remainders, which grow into formulas that keep
    torch.export busy for minutes. The same pixels are met when the image is padded on all sides and, where its size is
    even, read from one pixel later on.
    """

    def __init__(self, conv: Conv2dSame) -> None:
        super().__init__()
        self.conv, self.margin = conv, conv.kernel_size[0] // 2

    def forward(self, x: Tensor) -> Tensor:
        """As the convolution that it replaces."""
        height, width = x.shape[-2:]
        margin = self.margin
        padded = F.pad(x, (margin, margin + 1, margin, margin + 1))
        rows = padded.narrow(2, 1 - height % 2, height + 2 * margin)
        window = rows.narrow(3, 1 - width % 2, width + 2 * margin)
        return F.conv2d(window, self.conv.weight, self.conv.bias, self.conv.stride, groups=self.conv.groups)


def _replace_padding(network: nn.Module) -> None:
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, Conv2dSame) and _is_replaceable(child):
                setattr(module, name, PaddedConv(child))


def _is_replaceable(conv: Conv2dSame) -> bool:
    height, width = conv.kernel_size
    return bool(conv.stride == (2, 2) and conv.dilation == (1, 1) and height == width and height % 2 == 1)
