"""What is seen inside a method at a validation: entropy zones, what was sampled of them, and the prototypes.

All of it belongs to the last step before the validation, so other steps pay nothing. The figures are logged before that
step's checkpoint is written, so that none is lost, or written twice, when a run goes on from it.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from des4.models import PrototypeFeed

DIGITS = 4
"""Decimals that metrics.jsonl keeps of these figures, of which there are many."""


class Inside:
    """Watches what feeds the prototypes of a method, if it has some; it changes nothing that is trained."""

    def __init__(self, method: nn.Module) -> None:
        self.feeds = {name: module for name, module in method.named_modules() if isinstance(module, PrototypeFeed)}

    def watch(self, wanted: bool) -> None:
        """Say, before a step, whether its figures will be asked for."""
        for feed in self.feeds.values():
            feed.watched = wanted

    def line(self) -> dict[str, list[float]]:
        """What metrics.jsonl keeps of the step, by key `inside/FEED/FIGURE`; every process has to ask.

        Matrices are written row by row; of the cosines, which are symmetric, what lies above the diagonal. Empty where
        no prototype was fed.
        """
        line = {}
        for name, feed in self.feeds.items():
            if (figures := feed.figures()) is None:
                continue
            for key, value in figures._asdict().items():
                if key == "cosine":
                    rows = value.tolist()
                    values = [number for row, found in enumerate(rows) for number in found[row + 1 :]]
                else:
                    values = value.flatten().tolist()
                counted = key in ("pixels", "taken")
                line[f"inside/{name}/{key}"] = [int(n) if counted else round(n, DIGITS) for n in values]
        return line

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps: the prototypes that a later step is held against."""
        return {name: feed.watched_before for name, feed in self.feeds.items() if feed.watched_before is not None}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Undo `state`."""
        for name, feed in self.feeds.items():
            feed.watched_before = state.get(name)
