"""Regions: overlap, means and losses by hand and at their limits."""

from __future__ import annotations

import math

import pytest
import torch

from des4.losses import mask_contrast, mean_over_regions, overlap, pooled, presence_loss


def test_the_overlap_is_that_of_dice_for_all_pairs() -> None:
    one = torch.tensor([[1.0, 1, 0, 0], [0, 0, 0, 0], [0.5, 0.5, 0.5, 0.5]]).view(1, 3, 2, 2)
    two = torch.tensor([[1.0, 1, 0, 0], [0, 1, 1, 1]]).view(1, 2, 2, 2)
    found = overlap(one, two)[0]
    assert found.tolist() == [
        pytest.approx([1, 2 * 1 / 5]),
        pytest.approx([0, 0]),
        pytest.approx([2 * 1 / 4, 2 * 1.5 / 5]),
    ]
    assert overlap(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)) == 0


def test_features_are_averaged_by_masks() -> None:
    features = torch.tensor([[1.0, 2, 3, 4], [10, 20, 30, 40]]).view(1, 2, 2, 2)
    masks = torch.tensor([[True, False, True, False], [False] * 4]).view(1, 2, 2, 2)
    assert pooled(features, masks).tolist() == [[[2, 20], [0, 0]]]
    soft = torch.tensor([0.25, 0, 0, 0.75]).view(1, 1, 2, 2)
    assert pooled(features, soft)[0, 0].tolist() == pytest.approx([0.25 + 3, 32.5])


def test_means_are_of_an_images_regions_and_then_of_images() -> None:
    values = torch.tensor([[1.0, 2, 9], [4, 9, 9], [9, 9, 9]])
    there = torch.tensor([[True, True, False], [True, False, False], [False] * 3])
    assert mean_over_regions(values, there).item() == pytest.approx((1.5 + 4 + 0) / 3)


def test_masks_are_found_by_their_overlap() -> None:
    there = torch.ones(1, 3, dtype=torch.bool)
    assert mask_contrast(torch.eye(3)[None], there, 0.1).item() == pytest.approx(
        math.log(1 + 2 * math.exp(-10)), abs=1e-6
    )
    assert mask_contrast(torch.full((1, 3, 3), 0.4), there, 0.1).item() == pytest.approx(math.log(3))
    overlaps = torch.zeros(1, 3, 3)
    overlaps[0, 0, 1], overlaps[0, 1, 1] = 0.6, 0.2  # mask 1 is more like the other's mask 0
    only = torch.tensor([[False, True, False]])
    expected = math.log(math.exp(6) + math.exp(2) + 1) - 2
    assert mask_contrast(overlaps, only, 0.1).item() == pytest.approx(expected)


def test_classes_are_there_where_one_pixel_says_so() -> None:
    probs = torch.tensor([[0.9, 0.2], [0.05, 0.5], [0.05, 0.3]]).view(1, 3, 1, 2)
    there, known = torch.tensor([[True, False, False]]), torch.tensor([[True, True, False]])
    expected = -(math.log(0.9) + math.log(1 - 0.5)) / 2
    assert presence_loss(probs, there, known).item() == pytest.approx(expected)
    assert presence_loss(probs, there, torch.zeros_like(known)) == 0
    sure = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)
    assert presence_loss(sure, there, torch.ones_like(known)).item() == pytest.approx(0, abs=1e-6)
    assert presence_loss(sure, ~there, torch.ones_like(known)).isfinite()
