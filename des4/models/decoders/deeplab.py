"""DeepLabV3+ decoder (Chen et al., ECCV 2018) that takes any image size and ends in one embedding a pixel.

The deep map is resized to the low-level map's own size, never by a fixed factor, so 513, 769 or odd rectangles all
work. Differs from the original: plain instead of separable convolutions, as in the protocol DeS4 follows, and no
BatchNorm on the pooled branch, whose statistics would be those of B single pixels (undefined for B = 1).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from des4.models.decoders.layers import EmbeddingKind, conv_norm_relu, embedding_layer, start_weights
from des4.ops.resize import upsample

ATROUS_RATES = {8: (12, 24, 36), 16: (6, 12, 18), 32: (3, 6, 9)}
"""Dilation of the three atrous branches by output stride."""


class AtrousPyramid(nn.Module):
    """Atrous spatial pyramid pooling: five views of the deep map, projected to `outputs` channels."""

    def __init__(self, inputs: int, outputs: int, output_stride: int) -> None:
        super().__init__()
        rates = ATROUS_RATES[output_stride]
        self.branches = nn.ModuleList(
            [conv_norm_relu(inputs, outputs), *(conv_norm_relu(inputs, outputs, 3, rate) for rate in rates)]
        )
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(inputs, outputs, 1), nn.ReLU(inplace=True))
        self.project = conv_norm_relu(5 * outputs, outputs)

    def forward(self, deep: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, h, w)."""
        pooled = self.pooled(deep).expand(-1, -1, *deep.shape[-2:])
        return self.project(torch.cat([*(branch(deep) for branch in self.branches), pooled], dim=1))  # type: ignore[no-any-return]


class DeepLabV3Plus(nn.Module):
    """Decoder from an encoder's two maps to an embedding (B, D, h, w) at stride 4.

    channels: width of the pyramid and the fusion (256 in the paper's network). low_channels: of the projected
    low-level map (48).
    embedding, embedding_dim: of the last layer; see `embedding_layer`.
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
        self.low = conv_norm_relu(low_inputs, low_channels)
        self.fuse = nn.Sequential(
            conv_norm_relu(channels + low_channels, channels, 3), conv_norm_relu(channels, channels, 3)
        )
        self.embed, self.dim = embedding_layer(embedding, channels, embedding_dim)
        start_weights(self)

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Decode (low-level map, deep map) of an encoder."""
        low, deep = maps
        context = upsample(self.pyramid(deep), (low.shape[-2], low.shape[-1]))
        return self.embed(self.fuse(torch.cat([context, self.low(low)], dim=1)))  # type: ignore[no-any-return]
