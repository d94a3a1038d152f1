"""How much each embedding of a class is worth, by a small network of that class (CMB, Alonso et al., ICCV 2021)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ClassSelectors(nn.Module):
    """For each class a layer to as many channels, a leaky ReLU, a layer to one number and a sigmoid; all in one pass.

    C classes, D channels. Weights begin as those of `nn.Linear`, uniform in ±1/√D.
    """

    inner: nn.Parameter
    shift: nn.Parameter
    outer: nn.Parameter
    bias: nn.Parameter

    def __init__(self, num_classes: int, dim: int) -> None:
        super().__init__()
        edge = 1 / math.sqrt(dim)
        shapes = {"inner": (num_classes, dim, dim), "shift": (num_classes, 1, dim), "outer": (num_classes, dim, 1),
                  "bias": (num_classes, 1)}  # fmt: skip
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.empty(shape).uniform_(-edge, edge)))

    def forward(self, features: Tensor) -> Tensor:
        """Score embeddings of each class, (..., C, k, D), each by the network of its class: (..., C, k) in (0, 1).

        float32, whatever autocast says: scores are near to one another.
        """
        with torch.autocast(features.device.type, enabled=False):
            hidden = F.leaky_relu(features.float() @ self.inner + self.shift)
            return ((hidden @ self.outer).squeeze(-1) + self.bias).sigmoid()
