"""A fully convolutional discriminator of maps of class probabilities (Hung et al., BMVC 2018, section 4)."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from des4.ops.resize import upsample


class Discriminator(nn.Module):
    """Five 4×4 convolutions of stride 2 with leaky ReLUs between them, and no norms: each pixel is judged.

    inputs: C. width: channels of the first layer, which double up to eight times that.
    """

    def __init__(self, inputs: int, width: int = 64) -> None:
        super().__init__()
        widths = (inputs, width, 2 * width, 4 * width, 8 * width, 1)
        # With a padding of 2, a map of 2k + 1 pixels becomes one of k + 1, which `upsample` lays on every second.
        # A kernel of 4 has its centre half a pixel before: over five layers 15.5 pixels, which it can learn to mend.
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 4, stride=2, padding=2) for a, b in pairwise(widths))

    def forward(self, maps: Tensor, *, frozen: bool = False) -> Tensor:
        """Maps (B, C, H, W) to logits (B, H, W) of being a real one.

        frozen: gradients reach the maps and no weight, so that what makes the maps learns from the judgement while the
        judge learns nothing.
        """
        size = maps.shape[-2], maps.shape[-1]
        for number, layer in enumerate(self.layers):
            if number:
                maps = F.leaky_relu(maps, 0.2)
            weight, bias = (own.detach() if frozen else own for own in layer.parameters())
            maps = F.conv2d(maps, weight, bias, stride=2, padding=2)
        return upsample(maps.float(), size).squeeze(1)
