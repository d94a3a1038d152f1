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
    """Sums of the loss terms since the last log line, over finite steps; they stay on the device until asked for."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.images = 0
        self.seconds = 0.0

    def add(self, outcome: Outcome, images: int, seconds: float) -> None:
        """Count a step of so many images of this process."""
        loss = torch.stack(list(outcome.terms.values())).sum()
        values = {"loss": loss, **{f"loss/{name}": term for name, term in outcome.terms.items()}}
        values = {name: torch.where(outcome.skipped > 0, 0, value) for name, value in values.items()}
        values["steps"] = 1 - outcome.skipped
        zero = torch.zeros_like(loss)  # a method that learns in two parts has other terms in the second
        self.sums = {
            name: self.sums.get(name, zero) + values.get(name, zero) for name in dict.fromkeys([*self.sums, *values])
        }
        self.images += images
        self.seconds += seconds

    def means(self) -> dict[str, float]:
        """Over steps and processes; NaN if no step was finite."""
        means = self._over_ranks()
        steps = means.pop("steps")
        return {name: value / steps if steps else math.nan for name, value in means.items()}

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that a resumed run logs the same means."""
        return {"sums": self._over_ranks(), "images": self.images, "seconds": self.seconds}

    def restore(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Undo `state`."""
        self.sums = {name: torch.tensor(value, device=device) for name, value in state.get("sums", {}).items()}
        self.images, self.seconds = state.get("images", 0), state.get("seconds", 0.0)

    def _over_ranks(self) -> dict[str, float]:
        """The sums, as the mean over processes."""
        if not self.sums:
            return {}
        (sums,) = sum_over_ranks(torch.stack(list(self.sums.values())))
        return dict(zip(self.sums, (sums / num_ranks()).tolist(), strict=True))
