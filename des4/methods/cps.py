"""Cross pseudo supervision: two networks, each learns the other's labels of the unlabeled images.

Chen et al., CVPR 2021, "Semi-supervised semantic segmentation with cross pseudo supervision", with CutMix as in its
tables, github.com/charlesCXK/TorchSemiSeg (MIT, not copied). L = CE(z1, y) + CE(z2, y) + λ [CE(z1, ŷ2) + CE(z2, ŷ1)],
the last two on mixed images, labels taken from unmixed ones in train mode; hard labels, no threshold. Differs: the
partner of the three boxes is the next sample (there: a second batch), and labeled and mixed images go through a
network in one pass (there: two).
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from des4.methods.base import Outline
from des4.methods.bases import OwnLabelsConfig, TwoNetworks, labeled_logits
from des4.types import Batch, ViewSpec


class CPSConfig(OwnLabelsConfig):
    """Settings of cross pseudo supervision."""

    name: Literal["cps"] = "cps"
    unlabeled_weight: float = Field(1.0, ge=0)
    """λ, of both cross terms; with CutMix 1 on VOC and 5 on Cityscapes in the published code."""


class CPS(TwoNetworks):
    """Two networks of the same architecture, whose decoders start from different random weights."""

    Config = CPSConfig
    config: CPSConfig
    VIEWS = ViewSpec(strong=1, cutmix="cps")
    OUTLINE = Outline("two networks", "each the other's", "mixed view")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """For each network, the cross-entropy on labels, and on the other's labels of the mixed images."""
        labeled, unlabeled = batch.both
        (view,), count = unlabeled.strong, len(labeled.image)
        with self.labeling(self.student, self.peer, running_norms=self.config.running_norms):
            by_student, by_peer = (
                self.pseudo_labels(network(unlabeled.weak), unlabeled).mixed(view)
                for network in (self.student, self.peer)
            )
        images, terms = torch.cat([labeled.image, view.mixed]), {}
        learners = {"student": (self.student, self.feed, by_peer), "peer": (self.peer, self.peer_feed, by_student)}
        for name, (network, feed, target) in learners.items():
            features, side = network.features_with_side(images)
            logits = labeled_logits(network.head, feed, features[:count], labeled)
            terms[f"{name}/labeled"] = self.supervise(logits, labeled, side, name)
            cross = target.cross_entropy(network.head(features[count:]))
            terms[f"{name}/unlabeled"] = self.config.unlabeled_weight * cross
        agreement = (by_student.label == by_peer.label) & by_peer.valid
        self.note(agreement=agreement.sum() / by_peer.valid.sum().clamp_min(1))
        return terms
