"""Labels that spread over regions: hand-computed cases."""

from __future__ import annotations

import torch
from torch import Tensor

from des4.methods.ingredients.propagation import propagated, regions
from des4.methods.ingredients.supervision import Supervision, SupervisionConfig
from des4.methods.ingredients.targets import Target

SUPERVISION = Supervision(SupervisionConfig(), torch.ones(3))
EVERYWHERE = torch.ones(1, 1, 6, dtype=torch.bool)


def target(label: list[int], confidence: list[float]) -> Target:
    """A row of six pixels, which count from a confidence of 0.6 on."""
    sure = torch.tensor([[confidence]])
    return Target(torch.tensor([[label]]), sure, sure >= 0.6, EVERYWHERE, SUPERVISION)


def spread(shares: list[list[float]], t: float, where: Tensor = EVERYWHERE) -> Target:
    plain = target([0, 0, 1, 1, 1, 2], [0.9, 0.9, 0.9, 0.1, 0.9, 0.1])
    return propagated(plain, torch.tensor([shares])[:, :, None], torch.tensor(t), 3, where)


def test_a_region_that_is_nearly_sure_of_one_label_gets_it_whole() -> None:
    row = [0, 0, 0.9, 0.8, 0.7, 0.45]  # more than half of the largest: pixels 2, 3 and 4, of which two of three count
    found = spread([row], 0.6)
    assert found.label.tolist() == [[[0, 0, 1, 1, 1, 2]]]
    assert found.keep.tolist() == [[[True, True, True, True, True, False]]]
    assert not spread([row], 0.7).keep[0, 0, 3]


def test_a_region_of_several_labels_spreads_none_unless_one_has_most() -> None:
    row = [0.9, 0.9, 0.9, 0.0, 0.0, 0.0]  # all three count: two of class 0, one of class 1
    assert spread([row], 0.6).label.tolist() == [[[0, 0, 0, 1, 1, 2]]]
    assert spread([row], 0.7).label.tolist() == [[[0, 0, 1, 1, 1, 2]]]


def test_the_last_region_of_a_pixel_decides_and_none_reaches_where_it_may_not() -> None:
    first, second = [0.9, 0.9, 0.0, 0.9, 0.0, 0.0], [0.0, 0.0, 0.9, 0.9, 0.9, 0.0]
    assert spread([first, second], 0.6).label[0, 0, 3] == 1
    assert spread([second, first], 0.6).label[0, 0, 3] == 0
    where = EVERYWHERE.clone()
    where[0, 0, 3] = False
    assert not spread([second, first], 0.6, where).keep[0, 0, 3]


def test_a_region_in_which_nothing_counts_and_an_empty_one_spread_nothing() -> None:
    rows = [[0.0, 0.0, 0.0, 0.9, 0.0, 0.9], [0.0] * 6]
    found = spread(rows, 0.0)
    assert found.label.tolist() == [[[0, 0, 1, 1, 1, 2]]] and found.keep.sum() == 4


def test_regions_are_rows_of_the_shares() -> None:
    shares = torch.arange(16.0).view(1, 4, 4)
    found = regions(shares, torch.tensor([[2, 0]]), (2, 2), (2, 2))
    assert found.tolist() == [[[[8, 9], [10, 11]], [[0, 1], [2, 3]]]]
