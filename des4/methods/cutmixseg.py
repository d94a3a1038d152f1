"""CutMixSeg: mean-teacher consistency under CutMix.

French et al., "Semi-supervised semantic segmentation needs strong, high-dimensional perturbations", BMVC 2020,
github.com/Britefury/cutmix-semisup-seg (MIT, not copied). L = CE(x_l) + λ · c · mean over pixels of Σ_classes (p_S -
p_T)², where c is the share of the pixels on which the teacher is sure (≥ 0.97); one number, no ramp-up.
Differs: the mixing partner is the next sample of the batch (there: a second batch), and BatchNorm is trained, not
frozen.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from des4.methods.base import Outline
from des4.methods.bases import TeacherStudent, TeacherStudentConfig
from des4.methods.ingredients.targets import soft_target
from des4.types import Batch, ViewSpec


class CutMixSegConfig(TeacherStudentConfig):
    """Settings of CutMixSeg."""

    name: Literal["cutmixseg"] = "cutmixseg"
    consistency_weight: float = Field(1.0, ge=0)
    """λ, of the squared gap summed over classes."""
    threshold: float = Field(0.97, ge=0, le=1)
    """Confidence at which the teacher counts as sure."""


class CutMixSeg(TeacherStudent):
    """Consistency of probabilities on mixed images, weighted by the teacher's sureness."""

    Config = CutMixSegConfig
    config: CutMixSegConfig
    VIEWS = ViewSpec(strong=1, cutmix="french", photometric="french")
    OUTLINE = Outline("student", "moving average of all", "mixed view")

    @property
    def threshold(self) -> float:
        """0: targets are probabilities, of which every pixel's counts."""
        return 0.0

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy on the labels, weighted squared gap to the mixed teacher."""
        labeled, unlabeled = batch.both
        (view,), count = unlabeled.strong, len(labeled.image)
        with torch.no_grad():
            target = soft_target(self.teacher(unlabeled.weak), unlabeled).mixed(view)
            sure = target.share_sure(self.config.threshold)

        features, side = self.student.features_with_side(torch.cat([labeled.image, view.mixed]))
        consistency = target.squared_gap(self.student.head(features[count:]))
        self.note(sure=sure)
        return {
            "labeled": self.supervise(self.labeled_logits(features[:count], labeled), labeled, side),
            "consistency": self.config.consistency_weight * sure * consistency,
        }
