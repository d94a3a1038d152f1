"""What the decoders share: convolutions with BatchNorm, the last layer, and the random start of all weights."""

from __future__ import annotations

import math
from typing import Literal

from torch import nn

EmbeddingKind = Literal["none", "linear", "norm"]


def conv_norm_relu(inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> nn.Sequential:
    """Convolution that keeps the size, BatchNorm, ReLU."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def embedding_layer(kind: EmbeddingKind, channels: int, dim: int) -> tuple[nn.Module, int]:
    """Last layer of a decoder of width `channels`, and the size D of the embeddings (B, D, h, w) that come out.

    kind: `none`: D = channels, after a ReLU, as a linear classifier expects. `linear`: a 1×1 convolution to D = dim, so
    that cosines can be negative. `norm`: the same, then BatchNorm without scale and shift: every dimension is centred,
    so class means spread around the origin from the first step on.
    """
    if kind == "none":
        return nn.Identity(), channels
    if kind == "linear":
        return nn.Conv2d(channels, dim, 1), dim
    return nn.Sequential(nn.Conv2d(channels, dim, 1, bias=False), nn.BatchNorm2d(dim, affine=False)), dim


def start_weights(decoder: nn.Module) -> None:
    """Draw the weights of every convolution as He et al. do for what a ReLU follows: variance 2 / values read."""
    for module in decoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif isinstance(module, nn.ConvTranspose2d):
            # Its kernel is as large as its stride: a value is made from one place alone, of every channel.
            nn.init.normal_(module.weight, std=math.sqrt(2 / module.in_channels))
