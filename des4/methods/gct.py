"""GCT: two networks, and a detector of their flaws that says which of them is to teach the other where.

Ke et al., ECCV 2020, "Guided collaborative training for pixel-wise semi-supervised learning", ZHKKKe/PixelSSL on GitHub
(Apache-2.0, not copied). For each network: CE(x_l) + λ_f mean(bad · F(x, p)²) + λ_c w(t) MSE(p, p*), p* its own
distribution where the other's flaw is at least as large, else the other's; bad: where both flaws are at least ξ. These
go through F and not into it. F learns 10 · MSE(F(x_l, p), flaws of p), on detached p, by an Adam of its own. Ours:
images and distributions are 0 where there is no label or padding before F sees them.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from des4.methods.base import MethodConfig, Network, Outline, Setting
from des4.methods.bases import TwoNetworks, labeled_logits
from des4.methods.ingredients.flaws import exchanged_flaws, true_flaws
from des4.methods.ingredients.schedule import sigmoid_ramp
from des4.methods.ingredients.targets import target_of
from des4.models.judges.flaw_detector import FlawDetector
from des4.ops.reduce import mean_over
from des4.ops.resize import upsample
from des4.types import Batch, ViewSpec


class GCTConfig(MethodConfig):
    """Settings of guided collaborative training."""

    name: Literal["gct"] = "gct"
    correction_weight: float = Field(1.0, ge=0)
    """λ_f, of the flaws that both networks have."""
    consistency_weight: float = Field(100.0, ge=0)
    """λ_c, of the squared gap averaged over classes, once it has risen."""
    ramp: float = Field(0.1, ge=0, le=1)
    """Share of the training in which it rises."""
    flaw_threshold: float = Field(0.6, ge=0, le=1)
    """ξ, from which a flaw is one."""
    detector_lr: float = Field(1e-4, gt=0)
    """Learning rate of the detector's Adam at the start; it falls as that of the run does."""


class GCT(TwoNetworks):
    """Two networks of the same architecture, and a detector of their flaws."""

    Config = GCTConfig
    config: GCTConfig
    VIEWS = ViewSpec(strong=1)
    OUTLINE = Outline("two networks and a detector of flaws", "each the other, where its flaw is smaller", "same view")

    def build(self, setting: Setting) -> None:
        """Make the student, its peer and the detector."""
        super().build(setting)
        self.detector = FlawDetector(len(setting.classes), setting.crop[0])

    def networks(self) -> dict[str, Network]:
        """Both networks, and the detector, which learns by an optimiser of its own."""
        return {**super().networks(), "detector": Network(self.detector, "critic", self.config.detector_lr)}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """For each network its three terms, and that of the detector."""
        labeled, unlabeled = batch.both
        (view,), config, count, terms = unlabeled.strong, self.config, len(labeled.image), {}
        images = torch.cat([labeled.image, view.mixed])
        valid = torch.cat([labeled.valid, view.mix(unlabeled.valid)])
        pixels = None if labeled.pixels is None or view.pixels is None else labeled.pixels + view.pixels
        where, logits, probs = valid[:, None], [], []
        for name, network, feed in (("student", self.student, self.feed), ("peer", self.peer, self.peer_feed)):
            features, side = network.features_with_side(images)
            known = labeled_logits(network.head, feed, features[:count], labeled)
            terms[f"{name}/labeled"] = self.supervise(known, labeled, side, name)
            logits.append(torch.cat([known, network.head(features[count:])]).float())
            probs.append(upsample(logits[-1], (valid.shape[-2], valid.shape[-1])).softmax(1) * where)

        seen = images * where
        flaws = [self.detector(seen, each, frozen=True) for each in probs]  # apart, or norms would join the networks
        mine, other = (exchanged_flaws(each.detach(), config.flaw_threshold) for each in flaws)
        bad = (mine >= config.flaw_threshold) & (other >= config.flaw_threshold) & valid
        targets = {  # of each its own where the other has as large a flaw, else the other's
            "student": torch.where((other >= mine)[:, None], probs[0], probs[1]),
            "peer": torch.where((mine >= other)[:, None], probs[1], probs[0]),
        }
        weight = config.consistency_weight * sigmoid_ramp(self.step, config.ramp * self.setting.total_steps)
        for (name, each), own, flaw in zip(targets.items(), logits, flaws, strict=True):
            terms[f"{name}/correction"] = config.correction_weight * mean_over(flaw.square() * bad, valid, pixels)
            parts = target_of(each[:count].detach(), labeled), target_of(each[count:].detach(), unlabeled, view)
            terms[f"{name}/consistency"] = weight * parts[0].and_also(parts[1]).squared_gap(own) / own.shape[1]

        known, has_label = torch.cat([each[:count] for each in probs]).detach(), labeled.valid.repeat(2, 1, 1)
        found = torch.cat([self.detector(seen, each.detach())[:count] for each in probs])  # normed as where it is used
        truth = true_flaws(known, labeled.label.repeat(2, 1, 1), has_label)
        both = None if labeled.pixels is None else 2 * labeled.pixels
        terms["detector"] = 10 * mean_over((found - truth).square() * has_label, has_label, both)
        self.note(bad=mean_over(bad, valid))
        return terms
