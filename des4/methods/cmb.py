"""CMB: pixels of a class come nearer to what a memory holds of that class; each class says which of these count.

Alonso et al., ICCV 2021, "Semi-supervised semantic segmentation with pixel-level contrastive learning from a class-wise
memory bank", Shathe/SemiSeg-Contrastive on GitHub (Apache-2.0, not copied). L = CE(x_l) + w(t) mean(q⁶ CE(x_s, ŷ)) +
λ_e H(x_s) / log C + λ_c [L_c(x_l) + L_c(x_s)]; L_c = 1/C Σ_c of the weighted mean of 1 - cos(pixel, memory of c), no
negatives. Ours: L_c is a mean over images, of drawn pixels; views share a crop; docs/methods/cmb.md has the rest.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from des4.losses import mean_entropy
from des4.methods.base import Outline, Setting
from des4.methods.bases import ProjectedConfig, ProjectedTeacherStudent
from des4.methods.ingredients.class_bank import ClassBank, ClassBankConfig
from des4.methods.ingredients.classmix import class_mixed
from des4.methods.ingredients.schedule import cosine_rise, sigmoid_ramp
from des4.models.heads.projection import Projection
from des4.models.judges.selectors import ClassSelectors
from des4.models.segmenter import Segmenter
from des4.types import IGNORE, Batch, ViewSpec


class CMBConfig(ProjectedConfig, ClassBankConfig):
    """Settings of the class-wise memory bank."""

    name: Literal["cmb"] = "cmb"
    momentum: float = Field(0.995, ge=0, lt=1)
    """Of the teacher's moving average at the start, per step; by half a cosine it rises to 1 at the end. It starts
    warm, at min(1 - 1/(t + 1), …)."""
    entropy_weight: float = Field(0.01, ge=0)
    """λ_e, of the entropy on strong views."""
    contrast_weight: float = Field(0.1, ge=0)
    """λ_c, of the distances to the memory."""
    warm_up: float = Field(0.0133, ge=0, le=1)
    """Share of the training in which w rises. Contrast and ClassMix begin after it, the memory half-way."""
    classmix: float = Field(0.75, ge=0, le=1)
    """Probability with which classes of another image are pasted onto a strong view."""
    background_class: int | None = Field(None, ge=0)
    """Number of a class that is pasted only where there is no other, such as 0 of VOC. `null`: there is none."""


class CMB(ProjectedTeacherStudent):
    """A student and its average, each with a projection; a memory of what is sure, and selectors of what counts."""

    Config = CMBConfig
    config: CMBConfig
    VIEWS = ViewSpec(strong=2, photometric="cmb", neighbours=True)
    OUTLINE = Outline(
        "student",
        "moving average of all",
        "two strong views with classes of other images (ClassMix), and a memory of what classes are",
    )

    def build(self, setting: Setting) -> None:
        """Make student and teacher, their projections, the student's prediction, both selectors and the memory."""
        super().build(setting)
        config, classes = self.config, len(setting.classes)
        setting.check_class("background_class", config.background_class)
        self.prediction = Projection(config.dim, config.dim)
        self.pixel_selector, self.memory_selector = (ClassSelectors(classes, config.dim) for _ in range(2))
        self.bank = ClassBank(classes, setting.num_labeled, config.dim, config)

    @property
    def momentum(self) -> float:
        """Of this step's average."""
        return cosine_rise(self.config.momentum, self.step, self.setting.total_steps)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy on labels and on weighted pseudo-labels, entropy, and the distances to the memory."""
        labeled, unlabeled = batch.both
        config, count, warm_steps = self.config, len(labeled.image), self.config.warm_up * self.setting.total_steps
        p, weight = (each * (self.step >= warm_steps) for each in (config.classmix, config.contrast_weight))
        with torch.no_grad():
            seen = self.teacher.features(torch.cat([labeled.image, unlabeled.weak]))
            logits = self.teacher.head(seen)
            if self.step >= warm_steps / 2:
                self.bank.collect(self.teacher_projection, self.memory_selector, seen[:count], logits[:count], labeled)
            target = self.pseudo_labels(logits[count:], unlabeled)
            target = target.weighted(target.confidence**6)
            classes, ground = logits.shape[1], config.background_class
            mixed = [
                class_mixed(view, target.mixed(view), classes, unlabeled.keys, f"mix{n}", p, ground)
                for n, view in enumerate(unlabeled.strong)
            ]
        features, side = self.student.features_with_side(torch.cat([labeled.image, *(image for image, _ in mixed)]))
        known, found = features[:count], []
        for n, (each, (_, target)) in enumerate(zip(features[count:].chunk(len(mixed)), mixed, strict=True)):
            said, labels = self.student.head(each), target.label.masked_fill(~target.keep, IGNORE)
            entropy = mean_entropy(said, target.valid, target.pixels)
            distance = self.distance(each, labels, unlabeled.keys, f"anchors{n}")
            found.append(torch.stack([target.cross_entropy(said), entropy, distance]))
        cross, entropy, distance = torch.stack(found).mean(0)
        self.note(remembered=self.bank.queue.filled.float().mean())
        return {
            "labeled": self.supervise(self.labeled_logits(known, labeled), labeled, side),
            "unlabeled": sigmoid_ramp(self.step, warm_steps) * cross,
            "entropy": config.entropy_weight * entropy,
            "labeled_contrast": weight * self.distance(known, labeled.label, labeled.keys, "anchors"),
            "unlabeled_contrast": weight * distance,
        }

    def distance(self, features: Tensor, labels: Tensor, keys: Tensor, name: str) -> Tensor:
        """L_c of the student's features (B, D, h, w) with labels (B, H, W), or IGNORE; a scalar."""
        nets = nn.Sequential(self.student_projection, self.prediction), self.pixel_selector, self.memory_selector
        return self.bank.distance(*nets, features, labels, keys, name)

    def after_step(self) -> None:
        """Move the memory, and the teacher with its projection."""
        self.bank.queue.commit()
        super().after_step()

    def predictors(self) -> dict[str, Segmenter]:
        """The student first, as published."""
        return {"student": self.student, "teacher": self.teacher}
