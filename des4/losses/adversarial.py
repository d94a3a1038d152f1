"""What a discriminator is asked to say, and what is asked of those whom it judges."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from des4.ops.reduce import mean_over


def judged(logits: Tensor, real: bool, valid: Tensor, pixels: Tensor | None = None) -> Tensor:
    """Mean binary cross-entropy of a discriminator's logits against one answer for all pixels, `real` or not.

    logits: (B, H, W), of a pixel being real. valid: (B, H, W) bool. pixels: what the mean divides by, see `Labeled`;
    None = the valid pixels of this batch. Returns a scalar ≥ 0, log 2 where the discriminator cannot tell.
    """
    logits = logits.float()
    return mean_over(F.softplus(-logits if real else logits) * valid, valid, pixels)
