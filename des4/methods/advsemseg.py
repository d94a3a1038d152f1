"""AdvSemSeg: a discriminator learns to tell predictions from masks, and where it believes them, they are labels.

Hung et al., BMVC 2018, "Adversarial learning for semi-supervised semantic segmentation", arxiv.org/abs/1802.07934,
github.com/hfslyc/AdvSemiSeg (no licence; not copied). With p the predictions, D the discriminator and Y masks:
L_S = CE(x_l) + λ_l BCE(D(p_l), 1) + λ_u BCE(D(p_u), 1) + λ_semi CE(z_u, ŷ_u where σ(D(p_u)) ≥ T), with D as it is;
L_D = ½ BCE(D(p_l, p_u), 0) + ½ BCE(D(Y), 1), on detached p. Ours: maps are 0 where there is no label or padding, as
masks are there; masks are those of the same labeled images; λ_semi begins at a share of the training.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from des4.losses import judged
from des4.methods.base import MethodConfig, Network, Outline, Setting
from des4.methods.bases import SingleNetwork
from des4.methods.ingredients.targets import target_of
from des4.models.judges.discriminator import Discriminator
from des4.ops.resize import upsample
from des4.types import Batch, ViewSpec


class AdvSemSegConfig(MethodConfig):
    """Settings of AdvSemSeg; the defaults are those published for VOC."""

    name: Literal["advsemseg"] = "advsemseg"
    adversarial_weight: float = Field(0.01, ge=0)
    """λ_l, of deceiving the discriminator on labeled images."""
    unlabeled_adversarial_weight: float = Field(0.001, ge=0)
    """λ_u, the same on unlabeled images."""
    semi_weight: float = Field(0.1, ge=0)
    """λ_semi, of the labels that the discriminator believes."""
    semi_start: float = Field(0.25, ge=0, le=1)
    """Share of the training after which these count: 5,000 of 20,000 steps in the published one."""
    threshold: float = Field(0.2, ge=0, le=1)
    """T, probability of being real that a pixel needs for its label to count."""
    discriminator_lr: float = Field(1e-4, gt=0)
    """Learning rate of the discriminator's Adam at the start; it falls as that of the run does."""


class AdvSemSeg(SingleNetwork):
    """One network, and a discriminator of its predictions."""

    Config = AdvSemSegConfig
    config: AdvSemSegConfig
    VIEWS = ViewSpec(strong=1)
    OUTLINE = Outline("one network and a discriminator", "itself, where the discriminator believes it", "one view")

    def build(self, setting: Setting) -> None:
        """Make the student and the discriminator."""
        super().build(setting)
        self.discriminator = Discriminator(len(setting.classes))

    @property
    def threshold(self) -> float:
        """0: what a label needs is the discriminator's belief, not confidence."""
        return 0.0

    def networks(self) -> dict[str, Network]:
        """The student, and the discriminator, which learns by an optimiser of its own."""
        critic = Network(self.discriminator, "critic", self.config.discriminator_lr)
        return {**super().networks(), "discriminator": critic}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of L_S, and L_D."""
        labeled, unlabeled = batch.both
        (view,), config, count = unlabeled.strong, self.config, len(labeled.image)
        features, side = self.student.features_with_side(torch.cat([labeled.image, view.mixed]))
        known, unknown = self.labeled_logits(features[:count], labeled), self.student.head(features[count:])
        valid = torch.cat([labeled.valid, view.mix(unlabeled.valid)])
        probs = upsample(torch.cat([known, unknown]).float(), (valid.shape[-2], valid.shape[-1])).softmax(1)
        maps = probs * valid[:, None]

        found = self.discriminator(maps, frozen=True)
        fooled = config.adversarial_weight * judged(found[:count], True, valid[:count], labeled.pixels)
        fooled += config.unlabeled_adversarial_weight * judged(found[count:], True, valid[count:], view.pixels)
        belief = found[count:].detach().sigmoid()
        target = target_of(probs[count:].detach(), unlabeled, view).hardened(0.0, self.supervision)
        target = target.only(belief >= config.threshold)
        begun = self.step >= config.semi_start * self.setting.total_steps
        semi = config.semi_weight * target.mean_over_kept(unknown) if begun else unknown.new_zeros(())

        where = labeled.valid[:, None]
        masks = torch.zeros_like(maps[:count]).scatter_(1, labeled.label[:, None] * where, where.to(maps.dtype))
        real = self.discriminator(masks)
        fake = self.discriminator(maps.detach())
        pixels = None if labeled.pixels is None or view.pixels is None else labeled.pixels + view.pixels
        told = judged(real, True, labeled.valid, labeled.pixels) + judged(fake, False, valid, pixels)
        self.note(believed=target.share_kept())
        return {
            "labeled": self.supervise(known, labeled, side),
            "adversarial": fooled,
            "semi": semi,
            "discriminator": 0.5 * told,
        }
