"""UniMatch: one weak view teaches two strong views, and the same view with channels of its features dropped.

Yang et al., CVPR 2023, "Revisiting weak-to-strong consistency in semi-supervised semantic segmentation",
github.com/LiheYoung/UniMatch (MIT, not copied). L = ½ [CE(x_l) + ¼ L_s1 + ¼ L_s2 + ½ L_fp], each L_* as FixMatch's:
Σ 1[q ≥ t] CE(·, ŷ_w) / Σ valid. Differs: the mixing partner is a neighbour of the batch, read in train mode as all
weak views are (there: a second batch in eval mode); what is decoded for nobody there, labeled images with dropped
channels, is not decoded here.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from des4.methods.base import Outline
from des4.methods.bases import OwnLabelsConfig, SingleNetwork
from des4.methods.ingredients.perturb import with_dropped
from des4.methods.ingredients.targets import Target
from des4.types import Batch, Unlabeled, ViewSpec


class UniMatchConfig(OwnLabelsConfig):
    """Settings of UniMatch; the defaults are those published for VOC."""

    name: Literal["unimatch"] = "unimatch"
    threshold: float = Field(0.95, ge=0, le=1)
    """t, confidence a pseudo-label needs; 0.95 on VOC, 0 on Cityscapes in the published code."""
    strong_weight: float = Field(0.25, ge=0)
    """Of each of the two strong views."""
    feature_weight: float = Field(0.5, ge=0)
    """Of the view whose features are perturbed."""
    drop: float = Field(0.5, ge=0, lt=1)
    """Probability with which a channel of the encoder's maps is dropped for it."""


class Predicted(NamedTuple):
    """Logits (B, C, h, w) of what UniMatch reads; no gradient reaches those of the weak view.

    side: what an auxiliary head reads, of labeled images first.
    """

    labeled: Tensor
    weak: Tensor
    perturbed: Tensor
    strong: tuple[Tensor, ...]
    side: Tensor | None


class UniMatch(SingleNetwork):
    """One network, three consistencies."""

    Config = UniMatchConfig
    config: UniMatchConfig
    VIEWS = ViewSpec(strong=2, cutmix="unimatch", photometric="unimatch")
    OUTLINE = Outline("one network", "itself on the weak view", "two mixed views, and dropped features")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Half the labeled cross-entropy, and half of three against the labels of the weak view."""
        labeled, unlabeled = batch.both
        seen = self.predicted(batch)
        target = self.pseudo_labels(seen.weak, unlabeled)
        self.note(kept=target.share_kept())
        terms = self.consistencies(target, seen, unlabeled)
        return {"labeled": 0.5 * self.supervise(seen.labeled, labeled, seen.side)} | {
            n: 0.5 * term for n, term in terms.items()
        }

    def predicted(self, batch: Batch) -> Predicted:
        """Run the network on all that the losses read."""
        labeled, unlabeled = batch.both
        student, count = self.student, len(labeled.image)
        maps, side = student.encode_with_side(torch.cat([labeled.image, unlabeled.weak]))
        features = student.decoder(with_dropped(maps, unlabeled.keys, "feature", self.config.drop))
        known, weak, perturbed = features.split([count, len(unlabeled.weak), len(unlabeled.weak)])
        with torch.no_grad():
            target = self.evaluated(unlabeled.weak) if self.config.running_norms else student.head(weak)
        strong = student(torch.cat([view.mixed for view in unlabeled.strong])).chunk(len(unlabeled.strong))
        return Predicted(self.labeled_logits(known, labeled), target, student.head(perturbed), strong, side)

    def consistencies(
        self, target: Target, seen: Predicted, unlabeled: Unlabeled, by_image: bool = False
    ) -> dict[str, Tensor]:
        """Weighted cross-entropies of the three perturbed views with a target on the weak one.

        by_image: whether labels weigh as much as their mean confidence in the image, once it is mixed.
        """

        def cross_entropy(target: Target, logits: Tensor) -> Tensor:
            return (target.weighted_by_image() if by_image else target).cross_entropy(logits)

        return {
            "feature": self.config.feature_weight * cross_entropy(target, seen.perturbed),
            **{
                f"strong{n}": self.config.strong_weight * cross_entropy(target.mixed(view), logits)
                for n, (view, logits) in enumerate(zip(unlabeled.strong, seen.strong, strict=True), 1)
            },
        }
