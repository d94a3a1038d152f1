"""UCC, a reconstruction: two heads on one encoder label for each other, and rare classes are pasted everywhere.

Fan et al., CVPR 2022, "UCC: uncertainty guided cross-head co-training for semi-supervised semantic segmentation"; no
code or formulas were at hand. L = Σ_i CE(z_i(x_l), y) + λ Σ_i mean(e^-V_j CE(z_i(x_s), ŷ_j)), j ≠ i, ŷ_j of the weak
view, V_j = KL(p_j(x_w) || p_j(x_s)). Pixels of drawn labeled classes are pasted onto labeled and strong images, c in
proportion to e^(1 - v_c), v_c the average of p_c where c is labeled. Ours: λ, boxes and colours as in CPS and
UniMatch, and all that docs/methods/ucc.md calls a guess.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from des4.losses import pixel_divergence
from des4.methods.base import Outline, Setting
from des4.methods.bases import OwnLabelsConfig, SingleNetwork, labeled_logits
from des4.methods.ingredients.classmix import classes_present
from des4.methods.ingredients.injection import in_order, injected
from des4.methods.ingredients.pasting import PastingConfig, paste_classes, pixels_of
from des4.methods.ingredients.targets import Target, pixel_probs, target_of
from des4.models.memory import ClassConfidence, PrototypeFeed
from des4.ops.noise import bernoulli, uniform
from des4.ops.reduce import mean_over
from des4.ops.resize import upsample
from des4.ops.sampling import weighted_draw
from des4.types import Batch, Labeled, ViewSpec


class UCCConfig(PastingConfig, OwnLabelsConfig):
    """Settings of cross-head co-training; all numbers are guesses."""

    name: Literal["ucc"] = "ucc"
    unlabeled_weight: float = Field(1.0, ge=0)
    """λ, of both cross terms; 5 on Cityscapes [those of CPS]."""
    detached: bool = True
    """Whether e^-V is a mere weight [ours]. Else gradients go through it, and the mean of V is added, lest V grow."""


class UCC(SingleNetwork):
    """A network, a second decoder and classifier on its encoder, and a memory of how well each class is predicted."""

    Config = UCCConfig
    config: UCCConfig
    RECONSTRUCTION = True
    VIEWS = ViewSpec(strong=1, cutmix="cps", photometric="unimatch", donor_scale=(1.0, 1.0))
    OUTLINE = Outline(
        "one encoder with two heads",
        "each head the other, on the weak view",
        "mixed view with labeled pixels of badly predicted classes",
    )
    never_pasted: Tensor

    def build(self, setting: Setting) -> None:
        """Make the network, the second head, which starts from other random weights, and the memory."""
        super().build(setting)
        other = setting.another("linear")
        self.peer_decoder, self.peer_head = other.decoder, other.head
        self.peer_feed = self.make_feed()
        never = setting.class_mask("never_pasted", self.config.never_pasted)
        self.register_buffer("never_pasted", never, persistent=False)
        self.confidence = ClassConfidence(len(setting.classes), self.config.confidence_momentum)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """For each head, the cross-entropy on labels, and on the other's labels of the strong view."""
        plain, unlabeled = batch.both
        (view,), count, terms, known, logits = unlabeled.strong, len(plain.image), {}, [], []
        with self.labeling(self.student, self.peer_decoder, self.peer_head, running_norms=self.config.running_norms):
            assert plain.donor is not None  # noqa: S101  # the loader follows the ViewSpec
            labeled = paste_classes(plain, self.chosen(plain.donor, plain.keys))
            source = in_order(plain, len(unlabeled.weak))
            box = pixels_of(source, self.chosen(source, unlabeled.keys)) & unlabeled.valid
            maps = self.student.encode(unlabeled.weak)
            probs = [pixel_probs(classify(decode(maps)), unlabeled.valid) for decode, classify, _ in self._heads]
            said = (target_of(each, unlabeled).hardened(0.0, self.supervision) for each in probs)
            (image, _), targets = zip(*(injected(view.image, each, plain, box) for each in said), strict=True)
        maps, side = self.student.encode_with_side(torch.cat([labeled.image, view.mix(image)]))
        sides = (side, None)  # one encoder, one auxiliary head
        for name, (decode, classify, feed), own_side in zip(("first", "second"), self._heads, sides, strict=True):
            features = decode(maps)
            known.append(labeled_logits(classify, feed, features[:count], labeled))
            logits.append(classify(features[count:]))
            terms[f"{name}/labeled"] = self.supervise(known[-1], labeled, own_side)
        self.confidence.collect(self.supervision.adjusted(known[0]), labeled.label)
        for name, own, other in (("first", 0, 1), ("second", 1, 0)):
            loss = self.rectified(targets[other].mixed(view), view.mix(probs[other]), logits[other], logits[own])
            terms[f"{name}/unlabeled"] = self.config.unlabeled_weight * loss
        self.note(confidence=self.confidence.values.mean(), pasted=mean_over(box, unlabeled.valid))
        return terms

    @property
    def _heads(self) -> tuple[tuple[nn.Module, nn.Module, PrototypeFeed], ...]:
        return (self.student.decoder, self.student.head, self.feed), (self.peer_decoder, self.peer_head, self.peer_feed)

    def rectified(self, labels: Target, probs: Tensor, logits: Tensor, learner: Tensor) -> Tensor:
        """Cross-entropy of the learner's logits (B, C, h, w) with another head's labels, where that one is constant.

        probs, logits: what the other head says of the weak view, mixed, and of the strong one. Pasted labels weigh 1.
        """
        strong = upsample(self.supervision.adjusted(logits).float(), (labels.label.shape[-2], labels.label.shape[-1]))
        gap = pixel_divergence(strong, self.supervision.adjusted_probs(probs))
        gap = torch.where(labels.confidence >= 0, gap.detach() if self.config.detached else gap, 0.0)
        loss = labels.weighted((-gap).exp()).cross_entropy(learner)
        return loss if self.config.detached else loss + mean_over(gap * labels.keep, labels.valid, labels.pixels)

    def chosen(self, source: Labeled, keys: Tensor) -> Tensor:
        """Classes of labeled images whose pixels are pasted, (B, C) bool; none of some images."""
        wanted = (1 - self.confidence.values).exp() * ~self.never_pasted
        there = classes_present(source.label, source.valid, len(wanted))
        drawn = weighted_draw(wanted * there, uniform(keys, wanted.shape, "classes"), self.config.pasted_classes)
        return drawn & bernoulli(keys, (1,), "pasted", self.config.paste)

    def after_step(self) -> None:
        """Move the memory and the prototypes, if any."""
        self.confidence.commit()
        self.move_prototypes(self.peer_head, self.peer_feed)
        super().after_step()
