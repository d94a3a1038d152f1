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


def mean_distance(one: Tensor, two: Tensor, one_weight: Tensor, two_weight: Tensor) -> Tensor:
    """Weighted mean of 1 - cosine over all pairs of one embedding of `one` and one of `two` (Alonso et al., ICCV 2021).

    one: (..., k, D). two: (..., m, D), which no gradient reaches. one_weight: (..., k) ≥ 0, two_weight: (..., m) ≥ 0,
    whose scale does not matter. Returns (...) float32 in [0, 2], whatever autocast says; 1 where all weights of one
    side are 0. As cosines are products of unit vectors, it is 1 minus that of their weighted means: no pair is formed.
    """
    with torch.autocast(one.device.type, enabled=False):
        means = [
            (F.normalize(each.float(), dim=-1) * weight[..., None]).sum(-2)
            / weight.sum(-1, keepdim=True).clamp_min(1e-12)
            for each, weight in ((one, one_weight.float()), (two.detach(), two_weight.float()))
        ]
        return 1 - (means[0] * means[1]).sum(-1)


def paired_info_nce(anchors: Tensor, positives: Tensor, others: Tensor, drawn: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of telling each anchor's own positive from its own negatives by cosines / temperature.

    anchors, positives: (..., k, D). others: (..., m, D), of which drawn, (..., k, m) bool, says which are negatives of
    an anchor. Gradients reach all of them. Returns (..., k) float32, whatever autocast says; 0 without negatives.
    """
    with torch.autocast(anchors.device.type, enabled=False):
        one, two, rest = (F.normalize(each.float(), dim=-1) for each in (anchors, positives, others))
        right = (one * two).sum(-1, keepdim=True) / temperature
        wrong = (one @ rest.transpose(-1, -2) / temperature).masked_fill(~drawn, -torch.inf)
        return torch.cat([right, wrong], -1).logsumexp(-1) - right.squeeze(-1)
