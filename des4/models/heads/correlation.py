"""How much the places of an image have to do with one another (CorrMatch, Sun et al., CVPR 2024)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from des4.models.decoders.layers import conv_norm_relu
from des4.ops.noise import bernoulli
from des4.ops.resize import shrink_label, upsample

DROP = 0.1
"""Probability with which a channel is dropped before places are compared."""


class Correlation(nn.Module):
    """Two views of an encoder's deep map, of as many channels as there are classes, whose places are compared.

    inputs: channels of the map. classes: C. width: of the layer in front of both.
    """

    def __init__(self, inputs: int, classes: int, width: int = 256) -> None:
        super().__init__()
        self.project = conv_norm_relu(inputs, width, 3)
        self.query, self.key = (nn.Conv2d(width, classes, 1) for _ in range(2))

    def forward(self, deep: Tensor, valid: Tensor, keys: Tensor) -> Tensor:
        """Shares (B, n, n) float32 that each of the n = h·w places has in each: row i is softmax(q_i · k / √C).

        deep: (B, inputs, h, w). valid: (B, H, W) bool; places elsewhere are 0, and have and give no share. keys: (B,),
        from which dropped channels are drawn.
        """
        there = shrink_label(valid, (deep.shape[-2], deep.shape[-1]))
        maps = self.project(deep * there[:, None].to(deep.dtype))
        dropped = bernoulli(keys, (maps.shape[1],), "correlation", DROP)
        maps = maps * (~dropped / (1 - DROP)).to(maps.dtype)[:, :, None, None]
        query, key = (layer(maps).flatten(2).float() for layer in (self.query, self.key))
        there = there.flatten(1)
        with torch.autocast(deep.device.type, enabled=False):
            scores = query.transpose(1, 2) @ key / math.sqrt(query.shape[1])
        scores = scores.masked_fill(~there[:, None], torch.finfo(torch.float32).min)
        shares: Tensor = scores.softmax(2) * (there[:, :, None] & there[:, None])
        return shares


def carried(logits: Tensor, shares: Tensor, size: tuple[int, int]) -> Tensor:
    """Carry logits (B, C, h, w) over the places of a grid of `size`, n of them, by shares (B, n, n): (B, C, *size).

    No gradient reaches the logits.
    """
    with torch.autocast(logits.device.type, enabled=False):
        found: Tensor = upsample(logits.detach().float(), size).flatten(2) @ shares
    return found.reshape(*found.shape[:2], *size)
