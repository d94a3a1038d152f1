"""Pseudo-labels from a teacher's logits, and their mixing."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from des4.ops.mixing import mix
from des4.ops.resize import upsample
from des4.types import Mix


class PseudoLabels(NamedTuple):
    """Hard labels of unlabelled pixels: (B, H, W) each, int64, float in [0, 1], and bool (False on padding)."""

    label: Tensor
    confidence: Tensor
    valid: Tensor

    def mixed(self, boxes: Mix) -> PseudoLabels:
        """Mix all three with the boxes that mix the image."""
        return PseudoLabels(mix(self.label, boxes), mix(self.confidence, boxes), mix(self.valid, boxes))


@torch.no_grad()
def pseudo_labels(logits: Tensor, valid: Tensor) -> PseudoLabels:
    """Most probable class and its probability at every pixel. logits: (B, C, h, w). valid: (B, H, W) bool."""
    probs = upsample(logits.float(), (valid.shape[-2], valid.shape[-1])).softmax(1)
    confidence, label = probs.max(1)
    return PseudoLabels(label, confidence, valid)
