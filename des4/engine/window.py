"""Means of the loss terms between two log lines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from des4.engine.step import Outcome
from des4.ops.reduce import num_ranks, sum_over_ranks


class Window:
    """Sums of the loss terms since the last log line, over finite steps; they stay on the device until asked for.

    A term counts over the steps that have it: a method that learns in two parts has other terms in the second.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        """Name → (sum over its finite steps, number of them)."""
        self.images = 0
        self.seconds = 0.0

    def add(self, outcome: Outcome, images: int, seconds: float) -> None:
        """Count a step of so many images of this process."""
        loss = torch.stack(list(outcome.terms.values())).sum()
        for name, value in {"loss": loss, **{f"loss/{name}": term for name, term in outcome.terms.items()}}.items():
            counted = torch.stack([torch.where(outcome.skipped > 0, 0, value), 1 - outcome.skipped])
            self.sums[name] = self.sums[name] + counted if name in self.sums else counted
        self.images += images
        self.seconds += seconds

    def means(self) -> dict[str, float]:
        """Over steps and processes; NaN if no step was finite."""
        return {name: total / steps if steps else math.nan for name, (total, steps) in self._over_ranks().items()}

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that a resumed run logs the same means."""
        return {"sums": self._over_ranks(), "images": self.images, "seconds": self.seconds}

    def restore(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Undo `state`."""
        sums = dict(state.get("sums", {}))
        if steps := sums.pop("steps", None):  # earlier checkpoints have one number of steps for all
            sums = {name: [total, steps] for name, total in sums.items()}
        self.sums = {name: torch.tensor(pair, device=device) for name, pair in sums.items()}
        self.images, self.seconds = state.get("images", 0), state.get("seconds", 0.0)

    def _over_ranks(self) -> dict[str, list[float]]:
        """The sums, as the mean over processes."""
        if not self.sums:
            return {}
        (sums,) = sum_over_ranks(torch.stack(list(self.sums.values())))
        return dict(zip(self.sums, (sums / num_ranks()).tolist(), strict=True))
