"""The non-learnable classifier: one prototype a class, moved by averages of sampled pixels.

DeS4, sections 3.2-3.3, eqs. 6 and 9-12; Zhou et al., "Rethinking semantic segmentation: a prototype view", CVPR 2022
(its case K = 1). Ours, because the papers are silent: the temperature (raw cosines cap the largest probability at
0.27 for 21 classes), normalisation before the average and after the update, and the start at the first-seen class mean.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from des4.ops.reduce import sum_over_ranks

Start = Literal["first_seen", "random"]


class PrototypeClassifier(nn.Module):
    """Cosine classifier with prototypes P as a buffer: no gradient ever reaches them.

    num_classes: C. dim: D. temperature: divides the cosines; 1 is the paper read literally.
    momentum: τ2 of eq. 12. start: `first_seen` sets P_c to the class mean when class c is first sampled (a random
    unit vector until then); `random` keeps the random vector and moves it by EMA from the beginning.
    """

    prototypes: Tensor
    seen: Tensor

    def __init__(
        self,
        num_classes: int,
        dim: int,
        *,
        temperature: float = 0.1,
        momentum: float = 0.99,
        start: Start = "first_seen",
    ) -> None:
        super().__init__()
        self.temperature, self.momentum = temperature, momentum
        self.register_buffer("prototypes", F.normalize(torch.randn(num_classes, dim), dim=1))
        self.register_buffer("seen", torch.full((num_classes,), start == "random"))

    def forward(self, features: Tensor) -> Tensor:
        """Logits `cos(f, P_c) / temperature` (DeS4, eq. 6). features: (N, D) or (B, D, h, w); C replaces D in the
        result.

        Computed in float32 whatever autocast says. The class is the argmax: the paper prints argmin over a
        "distance" that it defines as cosine similarity.
        """
        with torch.autocast(features.device.type, enabled=False):
            unit = F.normalize(features.float(), dim=1)
            prototypes = F.normalize(self.prototypes, dim=1)  # an averaged teacher's are shorter
            if features.ndim == 2:
                return unit @ prototypes.T / self.temperature
            return F.conv2d(unit, prototypes[:, :, None, None] / self.temperature)

    @torch.no_grad()
    def update(self, features: Tensor, labels: Tensor) -> None:
        """Move each class that occurs towards the mean of its unit features, `P_c ← τ2 P_c + (1 - τ2) mean` (eq. 12).

        features: (N, D). labels: (N,) integers; those outside [0, C) are ignored. Sums and counts are added over
        ranks before the mean, so every rank holds one identical P. Classes without a pixel stay where they are.
        """
        num_classes, dim = self.prototypes.shape
        labels = labels.long()
        group = torch.where((labels >= 0) & (labels < num_classes), labels, num_classes)
        unit = F.normalize(features.float(), dim=1)
        sums = unit.new_zeros(num_classes + 1, dim).index_add_(0, group, unit)
        counts = unit.new_zeros(num_classes + 1).index_add_(0, group, unit.new_ones(len(group)))
        sums, counts = sum_over_ranks(sums[:num_classes], counts[:num_classes])
        mean = sums / counts.clamp_min(1)[:, None]
        moved = torch.where(self.seen[:, None], self.prototypes.lerp(mean, 1 - self.momentum), mean)
        present = counts > 0
        self.prototypes.copy_(torch.where(present[:, None], F.normalize(moved, dim=1), self.prototypes))
        self.seen.logical_or_(present)
