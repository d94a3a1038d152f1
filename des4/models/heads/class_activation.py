"""Where an image classifier sees its classes, spread over places that look alike (PseudoSeg, Zou et al., ICLR 2021)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from des4.ops.resize import shrink_label, upsample


class ClassActivation(nn.Module):
    """An image classifier on the deepest map of an encoder, its class activations, and their way to logits.

    The gradient of a linear classifier of pooled features is its weight, so Grad-CAM needs no backward pass here.
    inputs: channels of the encoder's maps. classes: C. background: the class that is what no other is, or None. dim: of
    what places are compared by.
    """

    def __init__(self, inputs: Sequence[int], classes: int, background: int | None, dim: int = 128) -> None:
        super().__init__()
        self.background = background
        self.classify = nn.Linear(inputs[-1], classes - (background is not None))
        self.query, self.key = (nn.Conv2d(sum(inputs), dim, 1, bias=False) for _ in range(2))
        self.to_logits = nn.Sequential(nn.Conv2d(classes, classes, 1, bias=False), nn.BatchNorm2d(classes))

    def forward(self, maps: tuple[Tensor, ...], valid: Tensor, present: Tensor | None) -> tuple[Tensor, Tensor]:
        """Logits of the image having each class but the background, (B, K), and of its places, (B, C, h, w).

        maps: of the encoder, (B, ·, h, w) the last one. valid: (B, H, W) bool; nothing is seen elsewhere. present: (B,
        K) bool, classes that the image has; None: those to which the classifier gives a probability of ½ at least.
        """
        deep, size = maps[-1].float(), (maps[-1].shape[-2], maps[-1].shape[-1])
        there = shrink_label(valid, size)[:, None].float()
        with torch.autocast(deep.device.type, enabled=False):
            said = self.classify((deep * there).sum((2, 3)) / there.sum((2, 3)).clamp_min(1))
            activation = torch.einsum("bdhw,kd->bkhw", deep, self.classify.weight).relu() * there
        activation = activation.detach() * (said >= 0 if present is None else present)[:, :, None, None]
        activation = activation / activation.amax((2, 3), keepdim=True).clamp_min(1e-12)
        activation = activation + self._spread(maps, activation, there)
        if self.background is not None:
            rest = 2 - activation.amax(1, keepdim=True)
            activation = torch.cat([activation[:, : self.background], rest, activation[:, self.background :]], 1)
        return said, self.to_logits(activation)

    def _spread(self, maps: tuple[Tensor, ...], activation: Tensor, there: Tensor) -> Tensor:
        """Each place's mean of the activation (B, K, h, w), weighted by softmax(q · k / √dim) over the places.

        there: (B, 1, h, w), 1 where the image is.
        """
        size = (activation.shape[-2], activation.shape[-1])
        pillar = torch.cat([upsample(each.detach().float(), size) for each in maps], 1)
        query, key = (layer(pillar).flatten(2).float() for layer in (self.query, self.key))
        with torch.autocast(pillar.device.type, enabled=False):
            scores = query.transpose(1, 2) @ key / math.sqrt(query.shape[1])
            shares = scores.masked_fill(there.flatten(2) == 0, torch.finfo(torch.float32).min).softmax(2)
            spread: Tensor = activation.flatten(2) @ shares.transpose(1, 2)
        return spread.view_as(activation) * there
