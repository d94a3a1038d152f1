"""Which classes are the rare ones, and which scores rest on few images."""

from __future__ import annotations

from torch import Tensor

FEW_VAL = 20
"""A score on fewer images is the score of a few pictures."""


def tail_classes(pixel_counts: Tensor) -> list[int]:
    """Return the indices of the rare classes.

    The rule: a class is in the tail if its share of the labeled list's pixels lies below the median share of the
    classes present (for an even number of them, the mean of the middle two). A class without a labeled pixel is not
    present: it neither moves the median nor belongs to the tail, for nothing could be learnt about it.

    pixel_counts: (C,) pixels of each class in the labeled list.
    """
    counts = pixel_counts.double().cpu()
    present = counts > 0
    if not present.any():
        return []
    median = counts[present].quantile(0.5)
    return (present & (counts < median)).nonzero().flatten().tolist()


def few_images(count: int) -> str:
    """Say what a score on so many images is worth; '' where they are enough."""
    if count >= FEW_VAL:
        return ""
    images = f"{count} val image" + "s" * (count != 1)
    return f"the score rests on {images}: with fewer than {FEW_VAL} it is the score of a few pictures"
