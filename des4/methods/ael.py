"""AEL: classes that a network is bad at are pasted more often, and their pixels count more often.

Hu et al., NeurIPS 2021, "Semi-supervised semantic segmentation via adaptive equalization learning", hzhupku/SemiSeg-AEL
on GitHub (MIT, not copied). v_c: average of p_c on labeled pixels of c. L = CE(x_l) + λ [L_c(x_l) + L_c(x_u)], L_c =
Σ w CE(z, ŷ) / Σ w with the teacher's ŷ where q ≥ t, w = q² of pixels that are drawn with probability (1 - v_ĉ) / max (1
- v), ĉ the student's class. Labeled pixels of drawn classes are pasted onto x_l, an object's box onto x_u. Ours: Σ
over an image; v_c stays where c does not occur; one crop of each class is remembered; docs/methods/ael.md says why.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from des4.methods.base import Outline, Setting
from des4.methods.bases import TeacherStudent, TeacherStudentConfig
from des4.methods.ingredients.pasting import (
    PastingConfig,
    draw_classes,
    object_boxes,
    paste_classes,
    pasted_view,
    with_donors,
)
from des4.methods.ingredients.targets import Target, soft_target
from des4.models.memory import ClassConfidence, ClassCrops
from des4.ops.noise import bernoulli, uniform
from des4.ops.resize import on_grid, upsample
from des4.types import Batch, Labeled, ViewSpec


class AELConfig(TeacherStudentConfig, PastingConfig):
    """Settings of adaptive equalization learning; the defaults are those published for VOC."""

    name: Literal["ael"] = "ael"
    consistency_weight: float = Field(1.0, ge=0)
    """λ, of the equalised cross-entropies on labeled and on mixed images."""
    threshold: float = Field(0.7, ge=0, le=1)
    """t, confidence a pseudo-label needs; 0 on Cityscapes."""
    image_area: float = Field(0.03, ge=0, le=1)
    """Share of a crop that a class takes up if the crop is to be remembered for it; 0.01 on Cityscapes."""
    object_area: float = Field(0.03, ge=0, le=1)
    """Share of a crop that an object takes up if its box is to be pasted; 0.005 on Cityscapes."""


class AEL(TeacherStudent):
    """A student and its average; memories of how well each class is predicted, and of where it was found."""

    Config = AELConfig
    config: AELConfig
    VIEWS = ViewSpec(strong=1, cutmix="french", donor_scale=(0.2, 1.0))
    OUTLINE = Outline(
        "student",
        "moving average of all",
        "boxes about objects of badly predicted classes; labeled images get such pixels too",
    )
    never_pasted: Tensor

    def build(self, setting: Setting) -> None:
        """Make student, teacher and memories."""
        super().build(setting)
        classes, never = len(setting.classes), setting.class_mask("never_pasted", self.config.never_pasted)
        self.register_buffer("never_pasted", never, persistent=False)
        self.confidence = ClassConfidence(classes, self.config.confidence_momentum)
        self.crops = ClassCrops(classes, setting.crop)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy on labels and, equalised, on what the teacher says of labeled and of mixed images."""
        (plain, unlabeled), config = batch.both, self.config
        labeled, (view,), count = self.pasted(plain), unlabeled.strong, len(plain.image)
        with torch.no_grad():
            wanted = draw_classes((1 - self.confidence.values).softmax(0), unlabeled.keys, 1, "found class").squeeze(1)
            donors = self.crops.draw(wanted, unlabeled)
            everything = with_donors(unlabeled, donors)
            logits = self.teacher(torch.cat([labeled.image, everything.weak]))
            known = soft_target(logits[:count], labeled).hardened(self.threshold, self.supervision)
            target, number = self.pseudo_labels(logits[count:], everything), len(unlabeled.weak)
            said, seen = on_grid((logits.shape[-2], logits.shape[-1]), target.label[number:], donors.valid)
            view = pasted_view(view, donors.weak, object_boxes(said, seen, wanted, config.object_area, unlabeled.keys))
            self.crops.collect(unlabeled, target.label[:number], config.image_area)
        features, side = self.student.features_with_side(torch.cat([labeled.image, view.mixed]))
        on_labels, on_mixed = self.labeled_logits(features[:count], labeled), self.student.head(features[count:])
        self.confidence.collect(self.supervision.adjusted(on_labels), labeled.label)
        known = self.equalised(known, on_labels, plain.keys, "labelled pixels")  # a key of noise: it keeps its letters
        target = self.equalised(target.mixed(view), on_mixed, unlabeled.keys, "unlabelled pixels")
        self.note(kept=target.share_kept(), confidence=self.confidence.values.mean())
        return {
            "labeled": self.supervise(on_labels, labeled, side),
            "labeled_consistency": config.consistency_weight * known.cross_entropy(on_labels),
            "unlabeled_consistency": config.consistency_weight * target.cross_entropy(on_mixed),
        }

    @torch.no_grad()
    def pasted(self, labeled: Labeled) -> Labeled:
        """Labeled images with pixels of drawn classes of their donors: c with probability softmax(√(1 - v))_c."""
        probs = (1 - self.confidence.values).sqrt().masked_fill(self.never_pasted, -torch.inf).softmax(0)
        drawn = draw_classes(probs, labeled.keys, self.config.pasted_classes, "pasted classes")
        whether = bernoulli(labeled.keys, (1, 1), "pasted", self.config.paste)
        chosen = drawn[..., None] == torch.arange(len(probs), device=drawn.device)
        return paste_classes(labeled, (chosen & whether).any(1))

    @torch.no_grad()
    def equalised(self, target: Target, logits: Tensor, keys: Tensor, name: str) -> Target:
        """The target with weights w whose sum over an image is 1; its means are over images. logits: the student's."""
        size = target.label.shape[-2], target.label.shape[-1]
        found = upsample(self.supervision.adjusted(logits).float(), size).argmax(1)
        drawn = uniform(keys, size, name) < self.confidence.doubts[found]
        weight = torch.where(target.valid & drawn, target.confidence.nan_to_num().square(), 0)
        weight = weight / weight.sum((1, 2), keepdim=True).clamp_min(1e-12)
        return replace(target.weighted(weight), pixels=weight.new_full((), len(weight)))

    def after_step(self) -> None:
        """Move the memories and the teacher."""
        self.confidence.commit()
        self.crops.commit()
        super().after_step()
