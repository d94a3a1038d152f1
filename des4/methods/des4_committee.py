"""DeS4 with a committee: several networks learn from labels alone, then stay, and a student learns from their mean.

Ours, after DeS4 (Ding et al., IJCAI 2023), whose teacher decoder learns from labels alone so that no pseudo-label
biases it; its encoder still follows the student. Here whole networks are kept away from pseudo-labels, and there are
several: with few masks, much of what one network gets wrong another does not, the more so where they learnt under
different colours. In the first part of a run
L = CE(S(x_l)) + Σ_k CE(T_k(x_l)), in the second L = CE(S(x_l)) + λ CE(p̄, S(x_u)), where p̄ is the mean of the
committee's distributions on the weak view, sharpened and mixed as x_u is, by ClassMix, rare classes first. The
committee is the T_k and the average that S had at the end of part one.
"""

from __future__ import annotations

import itertools
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from des4.methods.base import Outline, Setting
from des4.methods.bases import TeacherStudent, TeacherStudentConfig, labeled_logits
from des4.methods.ingredients.classmix import class_mixed
from des4.methods.ingredients.targets import averaged_target
from des4.models.ensemble import Ensemble
from des4.models.memory import PrototypeFeed
from des4.models.segmenter import Segmenter
from des4.ops.tail import tail_classes
from des4.types import Batch, Factor, Labeled, Unlabeled, ViewSpec


class DeS4CommitteeConfig(TeacherStudentConfig):
    """Settings of DeS4 with a committee. `momentum` is that of the student's average while it follows."""

    name: Literal["des4_committee"] = "des4_committee"
    networks: int = Field(3, ge=1)
    """Of the committee: the student's average and others, each with a decoder from a random start of its own. The first
    of the others sees labeled images in the colours of `french`, the next in those of `unimatch`, the third as the
    student does, and so round."""
    labels_alone: float = Field(0.75, gt=0, lt=1)
    """Share of the run that learns from labels alone: the first part. The learning rate begins anew after it."""
    unlabeled_weight: float = Field(1.5, ge=0)
    """λ, of what the committee says of unlabeled images."""
    sharpening: float = Field(0.5, ge=0, le=1)
    """T: the student learns the committee's mean raised to the power of 1/T. 1: the mean as it is; 0: its most probable
    class alone."""
    classmix: float = Field(0.75, ge=0, le=1)
    """Probability with which half of the classes of another image, and one more, are pasted onto an unlabeled one
    (ClassMix)."""
    rare_first: bool = True
    """Whether rare classes are pasted before all others: those of the tail, by their labeled pixels. Else all alike."""
    pseudo_label_scales: tuple[Factor, ...] = Field((1.0,), min_length=1)
    """The committee sees the weak view resized by each of these factors, and the mean counts."""
    pseudo_label_mirror: bool = False
    """At each of these scales, it sees the mirror image too."""


