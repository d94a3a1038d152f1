"""What was looked at, how it is, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "problem"]
"""`warn`: a training runs, but worse than it could. `problem`: it fails, or will."""


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, what was seen, and for a warning or a problem what to do."""

    level: Level
    subject: str
    text: str
    advice: str = ""


def size(count: float) -> str:
    """Write a number of bytes in the unit that suits it."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def count(value: float, unit: str) -> str:
    """Write a large number with a prefix: 2.1 TFLOP."""
    for prefix in ("", "k", "M", "G", "T"):
        if value < 1000:
            return f"{value:.3g} {prefix}{unit}"
        value /= 1000
    return f"{value:.3g} P{unit}"


def duration(seconds: float) -> str:
    """Write a time as people say it."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
