"""PseudoSeg: soft pseudo-labels that two ways of seeing an image agree on, the decoder's and an image classifier's.

Zou et al., ICLR 2021, "PseudoSeg: designing pseudo labels for semantic segmentation", googleinterns/wss on GitHub
(Apache-2.0, not copied). z: the decoder's logits, a: those of class activations that are spread by attention (SGC).
L = CE(z, x_l) + CE(a, x_l) + BCE(classifier, classes of y_l) + λ CE(z(x_s), p̂); p̂ ∝ [½ softmax(z/ρ) + ½ softmax(a/ρ)]
^(1/T) on the weak view, ρ the root of the mean square of z and a. x_s: recoloured, with a square cut out. Ours: ρ is an
image's own; the weak view is read once, in eval mode; attention sees all the maps that the decoder reads.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from des4.methods.base import MethodConfig, Outline, Setting
from des4.methods.bases import SingleNetwork
from des4.methods.ingredients.perturb import cut_out
from des4.methods.ingredients.targets import SoftTarget, target_of
from des4.models.heads.class_activation import ClassActivation
from des4.ops.resize import upsample
from des4.types import IGNORE, Batch, Labeled, Unlabeled, ViewSpec


class PseudoSegConfig(MethodConfig):
    """Settings of PseudoSeg."""

    name: Literal["pseudoseg"] = "pseudoseg"
    unlabeled_weight: float = Field(1.0, ge=0)
    """λ, of the cross-entropy with soft pseudo-labels."""
    sharpening: float = Field(0.5, gt=0, le=1)
    """T: pseudo-labels are raised to the power of 1/T."""
    threshold: float = Field(0.0, ge=0, le=1)
    """Probability that the most probable class of a pseudo-label needs."""
    background_class: int | None = Field(None, ge=0)
    """Number of the class that the image classifier does not look for, such as 0 of VOC: where no other is seen.
    `null`: it looks for all."""
    attention_dim: int = Field(128, ge=1)
    """Of what places are compared by."""
    cutout: float = Field(0.195, ge=0, le=1)
    """Sides of the rectangle that is cut out of strong views, as a share of the crop's: 100 of 513 pixels."""


class PseudoSeg(SingleNetwork):
    """One network, with an image classifier whose class activations are a second opinion."""

    Config = PseudoSegConfig
    config: PseudoSegConfig
    VIEWS = ViewSpec(strong=1, photometric="pseudoseg")
    OUTLINE = Outline(
        "one network with an image classifier",
        "itself on the weak view, together with the classifier's activations",
        "strong view with a hole",
    )

    def build(self, setting: Setting) -> None:
        """Make the student and the classifier."""
        super().build(setting)
        config, classes = self.config, len(setting.classes)
        setting.check_class("background_class", config.background_class)
        channels = self.student.encoder.channels
        self.activation = ClassActivation(channels, classes, config.background_class, config.attention_dim)
        self.objects = [number for number in range(classes) if number != config.background_class]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropies on labels, of the classifier, and on what both say of the weak view."""
        (labeled, unlabeled), config = batch.both, self.config
        (view,), count = unlabeled.strong, len(labeled.image)
        target = self.fused(unlabeled)
        target = target.only(target.probs.amax(1) >= config.threshold).mixed(view)
        image, hole = cut_out(view.mixed, unlabeled.keys, config.cutout, "cutout")
        maps, side = self.student.encode_with_side(torch.cat([labeled.image, image]))
        features = self.student.decoder(maps)
        present = self.present(labeled)
        said, seen = self.activation(tuple(each[:count] for each in maps), labeled.valid, present)
        self.note(confidence=target.mean_confidence())
        cross = target.only(~hole).cross_entropy(self.student.head(features[count:]))
        return {
            "labeled": self.supervise(self.labeled_logits(features[:count], labeled), labeled, side),
            "labeled_activation": self.supervise(seen, labeled),
            "image_classes": self.image_loss(said, present, labeled),
            "unlabeled": config.unlabeled_weight * cross,
        }

    def fused(self, unlabeled: Unlabeled) -> SoftTarget:
        """p̂ of the weak view, without a gradient."""
        size = unlabeled.valid.shape[-2], unlabeled.valid.shape[-1]
        with self.labeling(self.student, self.activation):
            maps = self.student.encode(unlabeled.weak)
            logits = (self.student.head(self.student.decoder(maps)), self.activation(maps, unlabeled.valid, None)[1])
        both = torch.stack([upsample(each.float(), size) for each in logits])  # (2, B, C, H, W)
        where = unlabeled.valid[:, None]
        pixels = 2 * both.shape[2] * where.sum((1, 2, 3), keepdim=True).clamp_min(1)
        square = torch.where(where, both.square(), 0).sum((0, 2, 3, 4))[:, None, None, None] / pixels
        probs = (both * (square + 1e-8).rsqrt()).softmax(2).mean(0) ** (1 / self.config.sharpening)
        return target_of(probs / probs.sum(1, keepdim=True), unlabeled)

    def present(self, labeled: Labeled) -> Tensor:
        """Which classes but the background the labels have, (B, K) bool."""
        return torch.stack([(labeled.label == number).any(2).any(1) for number in self.objects], 1)

    def image_loss(self, said: Tensor, present: Tensor, labeled: Labeled) -> Tensor:
        """Binary cross-entropy of an image's classes, a mean over classes and images; one without labels counts 0."""
        loss = F.binary_cross_entropy_with_logits(said.float(), present.float(), reduction="none").mean(1)
        return (loss * (labeled.label != IGNORE).any(2).any(1)).mean()
