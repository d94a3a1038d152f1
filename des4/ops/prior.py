"""How frequent classes are in the labeled list, as losses read it."""

from __future__ import annotations

import torch
from torch import Tensor


def class_prior(pixel_counts: Tensor) -> Tensor:
    """Share of the labeled pixels that each class has, (C,) float32 in (0, 1].

    A class without a pixel is given the share of the rarest that has some, so that its logarithm is finite.
    pixel_counts: (C,) labeled pixels of each class; without any pixel at all, all classes are alike.
    """
    counts = pixel_counts.double()
    rarest = torch.where(counts > 0, counts, torch.inf).amin()
    counts = torch.where(counts > 0, counts, rarest.nan_to_num(posinf=1.0))
    return (counts / counts.sum()).float()


def class_weights(pixel_counts: Tensor, power: float) -> Tensor:
    """Weights (C,) in proportion to prior^-power, whose mean over the labeled pixels is 1. power: 0 = all are 1.

    A class without a pixel weighs as the rarest that has some; without any pixel at all, all are 1.
    """
    prior, counts = class_prior(pixel_counts).double(), pixel_counts.double()
    weights = prior.pow(-power)
    shares = counts / counts.sum() if counts.any() else prior
    return (weights / (shares * weights).sum()).float()


def subclass_counts(prior: Tensor, most: int) -> tuple[int, ...]:
    """Into how many sub-classes of about one size each class is cut: one of the rarest, of others as many as their
    share is times its; in proportion fewer, and one at least, where these would be more than `most` together.

    prior: (C,) shares of the classes, all above 0.
    """
    ratio = (prior.double() / prior.double().amin()).tolist()

    def cut(factor: float) -> tuple[int, ...]:
        return tuple(max(1, round(factor * each)) for each in ratio)

    low, high = 0.0, 1.0
    for _ in range(50 if sum(cut(high)) > most else 0):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(cut(middle)) <= most else (low, middle)
    return cut(low) if sum(cut(1.0)) > most else cut(1.0)
