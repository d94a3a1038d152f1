"""FixMatch for segmentation: confident hard labels of the weak view teach the strong view of the same network.

Sohn et al., NeurIPS 2020; in the segmentation form of UniMatch (Yang et al., CVPR 2023,
github.com/LiheYoung/UniMatch, MIT, not copied). L = ½ [CE(x_l) + Σ 1[q ≥ t] CE(x_s, ŷ_w) / Σ valid]. Ours: the weak
view is read in eval mode.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from des4.methods.base import MethodConfig, Outline
from des4.methods.bases import SingleNetwork
from des4.types import Batch, ViewSpec


class FixMatchConfig(MethodConfig):
    """Settings of FixMatch."""

    name: Literal["fixmatch"] = "fixmatch"
    threshold: float = Field(0.95, ge=0, le=1)
    """Confidence a pseudo-label needs; 0.95 on VOC, 0 on Cityscapes in the published protocol."""


class FixMatch(SingleNetwork):
    """One network, no teacher."""

    Config = FixMatchConfig
    config: FixMatchConfig
    VIEWS = ViewSpec(strong=1, cutmix="unimatch", photometric="unimatch")
    OUTLINE = Outline("one network", "itself on the weak view", "mixed view")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Half the labeled, half the thresholded unlabeled cross-entropy."""
        labeled, unlabeled = batch.both
        (view,), count = unlabeled.strong, len(labeled.image)
        target = self.pseudo_labels(self.evaluated(unlabeled.weak), unlabeled).mixed(view)
        features, side = self.student.features_with_side(torch.cat([labeled.image, view.mixed]))
        self.note(kept=target.share_kept())
        return {
            "labeled": 0.5 * self.supervise(self.labeled_logits(features[:count], labeled), labeled, side),
            "unlabeled": 0.5 * target.cross_entropy(self.student.head(features[count:])),
        }
