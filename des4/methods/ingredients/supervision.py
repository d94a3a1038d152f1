"""The one way from logits to a cross-entropy, against labels and hard pseudo-labels, for every method.

So what a user sets in the section `supervision` holds for any of them: logit adjustment (Menon et al., ICLR 2021,
arxiv.org/abs/2007.07314), class weights, focal loss (Lin et al., ICCV 2017, arxiv.org/abs/1708.02002) and OHEM
(Shrivastava et al., CVPR 2016, arxiv.org/abs/1604.03540). By default nothing is changed. Distribution alignment, which
is of targets and not of losses, and the weight of auxiliary heads (`models/heads/auxiliary.py`) are set in the same
section.
"""

from __future__ import annotations

from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from des4.losses import cross_entropy, hard_cross_entropy, kept_cross_entropy, reweighted_cross_entropy
from des4.ops.prior import class_prior, class_weights
from des4.types import Config, Labeled

TINY = torch.finfo(torch.float32).tiny


class SupervisionConfig(Config):
    """What cross-entropies do about rare classes and easy pixels, in any method; see [imbalance](imbalance.md)."""

    logit_adjustment: float = Field(0.0, ge=0)
    """τ. Inside cross-entropies, the logit of a class is raised by τ · log(its share of the labeled pixels), so that a
    rare class has to win by more. Hard pseudo-labels are made of adjusted logits too [ours]. Predictions are made of
    raw ones. 1 in the paper; 0: off."""
    class_weighting: float = Field(0.0, ge=0, le=1)
    """Power. In cross-entropies on labels and pseudo-labels, a pixel has the weight (share of its class)^-power, scaled
    to a mean of 1 over the labeled pixels. 0.5: inverse root, 1: inverse frequency; 0: off."""
    focal_gamma: float = Field(0.0, ge=0)
    """γ. A labeled pixel has the weight (1 - probability of its class)^γ. 2 in the paper; 0: off."""
    ohem_threshold: float | None = Field(None, gt=0, le=1)
    """Of the labeled pixels, only those whose class has at most this probability count, but never fewer than
    `ohem_min_share`. 0.7 in the published trainings on Cityscapes; `null`: all pixels count."""
    ohem_min_share: float = Field(0.085, gt=0, le=1)
    """Least share of the labeled pixels that counts: the hardest ones [ours: published codes state a number, such as
    100,000 of two crops of 769, which is this share]."""
    distribution_alignment: float = Field(0.0, ge=0, le=1)
    """Power. Before predictions on unlabeled images become targets, each class is multiplied by (its labeled share /
    its predicted share)^power. 1 in the paper; 0: off."""
    alignment_momentum: float = Field(0.99, ge=0, lt=1)
    """Momentum of the running mean of the predicted shares, per step; it starts warm [ours]."""
    auxiliary_weight: float = Field(0.0, ge=0)
    """Weight of an auxiliary head: in training, a second classifier reads the encoder's stage before last, and its
    cross-entropy on labels is added. 0.4 in the published trainings; 0: there is no head."""

    @model_validator(mode="after")
    def _one_choice_of_pixels(self) -> Self:
        if self.focal_gamma and self.ohem_threshold is not None:
            raise ValueError("focal_gamma and ohem_threshold both favour hard pixels; set one of them")
        return self


class Supervision(nn.Module):
    """Cross-entropies under a user's settings. pixel_counts: (C,) labeled pixels of each class."""

    shift: Tensor
    weight: Tensor

    def __init__(self, config: SupervisionConfig, pixel_counts: Tensor) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("shift", config.logit_adjustment * class_prior(pixel_counts).log(), persistent=False)
        self.register_buffer("weight", class_weights(pixel_counts, config.class_weighting), persistent=False)

    def adjusted(self, logits: Tensor) -> Tensor:
        """Logits (B, C, h, w) as a cross-entropy is to see them: raised by τ · log prior."""
        return logits.float() + self.shift[:, None, None] if self.config.logit_adjustment else logits

    def adjusted_probs(self, probs: Tensor) -> Tensor:
        """Distributions (B, C, h, w) of raw logits, as they would be of adjusted ones: in proportion to p · prior^τ."""
        if not self.config.logit_adjustment:
            return probs
        raised: Tensor = probs * self.shift.exp()[:, None, None]
        return raised / raised.sum(1, keepdim=True).clamp_min(TINY)

    def on_labels(self, logits: Tensor, labeled: Labeled) -> Tensor:
        """Cross-entropy of logits (B, C, h, w) against the labels, a scalar."""
        config, logits, weight = self.config, self.adjusted(logits), self._weight()
        if config.ohem_threshold is None:
            return cross_entropy(
                logits, labeled.label, labeled.pixels, class_weights=weight, focal_gamma=config.focal_gamma
            )
        return hard_cross_entropy(
            logits,
            labeled.label,
            labeled.pixels,
            threshold=config.ohem_threshold,
            min_share=config.ohem_min_share,
            class_weights=weight,
        )

    def on_labels_reweighted(self, logits: Tensor, labeled: Labeled) -> Tensor:
        """Cross-entropy of logits (B, C, h, w) whose pixels have weights of their own (DeS4, eqs. 7-8), a scalar.

        Of the settings, the logit adjustment alone holds for it.
        """
        return reweighted_cross_entropy(self.adjusted(logits), labeled.label)

    def on_pseudo_labels(
        self,
        logits: Tensor,
        label: Tensor,
        keep: Tensor,
        valid: Tensor,
        pixels: Tensor | None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """Cross-entropy of logits (B, C, h, w) against pseudo-labels on kept pixels, over all valid ones, a scalar.

        weight: (B, H, W), of each pixel; None = 1. The logits are adjusted as on labels, and the pseudo-labels have to
        be made of adjusted ones: then both losses see one and the same network, which says how frequent classes are.
        Labels made of raw logits and learnt under the adjustment would favour rare classes more with each step.
        """
        return kept_cross_entropy(
            self.adjusted(logits), label, keep, valid, pixels, class_weights=self._weight(), weight=weight
        )

    def _weight(self) -> Tensor | None:
        return self.weight if self.config.class_weighting else None
