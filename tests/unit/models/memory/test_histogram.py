from __future__ import annotations

import pytest
import torch

from des4.models.memory import Histogram


def test_before_the_first_commit_values_count_as_evenly_spread() -> None:
    histogram = Histogram(bins=8)
    assert [histogram.quantile(share).item() for share in (0.0, 0.3, 1.0)] == pytest.approx([0, 0.3, 1])


def test_a_quantile_is_the_value_below_which_that_share_lies() -> None:
    histogram = Histogram(bins=10)
    values = torch.tensor([[0.05, 0.15, 0.15, 0.95, 0.5]])
    histogram.collect(values, torch.tensor([[True, True, True, True, False]]))
    histogram.commit()
    # a quarter of the four values in [0, 0.1), a half in [0.1, 0.2), a quarter in [0.9, 1]
    assert histogram.quantile(0.25).item() == pytest.approx(0.1)
    assert histogram.quantile(0.5).item() == pytest.approx(0.15)
    assert histogram.quantile(0.75).item() == pytest.approx(0.2)
    assert histogram.quantile(0.875).item() == pytest.approx(0.95)
    assert histogram.quantile(1.0).item() == pytest.approx(1)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_a_quantile_of_many_values_is_that_of_torch(share: float) -> None:
    values = torch.rand(4000, generator=torch.Generator().manual_seed(0)) ** 3
    histogram = Histogram()
    histogram.collect(values, torch.ones_like(values, dtype=torch.bool))
    histogram.commit()
    assert histogram.quantile(share).item() == pytest.approx(values.quantile(share).item(), abs=2e-3)


def test_the_first_step_replaces_and_later_ones_are_averaged() -> None:
    histogram = Histogram(bins=2, momentum=0.9)
    for value in (0.2, 0.8, 0.8):  # averages of 1 - 1/(t + 1): those of all steps so far
        histogram.collect(torch.full((7,), value), torch.ones(7, dtype=torch.bool))
        histogram.commit()
    assert histogram.shares[0].tolist() == pytest.approx([1 / 3, 2 / 3])


def test_parts_add_up_and_neither_nothing_nor_a_skipped_step_counts() -> None:
    one, two = Histogram(bins=4), Histogram(bins=4)
    values = torch.tensor([0.1, 0.3, 0.3, torch.nan])
    there = torch.ones(4, dtype=torch.bool)
    one.collect(values, there)
    two.collect(values[:1], there[:1])
    two.collect(values[1:], there[1:])
    for histogram in (one, two):
        histogram.commit()
        assert histogram.shares[0].tolist() == pytest.approx([1 / 3, 2 / 3, 0, 0])
        histogram.collect(values, ~there)
        histogram.commit()
        histogram.skipped = torch.ones(())
        histogram.collect(values + 0.5, there)
        histogram.commit()
        assert histogram.shares[0].tolist() == pytest.approx([1 / 3, 2 / 3, 0, 0])
        assert histogram.steps == 1


def test_the_largest_values_of_each_group_down_to_a_share_of_all() -> None:
    histogram = Histogram(bins=4, groups=3)
    values = torch.tensor([0.1, 0.6, 0.6, 0.9, 0.9, 0.9, 0.9, 0.3])
    group = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2])
    histogram.collect(values, torch.ones(8, dtype=torch.bool), group)
    histogram.commit()
    edge, part = histogram.top(torch.tensor([2 / 8, 1 / 8, 2 / 8]))
    # group 0: one value in the last bin, two more in the one before; two of these three. Group 1: one of three in the
    # last bin. Group 2 has one value and not two: all of it.
    assert edge.tolist() == [0.5, 0.75, 0.0]
    assert part.tolist() == pytest.approx([2 / 3, 1 / 3, 1.0])
    assert histogram.quantile(0.5).item() == pytest.approx(0.75)
    histogram.reset()
    assert histogram.shares.sum().item() == pytest.approx(1)
    assert histogram.steps == 0
