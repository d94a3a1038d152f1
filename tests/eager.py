"""Settings under which every term of a fresh method counts from its first step on."""

from __future__ import annotations

from annotated_types import Gt

from des4.methods import METHODS

NOUGHT = ("threshold", "semi_start", "anchor_threshold", "labels_alone", "previous_threshold")
"""Keys of methods that would keep a fresh network from learning some of what it is to learn, unless they are 0."""


def eager(name: str) -> dict[str, float]:
    """Settings of a method with which no pseudo-label is refused and nothing begins later."""
    fields = METHODS[name].Config.model_fields
    return {
        key: 0.0 for key in NOUGHT if key in fields and not any(isinstance(rule, Gt) for rule in fields[key].metadata)
    }
