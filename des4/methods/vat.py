"""VAT: the student learns to say of an adversarially changed image what the teacher says of the image as it is.

Miyato et al., TPAMI 2018, "Virtual adversarial training", arxiv.org/abs/1704.03976; for segmentation as French et al.,
BMVC 2020, have it (github.com/Britefury/cutmix-semisup-seg, MIT, not copied): L = CE(x_l) + λ · c · KL(T(x) || S(x_s +
r)), c the share of pixels on which the teacher is sure, r of length ½ |∇x| in the direction in which T(x + r) changes
most. Ours: that direction begins with even noise whose length is a share of r's, as a millionth is lost in float32.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from des4.methods.base import Outline
from des4.methods.bases import TeacherStudent, TeacherStudentConfig
from des4.methods.ingredients.adversary import adversarial_change, texture
from des4.methods.ingredients.targets import pixel_probs, target_of
from des4.types import Batch, ViewSpec


class VATConfig(TeacherStudentConfig):
    """Settings of virtual adversarial training."""

    name: Literal["vat"] = "vat"
    consistency_weight: float = Field(0.1, ge=0)
    """λ, of the divergence."""
    threshold: float = Field(0.97, ge=0, le=1)
    """Confidence at which the teacher counts as sure."""
    radius: float = Field(0.5, gt=0)
    """Length of the change of an image, as a share of the length of the image's gradient."""
    probe: float = Field(0.01, gt=0, le=1)
    """Length of the change from which the adversarial one is found, as a share of it [ours]."""


class VAT(TeacherStudent):
    """A student and its average, which says how an image is to be changed."""

    Config = VATConfig
    config: VATConfig
    VIEWS = ViewSpec(strong=1, photometric="french")
    OUTLINE = Outline("student", "moving average of all", "adversarially changed view")

    @property
    def threshold(self) -> float:
        """0: targets are probabilities, of which every pixel's counts."""
        return 0.0

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy on the labels, weighted divergence on changed images."""
        labeled, unlabeled = batch.both
        (view,), config, count = unlabeled.strong, self.config, len(labeled.image)
        weak, valid = unlabeled.weak, unlabeled.valid
        with torch.no_grad():
            probs = pixel_probs(self.teacher(weak), valid)
        radius = config.radius * texture(weak, valid)
        change = adversarial_change(self.teacher, weak, probs, valid, unlabeled.keys, radius, config.probe)
        target = target_of(probs, unlabeled).mixed(view)
        features, side = self.student.features_with_side(torch.cat([labeled.image, view.mixed + view.mix(change)]))
        sure = target.share_sure(config.threshold)
        self.note(sure=sure)
        return {
            "labeled": self.supervise(self.labeled_logits(features[:count], labeled), labeled, side),
            "consistency": config.consistency_weight * sure * target.divergence(self.student.head(features[count:])),
        }
