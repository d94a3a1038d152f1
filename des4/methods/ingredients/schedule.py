"""How a weight grows while a training is young, and a momentum over all of it."""

from __future__ import annotations

import math


def sigmoid_ramp(step: int, steps: float) -> float:
    """Rise from e^-5 at step 0 to 1 at step `steps`: exp(-5 (1 - step/steps)²), of Laine & Aila, ICLR 2017; else 1."""
    return math.exp(-5 * (1 - min(step / steps, 1)) ** 2) if steps > 0 else 1.0


def cosine_rise(start: float, step: int, steps: int) -> float:
    """Rise from `start` at step 0 to 1 at step `steps`, by half a cosine."""
    return 1 - (1 - start) * (1 + math.cos(math.pi * step / steps)) / 2
