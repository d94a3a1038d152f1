"""What a logger is, and the table of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

LOGGERS = {
    "tensorboard": ("des4.loggers.tensorboard", "TensorBoard"),
    "wandb": ("des4.loggers.wandb", "WeightsAndBiases"),
    "mlflow": ("des4.loggers.mlflow", "MLflow"),
}
"""Name → module and class. The name is also that of the library to import, and of the pip extra that brings it."""

PROJECT = "des4"
"""Project of W&B, experiment of MLflow, unless their environment variables name another."""


class FirstStep(NamedTuple):
    """What a run is when a process begins, or goes on with, its training.

    name: of the run. config: its settings, nested. step: steps that were taken before.
    """

    name: str
    config: Mapping[str, Any]
    step: int


class Logger(Protocol):
    """Writes what it is given to where people look at it. Any of these may raise, and may hang."""

    forgets: bool
    """Whether `open` drops what was logged beyond the step that a run goes on from."""

    def open(self, run: Path, first: FirstStep, known: dict[str, Any]) -> dict[str, Any]:
        """Begin; return what leads back to this run, and under `at` where people find it.

        known: what an earlier process has returned, or nothing.
        """

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log finite numbers of a step, by name."""

    def picture(self, step: int, png: bytes) -> None:
        """Log the samples of a validation."""

    def close(self, status: str) -> None:
        """Deliver all, and end. status: `finished`, `stopped` or `failed`."""


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted key."""
    values: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            values |= flat(value, f"{prefix}{key}.")
        else:
            values[f"{prefix}{key}"] = value
    return values
