"""What many methods have in common: one trained network, or two, or a student and its moving average."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from des4.methods.base import Method, MethodConfig, Setting
from des4.methods.ingredients.decoupled import decoded_alone
from des4.models.heads.projection import Projection, WideProjection
from des4.models.heads.prototypes import PrototypeClassifier
from des4.models.memory import PrototypeFeed
from des4.models.segmenter import Segmenter
from des4.models.training.ema import follow, warm_momentum
from des4.types import Batch, ConfigError, Labeled


def labeled_logits(head: nn.Module, feed: PrototypeFeed, features: Tensor, labeled: Labeled) -> Tensor:
    """Classify a network's labeled features (B, D, h, w), and feed them to its head's prototypes, if it has some."""
    logits: Tensor = head(features)
    if isinstance(head, PrototypeClassifier):
        feed.collect(features, logits, labeled.label)
    return logits


ONE_DECODER = "holds the teacher's embeddings against the student's, which one decoder has to make"
"""Why the teacher's decoder cannot be trained for itself."""


class OwnLabelsConfig(MethodConfig):
    """Settings of methods whose networks label while they learn: in train mode, as published codes do."""

    running_norms: bool = False
    """`true`: labels are made as in evaluation, by the running statistics of the norms, in a pass of their own [ours];
    `false`: by those of the batch, as in published codes."""


class SingleNetwork(Method):
    """A method around one trained network, `student`; its prototypes, if any, follow its own labeled features."""

    def build(self, setting: Setting) -> None:
        """Make the student."""
        self.student = setting.make_segmenter("linear")
        self.feed = self.make_feed()

    @property
    def learners(self) -> dict[str, Segmenter]:
        """The student."""
        return {"student": self.student}

    def labeled_logits(self, features: Tensor, labeled: Labeled) -> Tensor:
        """Classify the student's labeled features, and feed its prototypes, if any."""
        return labeled_logits(self.student.head, self.feed, features, labeled)

    @contextmanager
    def labeling(self, *networks: nn.Module, running_norms: bool = True) -> Iterator[None]:
        """Have trained networks label, without a gradient; `running_norms`: as in evaluation, else as they learn."""
        for network in networks:
            network.train(self.training and not running_norms)
        try:
            with torch.no_grad():
                yield
        finally:  # memory may have run out in it, and the step is taken again
            for network in networks:
                network.train(self.training)

    def evaluated(self, image: Tensor) -> Tensor:
        """Logits of the student as in evaluation."""
        with self.labeling(self.student):
            logits: Tensor = self.student(image)
        return logits

    def on_labels(self, labeled: Labeled) -> dict[str, Tensor]:
        """The student's cross-entropy on labels: all there is of a step that reads no unlabeled image."""
        features, side = self.student.features_with_side(labeled.image)
        return {"labeled": self.supervise(self.labeled_logits(features, labeled), labeled, side)}

    def after_step(self) -> None:
        """Move the prototypes, if any."""
        self.move_prototypes(self.student.head, self.feed)
        super().after_step()

    def predictors(self) -> dict[str, Segmenter]:
        """The network itself."""
        return {"student": self.student}


class TwoNetworks(SingleNetwork):
    """A method around two trained networks, `student` and `peer`, whose decoders start from other random weights."""

    def build(self, setting: Setting) -> None:
        """Make the student and its peer, one after the other from the same row of random numbers."""
        super().build(setting)
        self.peer = setting.another("linear")
        self.peer_feed = self.make_feed()

    @property
    def learners(self) -> dict[str, Segmenter]:
        """Both."""
        return {"student": self.student, "peer": self.peer}

    def after_step(self) -> None:
        """Move the prototypes of both, if any."""
        self.move_prototypes(self.peer.head, self.peer_feed)
        super().after_step()

    def predictors(self) -> dict[str, Segmenter]:
        """The student first: published codes evaluate their first network."""
        return {"student": self.student, "peer": self.peer}


class TeacherStudentConfig(MethodConfig):
    """Settings of methods with an averaged teacher."""

    momentum: float = Field(0.99, ge=0, lt=1)
    """Momentum of the teacher's moving average, per step. It starts warm, at min(1 - 1/(t + 1), `momentum`). Some
    methods have another default."""
    teacher_decoder: Literal["ema", "decoupled"] = "ema"
    """`ema`: the whole teacher follows the student. `decoupled`: only its encoder follows; its decoder learns from
    labels alone, by the re-weighted cross-entropy of DeS4 (eq. 7)."""


