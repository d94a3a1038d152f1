"""What a method is: modules, the views it reads, its losses, and what follows the optimiser's step.

A method never sees trainer, loader, optimiser or rank. The engine wraps the method once and calls seven
names: `Config`, `VIEWS`, `FROZEN`, `losses`, `after_step`, `predictors`, `stats`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from des4.models.prototypes import PrototypeClassifier, PrototypeFeed
from des4.models.segmenter import HeadName, Segmenter
from des4.types import Batch, Config, ViewSpec

MakeSegmenter = Callable[[HeadName], Segmenter]
"""Builds a fresh segmenter with the classifier a method prefers; the user's config may choose the other one."""


class Method(nn.Module, ABC):
    """Base of all methods. All state that a resumed run needs is parameter, buffer or the step in the extra state.

    pixel_counts: (C,) labelled pixels of each class over the labelled list. seed: of what the method draws after a
    step.
    """

    Config: ClassVar[type[Config]]
    VIEWS: ClassVar[ViewSpec] = ViewSpec()
    """Views of unlabelled images that `losses` reads, with the presets of the method's own protocol."""
    FROZEN: tuple[str, ...] = ()
    """Submodules that never get a gradient and stay in eval mode unless the method says otherwise."""

    threshold: float = 0.0
    """Confidence that a pseudo-label needs to count, in [0, 1]."""

    def __init__(self, pixel_counts: Tensor, seed: int) -> None:
        super().__init__()
        self.pixel_counts, self.seed = pixel_counts, seed
        self.step = 0
        self._stats: dict[str, Tensor] = {}

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Weighted scalar terms, to be summed by the engine. The same state and batch give the same terms."""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Call `losses`, so that the engine can wrap the method as one module."""
        return self.losses(batch)

    def after_step(self) -> None:
        """Move what follows the optimiser: averages, prototypes, queues. It counts the step; overriders end with it."""
        self.step += 1

    def discard(self) -> None:
        """Forget what `losses` collected for `after_step`: the engine takes the step again, in smaller parts."""
        for module in self.modules():
            if isinstance(module, PrototypeFeed):
                module.discard()

    @abstractmethod
    def predictors(self) -> Mapping[str, Segmenter]:
        """Networks to evaluate by name; the first is the headline and the source of pseudo-labels."""

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

    def freeze(self) -> None:
        """Take the FROZEN modules out of differentiation; called once at the end of a method's constructor."""
        for name in self.FROZEN:
            self.get_submodule(name).requires_grad_(False)

    def generator(self, device: torch.device, part: int = 0) -> torch.Generator:
        """Random numbers of a part of this step: a function of (seed, step, part), so that a resumed run repeats them.

        part: its number over all processes.
        """
        return torch.Generator(device).manual_seed(self.seed * 1_000_003 + self.step + (part << 40))

    def note(self, **values: Tensor) -> None:
        """Remember numbers of this step for `stats`."""
        self._stats.update({name: value.detach() for name, value in values.items()})


class SingleNetwork(Method):
    """A method around one trained network, `student`; its prototypes, if any, follow its own labelled features."""

    def __init__(self, make_segmenter: MakeSegmenter, pixel_counts: Tensor, seed: int) -> None:
        super().__init__(pixel_counts, seed)
        self.student = make_segmenter("linear")
        self.feed = PrototypeFeed(pixel_counts)

    def labelled_logits(self, features: Tensor, label: Tensor) -> Tensor:
        """Classify labelled features, and hand them to the prototypes where the classifier has some."""
        logits: Tensor = self.student.head(features)
        if isinstance(self.student.head, PrototypeClassifier):
            self.feed.collect(features, logits, label)
        return logits

    def after_step(self) -> None:
        """Move the prototypes, if any."""
        if isinstance(self.student.head, PrototypeClassifier):
            self.feed.commit(self.student.head)
        super().after_step()

    def predictors(self) -> dict[str, Segmenter]:
        """The network itself."""
        return {"student": self.student}
