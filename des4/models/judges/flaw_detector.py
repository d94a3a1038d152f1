"""A detector of flaws in maps of class probabilities (Ke et al., ECCV 2020, section 3.2)."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from des4.ops.resize import upsample

_WIDTHS, _STRIDES = (64, 128, 128, 256, 256, 512, 512, 1), (2, 2, 1, 2, 1, 2, 1, 2)


class HalfNorm(nn.Module):
    """BatchNorm of one half of the channels and InstanceNorm of the other, neither with a scale or a shift."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = channels // 2
        self.batch = nn.BatchNorm2d(self.first, affine=False)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, channels, h, w) to the same."""
        one, two = maps[:, : self.first], maps[:, self.first :]
        centred = two - two.mean((2, 3), keepdim=True)
        return torch.cat([self.batch(one), centred * (centred.square().mean((2, 3), keepdim=True) + 1e-5).rsqrt()], 1)


class FlawDetector(nn.Module):
    """Eight 3×3 or 4×4 convolutions, with norms and leaky ReLUs between them: an image with its class probabilities to
    where these are wrong.

    classes: C. bands: of the images. width: channels of the first layer, which grow up to eight times that.
    """

    def __init__(self, classes: int, bands: int = 3, width: int = 64) -> None:
        super().__init__()
        widths = (bands + classes, *(each * width // 64 for each in _WIDTHS[:-1]), 1)
        # Odd kernels where nothing is skipped, so that maps keep their size and places; no bias where a norm follows.
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, 4 if stride == 2 else 3, stride=stride, padding=2 if stride == 2 else 1, bias=b == 1)
            for (a, b), stride in zip(pairwise(widths), _STRIDES, strict=True)
        )
        self.norms = nn.ModuleList(HalfNorm(each) for each in widths[1:-1])

    def forward(self, image: Tensor, probs: Tensor, *, frozen: bool = False) -> Tensor:
        """Images (B, bands, H, W) in [0, 1] and probabilities (B, C, H, W) to flaws (B, H, W), of about 0 to 1.

        frozen: gradients reach the probabilities and no weight.
        """
        size, maps = (image.shape[-2], image.shape[-1]), torch.cat([image, probs], 1)
        for number, (layer, stride) in enumerate(zip(self.layers, _STRIDES, strict=True)):
            if number:
                maps = F.leaky_relu(self.norms[number - 1](maps), 0.2)
            own = [parameter.detach() if frozen else parameter for parameter in layer.parameters()]
            bias = own[1] if len(own) > 1 else None
            maps = F.conv2d(maps, own[0], bias, stride=stride, padding=2 if stride == 2 else 1)
        return upsample(maps.float(), size).squeeze(1)
