"""PC2Seg, a reconstruction: a pixel's classes do not change with colours, and its embedding is none of the others'.

Zhong et al., ICCV 2021, "Pixel contrastive-consistent semi-supervised semantic segmentation"; no code was published. L
= CE(x_l) + w_c mean(1 - cos(p_w, p_s)) + w_n InfoNCE, no gradient through p_w; InfoNCE: each pixel of the weak view is
to find itself in the strong one among N pixels of other images, drawn in proportion to 1 - <p, p'>. The form is from
descriptions of the paper. Ours: w_c, w_n and colours, which could not be read; pixels are drawn; other images are those
of the group that mixes would be within.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from des4.methods.base import Outline, Setting
from des4.methods.bases import OwnLabelsConfig, SingleNetwork
from des4.methods.ingredients.pixel_pairs import PixelPairsConfig, pixel_pairs
from des4.methods.ingredients.targets import soft_target
from des4.types import Batch, ConfigError, ViewSpec


class PC2SegConfig(PixelPairsConfig, OwnLabelsConfig):
    """Settings of pixel contrast and consistency."""

    name: Literal["pc2seg"] = "pc2seg"
    consistency_weight: float = Field(1.0, ge=0)
    """w_c, of the distributions of both views [ours]."""
    contrast_weight: float = Field(0.1, ge=0)
    """w_n, of the embeddings [ours]."""
    dim: int = Field(128, ge=2)
    """D of the embeddings that are compared."""


class PC2Seg(SingleNetwork):
    """One network with a projection; its weak view teaches its strong one."""

    Config = PC2SegConfig
    config: PC2SegConfig
    VIEWS = ViewSpec(strong=1, photometric="unimatch", neighbours=True)
    OUTLINE = Outline("one network", "itself on the weak view", "strong view, pixel against pixel")
    RECONSTRUCTION = True

    def build(self, setting: Setting) -> None:
        """Make the student and its projection."""
        super().build(setting)
        self.projection = nn.Conv2d(self.student.decoder.dim, self.config.dim, 1)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy on the labels, consistency of the classes, contrast of the embeddings."""
        labeled, unlabeled = batch.both
        (view,), config, count = unlabeled.strong, self.config, len(labeled.image)
        if view.mix.group < 2:
            raise ConfigError("method=pc2seg holds pixels against those of other images, and a process trains on 1 at "
                              "a time; raise train.unlabeled_batch_size or views.mix_group")  # fmt: skip
        features, side = self.student.features_with_side(torch.cat([labeled.image, unlabeled.weak, view.mixed]))
        known, weak, strong = features.tensor_split([count, count + len(unlabeled.weak)])
        with torch.no_grad():
            said = self.evaluated(unlabeled.weak) if config.running_norms else self.student.head(weak)
            logits = said.float()
            target, probs = soft_target(logits, unlabeled).mixed(view), logits.softmax(1)
        first, second = self.projection(torch.cat([weak, strong])).chunk(2)
        self.note(confidence=target.mean_confidence())
        return {
            "labeled": self.supervise(self.labeled_logits(known, labeled), labeled, side),
            "consistency": config.consistency_weight * target.cosine_gap(self.student.head(strong)),
            "contrast": config.contrast_weight * pixel_pairs(first, second, probs, unlabeled, view, config),
        }
