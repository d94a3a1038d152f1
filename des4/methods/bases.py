"""What many methods have in common: one trained network, or two, or a student and its moving average."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from des4.methods.base import Method, Setting
from des4.models.ema import follow, warm_momentum
from des4.models.memory import PrototypeFeed
from des4.models.prototypes import PrototypeClassifier
from des4.models.segmenter import Segmenter
from des4.types import Config, Labelled


def labelled_logits(head: nn.Module, feed: PrototypeFeed, features: Tensor, labelled: Labelled) -> Tensor:
    """Classify a network's labelled features (B, D, h, w), and feed them to its head's prototypes, if it has some."""
    logits: Tensor = head(features)
    if isinstance(head, PrototypeClassifier):
        feed.collect(features, logits, labelled.label)
    return logits


def move_prototypes(head: nn.Module, feed: PrototypeFeed) -> None:
    """Move a head's prototypes, if it has some, by what was fed to them."""
    if isinstance(head, PrototypeClassifier):
        feed.commit(head)


class SingleNetwork(Method):
    """A method around one trained network, `student`; its prototypes, if any, follow its own labelled features."""

    def build(self, setting: Setting) -> None:
        """Make the student."""
        self.student = setting.make_segmenter("linear")
        self.feed = PrototypeFeed(setting.pixel_counts)

    def labelled_logits(self, features: Tensor, labelled: Labelled) -> Tensor:
        """Classify the student's labelled features, and feed its prototypes, if any."""
        return labelled_logits(self.student.head, self.feed, features, labelled)

    def after_step(self) -> None:
        """Move the prototypes, if any."""
        move_prototypes(self.student.head, self.feed)
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
        self.peer_feed = PrototypeFeed(setting.pixel_counts)

    def after_step(self) -> None:
        """Move the prototypes of both, if any."""
        move_prototypes(self.peer.head, self.peer_feed)
        super().after_step()

    def predictors(self) -> dict[str, Segmenter]:
        """The student first: published codes evaluate their first network."""
        return {"student": self.student, "peer": self.peer}


class TeacherStudentConfig(Config):
    """Settings of every method whose teacher follows the student whole."""

    momentum: float = Field(0.99, ge=0, lt=1)
    """Of the teacher's moving average, per step; it starts warm, at min(1 - 1/(t + 1), momentum)."""


class TeacherStudent(SingleNetwork):
    """A student, and a teacher that follows it whole: weights, statistics of norms, prototypes."""

    FROZEN: tuple[str, ...] = ("teacher",)
    config: TeacherStudentConfig

    def build(self, setting: Setting) -> None:
        """Make the student, and the teacher as its copy."""
        super().build(setting)
        self.teacher = setting.make_segmenter("linear")
        self.teacher.load_state_dict(self.student.state_dict())

    @property
    def momentum(self) -> float:
        """Of this step's average, which starts warm."""
        return self.config.momentum

    @property
    def follows(self) -> bool:
        """Whether the teacher takes part in this step."""
        return True

    def after_step(self) -> None:
        """Move the student's prototypes, if any, then the teacher."""
        momentum, follows = warm_momentum(self.momentum, self.step), self.follows
        super().after_step()
        if follows:
            follow(self.teacher, self.student, momentum)

    def predictors(self) -> dict[str, Segmenter]:
        """The teacher first, as published."""
        return {"teacher": self.teacher, "student": self.student}
