"""Series of numbers over the steps, out of the lines of metrics.jsonl."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any


def keys_like(metrics: Sequence[Mapping[str, Any]], pattern: str) -> list[str]:
    """List the keys that match, in the order of their first appearance."""
    return list(dict.fromkeys(key for row in metrics for key in row if re.fullmatch(pattern, key)))


def series_of(metrics: Sequence[Mapping[str, Any]], key: str, scale: float = 1) -> tuple[list[float], list[float]]:
    """Return the steps and the scaled values of the lines that hold a number under `key`."""
    points = [(float(row["step"]), scale * row[key]) for row in metrics if row.get(key) is not None]
    return [step for step, _ in points], [value for _, value in points]


def class_mean(metrics: Sequence[Mapping[str, Any]], prefix: str) -> tuple[list[float], list[float]]:
    """Return the steps and the mean percentage over all keys with `prefix`, of the lines that hold one."""
    steps, means = [], []
    for row in metrics:
        if values := [v for key, v in row.items() if key.startswith(prefix) and v is not None]:
            steps.append(float(row["step"]))
            means.append(100 * sum(values) / len(values))
    return steps, means


def running_mean(values: list[float]) -> list[float]:
    """Average each value with its neighbours, over a window of about a twentieth of the series, shorter at its ends."""
    half = max(1, len(values) // 40)
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]
