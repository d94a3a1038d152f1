"""Several networks that are asked as one."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from des4.ops.resize import upsample

TINY = torch.finfo(torch.float32).tiny


class Ensemble(nn.Module):
    """The mean of what several networks say of an image, each pixel's distributions being averaged.

    members: map (B, bands, H, W) to logits (B, C, h, w). They stay where they belong: an ensemble holds no weights.
    """

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, image: Tensor) -> Tensor:
        """(B, bands, H, W) to the logarithm of the mean distribution, (B, C, H, W) float32: logits of it."""
        size = (image.shape[-2], image.shape[-1])
        each = [upsample(member(image).float(), size).softmax(1) for member in self.members]
        return torch.stack(each).mean(0).clamp_min(TINY).log()