class TeacherStudent(SingleNetwork):
    """A student, and a teacher that follows it whole: weights, statistics of norms, prototypes.

    Or its decoder is trained for itself, on labels alone, if the user says so. Then what it classifies by is its own
    as well: prototypes, if any, are fed with its own features.
    """

    FROZEN: tuple[str, ...] = ("teacher",)
    NOT_DECOUPLED: ClassVar[str] = ""
    """What the method does, so that the teacher has to follow whole; empty if it does not have to."""
    config: TeacherStudentConfig

    def build(self, setting: Setting) -> None:
        """Make the student, and the teacher as its copy."""
        super().build(setting)
        self.teacher = setting.make_segmenter("linear")
        self.teacher.load_state_dict(self.student.state_dict())
        if self.decoupled:
            if self.NOT_DECOUPLED:
                name = type(self.config).model_fields["name"].default
                raise ConfigError(f"method.teacher_decoder=decoupled: {name} {self.NOT_DECOUPLED}; leave it at ema")
            self.teacher_feed = self.make_feed()
            self.FROZEN = tuple("teacher.encoder" if name == "teacher" else name for name in self.FROZEN)

    @property
    def decoupled(self) -> bool:
        """Whether the teacher's decoder is trained for itself."""
        return self.config.teacher_decoder == "decoupled"

    @property
    def momentum(self) -> float:
        """Of this step's average, which starts warm."""
        return self.config.momentum

    @property
    def averaged_steps(self) -> int:
        """Steps since unlabeled images came in; until then the average, which starts warm, copies the student."""
        return max(0, self.step - self.reads_unlabeled_from)

    @property
    def follows(self) -> bool:
        """Whether the teacher takes part in this step."""
        return True

    @property
    def forward(self) -> Callable[[Batch], dict[str, Tensor]]:  # type: ignore[override]
        """`losses`, and that of the teacher's decoder beside them, where it is trained for itself."""
        return self.losses_and_decoder if self.decoupled else self.losses

    def losses_and_decoder(self, batch: Batch) -> dict[str, Tensor]:
        """The method's terms, whatever they are, and the teacher's decoder's; none of its reaches the encoder."""
        terms = self.losses(batch)
        with torch.no_grad():
            maps = self.teacher.encode(batch.labeled.image)
        try:
            features, logits = decoded_alone(self.teacher, maps, self.training)
        finally:  # memory may have run out in it, and the step is taken again
            self.teacher.decoder.eval()  # as which it labels
        if isinstance(self.teacher.head, PrototypeClassifier):
            self.teacher_feed.collect(features, logits, batch.labeled.label)
        return terms | {"teacher/labeled": self.supervision.on_labels_reweighted(logits, batch.labeled)}

    def after_step(self) -> None:
        """Move the student's prototypes, if any, then the teacher, or its encoder and its own prototypes."""
        momentum, follows = warm_momentum(self.momentum, self.averaged_steps), self.follows
        if self.decoupled:
            self.move_prototypes(self.teacher.head, self.teacher_feed)
        super().after_step()
        if follows:
            teacher, student = self.teacher, self.student
            if self.decoupled:
                follow(teacher.encoder, student.encoder, momentum)
            else:
                follow(teacher, student, momentum)

    def train(self, mode: bool = True) -> TeacherStudent:
        """Switch to training; the teacher labels in eval mode, whatever of it learns."""
        super().train(mode)
        self.teacher.eval()
        return self

    def predictors(self) -> dict[str, Segmenter]:
        """The teacher first, as published."""
        return {"teacher": self.teacher, "student": self.student}

    def pseudo_labeler(self) -> tuple[str, nn.Module]:
        """The teacher, whichever of the two is the headline."""
        return "teacher", self.teacher


class ProjectedConfig(TeacherStudentConfig):
    """Settings of methods that hold a student's embeddings against its teacher's."""

    dim: int = Field(256, ge=2)
    """D of the embeddings that are compared."""


class ProjectedTeacherStudent(TeacherStudent):
    """A student and its teacher, each with a projection; a memory holds what the teacher's makes of pixels."""

    FROZEN = ("teacher", "teacher_projection")
    NOT_DECOUPLED = ONE_DECODER
    PROJECTION: ClassVar[type[Projection | WideProjection]] = Projection
    """Of both."""
    config: ProjectedConfig

    def build(self, setting: Setting) -> None:
        """Make student and teacher, and their projections, of which the teacher's begins as the student's."""
        super().build(setting)
        inputs, dim = self.student.decoder.dim, self.config.dim
        self.student_projection, self.teacher_projection = (self.PROJECTION(inputs, dim) for _ in range(2))
        self.teacher_projection.load_state_dict(self.student_projection.state_dict())

    def after_step(self) -> None:
        """Move the teacher with its projection."""
        momentum = warm_momentum(self.momentum, self.averaged_steps)
        follow(self.teacher_projection, self.student_projection, momentum)
        super().after_step()

    def train(self, mode: bool = True) -> ProjectedTeacherStudent:
        """Switch to training; what embeds for the memory is in eval mode, as the teacher is."""
        super().train(mode)
        self.teacher_projection.eval()
        return self
