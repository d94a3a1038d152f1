"""The running statistics of normalisation layers: the buffers that a forward pass in train mode moves."""

from __future__ import annotations

from torch import Tensor, nn

NAMES = frozenset({"running_mean", "running_var", "num_batches_tracked"})
"""What torch's and timm's normalisation layers call them."""


def norm_statistics(module: nn.Module) -> list[Tensor]:
    """Return the running statistics of all normalisation layers inside a module, each buffer once."""
    return [buffer for name, buffer in module.named_buffers() if name.rpartition(".")[2] in NAMES]
