"""CorrMatch: labels spread over the places of an image that have to do with one another.

Sun et al., CVPR 2024, "CorrMatch: label propagation via correlation matching for semi-supervised semantic
segmentation", BBBBchan/CorrMatch on GitHub (CC BY-NC 4.0, so nothing of it is used here). A = softmax(f₁ᵀf₂ / √C) over
the places of the deep map, z A: logits carried by it. L = ½ [½ CE(x_l) + ½ CE(z A, x_l) + ¼ L_s + ¼ KL(p_w || p_s) +
¼ L_fp + ¼ L_A], L_A the mean of both views' z A; all on labels of q ≥ t, which those of L_s and of the strong z A have
spread from over regions of A; t moves. Ours: KL is of mixed p_w, regions are chosen at once; see docs/methods.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from des4.methods.base import Outline, Setting
from des4.methods.bases import OwnLabelsConfig, SingleNetwork
from des4.methods.ingredients.perturb import with_dropped
from des4.methods.ingredients.propagation import propagated, regions
from des4.methods.ingredients.targets import soft_target
from des4.models.heads.correlation import Correlation, carried
from des4.models.memory import MovingThreshold
from des4.ops.noise import uniform
from des4.types import Batch, ViewSpec


class CorrMatchConfig(OwnLabelsConfig):
    """Settings of CorrMatch; the defaults are those published for VOC."""

    name: Literal["corrmatch"] = "corrmatch"
    threshold: float = Field(0.85, ge=0, le=1)
    """t at the start, confidence that a pseudo-label needs; it moves."""
    threshold_momentum: float = Field(0.999, ge=0, lt=1)
    """Of the average by which t follows the largest confidences of the classes."""
    strong_weight: float = Field(0.25, ge=0)
    """Of the cross-entropy of the strong view."""
    divergence_weight: float = Field(0.25, ge=0)
    """Of the divergence of the strong view from the weak one."""
    feature_weight: float = Field(0.25, ge=0)
    """Of the view whose features are perturbed."""
    correlation_weight: float = Field(0.25, ge=0)
    """Of logits that are carried over correlated places."""
    drop: float = Field(0.5, ge=0, lt=1)
    """Probability with which a channel of the encoder's maps is dropped for the perturbed view."""
    regions: int = Field(128, ge=1)
    """Places of an image that are drawn, over whose regions labels spread."""


class CorrMatch(SingleNetwork):
    """One network, what its places have to do with one another, and a moving threshold."""

    Config = CorrMatchConfig
    config: CorrMatchConfig
    VIEWS = ViewSpec(strong=1, cutmix="unimatch", photometric="unimatch")
    OUTLINE = Outline(
        "one network and what its places have to do with one another",
        "itself on the weak view",
        "mixed view, and dropped features",
    )

    def build(self, setting: Setting) -> None:
        """Make the student, its correlation, and the threshold."""
        super().build(setting)
        config, classes = self.config, len(setting.classes)
        self.correlation = Correlation(self.student.encoder.channels[-1], classes)
        self.level = MovingThreshold(classes, config.threshold, config.threshold_momentum)

    @property
    def threshold(self) -> float:
        """What t is now; asking for it waits for the device."""
        return float(self.level.value)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Half of six terms: of labels, of the strong view, of perturbed features, and of what places carry over."""
        (labeled, unlabeled), config, student, level = batch.both, self.config, self.student, self.level.value
        (view,), count, keys = unlabeled.strong, len(labeled.image), unlabeled.keys
        maps, side = student.encode_with_side(torch.cat([labeled.image, unlabeled.weak]))
        features = student.decoder(with_dropped(maps, keys, "feature", config.drop))
        known, weak, perturbed = features.split([count, len(keys), len(keys)])
        on_labels, on_weak = self.labeled_logits(known, labeled), student.head(weak)
        strong, grid = student.encode(view.mixed), (maps[-1].shape[-2], maps[-1].shape[-1])
        on_strong = student.head(student.decoder(strong))
        clean = self.correlation(maps[-1], torch.cat([labeled.valid, unlabeled.valid]), torch.cat([labeled.keys, keys]))
        by_clean = carried(torch.cat([on_labels, on_weak]), clean, grid)
        by_strong = carried(on_strong, self.correlation(strong[-1], view.mix(unlabeled.valid), keys), grid)

        soft = soft_target(self.evaluated(unlabeled.weak) if config.running_norms else on_weak, unlabeled)
        target = soft.hardened(level, self.supervision)
        self.level.collect(target.confidence, target.label, target.valid)
        places = (uniform(keys, (config.regions,), "regions") * clean.shape[1]).long()
        found = regions(clean[count:], places, unlabeled.valid, grid, (on_weak.shape[-2], on_weak.shape[-1]))
        spread = propagated(target.mixed(view), found, level, on_weak.shape[1], ~view.mix.box)
        self.note(kept=target.share_kept(), spread=spread.share_kept(), threshold=level)
        correlation = spread.cross_entropy(by_strong) + target.cross_entropy(by_clean[count:])
        divergence = soft.only(target.keep).mixed(view).divergence(on_strong)
        return {
            "labeled": 0.25 * self.supervise(on_labels, labeled, side),
            "labeled_correlation": 0.25 * self.supervise(by_clean[:count], labeled),
            "strong": 0.5 * config.strong_weight * spread.cross_entropy(on_strong),
            "divergence": 0.5 * config.divergence_weight * divergence,
            "feature": 0.5 * config.feature_weight * target.cross_entropy(student.head(perturbed)),
            "unlabeled_correlation": 0.25 * config.correlation_weight * correlation,
        }

    def after_step(self) -> None:
        """Move the threshold, and the prototypes, if any."""
        self.level.commit()
        super().after_step()
