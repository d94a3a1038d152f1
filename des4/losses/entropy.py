"""How undecided predictions are."""

from __future__ import annotations

import math

from torch import Tensor

from des4.ops.entropy import pixel_entropy
from des4.ops.reduce import mean_over
from des4.ops.resize import upsample


def mean_entropy(logits: Tensor, valid: Tensor, pixels: Tensor | None = None) -> Tensor:
    """Entropy of the class distributions as a share of log C, averaged over valid pixels (Vu et al., CVPR 2019).

    logits: (B, C ≥ 2, h, w). valid: (B, H, W) bool. pixels: what the mean divides by, see `Labeled`; None = the valid
    pixels of this batch. Returns a scalar in [0, 1].
    """
    probs = upsample(logits.float(), (valid.shape[-2], valid.shape[-1])).softmax(1)
    return mean_over(pixel_entropy(probs) * valid / math.log(logits.shape[1]), valid, pixels)