class DeS4Committee(TeacherStudent):
    """A student, its average, and other networks that learn beside it from labels alone.

    The average is called `teacher`. Gradients reach the others in the first part alone, and the student in both.
    """

    Config = DeS4CommitteeConfig
    config: DeS4CommitteeConfig
    VIEWS = ViewSpec(strong=1, recoloured=("french", "unimatch"), neighbours=True)
    OUTLINE = Outline(
        "student, and other networks in the first part",
        "the student's average and the others, as they are after the first part",
        "view with classes of another image (ClassMix)",
    )
    NOT_DECOUPLED = "lets its networks learn from labels alone while the average follows"
    rare: Tensor

    def build(self, setting: Setting) -> None:
        """Make the student, its average and the others."""
        super().build(setting)
        number = self.config.networks - 1
        self.others = nn.ModuleList(setting.another("linear") for _ in range(number))
        self.other_feeds = nn.ModuleList(self.make_feed() for _ in range(number))
        self.rests = number > 0
        rare = tail_classes(setting.pixel_counts) if self.config.rare_first else []
        self.register_buffer("rare", setting.class_mask("rare_first", rare), persistent=False)

    @property
    def learners(self) -> dict[str, Segmenter]:
        """The student and the others."""
        return {**super().learners, **{f"other{number}": other for number, (other, _) in enumerate(self._fed)}}

    @property
    def restarts(self) -> tuple[int, ...]:
        """Where the second part begins; each of the two has a step at least, where there are two."""
        total = self.setting.total_steps
        return (max(1, min(round(self.config.labels_alone * total), total - 1)),)

    @property
    def reads_unlabeled_from(self) -> int:
        """Where the second part begins."""
        return self.restarts[0]

    @property
    def averaged_steps(self) -> int:
        """All: the student's average follows in the first part."""
        return self.step

    @property
    def on_labels_alone(self) -> bool:
        """Whether this step is of the first part."""
        return self.step < self.reads_unlabeled_from

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of the part that this step is of."""
        self.others.train(self.training and self.on_labels_alone)
        return self._on_labels_alone(batch.labeled) if self.on_labels_alone else self._on_both(*batch.both)

    def _on_labels_alone(self, labeled: Labeled) -> dict[str, Tensor]:
        """Cross-entropies on the labels, of the student and of the others."""
        features, side = self.student.features_with_side(labeled.image)
        terms = {"student/labeled": self.supervise(self.labeled_logits(features, labeled), labeled, side)}
        if len(self.others):
            terms["others/labeled"] = torch.stack(self._others_losses(labeled)).sum()
        return terms

    def _on_both(self, labeled: Labeled, unlabeled: Unlabeled) -> dict[str, Tensor]:
        """Cross-entropies of the student, on the labels and with the committee's mean."""
        (view,), config, count = unlabeled.strong, self.config, len(labeled.image)
        scales, mirror = config.pseudo_label_scales, config.pseudo_label_mirror
        mean = averaged_target(self._committee, unlabeled, scales, mirror)
        self.note(confidence=mean.mean_confidence())
        target = mean.sharpened(config.sharpening).mixed(view)
        classes, keys = len(self.rare), unlabeled.keys
        image, target = class_mixed(view, target, classes, keys, "mix", config.classmix, first=self.rare)
        features, side = self.student.features_with_side(torch.cat([labeled.image, image]))
        known = self.labeled_logits(features[:count], labeled)
        return {
            "student/labeled": self.supervise(known, labeled, side),
            "student/unlabeled": config.unlabeled_weight * target.cross_entropy(self.student.head(features[count:])),
        }

    @property
    def _fed(self) -> list[tuple[Segmenter, PrototypeFeed]]:
        """The others, each with what feeds its prototypes, if it has some."""
        return list(zip(self.others, self.other_feeds, strict=True))  # type: ignore[arg-type]

    def _others_losses(self, labeled: Labeled) -> list[Tensor]:
        """Cross-entropy of each of the others on the labels, under colours of its own."""
        views, losses = itertools.cycle([*labeled.recoloured, labeled.image]), []
        for number, (other, feed) in enumerate(self._fed):
            features, side = other.features_with_side(next(views))
            logits = labeled_logits(other.head, feed, features, labeled)
            losses.append(self.supervise(logits, labeled, side, f"other{number}"))
        return losses

    @property
    def _committee(self) -> list[nn.Module]:
        """Its networks."""
        return [self.teacher, *self.others]

    def after_step(self) -> None:
        """In the first part, move the average and the prototypes of the others, if any; then they stay."""
        if self.on_labels_alone:
            for other, feed in self._fed:
                self.move_prototypes(other.head, feed)
        super().after_step()

    @property
    def follows(self) -> bool:
        """Whether the average still follows the student."""
        return self.on_labels_alone

    def predictors(self) -> dict[str, Segmenter]:
        """The student first, who learns from all of them; the average shows what the committee began with."""
        return {"student": self.student, "teacher": self.teacher}

    def pseudo_labeler(self) -> tuple[str, nn.Module]:
        """The committee's mean, once it teaches."""
        return super().pseudo_labeler() if self.on_labels_alone else ("committee", Ensemble(self._committee))
