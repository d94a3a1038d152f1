"""DeS4: a decoder of the teacher trained alone on labels, and prototypes shared with the student.

Ding et al., "Decoupling with Entropy-based Equalization for Semi-Supervised Semantic Segmentation", IJCAI 2023; no
official code was found. Equations are cited where they act; docs/paper.md maps all of them and says which decisions
are ours.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from des4.methods.base import Method, MethodConfig, Outline, Setting
from des4.methods.ingredients.decoupled import decoded_alone
from des4.methods.ingredients.targets import Target
from des4.models.heads.prototypes import PrototypeClassifier
from des4.models.memory import Sampling
from des4.models.segmenter import Segmenter
from des4.models.training.ema import follow, warm_momentum
from des4.types import Batch, ConfigError, Labeled, Unlabeled, ViewSpec

Mode = Literal["train", "eval"]


class DeS4Config(MethodConfig):
    """Settings of DeS4. [paper]: stated there; [ours]: decided here, the paper is silent; see [paper](paper.md)."""

    name: Literal["des4"] = "des4"
    decoupled: bool = True
    """Train the teacher's decoder on labels (table 3, D.T.). `false`: it follows the student by EMA and L_ub is
    dropped: mean teacher + CutMix with the prototype classifier, the paper's semi-supervised baseline."""
    shared_head: bool = True
    """One set of prototypes P for student and teacher (table 3, S.H.). `false`: one each, the student's fed by student
    features."""
    pixel_reweighting: bool = True
    """Weights of eq. 7 in L_ub (table 3, P.R.). `false`: plain cross-entropy."""
    sampling: Sampling = "multi_entropy"
    """Which labeled pixels move the prototypes (table 4); `all` does not balance."""
    labeled_weight: float = Field(1.0, ge=0)
    """λ1 of eq. 4 [paper]."""
    unlabeled_weight: float = Field(1.5, ge=0)
    """λ2 of eq. 4 [paper]."""
    unlabeled_ramp_steps: int = Field(0, ge=0)
    """λ2 rises linearly from 0 over these first steps, while a teacher that has learnt nothing would teach noise;
    the paper names no ramp [ours]."""
    encoder_momentum: float = Field(0.99, ge=0, lt=1)
    """τ1 of eq. 5 [paper]."""
    encoder_warm_start: bool = True
    """Momentum min(1 - 1/(t + 1), τ1) instead of τ1 [ours]."""
    threshold: float = Field(0.0, ge=0, le=1)
    """Confidence a pseudo-label needs; the paper names none [ours]."""
    teacher_start: Literal["copy", "fresh"] = "copy"
    """The teacher's decoder starts as a `copy` of the student's, or with `fresh` random weights of its own [ours]."""
    teacher_encoder_mode: Mode = "eval"
    """BatchNorm of the teacher's encoder: running statistics (`eval`) or the batch's own (`train`) [ours]."""
    teacher_encoder_buffers: Literal["ema", "copy"] = "ema"
    """How BatchNorm statistics of the teacher's encoder follow the student's: as its weights do, or as a copy
    [ours]."""
    teacher_decoder_mode: Mode = "train"
    """BatchNorm of the teacher's decoder in L_ub [ours]."""
    pseudo_label_mode: Mode = "eval"
    """BatchNorm of the teacher's decoder for pseudo-labels [ours]."""
    evaluated: Literal["teacher", "student"] = "teacher"
    """The headline model; both are scored [ours]."""


