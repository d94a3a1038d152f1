"""DeepLabV3+ decoder (Chen et al., ECCV 2018) that takes any image size and ends in one embedding a pixel.

The deep map is resized to the low-level map's own size, never by a fixed factor, so 513, 769 or odd rectangles all
work. Differs from the original: plain instead of separable convolutions, as in the protocol DeS4 follows, and no
BatchNorm on the pooled branch, whose statistics would be those of B single pixels (undefined for B = 1).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from des4.ops.resize import upsample

EmbeddingKind = Literal["none", "linear", "norm"]

ATROUS_RATES = {8: (12, 24, 36), 16: (6, 12, 18), 32: (3, 6, 9)}
"""Dilation of the three atrous branches by output stride."""


def _block(inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class AtrousPyramid(nn.Module):
    """Atrous spatial pyramid pooling: five views of the deep map, projected to `outputs` channels."""

    def __init__(self, inputs: int, outputs: int, output_stride: int) -> None:
        super().__init__()
        rates = ATROUS_RATES[output_stride]
        self.branches = nn.ModuleList([_block(inputs, outputs), *(_block(inputs, outputs, 3, rate) for rate in rates)])
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(inputs, outputs, 1), nn.ReLU(inplace=True))
        self.project = _block(5 * outputs, outputs)

    def forward(self, deep: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, h, w)."""
        pooled = self.pooled(deep).expand(-1, -1, *deep.shape[-2:])
        return self.project(torch.cat([*(branch(deep) for branch in self.branches), pooled], dim=1))  # type: ignore[no-any-return]


class DeepLabV3Plus(nn.Module):
    """Decoder from an encoder's two maps to an embedding (B, D, h, w) at stride 4.

    channels: width of the pyramid and the fusion (256 in the paper's network). low_channels: of the projected
    low-level map (48).
    embedding: `none`: D = channels, after a ReLU, as a linear classifier expects. `linear`: a 1×1 convolution to
    `embedding_dim`, so that cosines can be negative. `norm`: the same, then BatchNorm without scale and shift: every
    dimension is centred, so class means spread around the origin from the first step on.
    """

    def __init__(
        self,
        deep_inputs: int,
        low_inputs: int,
        *,
        output_stride: int,
        channels: int,
        low_channels: int,
        embedding: EmbeddingKind,
        embedding_dim: int,
    ) -> None:
        super().__init__()
        self.pyramid = AtrousPyramid(deep_inputs, channels, output_stride)
        self.low = _block(low_inputs, low_channels)
        self.fuse = nn.Sequential(_block(channels + low_channels, channels, 3), _block(channels, channels, 3))
        self.dim = channels if embedding == "none" else embedding_dim
        self.embed: nn.Module = nn.Identity()
        if embedding == "linear":
            self.embed = nn.Conv2d(channels, embedding_dim, 1)
        elif embedding == "norm":
            self.embed = nn.Sequential(
                nn.Conv2d(channels, embedding_dim, 1, bias=False), nn.BatchNorm2d(embedding_dim, affine=False)
            )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, maps: tuple[Tensor, Tensor]) -> Tensor:
        """Decode (low-level map, deep map) of an encoder."""
        low, deep = maps
        context = upsample(self.pyramid(deep), (low.shape[-2], low.shape[-1]))
        return self.embed(self.fuse(torch.cat([context, self.low(low)], dim=1)))  # type: ignore[no-any-return]
