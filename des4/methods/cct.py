"""CCT: classifiers of perturbed features learn what the main classifier says of the clean ones.

Ouali et al., CVPR 2020, "Semi-supervised semantic segmentation with cross-consistency training", github.com/
yassouali/CCT (MIT, not copied). L = CE(x_l) + w(t) · 1/K Σ_k MSE(softmax aux_k(perturbed_k(h)), softmax main(h)), MSE
a mean over classes, no gradient through main(h); w rises to 30. So the main classifier learns from labels alone, and
encoder and decoder from all. Ours: h are the decoder's embeddings, classifiers are 1×1 convolutions, noise is a
sample's own, and there are neither adversarial directions nor boxes that objects are cut out of.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from des4.methods.base import MethodConfig, Setting
from des4.methods.bases import SingleNetwork
from des4.methods.ingredients.perturb import drop_active, drop_channels, noisy
from des4.methods.ingredients.schedule import sigmoid_ramp
from des4.methods.ingredients.targets import target_of
from des4.types import Batch, ViewSpec

Kind = Literal["drop", "active", "noise", "objects", "context"]


class CCTConfig(MethodConfig):
    """Settings of CCT."""

    name: Literal["cct"] = "cct"
    consistency_weight: float = Field(30.0, ge=0)
    """w, of the squared gap averaged over classes, once it has risen."""
    ramp: float = Field(0.1, ge=0, le=1)
    """Share of the training in which it rises."""
    classifiers: int = Field(2, ge=1)
    """Of each kind of perturbation."""
    background_class: int | None = Field(None, ge=0)
    """Number of the class that is no object, such as 0 of VOC: then objects alone, and all but objects, are two more
    kinds of perturbed features. null: there is none."""


class CCT(SingleNetwork):
    """One network with classifiers beside its own, one for each perturbation."""

    Config = CCTConfig
    config: CCTConfig
    VIEWS = ViewSpec(strong=1)

    def build(self, setting: Setting) -> None:
        """Make the student and the auxiliary classifiers."""
        super().build(setting)
        config, classes = self.config, len(setting.classes)
        setting.check_class("background_class", config.background_class)
        kinds: tuple[Kind, ...] = ("drop", "active", "noise")
        if config.background_class is not None:
            kinds = (*kinds, "objects", "context")
        self.kinds = tuple(kind for kind in kinds for _ in range(config.classifiers))
        self.auxiliary = nn.ModuleList(nn.Conv2d(self.student.decoder.dim, classes, 1) for _ in self.kinds)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy on the labels, and the mean gap of the auxiliary classifiers."""
        labelled, unlabelled = batch.both
        (view,), count = unlabelled.strong, len(labelled.image)
        features, side = self.student.features_with_side(torch.cat([labelled.image, view.mixed]))
        clean, logits = features[count:], self.labelled_logits(features[:count], labelled)
        with torch.no_grad():
            target = target_of(self.student.head(clean).float().softmax(1), unlabelled, view)
        gaps = []
        for number, (kind, classify) in enumerate(zip(self.kinds, self.auxiliary, strict=True)):
            said = classify(self.perturbed(kind, clean, target.probs, unlabelled.keys, f"{kind}{number}"))
            gaps.append(target.squared_gap(said) / said.shape[1])
        weight = self.config.consistency_weight * sigmoid_ramp(self.step, self.config.ramp * self.setting.total_steps)
        return {"labelled": self.supervise(logits, labelled, side), "consistency": weight * torch.stack(gaps).mean()}

    def perturbed(self, kind: Kind, features: Tensor, target: Tensor, keys: Tensor, name: str) -> Tensor:
        """Features (B, D, h, w) with a perturbation. target: (B, C, h, w), the main classifier's distributions."""
        if kind == "drop":
            return drop_channels((features,), keys, name)[0]
        if kind == "active":
            return drop_active(features, keys, name)
        if kind == "noise":
            return noisy(features, keys, name)
        background = self.config.background_class
        assert background is not None  # noqa: S101  # else there is no such kind
        objects = target.argmax(1, keepdim=True).ne(background)
        return features * (objects if kind == "objects" else ~objects).to(features.dtype)
