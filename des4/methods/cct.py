"""CCT: classifiers of perturbed features learn what the main classifier says of the clean ones.

Ouali et al., CVPR 2020, "Semi-supervised semantic segmentation with cross-consistency training", github.com/
yassouali/CCT (MIT, not copied). L = CE(x_l) + w(t) · 1/K Σ_k MSE(softmax aux_k(perturbed_k(h)), softmax main(h)), MSE
a mean over classes, no gradient through main(h); w rises to 30. So the main classifier learns from labels alone, and
encoder and decoder from all. Ours: h are the decoder's embeddings, classifiers are 1×1 convolutions, and noise is a
sample's own.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from des4.methods.base import MethodConfig, Outline, Setting
from des4.methods.bases import SingleNetwork
from des4.methods.ingredients.adversary import against
from des4.methods.ingredients.perturb import drop_active, drop_channels, holes_in_objects, noisy
from des4.methods.ingredients.schedule import sigmoid_ramp
from des4.methods.ingredients.targets import SoftTarget, target_of
from des4.types import Batch, ViewSpec

Kind = Literal["drop", "active", "noise", "adversarial", "objects", "context", "cutout"]


class CCTConfig(MethodConfig):
    """Settings of CCT."""

    name: Literal["cct"] = "cct"
    consistency_weight: float = Field(30.0, ge=0)
    """w, of the squared gap averaged over classes, once it has risen."""
    ramp: float = Field(0.1, ge=0, le=1)
    """Share of the training in which it rises."""
    classifiers: int = Field(2, ge=1)
    """Of each kind of perturbation."""
    radius: float = Field(2.0, gt=0)
    """Length of the adversarial change of an image's features."""
    background_class: int | None = Field(None, ge=0)
    """Number of the class that is no object, such as 0 of VOC: then objects alone, all but objects, and objects with
    holes are three more kinds of perturbed features. `null`: there is none."""


class CCT(SingleNetwork):
    """One network with classifiers beside its own, one for each perturbation."""

    Config = CCTConfig
    config: CCTConfig
    VIEWS = ViewSpec(strong=1)
    OUTLINE = Outline("one network with several classifiers", "its main classifier", "same view, perturbed features")

    def build(self, setting: Setting) -> None:
        """Make the student and the auxiliary classifiers."""
        super().build(setting)
        config, classes = self.config, len(setting.classes)
        setting.check_class("background_class", config.background_class)
        kinds: tuple[Kind, ...] = ("drop", "active", "noise", "adversarial")
        if config.background_class is not None:
            kinds = (*kinds, "objects", "context", "cutout")
        self.kinds = tuple(kind for kind in kinds for _ in range(config.classifiers))
        self.auxiliary = nn.ModuleList(nn.Conv2d(self.student.decoder.dim, classes, 1) for _ in self.kinds)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy on the labels, and the mean gap of the auxiliary classifiers."""
        labeled, unlabeled = batch.both
        (view,), count = unlabeled.strong, len(labeled.image)
        features, side = self.student.features_with_side(torch.cat([labeled.image, view.mixed]))
        clean, logits = features[count:], self.labeled_logits(features[:count], labeled)
        with torch.no_grad():
            target = target_of(self.student.head(clean).float().softmax(1), unlabeled, view)
        gaps = []
        for number, (kind, classify) in enumerate(zip(self.kinds, self.auxiliary, strict=True)):
            said = classify(self.perturbed(kind, clean, target, unlabeled.keys, f"{kind}{number}", classify))
            gaps.append(target.squared_gap(said) / said.shape[1])
        weight = self.config.consistency_weight * sigmoid_ramp(self.step, self.config.ramp * self.setting.total_steps)
        return {"labeled": self.supervise(logits, labeled, side), "consistency": weight * torch.stack(gaps).mean()}

    def perturbed(
        self, kind: Kind, features: Tensor, target: SoftTarget, keys: Tensor, name: str, classify: nn.Module
    ) -> Tensor:
        """Features (B, D, h, w) with a perturbation. target: what the main classifier says. classify: the other one."""
        if kind == "drop":
            return drop_channels((features,), keys, name)[0]
        if kind == "active":
            return drop_active(features, target.valid, keys, name)
        if kind == "noise":
            return noisy(features, keys, name)
        if kind == "adversarial":
            return against(classify, features, target.valid, keys, name, self.config.radius)
        background = self.config.background_class
        assert background is not None  # noqa: S101  # else there is no such kind
        objects = target.probs.argmax(1).ne(background)
        if kind == "cutout":
            objects = ~holes_in_objects(objects & target.valid, keys, name)
        return features * (~objects if kind == "context" else objects)[:, None].to(features.dtype)
