"""PrevMatch: UniMatch, taught by its own earlier states as well.

Shin et al., arXiv 2024, "Revisiting and maximizing temporal knowledge in semi-supervised semantic segmentation",
github.com/wooseok-shin/PrevMatch (Apache-2.0, not copied). L = [CE(x_l) + L_std + v L_prev] / (2 + v), L_std the three
terms of UniMatch, L_prev the same with labels of the weighted mean logits of one to three earlier states; v rises from
0 to 1 over the first half of the training and falls again; on Cityscapes these labels weigh as much as their mean
confidence in an image. Ours: states are taken at even distances; there, after each epoch with the best score on the
validation images so far.
"""

from __future__ import annotations

import copy
import math
import random
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from des4.methods.base import Outline, Setting
from des4.methods.ingredients.targets import Target, hard_target
from des4.methods.unimatch import UniMatch, UniMatchConfig
from des4.models.training.ema import follow
from des4.types import Batch, Unlabeled


class PrevMatchConfig(UniMatchConfig):
    """Settings of PrevMatch beside those of UniMatch."""

    name: Literal["prevmatch"] = "prevmatch"  # type: ignore[assignment]
    previous_threshold: float = Field(0.9, ge=0, le=1)
    """Confidence that a label of earlier states needs; 0 on Cityscapes."""
    previous_by_image: bool = False
    """Whether labels of earlier states weigh as much as their mean confidence in the image; `true` on Cityscapes."""
    kept_states: int = Field(8, ge=1)
    """How many states are kept, the newest ones."""
    asked_states: int = Field(3, ge=1)
    """Most of these that are asked in a step."""
    every: float = Field(0.025, gt=0, le=1)
    """Share of the training after which a state is kept [ours]."""


class PrevMatch(UniMatch):
    """One network, and some of what it was."""

    Config = PrevMatchConfig
    config: PrevMatchConfig
    OUTLINE = Outline(
        "one network",
        "itself on the weak view, and up to three of its earlier states",
        "two mixed views, and dropped features",
    )

    def build(self, setting: Setting) -> None:
        """Make the student, and room for its earlier states."""
        super().build(setting)
        self.states = nn.ModuleList(copy.deepcopy(self.student) for _ in range(self.config.kept_states))
        self.FROZEN = ("states",)
        self.kept = 0  # states so far; no function of the step, for a training can be continued with another length

    @property
    def period(self) -> int:
        """Steps after which a state is kept."""
        return math.ceil(self.config.every * self.setting.total_steps)

    @property
    def previous_weight(self) -> float:
        """V of this step."""
        return max(0.0, 1 - abs(2 * self.step / self.setting.total_steps - 1))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """UniMatch's terms, and their like against the labels of earlier states."""
        labeled, unlabeled = batch.both
        seen = self.predicted(batch)
        target, previous = self.pseudo_labels(seen.weak, unlabeled), self.previous_labels(unlabeled)
        v = self.previous_weight if previous else 0.0
        terms = self.consistencies(target, seen, unlabeled)
        terms["labeled"] = self.supervise(seen.labeled, labeled, seen.side)
        terms["previous"] = seen.weak.new_zeros((), dtype=torch.float32)
        self.note(kept=target.share_kept())
        if previous:
            of_states = self.consistencies(previous, seen, unlabeled, self.config.previous_by_image)
            terms["previous"] = v * torch.stack(list(of_states.values())).sum()
            self.note(previous_kept=previous.share_kept())
        return {name: term / (2 + v) for name, term in terms.items()}

    @torch.no_grad()
    def previous_labels(self, unlabeled: Unlabeled) -> Target | None:
        """Labels that some earlier states give the weak view together; None while there are none.

        Which they are, and with what weights, is drawn for the step: alike for all parts of it.
        """
        there = min(self.kept, len(self.states))
        if not there:
            return None
        rng = random.Random(f"{self.setting.seed}/{self.step}/states")
        count = rng.randint(1, min(self.config.asked_states, there))
        asked = rng.sample(range(there), count)
        weights = [rng.expovariate(1) for _ in asked]  # over their sum: Dirichlet(1)
        each = [w / sum(weights) * self.states[n](unlabeled.weak).float() for n, w in zip(asked, weights, strict=True)]
        return hard_target(torch.stack(each).sum(0), unlabeled, self.config.previous_threshold, self.supervision)

    def after_step(self) -> None:
        """Move the prototypes, if any; keep what the student is now in the place of the oldest state, if it is time."""
        super().after_step()
        if self.step % self.period == 0:
            follow(self.states[self.kept % len(self.states)], self.student, 0.0)
            self.kept += 1

    def get_extra_state(self) -> Tensor:
        """Return the step count, and that of the states."""
        return torch.tensor([self.step, self.kept])

    def set_extra_state(self, state: Tensor) -> None:
        """Restore both."""
        self.step, self.kept = state.tolist()
