"""AugSeg: strong augmentations of random number and kind, and labeled boxes for images that the teacher is unsure of.

Zhao et al., CVPR 2023, "Augmentation matters: a simple-yet-effective approach to semi-supervised semantic
segmentation", github.com/ZhenZHAO/AugSeg (no licence seen; not copied). L = CE(x_l) + λ · Σ 1[q ≥ t] CE(z_s, ŷ) /
pixels; an image's box is filled with pixels of another one, into which a labeled box was pasted with probability 1 - r,
r = mean of q (1 - H/log C). Ours: pixels are the valid ones; a labeled box is of the labeled image at the same place in
the batch.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from des4.methods.base import Outline
from des4.methods.bases import TeacherStudent, TeacherStudentConfig
from des4.methods.ingredients.injection import injected, injection_boxes
from des4.methods.ingredients.targets import SoftTarget, soft_target
from des4.ops.entropy import pixel_entropy
from des4.types import Batch, ViewSpec


class AugSegConfig(TeacherStudentConfig):
    """Settings of AugSeg; the defaults are those published for VOC."""

    name: Literal["augseg"] = "augseg"
    momentum: float = Field(0.999, ge=0, lt=1)
    """Of the teacher's moving average, per step; 0.996 on Cityscapes in the published code. It starts warm, at min(1 -
    1/(t + 1), `momentum`)."""
    threshold: float = Field(0.95, ge=0, le=1)
    """t, confidence a pseudo-label needs; 0 on Cityscapes in effect."""
    unlabeled_weight: float = Field(1.0, ge=0)
    """λ, of the cross-entropy on unlabeled images."""
    injection: bool = True
    """Whether labeled boxes are pasted into what fills the boxes of unlabeled images."""


class AugSeg(TeacherStudent):
    """A student and its average; the student's images are strongly augmented."""

    Config = AugSegConfig
    config: AugSegConfig
    VIEWS = ViewSpec(strong=1, cutmix="augseg", photometric="augseg")
    OUTLINE = Outline("student", "moving average of all", "mixed view with labeled boxes")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy on the labels, and on confident labels of the teacher and those that come with a box."""
        labeled, unlabeled = batch.both
        (view,), count = unlabeled.strong, len(labeled.image)
        # labels take the place of padding, and a mean over pixels would grow by that
        pixels = view.mix(unlabeled.valid).sum().clamp_min(1) if view.pixels is None else view.pixels
        with torch.no_grad():
            soft = soft_target(self.teacher(unlabeled.weak), unlabeled)
            target, sureness = soft.hardened(self.threshold, self.supervision), self.sureness(soft)
            filling = view.image, target
            if self.config.injection:
                box = injection_boxes(unlabeled.keys, 1 - sureness, *unlabeled.valid.shape[-2:])
                filling = injected(*filling, labeled, box)
            image, target = view.mix(view.image, filling[0]), replace(target.mixed(view, filling[1]), pixels=pixels)
        self.note(kept=target.share_kept(), sureness=sureness.mean())
        features, side = self.student.features_with_side(torch.cat([labeled.image, image]))
        unlabeled_loss = target.cross_entropy(self.student.head(features[count:]))
        return {
            "labeled": self.supervise(self.labeled_logits(features[:count], labeled), labeled, side),
            "unlabeled": self.config.unlabeled_weight * unlabeled_loss,
        }

    def sureness(self, target: SoftTarget) -> Tensor:
        """How sure the teacher is of each image, in [0, 1]: the mean of q (1 - H/log C) over its valid pixels, (B,)."""
        probs, valid = target.probs, target.valid
        each = probs.amax(1) * (1 - pixel_entropy(probs) / math.log(probs.shape[1]))
        return (each * valid).sum((1, 2)) / valid.sum((1, 2)).clamp_min(1)
