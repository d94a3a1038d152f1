"""Projections: from a decoder's embeddings to those that are compared with one another."""

from __future__ import annotations

from torch import nn

from des4.models.decoders.layers import conv_norm_relu


class Projection(nn.Sequential):
    """Two 1×1 convolutions with a ReLU between them, pixel by pixel: (B, inputs, h, w) to (B, dim, h, w)."""

    def __init__(self, inputs: int, dim: int) -> None:
        super().__init__(nn.Conv2d(inputs, dim, 1), nn.ReLU(inplace=True), nn.Conv2d(dim, dim, 1))


class WideProjection(nn.Sequential):
    """Two 3×3 convolutions with BatchNorm and ReLU, and a 1×1 one: (B, inputs, h, w) to (B, dim, h, w) (U2PL)."""

    def __init__(self, inputs: int, dim: int) -> None:
        super().__init__(conv_norm_relu(inputs, dim, 3), conv_norm_relu(dim, dim, 3), nn.Conv2d(dim, dim, 1))
