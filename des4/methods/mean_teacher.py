"""Mean teacher: a student learns to agree with the moving average of itself.

Tarvainen & Valpola, NeurIPS 2017, arxiv.org/abs/1703.01780; as re-run for segmentation by CPS (Chen et al., CVPR 2021,
github.com/charlesCXK/TorchSemiSeg, MIT, not copied): L = CE(x_l) + λ · mean over pixels and classes of (p_S - p_T)²,
over labelled and unlabelled images, λ = 100, no ramp-up. Differs: the average follows the step (there: one step
late) with a warm start, its BatchNorm statistics follow too, and the teacher predicts in eval mode.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from des4.losses import cross_entropy, squared_gap
from des4.methods.bases import TeacherStudent, TeacherStudentConfig
from des4.ops.mixing import mix
from des4.ops.resize import upsample
from des4.types import IGNORE, Batch, ViewSpec


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

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy on the labels, squared gap to the teacher everywhere."""
        labelled, unlabelled = batch.labelled, batch.unlabelled
        assert unlabelled is not None  # noqa: S101 - VIEWS asks for it
        size = (labelled.image.shape[-2], labelled.image.shape[-1])
        boxes = unlabelled.mix[0]
        with torch.no_grad():
            target = upsample(self.teacher(torch.cat([labelled.image, unlabelled.weak])).float(), size).softmax(1)
        count = len(labelled.image)
        target = torch.cat([target[:count], mix(target[count:], boxes)])
        valid = torch.cat([labelled.label != IGNORE, mix(unlabelled.valid, boxes)])

        features = self.student.features(torch.cat([labelled.image, mix(unlabelled.strong[0], boxes)]))
        logits = self.labelled_logits(features[:count], labelled.label)
        everywhere = torch.cat([logits, self.student.head(features[count:])])
        both = labelled.pixels, unlabelled.pixels[0]
        pixels = None if both[0] is None or both[1] is None else both[0] + both[1]
        probs = upsample(everywhere.float(), size).softmax(1)
        return {
            "labelled": cross_entropy(logits, labelled.label, labelled.pixels),
            "consistency": self.config.consistency_weight / probs.shape[1] * squared_gap(probs, target, valid, pixels),
        }
