"""A projection: from a decoder's embeddings to those that are compared with one another."""

from __future__ import annotations

from torch import nn


class Projection(nn.Sequential):
    """Two 1×1 convolutions with a ReLU between them, pixel by pixel: (B, inputs, h, w) to (B, dim, h, w)."""

    def __init__(self, inputs: int, dim: int) -> None:
        super().__init__(nn.Conv2d(inputs, dim, 1), nn.ReLU(inplace=True), nn.Conv2d(dim, dim, 1))
