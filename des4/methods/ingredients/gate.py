"""Which classes a pixel may still be of where a network of sub-classes is as sure (USRN, Guan et al., CVPR 2022)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from des4.ops.entropy import pixel_entropy


@torch.no_grad()
def classes_left(logits: Tensor, sub_logits: Tensor, parent: Tensor) -> Tensor:
    """The class of the sub-class alone where sub-classes are no less sure, elsewhere all; (B, C, h, w) bool.

    logits: (B, C, h, w). sub_logits: (B, S, h, w). parent: (S,), the class of each sub-class. How sure a network is
    says its entropy over that of an even distribution.
    """
    probs, sub = logits.float().softmax(1), sub_logits.float().softmax(1)
    doubt, sub_doubt = (pixel_entropy(each) / math.log(each.shape[1]) for each in (probs, sub))
    classes = torch.arange(logits.shape[1], device=logits.device)[:, None, None]
    return (sub_doubt > doubt)[:, None] | (parent[sub.argmax(1)][:, None] == classes)
