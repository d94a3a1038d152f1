"""USRN: a second network learns sub-classes, of which none is rare, and says where the first is to be believed.

Guan et al., CVPR 2022, "Unbiased subclass regularization for semi-supervised semantic segmentation". s: sub-class of a
labeled pixel, by balanced k-means of features. L = CE(x_l, y) + λ CE(x_s, ŷ) + μ [CE_sub(x_l, s) + λ CE_sub(x_s, ŝ)],
on pixels with q > t; ŷ = argmax of p, of which ŝ's class alone is left where H(p_sub) / log S ≤ H(p) / log C. Ours:
features are of the network that a part on labels alone ends with; clusters move on; no layer is shared.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from des4.methods.base import Outline, Setting
from des4.methods.bases import OwnLabelsConfig, SingleNetwork
from des4.methods.ingredients.gate import classes_left
from des4.methods.ingredients.supervision import Supervision
from des4.methods.ingredients.targets import labeled_on_grid, soft_target, target_of, view_on_grid
from des4.models.heads.linear import LinearClassifier
from des4.models.memory import Subclasses
from des4.models.training.ema import follow
from des4.ops.prior import class_prior, subclass_counts
from des4.types import Batch, ViewSpec


class USRNConfig(OwnLabelsConfig):
    """Settings of unbiased subclass regularization."""

    name: Literal["usrn"] = "usrn"
    labels_alone: float = Field(0.25, ge=0, lt=1)
    """Share of the training, at its start, that learns from labels alone [ours: there a training of its own]. The
    learning rate begins anew after it."""
    unlabeled_weight: float = Field(1.0, ge=0)
    """λ, of both cross-entropies with pseudo-labels."""
    subclass_weight: float = Field(1.0, ge=0)
    """μ, of the network of sub-classes."""
    threshold: float = Field(0.75, ge=0, le=1)
    """t, confidence that a pseudo-label needs."""
    subclasses: int = Field(200, ge=2, le=255)
    """Most sub-classes of all classes together; 124 to 201 in the published trainings."""


class USRN(SingleNetwork):
    """One network, one beside it that knows sub-classes, and one that says which sub-class a labeled pixel is of."""

    Config = USRNConfig
    config: USRNConfig
    VIEWS = ViewSpec(strong=1, photometric="french")
    OUTLINE = Outline(
        "two networks, of classes and of sub-classes",
        "itself on the weak view, where the other is not surer of another class",
        "strong view",
    )

    def build(self, setting: Setting) -> None:
        """Make the student, the network of sub-classes, the labeler as the student's copy, and the clusters."""
        super().build(setting)
        counts = subclass_counts(class_prior(setting.pixel_counts), self.config.subclasses)
        self.sub, self.labeler = (setting.make_segmenter("linear") for _ in range(2))
        self.sub.head = LinearClassifier(sum(counts), self.sub.decoder.dim)
        self.labeler.load_state_dict(self.student.state_dict())
        self.FROZEN = ("labeler",)
        self.subclasses = Subclasses(counts, self.student.decoder.dim)
        pixels = setting.pixel_counts / torch.tensor(counts)
        self.sub_supervision = Supervision(setting.supervision, pixels[self.subclasses.parent])
        self.rests = bool(self.restarts)

    @property
    def restarts(self) -> tuple[int, ...]:
        """Where sub-classes and unlabeled images come in, unless they are there from the beginning."""
        return tuple(filter(None, [self.reads_unlabeled_from]))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy on labels, and from the second part on of both networks on classes and sub-classes."""
        if self.step < self.reads_unlabeled_from:
            return self.on_labels(batch.labeled)
        (labeled, unlabeled), config = batch.both, self.config
        (view,), sizes = unlabeled.strong, [len(labeled.image), *(len(unlabeled.weak),) * 2]
        images = torch.cat([labeled.image, unlabeled.weak, view.mixed])
        features, side = self.student.features_with_side(images)
        known, weak, strong = torch.split(features, sizes)
        sub_known, sub_weak, sub_strong = torch.split(self.sub(images), sizes)
        logits = self.student.head(weak)
        if config.running_norms:
            with self.labeling(self.student, self.sub):
                logits, sub_weak = self.student(unlabeled.weak), self.sub(unlabeled.weak)
        seen, sub_seen = self.supervision.adjusted(logits), self.sub_supervision.adjusted(sub_weak)
        left = classes_left(seen, sub_seen, self.subclasses.parent) if unlabeled.truth is None else None
        target = soft_target(logits, unlabeled).hardened(self.threshold, self.supervision, left)
        unknown = replace(unlabeled, truth=None, watch=None)  # nobody knows or watches sub-classes
        probs, grid = sub_weak.detach().float().softmax(1), (sub_weak.shape[-2], sub_weak.shape[-1])
        sub_target = target_of(probs, unknown).hardened(self.threshold, self.sub_supervision)
        cross = sub_target.mixed(view_on_grid(view, unlabeled, grid)).cross_entropy(sub_strong)
        places = labeled_on_grid(labeled, grid)
        names = self.subclasses.assign(self.labeler.features(labeled.image), places.label)
        of_labels = self.sub_supervision.on_labels(sub_known, replace(places, label=names))
        self.note(kept=target.share_kept())
        return {
            "labeled": self.supervise(self.labeled_logits(known, labeled), labeled, side),
            "unlabeled": config.unlabeled_weight * target.mixed(view).cross_entropy(self.student.head(strong)),
            "sub/labels": config.subclass_weight * of_labels,
            "sub/pseudo-labels": config.subclass_weight * config.unlabeled_weight * cross,
        }

    def after_step(self) -> None:
        """Move the clusters; at the end of the first part, labeler and network of sub-classes become the student."""
        self.subclasses.commit(self.generator(self.subclasses.centres.device))
        super().after_step()
        if self.step in self.restarts:
            follow(self.labeler, self.student, 0.0)
            follow(self.sub.encoder, self.student.encoder, 0.0)
            follow(self.sub.decoder, self.student.decoder, 0.0)