class DeS4(Method):
    """Student S = D_s∘E_s and teacher T = D_t∘E_t under prototypes P.

    Gradients reach E_s and D_s through L_b and L_u, and D_t through L_ub alone; E_t and P never get one.
    """

    Config = DeS4Config
    config: DeS4Config
    VIEWS = ViewSpec(strong=1, cutmix="reco")
    OUTLINE = Outline(
        "student and the teacher's decoder",
        "encoder: moving average; decoder: trained on labels",
        "mixed view",
    )

    def build(self, setting: Setting) -> None:
        """Make student and teacher, which share the prototypes, and what feeds these."""
        config = self.config
        self.student = setting.make_segmenter("prototype")
        self.teacher = setting.make_segmenter("prototype")
        if not isinstance(self.student.head, PrototypeClassifier):
            raise ConfigError(
                "model.head: des4 classifies by prototypes; set model.head=auto, or take a method that can be linear"
            )
        self.teacher.encoder.load_state_dict(self.student.encoder.state_dict())
        self.teacher.head.load_state_dict(self.student.head.state_dict())
        if config.teacher_start == "copy" or not config.decoupled:
            self.teacher.decoder.load_state_dict(self.student.decoder.state_dict())
        if config.shared_head:
            self.teacher.head = self.student.head
        self.feed, self.student_feed = self.make_feed(), self.make_feed()
        self.FROZEN = ("teacher.encoder",) if config.decoupled else ("teacher",)

    @property
    def learners(self) -> dict[str, Segmenter]:
        """The student; the teacher's encoder learns nothing."""
        return {"student": self.student}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of eq. 4."""
        labeled, unlabeled = batch.both
        config = self.config
        pseudo, teacher_logits = self._teach(labeled, unlabeled)
        student_logits, mixed_logits, side = self._study(labeled, unlabeled)
        ramp = min(1.0, self.step / config.unlabeled_ramp_steps) if config.unlabeled_ramp_steps else 1.0
        terms = {
            "student/labeled": config.labeled_weight * self.supervise(student_logits, labeled, side),  # eq. 1
            "student/unlabeled": ramp * config.unlabeled_weight * pseudo.cross_entropy(mixed_logits),  # eq. 3
        }
        if config.decoupled:
            terms["teacher/labeled"] = (
                self.supervision.on_labels_reweighted(teacher_logits, labeled)  # eqs. 7-8
                if config.pixel_reweighting
                else self.supervise(teacher_logits, labeled)  # eq. 2
            )
        self.note(confidence=pseudo.mean_confidence())
        return terms

    def _teach(self, labeled: Labeled, unlabeled: Unlabeled) -> tuple[Target, Tensor]:
        """Run the teacher: its mixed pseudo-labels, and its logits on labeled images, for L_ub and the prototypes.

        The encoder sees both batches in one pass, without gradient: this is where L_ub is cut off from it.
        """
        config, teacher, count = self.config, self.teacher, len(labeled.image)
        teacher.encoder.train(self.training and config.teacher_encoder_mode == "train")
        with torch.no_grad():
            maps = teacher.encode(torch.cat([labeled.image, unlabeled.weak]))
            teacher.decoder.train(self.training and config.pseudo_label_mode == "train")
            logits = teacher.head(teacher.decoder(tuple(each[count:] for each in maps)))
            pseudo = self.pseudo_labels(logits, unlabeled).mixed(unlabeled.strong[0])
        train = self.training and config.decoupled and config.teacher_decoder_mode == "train"
        with torch.set_grad_enabled(config.decoupled and torch.is_grad_enabled()):
            features, logits = decoded_alone(teacher, tuple(each[:count] for each in maps), train)
        self.feed.collect(features, logits, labeled.label)
        return pseudo, logits

    def _study(self, labeled: Labeled, unlabeled: Unlabeled) -> tuple[Tensor, Tensor, Tensor | None]:
        """Run the student once on labeled and mixed images; return the logits of each, and what an auxiliary head
        reads.
        """
        features, side = self.student.features_with_side(torch.cat([labeled.image, unlabeled.strong[0].mixed]))
        logits = self.student.head(features)
        count = len(labeled.image)
        if not self.config.shared_head:
            self.student_feed.collect(features[:count], logits[:count], labeled.label)
        return logits[:count], logits[count:], side

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the teacher's encoder (eq. 5), or all of it without decoupling; then the prototypes (eq. 12)."""
        config, student, teacher = self.config, self.student, self.teacher
        momentum = (
            warm_momentum(config.encoder_momentum, self.step) if config.encoder_warm_start else config.encoder_momentum
        )
        follow(teacher.encoder, student.encoder, momentum, config.teacher_encoder_buffers)
        if not config.decoupled:
            follow(teacher.decoder, student.decoder, momentum, config.teacher_encoder_buffers)
        self.move_prototypes(teacher.head, self.feed)
        self.move_prototypes(student.head, self.student_feed)
        super().after_step()

    def predictors(self) -> dict[str, Segmenter]:
        """Teacher and student, the headline first."""
        models = {"teacher": self.teacher, "student": self.student}
        return dict(sorted(models.items(), key=lambda item: item[0] != self.config.evaluated))

    def pseudo_labeler(self) -> tuple[str, nn.Module]:
        """The teacher, whichever of the two is the headline."""
        return "teacher", self.teacher

    def stats(self) -> dict[str, Tensor]:
        """The last step's confidence, and how far the prototypes are spread: their mean cosine to one another."""
        prototypes: Tensor = self.teacher.head.prototypes  # type: ignore[assignment]
        count = len(prototypes)
        cosines = prototypes @ prototypes.T
        return {**super().stats(), "prototype_cosine": (cosines.sum() - cosines.trace()) / max(count * (count - 1), 1)}
