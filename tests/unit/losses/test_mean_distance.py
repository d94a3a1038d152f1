"""The distance to a memory: by hand, as the mean over pairs that it is, and its limits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from des4.losses import mean_distance


def test_it_is_the_weighted_mean_over_all_pairs() -> None:
    one, two = torch.randn(2, 5, 3), torch.randn(2, 4, 3)
    one_weight, two_weight = torch.rand(2, 5), torch.rand(2, 4)
    distance = 1 - F.cosine_similarity(one[:, :, None], two[:, None], dim=-1)
    axis = 5 * one_weight / one_weight.sum(1, keepdim=True)  # rescaled to a mean of 1, as in the paper
    other = 4 * two_weight / two_weight.sum(1, keepdim=True)
    expected = (distance * axis[:, :, None] * other[:, None]).mean((1, 2))
    torch.testing.assert_close(mean_distance(one, two, one_weight, two_weight), expected)


def test_what_has_no_weight_does_not_count() -> None:
    """An embedding at 60° to the only one that counts, whatever their lengths."""
    one = torch.tensor([[0.5, 3**0.5 / 2], [9.0, -9.0]])
    two = torch.tensor([[7.0, 0.0], [0.0, 1.0]])
    found = mean_distance(one, two, torch.tensor([0.2, 0.0]), torch.tensor([3.0, 0.0]))
    assert found.item() == pytest.approx(0.5)


def test_equal_directions_have_no_distance_and_opposite_ones_two() -> None:
    one, weight = torch.tensor([[0.0, 2.0], [0.0, 5.0]]), torch.ones(2)
    assert mean_distance(one, 3 * one, weight, weight).item() == pytest.approx(0, abs=1e-6)
    assert mean_distance(one, -one, weight, weight).item() == pytest.approx(2)


def test_gradients_reach_pixels_and_weights_and_nothing_that_is_remembered() -> None:
    one, two = torch.randn(5, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    one_weight, two_weight = torch.rand(5, requires_grad=True), torch.rand(4, requires_grad=True)
    mean_distance(one, two, one_weight, two_weight).backward()  # type: ignore[no-untyped-call]
    assert two.grad is None
    for each in (one, one_weight, two_weight):
        assert each.grad is not None and each.grad.abs().max() > 1e-3


def test_without_any_weight_nothing_is_moved() -> None:
    one = torch.randn(5, 3, requires_grad=True)
    mean_distance(one, torch.zeros(4, 3), torch.zeros(5), torch.zeros(4)).backward()  # type: ignore[no-untyped-call]
    assert one.grad is not None and not one.grad.any()
