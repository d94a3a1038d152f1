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

from des4.losses import cross_entropy, kept_cross_entropy
from des4.methods.bases import SingleNetwork
from des4.methods.pseudo import pseudo_labels
from des4.ops.mixing import mix
from des4.ops.reduce import mean_over
from des4.types import Batch, Config, ViewSpec


class FixMatchConfig(Config):
    """Settings of FixMatch."""

    name: Literal["fixmatch"] = "fixmatch"
    threshold: float = Field(0.95, ge=0, le=1)
    """Confidence a pseudo-label needs; 0.95 on VOC, 0 on Cityscapes in the published protocol."""


class FixMatch(SingleNetwork):
    """One network, no teacher."""

    Config = FixMatchConfig
    config: FixMatchConfig
    VIEWS = ViewSpec(strong=1, cutmix="unimatch", photometric="unimatch")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Half the labelled, half the thresholded unlabelled cross-entropy."""
        labelled, unlabelled = batch.labelled, batch.unlabelled
        assert unlabelled is not None  # noqa: S101 - VIEWS asks for it
        self.student.eval()
        with torch.no_grad():
            pseudo = pseudo_labels(self.student(unlabelled.weak), unlabelled.valid).mixed(unlabelled.mix[0])
        self.student.train(self.training)
        strong = mix(unlabelled.strong[0], unlabelled.mix[0])
        features = self.student.features(torch.cat([labelled.image, strong]))
        count = len(labelled.image)
        logits = self.labelled_logits(features[:count], labelled.label)
        keep = pseudo.confidence >= self.threshold
        self.note(kept=mean_over(keep & pseudo.valid, pseudo.valid))
        return {
            "labelled": 0.5 * cross_entropy(logits, labelled.label, labelled.pixels),
            "unlabelled": 0.5
            * kept_cross_entropy(
                self.student.head(features[count:]), pseudo.label, keep, pseudo.valid, unlabelled.pixels[0]
            ),
        }
