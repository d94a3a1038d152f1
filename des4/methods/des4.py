"""DeS4: a decoder of the teacher trained alone on labels, and prototypes shared with the student.

Ding et al., "Decoupling with Entropy-based Equalization for Semi-Supervised Semantic Segmentation", IJCAI 2023; no
official code was found. Equations are cited where they act; docs/paper.md maps all of them and says which decisions
are ours.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from des4.losses import reweighted_cross_entropy
from des4.methods.base import Method, Setting
from des4.methods.ingredients.targets import SoftTarget, Target, averaged_target
from des4.models.ema import follow, warm_momentum
from des4.models.memory import PrototypeFeed, Sampling
from des4.models.prototypes import PrototypeClassifier
from des4.models.segmenter import Segmenter
from des4.ops.prior import class_prior
from des4.types import Batch, Config, ConfigError, Labelled, Unlabelled, ViewSpec

Mode = Literal["train", "eval"]
Factor = Annotated[float, Field(gt=0, le=4)]


class DeS4Config(Config):
    """Settings of DeS4. [paper]: stated there; [ours]: our decision where the paper is silent."""

    name: Literal["des4"] = "des4"
    decoupled: bool = True
    """Train the teacher's decoder on labels (table 3, D.T.). False: it follows the student by EMA and L_ub is
    dropped: mean teacher + CutMix with the prototype classifier, the paper's semi-supervised baseline."""
    shared_head: bool = True
    """One P for student and teacher (table 3, S.H.). False: one each, the student's fed by student features."""
    pixel_reweighting: bool = True
    """Weights of eq. 7 in L_ub (table 3, P.R.). False: plain cross-entropy."""
    sampling: Sampling = "multi_entropy"
    """Which labelled pixels move the prototypes (table 4); `all` does not balance."""
    zones: int = Field(5, ge=1)
    """k, entropy zones a class [paper]."""
    alpha: float = Field(0.1, gt=0)
    """α of eq. 11 [paper]."""
    labelled_weight: float = Field(1.0, ge=0)
    """λ1 of eq. 4 [paper]."""
    unlabelled_weight: float = Field(1.5, ge=0)
    """λ2 of eq. 4 [paper]."""
    unlabelled_ramp_steps: int = Field(0, ge=0)
    """λ2 rises linearly from 0 over these first steps, while a teacher that has learnt nothing would teach noise;
    the paper names no ramp [ours]."""
    encoder_momentum: float = Field(0.99, ge=0, lt=1)
    """τ1 of eq. 5 [paper]."""
    encoder_warm_start: bool = True
    """Momentum min(1 - 1/(t + 1), τ1) instead of τ1 [ours]."""
    threshold: float = Field(0.0, ge=0, le=1)
    """Confidence a pseudo-label needs; the paper names none [ours]."""
    teacher_start: Literal["copy", "fresh"] = "copy"
    """The teacher's decoder starts as a copy of the student's, or with its own random weights [ours]."""
    teacher_encoder_mode: Mode = "eval"
    """BatchNorm of the teacher's encoder: running statistics or the batch's own [ours]."""
    teacher_encoder_buffers: Literal["ema", "copy"] = "ema"
    """How BatchNorm statistics of the teacher's encoder follow the student's [ours]."""
    teacher_decoder_mode: Mode = "train"
    """BatchNorm of the teacher's decoder in L_ub [ours]."""
    pseudo_label_mode: Mode = "eval"
    """BatchNorm of the teacher's decoder for pseudo-labels [ours]."""
    labels_alone: float = Field(0.0, ge=0, lt=1)
    """Share of the training, at its start, that learns from labels alone, so that the first pseudo-labels come from a
    teacher that has learnt something [ours]."""
    teacher_decoders: int = Field(1, ge=1)
    """Decoders of the teacher, each trained alone on labels from its own random start; pseudo-labels come from the mean
    of their distributions [ours: the paper has one]. The first one is the teacher that is evaluated."""
    teacher_stays: bool = False
    """After that part the teacher stays as it is. Otherwise its encoder goes on following the student (eq. 5) [paper],
    so that what the student learns from a wrong pseudo-label comes back in the next one [ours]."""
    pseudo_labels: Literal["hard", "soft"] = "hard"
    """The teacher's most probable class [paper], or its distribution over classes [ours]."""
    pseudo_label_scales: tuple[Factor, ...] = Field((1.0,), min_length=1)
    """The teacher's distribution is the mean over the weak view resized by these factors [ours: the paper has one]."""
    pseudo_label_mirror: bool = False
    """At each of these scales, average over the mirror image too [ours]."""
    pseudo_label_adjustment: float = Field(0.0, ge=0, le=1)
    """The teacher's distribution is divided by the labelled shares of the classes to this power, in favour of rare ones
    [ours]."""
    evaluated: Literal["teacher", "student"] = "teacher"
    """The headline model [ours]; both are measured."""


