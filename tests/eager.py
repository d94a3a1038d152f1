"""How tests train any method: settings under which all of it counts from the first step on, and an optimiser."""

from __future__ import annotations

import torch
from annotated_types import Gt

from des4.engine.optim import Together
from des4.methods import METHODS, Method

NOUGHT = (
    "threshold", "semi_start", "anchor_threshold", "labels_alone", "previous_threshold", "memory_threshold", "warm_up"
)  # fmt: skip
"""Keys of methods that would keep a fresh network from learning some of what it is to learn, unless they are 0."""


LATER = {"gct": [f"{name}/{term}" for name in ("student", "peer") for term in ("correction", "consistency")],
         "rc2l": ["feature_contrast"]}  # fmt: skip
"""Method → terms that are 0 even so, until a network has learnt to find something."""


def eager(name: str) -> dict[str, float]:
    """Settings of a method with which no pseudo-label is refused and nothing begins later."""
    fields = METHODS[name].Config.model_fields
    return {
        key: 0.0 for key in NOUGHT if key in fields and not any(isinstance(rule, Gt) for rule in fields[key].metadata)
    }


def optimiser_of(method: Method, lr: float = 0.05, weight_decay: float = 0.0) -> torch.optim.Optimizer:
    """SGD of all that is trained, with a momentum of 0.9, and beside it an Adam of each critic."""
    critics = [network for network in method.networks().values() if network.role == "critic"]
    judging = {id(parameter) for critic in critics for parameter in critic.module.parameters()}
    rest = [p for p in method.parameters() if p.requires_grad and id(p) not in judging]
    sgd = torch.optim.SGD(rest, lr=lr, momentum=0.9, weight_decay=weight_decay)
    adams = [torch.optim.Adam(critic.module.parameters(), lr=critic.lr or 0, betas=(0.9, 0.99)) for critic in critics]
    return Together(sgd, *adams) if critics else sgd
