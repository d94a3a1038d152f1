"""The linear classifier: one learnable vector and one bias a class."""

from __future__ import annotations

from torch import Tensor, nn


class LinearClassifier(nn.Module):
    """A learnable 1×1 convolution from D embedding channels to C logits."""

    def __init__(self, num_classes: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Conv2d(dim, num_classes, 1)
        nn.init.normal_(self.weight.weight, std=0.01)
        nn.init.zeros_(self.weight.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) to (B, C, h, w)."""
        return self.weight(features)  # type: ignore[no-any-return]
