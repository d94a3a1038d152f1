"""DARS: self-training in rounds, whose pseudo-labels have the classes' shares of the labeled pixels.

He et al., ICCV 2021, "Re-distributing biased pseudo labels for semi-supervised semantic segmentation: a baseline
investigation", github.com/CVMI-Lab/DARS (Apache-2.0, not copied). L = CE(x_l) + λ CE(x_u, ŷ), ŷ of the network as it
was when the round began. Of class j the most confident pixels are kept, ratio · share_j of all; where many are equally
confident, a random part of these. Ours: rounds are parts of one training, labels are made where they are read, and
thresholds are of the confidences that the round has seen so far; there, of those of a whole pass, stored in files.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from des4.methods.base import MethodConfig, Outline, Setting
from des4.methods.bases import SingleNetwork
from des4.methods.ingredients.targets import Target, averaged_target
from des4.models.memory import Histogram
from des4.models.training.ema import follow
from des4.ops.noise import uniform
from des4.ops.prior import class_prior
from des4.types import Batch, Unlabeled, ViewSpec

Ratio = Annotated[float, Field(gt=0, le=1)]


class DARSConfig(MethodConfig):
    """Settings of DARS; all defaults but `labels_alone` are those published for VOC."""

    name: Literal["dars"] = "dars"
    labels_alone: float = Field(0.17, ge=0, lt=1)
    """Share of the training, at its start, that learns from labels alone [ours: there 50 of 150 passes on VOC, which
    are shorter than those that follow: 0.04 of the steps]."""
    ratios: tuple[Ratio, ...] = Field((0.4, 0.5), min_length=1)
    """Of each round that follows, all equally long, the share of the unlabeled pixels that is kept."""
    unlabeled_weight: float = Field(1.0, ge=0)
    """λ, of the cross-entropy with pseudo-labels."""
    pseudo_label_mirror: bool = True
    """Whether pseudo-labels are of the mean over an image and its mirror image."""


class DARS(SingleNetwork):
    """One network, and what it was when the round began, which labels for it."""

    Config = DARSConfig
    config: DARSConfig
    VIEWS = ViewSpec(strong=1)
    OUTLINE = Outline("one network", "what it was when the round began", "same view")
    prior: Tensor

    def build(self, setting: Setting) -> None:
        """Make the student, the labeler as its copy, and the memory of confidences."""
        super().build(setting)
        self.labeler = setting.make_segmenter("linear")
        self.labeler.load_state_dict(self.student.state_dict())
        self.FROZEN = ("labeler",)
        self.confidences = Histogram(bins=4096, momentum=1.0, groups=len(setting.classes))
        self.register_buffer("prior", class_prior(setting.pixel_counts), persistent=False)

    @property
    def restarts(self) -> tuple[int, ...]:
        """Where rounds begin."""
        total, rounds, first = self.setting.total_steps, len(self.config.ratios), self.reads_unlabeled_from
        starts = (first + math.ceil((total - first) * number / rounds) for number in range(rounds))
        return tuple(start for start in starts if start)

    def round(self, step: int) -> int:
        """Number of the round that a step belongs to, from 1; 0 while labels teach alone."""
        total, rounds, first = self.setting.total_steps, len(self.config.ratios), self.reads_unlabeled_from
        return min((step - first) * rounds // max(1, total - first) + 1, rounds) if step >= first else 0

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy on labels, and after the first part of the training on pseudo-labels."""
        labeled, count = batch.labeled, len(batch.labeled.image)
        if not (round_now := self.round(self.step)):
            return self.on_labels(labeled)
        _, unlabeled = batch.both
        (view,), ratio = unlabeled.strong, self.config.ratios[round_now - 1]
        features, side = self.student.features_with_side(torch.cat([labeled.image, view.mixed]))
        logits = self.labeled_logits(features[:count], labeled)
        target = self.aligned(unlabeled, ratio).mixed(view)
        cross = target.cross_entropy(self.student.head(features[count:])) / ratio  # the share that is kept
        self.note(kept=target.share_kept())
        return {"labeled": self.supervise(logits, labeled, side), "unlabeled": self.config.unlabeled_weight * cross}

    @torch.no_grad()
    def aligned(self, unlabeled: Unlabeled, ratio: float) -> Target:
        """Labels of the labeler, of which as many of each class are kept as its share of the labeled pixels says."""
        soft = averaged_target([self.labeler], unlabeled, (1.0,), self.config.pseudo_label_mirror)
        target = soft.hardened(0.0, self.supervision)
        edge, rate = self.confidences.top(ratio * self.prior)
        noise = uniform(unlabeled.keys, target.label.shape[1:], "kept pixels")
        kept = (target.confidence >= edge[target.label]) & (noise < rate[target.label]) & (self.confidences.steps > 0)
        self.confidences.collect(target.confidence, target.valid, target.label)
        return target.only(kept)

    def after_step(self) -> None:
        """Move the memory; where a round ends, the labeler becomes what the student is."""
        self.confidences.commit()
        super().after_step()
        if self.round(self.step) != self.round(self.step - 1):
            follow(self.labeler, self.student, 0.0)
            self.confidences.reset()

    def pseudo_labeler(self) -> tuple[str, nn.Module]:
        """The network as it was when the round began, once there is one."""
        return ("labeler", self.labeler) if self.round(self.step) else super().pseudo_labeler()
