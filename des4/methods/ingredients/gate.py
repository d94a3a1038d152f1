"""What is left of class distributions where a network of sub-classes is as sure (USRN, Guan et al., CVPR 2022)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from des4.methods.ingredients.targets import SoftTarget, target_of
from des4.ops.entropy import pixel_entropy
from des4.ops.resize import on_grid, upsample
from des4.types import Unlabeled


@torch.no_grad()
def gated(logits: Tensor, sub_logits: Tensor, parent: Tensor, unlabeled: Unlabeled) -> SoftTarget:
    """The weak view's p, of which only the class of the sub-class is left where sub-classes are no less sure.

    logits: (B, C, h, w). sub_logits: (B, S, h, w). parent: (S,), the class of each sub-class. How sure a network is
    says its entropy over that of an even distribution. What is left of p does not sum to 1.
    """
    probs, sub = logits.float().softmax(1), sub_logits.float().softmax(1)
    doubt = (pixel_entropy(each) / math.log(each.shape[1]) for each in (sub, probs))
    left = torch.where(torch.le(*doubt), parent[sub.argmax(1)], -1)
    size = unlabeled.valid.shape[-2], unlabeled.valid.shape[-1]
    (left,) = on_grid(size, left[:, None])
    classes = torch.arange(probs.shape[1], device=left.device)[:, None, None]
    return target_of(upsample(logits.float(), size).softmax(1) * ((left < 0) | (left == classes)), unlabeled)
