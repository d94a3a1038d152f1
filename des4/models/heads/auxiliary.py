"""The auxiliary head of published trainings: a small classifier on the encoder's stage before last, for training alone.

Zhao et al., "Pyramid scene parsing network", CVPR 2017, section 3.3: its loss teaches the lower stages directly, and is
weighted by 0.4. The form is that of most codes since (U2PL, AEL, DARS): a 3×3 convolution to a quarter of the channels,
BatchNorm, ReLU, channels dropped with probability 0.1, a 1×1 convolution. Ours: dropped channels follow from the keys.
"""

from __future__ import annotations

from torch import Tensor, nn

from des4.models.decoders.layers import conv_norm_relu, start_weights
from des4.models.heads.linear import LinearClassifier
from des4.ops.noise import bernoulli

DROPPED = 0.1
"""Probability with which a channel is dropped while it trains."""


class AuxiliaryHead(nn.Module):
    """Classifies the map of an encoder's stage before last. inputs: its channels. name: of what it draws."""

    def __init__(self, num_classes: int, inputs: int, name: str) -> None:
        super().__init__()
        width = max(1, inputs // 4)
        self.name = name
        self.hidden = conv_norm_relu(inputs, width, 3)
        start_weights(self.hidden)
        self.classifier = LinearClassifier(num_classes, width)

    def forward(self, side: Tensor, keys: Tensor) -> Tensor:
        """(B, inputs, h, w) to logits (B, C, h, w). keys: (B,), of the images, from which dropped channels follow."""
        hidden = self.hidden(side)
        if self.training:
            kept = ~bernoulli(keys, (hidden.shape[1], 1, 1), f"{self.name}/auxiliary", DROPPED)
            hidden = hidden * (kept.to(hidden.dtype) / (1 - DROPPED))
        return self.classifier(hidden)  # type: ignore[no-any-return]
