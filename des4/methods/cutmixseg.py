"""CutMixSeg: mean-teacher consistency under CutMix.

French et al., "Semi-supervised semantic segmentation needs strong, high-dimensional perturbations", BMVC 2020,
github.com/Britefury/cutmix-semisup-seg (MIT, not copied). L = CE(x_l) + λ · c · mean over pixels of Σ_classes (p_S -
p_T)², where c is the share of the batch's pixels on which the teacher is sure (≥ 0.97); one number, no ramp-up.
Differs: the mixing partner is the next sample of the batch (there: a second batch), and BatchNorm is trained, not
frozen.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from des4.losses import cross_entropy, squared_gap
from des4.methods.bases import TeacherStudent, TeacherStudentConfig
from des4.ops.mixing import mix
from des4.ops.reduce import share
from des4.ops.resize import upsample
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

    @property
    def threshold(self) -> float:
        """0: targets are probabilities, of which every pixel's counts."""
        return 0.0

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy on the labels, weighted squared gap to the mixed teacher."""
        labelled, unlabelled = batch.labelled, batch.unlabelled
        assert unlabelled is not None  # noqa: S101 - VIEWS asks for it
        size, boxes = (unlabelled.weak.shape[-2], unlabelled.weak.shape[-1]), unlabelled.mix[0]
        with torch.no_grad():
            target = mix(upsample(self.teacher(unlabelled.weak).float(), size).softmax(1), boxes)
            valid = mix(unlabelled.valid, boxes)
            sure = share((target.amax(1) >= self.config.threshold) & valid, valid)

        features = self.student.features(torch.cat([labelled.image, mix(unlabelled.strong[0], boxes)]))
        count = len(labelled.image)
        probs = upsample(self.student.head(features[count:]).float(), size).softmax(1)
        logits = self.labelled_logits(features[:count], labelled.label)
        self.note(sure=sure)
        return {
            "labelled": cross_entropy(logits, labelled.label, labelled.pixels),
            "consistency": self.config.consistency_weight
            * sure
            * squared_gap(probs, target, valid, unlabelled.pixels[0]),
        }
