"""What is known of a part of an image once it is segmented."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from des4.engine.tiles import Area
from des4.ops.entropy import pixel_entropy
from des4.types import IGNORE


@dataclass(frozen=True)
class Piece:
    """A part of an image. labels: (rows, columns) class indices. entropy: of each pixel, in nats, float32.

    confidence: the sum of the pixels' largest probabilities. probs: (C, rows, columns) float32, where the network is.
    """

    rows: slice
    columns: slice
    labels: NDArray[Any]
    entropy: NDArray[np.float32]
    confidence: float
    probs: Tensor

    @classmethod
    def of(cls, area: Area) -> Piece:
        """Compute labels, entropy and confidence from probabilities."""
        confidence, labels = area.probs.max(0)
        return cls(
            area.rows,
            area.columns,
            labels.cpu().numpy().astype(label_type(len(area.probs))),
            pixel_entropy(area.probs, dim=0).cpu().numpy(),
            float(confidence.double().sum()),
            area.probs,
        )


def label_type(num_classes: int) -> type[np.uint8] | type[np.uint16]:
    """Return the smallest type of class indices that leaves 255 to ignored pixels: 16 bits above 255 classes."""
    return np.uint8 if num_classes <= IGNORE else np.uint16
