"""Contrast between embeddings: near what they are told to be, far from what they are not."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(anchors: Tensor, positive: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of telling an anchor's positive from its negatives by cosines / temperature (van den Oord et al.
    2018).

    anchors: (..., k, D). positive: (..., D), of all k of them; negatives: (..., m, D), likewise. No gradient reaches
    these two. Returns (..., k) float32, whatever autocast says: log(1 + m) where all cosines are equal.
    """
    with torch.autocast(anchors.device.type, enabled=False):
        unit = F.normalize(anchors.float(), dim=-1)
        others = torch.cat([positive.unsqueeze(-2), negatives], -2).detach().float()
        logits = unit @ F.normalize(others, dim=-1).transpose(-1, -2) / temperature
        return logits.logsumexp(-1) - logits[..., 0]