class DecoderAndHead(nn.Module):
    """A decoder with its classifier, taken from a segmenter."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.decoder, self.head = segmenter.decoder, segmenter.head

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        """An encoder's maps to logits (B, C, h, w)."""
        return self.head(self.decoder(maps))  # type: ignore[no-any-return]


class DeS4(Method):
    """Student S = D_s∘E_s and teacher T = D_t∘E_t under prototypes P.

    Gradients reach E_s and D_s through L_b and L_u, and D_t through L_ub alone; E_t and P never get one.
    """

    Config = DeS4Config
    config: DeS4Config
    prior: Tensor
    VIEWS = ViewSpec(strong=1, cutmix="reco")

    def build(self, setting: Setting) -> None:
        """Make student and teacher, which share the prototypes, and what feeds these."""
        config = self.config
        if config.teacher_stays and not config.labels_alone:
            raise ConfigError(
                "method.teacher_stays: it learns in the part of the training that labels_alone names; set "
                "method.labels_alone, such as 0.5"
            )
        if config.pseudo_labels == "soft" and config.threshold:
            raise ConfigError("method.threshold: is of hard pseudo-labels; set it to 0, or pseudo_labels=hard")
        several = config.teacher_decoders > 1
        if several and not config.decoupled:
            raise ConfigError("method.teacher_decoders: several of them learn from labels; set method.decoupled=true")
        self.student = setting.make_segmenter("prototype")
        self.teacher = setting.make_segmenter("prototype")
        self.teacher.encoder.load_state_dict(self.student.encoder.state_dict())
        self.teacher.head.load_state_dict(self.student.head.state_dict())
        if config.teacher_start == "copy" or not config.decoupled:
            self.teacher.decoder.load_state_dict(self.student.decoder.state_dict())
        if config.shared_head and isinstance(self.student.head, PrototypeClassifier):
            self.teacher.head = self.student.head
        self.feed = PrototypeFeed(setting.pixel_counts, config.sampling, config.zones, config.alpha)
        self.student_feed = PrototypeFeed(setting.pixel_counts, config.sampling, config.zones, config.alpha)
        self.register_buffer("prior", class_prior(setting.pixel_counts), persistent=False)
        self.FROZEN = ("teacher.encoder",) if config.decoupled else ("teacher",)
        self.rests = config.teacher_stays and config.decoupled
        self.others = nn.ModuleList(
            DecoderAndHead(setting.make_segmenter("prototype")) for _ in range(config.teacher_decoders - 1)
        )
        if several and isinstance(self.student.head, PrototypeClassifier):
            raise ConfigError(
                "method.teacher_decoders: several of them have a classifier each, and prototypes are shared; set "
                "model.head=linear, or teacher_decoders=1"
            )

    @property
    def on_labels_alone(self) -> bool:
        """Whether this step is of the part that learns from labels alone."""
        return self.step < self.config.labels_alone * self.setting.total_steps

    @property
    def teacher_is_done(self) -> bool:
        """Whether the teacher has learnt what it is to learn."""
        return self.config.teacher_stays and not self.on_labels_alone

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of eq. 4."""
        labelled, unlabelled = batch.both
        config = self.config
        pseudo, teacher_logits = self._teach(labelled, unlabelled)
        student_logits, mixed_logits = self._study(labelled, unlabelled)
        terms = {
            "student/labelled": config.labelled_weight * self.supervise(student_logits, labelled),  # eq. 1
            "student/unlabelled": student_logits.new_zeros(()),
        }
        if pseudo is not None and mixed_logits is not None:
            weight = self._ramp() * config.unlabelled_weight
            terms["student/unlabelled"] = weight * pseudo.cross_entropy(mixed_logits)  # eq. 3
            self.note(confidence=pseudo.mean_confidence())
        if config.decoupled:
            losses = [self._teacher_loss(logits, labelled) for logits in teacher_logits]
            # each reaches a decoder of its own; there is none once the teacher is done
            terms["teacher/labelled"] = torch.stack([*losses, student_logits.new_zeros(())]).sum()
        return terms

    def _teacher_loss(self, logits: Tensor, labelled: Labelled) -> Tensor:
        """L_ub of one of the teacher's decoders."""
        if self.config.pixel_reweighting:
            return reweighted_cross_entropy(self.supervision.adjusted(logits), labelled.label)  # eqs. 7-8
        return self.supervise(logits, labelled)  # eq. 2

    def _ramp(self) -> float:
        """What λ2 is multiplied by in this step."""
        steps = self.config.unlabelled_ramp_steps
        return min(1.0, self.step / steps) if steps else 1.0

    def _teach(
        self, labelled: Labelled, unlabelled: Unlabelled
    ) -> tuple[Target | SoftTarget | None, tuple[Tensor, ...]]:
        """Run the teacher: its mixed pseudo-labels, and its logits on labelled images, for L_ub and the prototypes.

        The encoder sees both batches in one pass, without gradient: this is where L_ub is cut off from it. Of the
        logits there is one entry a decoder, and none once the teacher is done.
        """
        config, teacher, pseudo = self.config, self.teacher, None
        images = [] if self.teacher_is_done else [labelled.image]
        count = sum(map(len, images))
        teacher.encoder.train(self.training and config.teacher_encoder_mode == "train" and not self.teacher_is_done)
        with torch.no_grad():
            maps = teacher.encode(torch.cat(images if self.on_labels_alone else [*images, unlabelled.weak]))
            if not self.on_labels_alone:
                self._set_decoders(self.training and config.pseudo_label_mode == "train" and not self.teacher_is_done)
                pseudo = self._targets(tuple(each[count:] for each in maps), unlabelled).mixed(unlabelled.strong[0])
        if self.teacher_is_done:
            return pseudo, ()
        self._set_decoders(self.training and config.decoupled and config.teacher_decoder_mode == "train")
        seen = tuple(each[:count] for each in maps)
        with torch.set_grad_enabled(config.decoupled and torch.is_grad_enabled()):
            features = teacher.decoder(seen)
            logits = teacher.head(features)
            others = tuple(other(seen) for other in self.others)
        if isinstance(teacher.head, PrototypeClassifier):
            self.feed.collect(features, logits, labelled.label)
        return pseudo, (logits, *others)

    def _set_decoders(self, training: bool) -> None:
        """Switch the teacher's decoders between the batch's statistics and running ones."""
        for decoder in (self.teacher.decoder, self.others):
            decoder.train(training)

    def _targets(self, maps: tuple[Tensor, ...], unlabelled: Unlabelled) -> Target | SoftTarget:
        """What the teacher makes of the weak view. maps: its encoder's, of the view as it is."""
        config, teacher = self.config, self.teacher

        def predict(image: Tensor) -> list[Tensor]:
            seen = maps if image is unlabelled.weak else teacher.encode(image)
            return [teacher.head(teacher.decoder(seen)), *(other(seen) for other in self.others)]

        target = averaged_target(predict, unlabelled, config.pseudo_label_scales, config.pseudo_label_mirror)
        if config.pseudo_label_adjustment:
            target = target.adjusted(self.prior, config.pseudo_label_adjustment)
        return target if config.pseudo_labels == "soft" else target.hardened(config.threshold, self.supervision)

    def _study(self, labelled: Labelled, unlabelled: Unlabelled) -> tuple[Tensor, Tensor | None]:
        """Run the student once on labelled and mixed images; return the logits of each."""
        alone, count = self.on_labels_alone, len(labelled.image)
        images = labelled.image if alone else torch.cat([labelled.image, unlabelled.strong[0].mixed])
        features = self.student.features(images)
        logits = self.student.head(features)
        if not self.config.shared_head and isinstance(self.student.head, PrototypeClassifier):
            self.student_feed.collect(features[:count], logits[:count], labelled.label)
        return logits[:count], None if alone else logits[count:]

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the teacher's encoder (eq. 5), or all of it without decoupling; then the prototypes (eq. 12)."""
        config, student, teacher = self.config, self.student, self.teacher
        momentum = (
            warm_momentum(config.encoder_momentum, self.step) if config.encoder_warm_start else config.encoder_momentum
        )
        if not self.teacher_is_done:
            follow(teacher.encoder, student.encoder, momentum, config.teacher_encoder_buffers)
            if not config.decoupled:
                follow(teacher.decoder, student.decoder, momentum, config.teacher_encoder_buffers)
                if not isinstance(teacher.head, PrototypeClassifier):  # prototypes are fed, each by its own network
                    follow(teacher.head, student.head, momentum)
        generators = partial(self.generator, student.mean.device)
        for feed, segmenter in ((self.feed, teacher), (self.student_feed, student)):
            if isinstance(segmenter.head, PrototypeClassifier):
                feed.commit(segmenter.head, generators)
        super().after_step()

    def predictors(self) -> dict[str, Segmenter]:
        """Teacher and student, the headline first."""
        models = {"teacher": self.teacher, "student": self.student}
        return dict(sorted(models.items(), key=lambda item: item[0] != self.config.evaluated))

    def stats(self) -> dict[str, Tensor]:
        """The last step's confidence, and how far the prototypes are spread: their mean cosine to one another."""
        head = self.teacher.head
        if not isinstance(head, PrototypeClassifier):
            return super().stats()
        prototypes, count = head.prototypes, len(head.prototypes)
        cosines = prototypes @ prototypes.T
        return {**super().stats(), "prototype_cosine": (cosines.sum() - cosines.trace()) / max(count * (count - 1), 1)}
