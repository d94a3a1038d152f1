"""What a method is: modules, the views it reads, its losses, and what follows the optimiser's step.

A method never sees trainer, loader, optimiser or rank. The engine wraps the method once and calls eleven names:
`Config`, `VIEWS`, `FROZEN`, `restarts`, `reads_unlabeled_from`, `part_starts`, `losses`, `after_step`, `predictors`,
`pseudo_labeler`, `stats`.
What it is built from is its own config and a `Setting`, alike for all. The targets that its losses are taken of are
counted in its `tally`, without its doing, since a step begins with a `prepared` batch; networks that it calls
`learners` get an auxiliary head, which `supervise` teaches.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from des4.methods.ingredients.supervision import Supervision, SupervisionConfig
from des4.methods.ingredients.targets import Target, hard_target
from des4.models.heads.auxiliary import AuxiliaryHead
from des4.models.heads.prototypes import PrototypeClassifier
from des4.models.memory import Memory, PrototypeFeed, Sampling, ShareAlignment, TargetTally
from des4.models.segmenter import HeadName, Segmenter
from des4.ops.prior import class_prior
from des4.types import Batch, Config, ConfigError, Labeled, Unlabeled, ViewSpec

MakeSegmenter = Callable[[HeadName], Segmenter]
"""Builds a fresh segmenter with the classifier a method prefers; the user's config may choose the other one."""


Role = Literal["trained", "averaged", "critic"]
"""`trained`: the run's optimiser moves it, but for FROZEN parts. `averaged`: it follows others, without any gradient.
`critic`: it judges what others make, and learns to by a term and an Adam of its own."""


class Network(NamedTuple):
    """A module of a method that has weights, and what becomes of them. lr: of a critic, at the start of the run."""

    module: nn.Module
    role: Role
    lr: float | None = None

    @property
    def encoder(self) -> nn.Module | None:
        """The encoder, which learns at the rate of encoders; None of what is no segmenter."""
        return self.module.encoder if isinstance(self.module, Segmenter) else None

    @property
    def parts(self) -> tuple[nn.Module, ...]:
        """What runs one after the other: encoder, decoder and classifier of a segmenter, else the module itself."""
        module = self.module
        return (module.encoder, module.decoder, module.head) if isinstance(module, Segmenter) else (module,)


class Outline(NamedTuple):
    """A method in the table of them: what it trains, who teaches that, and what of unlabeled images it reads."""

    trains: str
    teacher: str
    reads: str


@dataclass(frozen=True)
class Setting:
    """What a method is told of the training that it is built for.

    classes: names of the C classes. pixel_counts: (C,) labeled pixels of each class over the labeled list.
    total_steps: of the whole training. num_labeled, num_unlabeled: images in the lists. seed: of what the method
    draws after a step. make_segmenter: builds its networks. make_another: builds one that is to differ from those also
    where they begin as a trained one; None: `make_segmenter`. supervision: what cross-entropies do about imbalance.
    crop: bands, height and width of the images in a batch.
    """

    classes: tuple[str, ...]
    pixel_counts: Tensor
    total_steps: int
    num_labeled: int
    num_unlabeled: int
    seed: int
    make_segmenter: MakeSegmenter
    make_another: MakeSegmenter | None = None
    supervision: SupervisionConfig = field(default_factory=SupervisionConfig)
    crop: tuple[int, int, int] = (3, 256, 256)

    def steps(self, share: float) -> int:
        """So many steps are this share of the whole training, rounded up."""
        return math.ceil(share * self.total_steps)

    def another(self, head: HeadName) -> Segmenter:
        """Build a network that is to differ from those of `make_segmenter`, by its decoder at least."""
        return (self.make_another or self.make_segmenter)(head)

    def class_mask(self, key: str, numbers: Collection[int]) -> Tensor:
        """Mark the classes that a method's setting `key` names, (C,) bool; ConfigError if it names no such or all."""
        if not set(numbers) < set(range(len(self.classes))):
            raise ConfigError(f"method.{key}={list(numbers)}: there are {len(self.classes)} classes, numbered from 0; "
                              "name some of them, and not all")  # fmt: skip
        return torch.tensor([c in numbers for c in range(len(self.classes))])

    def check_class(self, key: str, number: int | None) -> None:
        """Raise ConfigError if a method's setting `key` names a class by a number that none has."""
        if number is not None and number >= len(self.classes):
            raise ConfigError(f"method.{key}={number}: there are {len(self.classes)} classes, numbered from 0; name "
                              "one of them")  # fmt: skip


class MethodConfig(Config):
    """Settings of every method. See [imbalance](imbalance.md#in-the-prototypes-sampling)."""

    sampling: Sampling = "all"
    """Which labeled pixels move the prototypes of `model.head=prototype` (DeS4, table 4); `all` does not balance. Of a
    linear classifier, which has none, anything else is refused. `des4` has another default."""
    zones: int = Field(5, ge=1)
    """k, entropy zones of each class [paper]."""
    alpha: float = Field(0.1, gt=0)
    """α of eq. 11 [paper]."""


