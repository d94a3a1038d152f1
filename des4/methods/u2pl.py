"""U2PL: pixels that are too uncertain to be labels tell at least which classes they are not.

Wang et al., CVPR 2022, "Semi-supervised semantic segmentation using unreliable pseudo-labels", Haochen-Wang409/U2PL on
GitHub (Apache-2.0, not copied). L = CE(x_l) + λ_u L_u + λ_c L_c; L_u: teacher labels of entropy below the (1 - α)-
quantile; L_c: InfoNCE of sure pixels with the centre of their class and a queue of what it could be taken for. Ours:
quantiles and centres are those of past steps, and classes go by their numbers; docs/methods/u2pl.md says why.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from des4.methods.base import Outline, Setting
from des4.methods.bases import ProjectedConfig, ProjectedTeacherStudent
from des4.methods.ingredients.contrast import PixelContrast, PixelContrastConfig
from des4.methods.ingredients.targets import soft_target
from des4.models.heads.projection import WideProjection
from des4.models.memory import Histogram
from des4.ops.entropy import doubt
from des4.ops.resize import shrink_label
from des4.types import IGNORE, Batch, ViewSpec


class U2PLConfig(ProjectedConfig, PixelContrastConfig):
    """Settings of U2PL."""

    name: Literal["u2pl"] = "u2pl"
    unlabeled_weight: float = Field(1.0, ge=0)
    """λ_u, of the cross-entropy with reliable pseudo-labels."""
    contrast_weight: float = Field(0.25, ge=0)
    """λ_c: nominally 1, of which the published code divides by its 4 processes on VOC and 8 on Cityscapes."""
    unreliable: float = Field(0.2, ge=0, le=0.5)
    """α at the start: share of the pixels that is not reliable. It falls linearly to 0."""
    anchor_threshold: float = Field(0.3, ge=0, le=1)
    """δ, probability of its class that the teacher gives to an anchor."""
    labels_alone: float = Field(0.0, ge=0, lt=1)
    """Share of the training, at its beginning, that learns from labels alone; the teacher is the student until then."""


class U2PL(ProjectedTeacherStudent):
    """A student and its average, each with a projection; queues of what a class could be taken for."""

    Config = U2PLConfig
    config: U2PLConfig
    VIEWS = ViewSpec(strong=1, cutmix="reco")
    OUTLINE = Outline("student", "moving average of all", "mixed view, and a memory of what classes are not")
    PROJECTION = WideProjection
    RANKS = (3, 20)
    """A labeled pixel is a negative of classes ranked below the first, an unreliable one of those from there on; the
    last class is always among these."""

    def build(self, setting: Setting) -> None:
        """Make student and teacher, their projections, and the memories."""
        super().build(setting)
        self.rests = self.reads_unlabeled_from > 0
        self.entropies = Histogram(bins=4096)
        self.contrast = PixelContrast(len(setting.classes), self.config.dim, self.config)

    @property
    def alpha(self) -> float:
        """α of this step."""
        return self.config.unreliable * max(0.0, 1 - self.step / self.setting.total_steps)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy on labels and on reliable pseudo-labels, and the contrast."""
        if self.step < self.reads_unlabeled_from:
            return self.on_labels(batch.labeled)
        labeled, unlabeled = batch.both
        (view,), config, alpha, count = unlabeled.strong, self.config, self.alpha, len(labeled.image)
        keys = torch.cat([labeled.keys, unlabeled.keys])
        with torch.no_grad():
            seen = self.teacher.features(torch.cat([labeled.image, unlabeled.weak]))
            logits = self.teacher.head(seen).float()
            target = soft_target(logits[count:], unlabeled)
            unsure = doubt(self.supervision.adjusted_probs(target.probs))  # which rises with the entropy
            low, high = self.entropies.quantile(alpha), self.entropies.quantile(1 - alpha)
            labels = target.hardened(0.0, self.supervision)
            reliable = labels.only(unsure <= high).mixed(view)
            sure = labels.label.masked_fill(~((unsure <= low) & unlabeled.valid), IGNORE)
            anchors = sure.masked_fill(labels.confidence <= config.anchor_threshold, IGNORE)
            known = self._remember(batch, seen, self.supervision.adjusted(logits).softmax(1), sure, unsure >= high)
            self.entropies.collect(unsure, unlabeled.valid)

        features, side = self.student.features_with_side(torch.cat([labeled.image, view.mixed]))
        size = features.shape[-2], features.shape[-1]
        of_class = torch.cat([known, shrink_label(view.mix(anchors), size)])
        self.note(reliable=reliable.share_kept(), anchors=(of_class != IGNORE).float().mean())
        cross = reliable.cross_entropy(self.student.head(features[count:]))
        return {
            "labeled": self.supervise(self.labeled_logits(features[:count], labeled), labeled, side),
            "unlabeled": config.unlabeled_weight * cross / (1 - alpha) ** 2,
            "contrast": config.contrast_weight * self.contrast.loss(self.student_projection(features), of_class, keys),
        }

    def _remember(self, batch: Batch, features: Tensor, probs: Tensor, sure: Tensor, unsure: Tensor) -> Tensor:
        """Collect the teacher's pixels, with their class or as negatives; return the labeled anchors (B, h, w)."""
        (labeled, unlabeled), (first, last) = batch.both, (min(self.RANKS[0], probs.shape[1] - 1), self.RANKS[1])
        size, count = (probs.shape[-2], probs.shape[-1]), len(labeled.image)
        label, has_label = shrink_label(labeled.label, size), shrink_label(labeled.valid, size)
        known, rank = label.masked_fill(~has_label, 0)[:, None], probs.argsort(1, descending=True).argsort(1)
        mistakable = ((rank[:count] < first) & has_label[:, None]).scatter(1, known, value=False)  # not its own class
        unsure = shrink_label(unsure & unlabeled.valid, size)[:, None]
        unlikely = (rank[count:] >= first) & (rank[count:] < last) & unsure
        self.contrast.collect(
            self.teacher_projection(features),
            torch.cat([label, shrink_label(sure, size)]),
            torch.cat([mistakable, unlikely]),
            torch.cat([labeled.keys, unlabeled.keys]),
        )
        return label.masked_fill(probs[:count].gather(1, known).squeeze(1) <= self.config.anchor_threshold, IGNORE)

    def after_step(self) -> None:
        """Move the memories, and the teacher with its projection."""
        self.entropies.commit()
        self.contrast.commit()
        super().after_step()
