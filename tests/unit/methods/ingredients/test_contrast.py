"""Contrast with a memory: by hand, by the numbers of classes, and the same however images are shared out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from des4.methods.ingredients.contrast import PixelContrast, PixelContrastConfig
from des4.types import IGNORE

KEYS = torch.tensor([11, -5])


def contrast(**settings: object) -> PixelContrast:
    config = {"anchors": 4, "negatives": 6, "pushed": 4, "queue": 16, "contrast_temperature": 0.5} | settings
    return PixelContrast(3, 3, PixelContrastConfig(**config))  # type: ignore[arg-type]


def axis(number: int) -> Tensor:
    """Maps (1, 3, 1, 1) that point along an axis."""
    return torch.eye(3)[number][None, :, None, None]


def taught(**settings: object) -> PixelContrast:
    """Class c has its centre on axis c, and its negatives on axis c + 1; class 1 is not known at all."""
    memory = contrast(**settings)
    for c in (0, 2):
        negative = torch.zeros(1, 3, 1, 1, dtype=torch.bool)
        memory.collect(axis(c), torch.full((1, 1, 1), c), negative, torch.tensor([c]))
        negative[:, c] = True
        memory.collect(axis((c + 1) % 3), torch.full((1, 1, 1), IGNORE), negative, torch.tensor([10 + c]))
    memory.commit()
    return memory


def test_an_anchor_meets_the_centre_and_the_queue_of_its_own_class() -> None:
    """Class 1 is missing; a loss that goes by the place among those present would hold class 2 against class 1."""
    memory = taught()
    features = torch.cat([axis(0), axis(2)], 2)  # (1, 3, 2, 1): a pixel of class 0 and one of class 2, both in place
    labels = torch.tensor([[[0], [2]]])
    right = math.log(1 + 6 * math.exp(-2))
    assert memory.loss(features, labels, KEYS[:1]).item() == pytest.approx(right)
    swapped = memory.loss(features.flip(2), labels, KEYS[:1])  # axis 2 is class 0's neither, axis 0 class 2's negatives
    assert swapped.item() == pytest.approx((math.log(7) + math.log(1 + 6 * math.exp(2))) / 2)


def test_a_class_that_the_memory_does_not_know_counts_nowhere() -> None:
    memory, features = taught(), torch.cat([axis(0), axis(2)], 2)
    alone = memory.loss(features[:, :, :1], torch.tensor([[[0]]]), KEYS[:1])
    assert torch.equal(memory.loss(features, torch.tensor([[[0], [1]]]), KEYS[:1]), alone)
    assert memory.loss(features, torch.tensor([[[1], [1]]]), KEYS[:1]) == 0
    assert contrast().loss(features, torch.tensor([[[0], [2]]]), KEYS[:1]) == 0  # nothing is remembered yet
    assert memory.loss(features, torch.full((1, 2, 1), IGNORE), KEYS[:1]) == 0


def test_the_loss_is_a_mean_over_images_whoever_holds_them() -> None:
    memory = taught()
    features, labels = torch.randn(2, 3, 5, 5), torch.randint(0, 3, (2, 5, 5))
    both = memory.loss(features, labels, KEYS)
    one, two = (memory.loss(features[n : n + 1], labels[n : n + 1], KEYS[n : n + 1]) for n in range(2))
    torch.testing.assert_close(both, (one + two) / 2)
    assert one != two


def test_what_is_remembered_does_not_depend_on_parts() -> None:
    whole, parted = contrast(), contrast()
    features, labels = torch.randn(2, 3, 5, 5), torch.randint(0, 3, (2, 5, 5))
    negative = torch.rand(2, 3, 5, 5) > 0.5
    whole.collect(features, labels, negative, KEYS)
    for n in (1, 0):
        parted.collect(features[n : n + 1], labels[n : n + 1], negative[n : n + 1], KEYS[n : n + 1])
    whole.commit()
    parted.commit()
    torch.testing.assert_close(dict(whole.named_buffers()), dict(parted.named_buffers()))
    assert whole.queue.filled.tolist() == [8, 8, 8]


def test_only_negatives_of_a_class_enter_its_queue() -> None:
    memory = contrast(pushed=25)
    features = torch.arange(25.0).view(1, 1, 5, 5).expand(1, 3, 5, 5)
    negative = torch.zeros(1, 3, 5, 5, dtype=torch.bool)
    negative[0, 1, 0, 2], negative[0, 1, 4, 4] = True, True
    memory.collect(features, torch.full((1, 5, 5), IGNORE), negative, KEYS[:1])
    memory.commit()
    assert memory.queue.filled.tolist() == [0, 2, 0]
    assert memory.queue.rows[1, :2, 0].tolist() == [2, 24]
    assert not memory.centres.seen.any()