class Method(nn.Module, ABC):
    """Base of all methods. All state that a resumed run needs is parameter, buffer or the step in the extra state.

    config: an instance of the method's `Config`; each method names its class, `config: ItsConfig`.
    """

    Config: ClassVar[type[MethodConfig]]
    VIEWS: ClassVar[ViewSpec] = ViewSpec()
    """Views of unlabeled images that `losses` reads, with the presets of the method's own protocol."""
    OUTLINE: ClassVar[Outline]
    """The method's line in docs/methods/index.md, which is made of these."""
    RECONSTRUCTION: ClassVar[bool] = False
    """Whether parts of it are guesses, for its authors published too little; comparisons say so."""
    WAITS: ClassVar[bool] = False
    """Whether a step asks the device for values, so that the host waits for it each time; `des4 doctor` tells."""
    FROZEN: tuple[str, ...] = ()
    """Submodules that never get a gradient and stay in eval mode unless the method says otherwise."""

    rests: bool = False
    """Whether some of what is trained goes without a gradient in some steps. `build` may set it; of several processes
    the engine then looks, in each step, for what that is."""
    config: MethodConfig

    def __init__(self, config: MethodConfig, setting: Setting) -> None:
        super().__init__()
        self.config, self.setting = config, setting
        self.supervision = Supervision(setting.supervision, setting.pixel_counts)
        self.tally = TargetTally(len(setting.classes))
        self.alignment = _alignment(setting)
        self.step = 0
        self._stats: dict[str, Tensor] = {}
        self.build(setting)
        for name in self.FROZEN:
            self.get_submodule(name).requires_grad_(False)
        self._check_sampling()
        self.auxiliary_heads = nn.ModuleDict(self._make_auxiliary_heads())

    @abstractmethod
    def build(self, setting: Setting) -> None:
        """Make the networks, and whatever else the method holds: called once, by the constructor.

        FROZEN modules leave differentiation after it, so it may also say which they are. Raises ConfigError for
        settings that do not go together.
        """

    @property
    @abstractmethod
    def learners(self) -> Mapping[str, Segmenter]:
        """Networks that learn the labels by `supervise`, by name: one word each.

        Each has an auxiliary head where the user asks for one.
        """

    @property
    def restarts(self) -> tuple[int, ...]:
        """Steps at which learning rate and moments of the optimiser begin anew, of methods that learn in parts."""
        return ()

    @property
    def reads_unlabeled_from(self) -> int:
        """The step from which on unlabeled images are read: behind the share `labels_alone` of the config, if it has
        one.
        """
        return self.setting.steps(getattr(self.config, "labels_alone", 0.0))

    @property
    def part_starts(self) -> tuple[int, ...]:
        """First steps of the parts of the run that differ in what a step does, the first at 0."""
        begun = {0, self.reads_unlabeled_from, *self.restarts}
        return tuple(sorted(step for step in begun if step < self.setting.total_steps))

    @property
    def threshold(self) -> float:
        """Confidence that a pseudo-label needs to count, in [0, 1]: that of the config, where it has one."""
        return float(getattr(self.config, "threshold", 0.0))

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Weighted scalar terms, to be summed by the engine. The same state and batch give the same terms."""

    @property
    def forward(self) -> Callable[[Batch], dict[str, Tensor]]:  # type: ignore[override]
        """`losses`, by the name that torch calls: so the engine can wrap the method as one module, without a detour."""
        return self.losses

    def prepared(self, batch: Batch) -> Batch:
        """The batch with which a step begins: its targets will be counted in the tally, and aligned if a user asks."""
        self._stats = {}  # of a part of the run that is over, some would stay
        if batch.unlabeled is None:
            return batch
        return replace(batch, unlabeled=replace(batch.unlabeled, watch=self.tally, alignment=self.alignment))

    def supervise(
        self, logits: Tensor, labeled: Labeled, side: Tensor | None = None, learner: str = "student"
    ) -> Tensor:
        """Cross-entropy of logits (B, C, h, w) against the labels, as the user's `supervision` has it; a scalar.

        side: of the pass that the logits come from, the map of the encoder's stage before last: of the labeled images
        first, and of any others behind them. Where there is one, the learner's auxiliary head learns the labels as
        well, and its weighted cross-entropy is added.
        """
        loss = self.supervision.on_labels(logits, labeled)
        if side is None:
            return loss
        said = self.auxiliary_heads[learner](side[: len(labeled.image)], labeled.keys)
        auxiliary = self.supervision.on_labels(said, labeled)
        self.note(**{f"{learner}_auxiliary": auxiliary})
        return loss + self.supervision.config.auxiliary_weight * auxiliary

    def pseudo_labels(self, logits: Tensor, unlabeled: Unlabeled) -> Target:
        """Hard labels of the weak view from a network's logits there, (B, C, h, w); no gradient reaches these."""
        return hard_target(logits, unlabeled, self.threshold, self.supervision)

    def after_step(self) -> None:
        """Move what follows the optimiser: averages, prototypes, queues. It counts the step; overriders end with it."""
        self.tally.commit()
        if self.alignment is not None:
            self.alignment.commit()
        self.step += 1

    def discard(self) -> None:
        """Let memories forget what `losses` collected: the step is taken again, in smaller micro-batches."""
        for module in self.modules():
            if isinstance(module, Memory):
                module.discard()

    @abstractmethod
    def predictors(self) -> Mapping[str, Segmenter]:
        """Networks to evaluate by name; the first is the headline."""

    def pseudo_labeler(self) -> tuple[str, nn.Module]:
        """What pseudo-labels are made of at this step, by its name: a network, or several that are asked as one.

        How good they are is measured on its predictions. By default the headline's.
        """
        return next(iter(self.predictors().items()))

    def networks(self) -> dict[str, Network]:
        """Every module with weights, by name and with its role; what the engine does with networks reads this list.

        These are the method's own attributes with parameters, and the members of its lists; one that no gradient
        reaches is an average. A method with a critic says so in its place.
        """
        found = {}
        for name, module in _with_members(self):
            wanted = [parameter.requires_grad for parameter in module.parameters()]
            if wanted:
                found[name] = Network(module, "trained" if any(wanted) else "averaged")
        return found

    def stats(self) -> dict[str, Tensor]:
        """Detached numbers of the last step for the log; reading them is what waits for the device."""
        return self._stats

    def train(self, mode: bool = True) -> Method:
        """Switch to training; frozen modules stay in eval mode."""
        super().train(mode)
        for name in self.FROZEN:
            self.get_submodule(name).eval()
        return self

    def get_extra_state(self) -> Tensor:
        """Return the step count as a tensor, so that a state dict holds tensors alone."""
        return torch.tensor(self.step)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the step count."""
        self.step = int(state)

    def generator(self, device: torch.device, part: int = 0) -> torch.Generator:
        """Random numbers of a part of this step: a function of (seed, step, part), so that a resumed run repeats them.

        part: its number over all processes.
        """
        seed = self.setting.seed * 1_000_003 + self.step + (part << 40)
        return torch.Generator(device).manual_seed(seed % 2**63)

    def note(self, **values: Tensor) -> None:
        """Remember numbers of this step for `stats`."""
        self._stats.update({name: value.detach() for name, value in values.items()})

    def make_feed(self) -> PrototypeFeed:
        """Make what chooses the pixels that move a classifier's prototypes, as the config says."""
        config = self.config
        return PrototypeFeed(self.setting.pixel_counts, config.sampling, config.zones, config.alpha)

    def move_prototypes(self, head: nn.Module, feed: PrototypeFeed) -> None:
        """Move a head's prototypes, if it has some, by what was fed to them."""
        if isinstance(head, PrototypeClassifier):
            feed.commit(head, partial(self.generator, head.prototypes.device))

    def _check_sampling(self) -> None:
        """Raise ConfigError if pixels are to be chosen for prototypes that there are not."""
        classified = any(isinstance(network.head, PrototypeClassifier) for network in self.learners.values())
        if self.config.sampling != "all" and not classified:
            raise ConfigError(f"method.sampling={self.config.sampling} chooses the pixels that move prototypes, and "
                              "this classifier is linear; set model.head=prototype, or leave it out")  # fmt: skip

    def _make_auxiliary_heads(self) -> dict[str, AuxiliaryHead]:
        """Make a head for each learner, which from now on yields what it reads; none unless the user asks."""
        if not self.setting.supervision.auxiliary_weight:
            return {}
        heads = {}
        for name, network in self.learners.items():
            network.encoder.yields_side = True
            head = AuxiliaryHead(len(self.setting.classes), network.encoder.side_channels, name)
            heads[name] = head.to(memory_format=torch.channels_last)
        return heads


def _alignment(setting: Setting) -> ShareAlignment | None:
    """Make what aligns targets, where the user asks for it."""
    config = setting.supervision
    if not config.distribution_alignment:
        return None
    return ShareAlignment(class_prior(setting.pixel_counts), config.distribution_alignment, config.alignment_momentum)


def _with_members(method: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """A module's own attributes by name, and of lists and dicts their members."""
    for name, module in method.named_children():
        if isinstance(module, nn.ModuleList | nn.ModuleDict):
            yield from ((f"{name}.{key}", member) for key, member in module.named_children())
        else:
            yield name, module
