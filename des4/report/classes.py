"""Which classes a diagram shows of many.

A table holds them all. A diagram of more than can be told apart shows the most frequent and the rarest, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

FREQUENT, RARE = 7, 14
"""Classes of a diagram, where there are more than both together: lines have seven colours in three styles."""


def ends(order: Sequence[str], frequent: int = FREQUENT, rare: int = RARE) -> list[str]:
    """Return the most frequent classes and the rarest, or all if there are no more. order: most frequent first."""
    return list(order) if len(order) <= frequent + rare else [*order[:frequent], *order[-rare:]]


def shown(share: Mapping[str, float]) -> list[str]:
    """Return the classes that diagrams show, most frequent first. share: of each class's labeled pixels.

    Where they are too many, those without a labeled pixel are the first to be left out.
    """
    order = sorted(share, key=lambda name: -share[name])
    if len(order) <= FREQUENT + RARE:
        return order
    return ends([name for name in order if share[name]] or order)


def told(share: Mapping[str, float]) -> str:
    """Say which classes `shown` returns, if they are not all."""
    names = shown(share)
    if len(names) == len(share):
        return ""
    if len(names) < FREQUENT + RARE:
        return f"{len(names)} of {len(share)} classes are drawn: those that have labeled pixels"
    return f"{len(names)} of {len(share)} classes are drawn: the {FREQUENT} most frequent and the {RARE} rarest"
