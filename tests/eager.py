"""How tests train any method: settings under which all of it counts from the first step on, and an optimiser."""

from __future__ import annotations

import torch
from annotated_types import Gt

from des4.engine.optim import Together
from des4.methods import METHODS, Method

NOUGHT = ("threshold", "semi_start", "anchor_threshold", "labels_alone", "previous_threshold")
"""Keys of methods that would keep a fresh network from learning some of what it is to learn, unless they are 0."""


LATER = {"gct": [f"{name}/{term}" for name in ("student", "peer") for term in ("correction", "consistency")]}
"""Method → terms that are 0 even so, until a network has learnt to find something."""


def eager(name: str) -> dict[str, float]:
    """Settings of a method with which no pseudo-label is refused and nothing begins later."""
    fields = METHODS[name].Config.model_fields
    return {
        key: 0.0 for key in NOUGHT if key in fields and not any(isinstance(rule, Gt) for rule in fields[key].metadata)
    }
