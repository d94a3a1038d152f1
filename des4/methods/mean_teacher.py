"""Mean teacher: a student learns to agree with the moving average of itself.

Tarvainen & Valpola, NeurIPS 2017, arxiv.org/abs/1703.01780; as re-run for segmentation by CPS (Chen et al., CVPR 2021,
github.com/charlesCXK/TorchSemiSeg, MIT, not copied): L = CE(x_l) + λ · mean over pixels and classes of (p_S - p_T)²,
over labeled and unlabeled images, λ = 100, no ramp-up. Differs: the average follows the step (there: one step
late) with a warm start, its BatchNorm statistics follow too, and the teacher predicts in eval mode.
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


class MeanTeacherConfig(TeacherStudentConfig):
    """Settings of the mean teacher."""

    name: Literal["mean_teacher"] = "mean_teacher"
    consistency_weight: float = Field(100.0, ge=0)
    """λ, of the squared gap averaged over classes."""


class MeanTeacher(TeacherStudent):
    """Consistency of probabilities on the same view."""

    Config = MeanTeacherConfig
    config: MeanTeacherConfig
    VIEWS = ViewSpec(strong=1)
    OUTLINE = Outline("student", "moving average of all", "same view")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy on the labels, squared gap to the teacher everywhere."""
        labeled, unlabeled = batch.both
        (view,), count = unlabeled.strong, len(labeled.image)
        with torch.no_grad():
            known, weak = self.teacher(torch.cat([labeled.image, unlabeled.weak])).tensor_split([count])
        target = soft_target(known, labeled).and_also(soft_target(weak, unlabeled).mixed(view))

        features, side = self.student.features_with_side(torch.cat([labeled.image, view.mixed]))
        logits = self.labeled_logits(features[:count], labeled)
        everywhere = torch.cat([logits, self.student.head(features[count:])])
        return {
            "labeled": self.supervise(logits, labeled, side),
            "consistency": self.config.consistency_weight / logits.shape[1] * target.squared_gap(everywhere),
        }
