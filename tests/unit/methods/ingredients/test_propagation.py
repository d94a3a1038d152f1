"""Labels that spread over regions: hand-computed cases."""

from __future__ import annotations

import torch
from torch import Tensor

from des4.methods.ingredients.propagation import propagated, regions
from des4.methods.ingredients.supervision import Supervision, SupervisionConfig
from des4.methods.ingredients.targets import Target

SUPERVISION = Supervision(SupervisionConfig(), torch.ones(3))
EVERYWHERE = torch.ones(1, 1, 6, dtype=torch.bool)


def target(label: list[int], confidence: list[float], valid: Tensor = EVERYWHERE) -> Target:
    """A row of pixels, which count from a confidence of 0.6 on."""
    sure = torch.tensor([[confidence]])
    return Target(torch.tensor([[label]]), sure, (sure >= 0.6) & valid, valid, SUPERVISION)


def spread(shares: list[list[float]], t: float, where: Tensor = EVERYWHERE) -> Target:
    plain = target([0, 0, 1, 1, 1, 2], [0.9, 0.9, 0.9, 0.1, 0.9, 0.1])
    found = regions(torch.tensor([shares]), torch.arange(len(shares))[None], EVERYWHERE, (1, 6), (1, 6))
    return propagated(plain, found, torch.tensor(t), 3, where)


def row(values: list[bool]) -> Tensor:
    """One region of one image, or what is valid of it."""
    return torch.tensor(values)[None, None]


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


def test_nearly_sure_is_a_share_of_the_region_and_of_one_label_a_share_of_what_is_sure() -> None:
    """Eight of ten pixels count, six of them with one label: at least 0.7 of the region, and 6 > 0.7 · 8."""
    valid = row([True] * 10)
    plain = target([0] * 6 + [1, 1] + [2, 2], [0.9] * 8 + [0.1, 0.1], valid)
    assert propagated(plain, valid[:, None], torch.tensor(0.7), 3, valid).label.eq(0).all()
    assert torch.equal(propagated(plain, valid[:, None], torch.tensor(0.76), 3, valid).label, plain.label)


def test_padding_is_no_part_of_a_region_that_has_to_be_sure() -> None:
    valid = row([True] * 3 + [False] * 3)
    plain = target([0, 0, 1, 0, 0, 0], [0.9, 0.9, 0.1, 0.9, 0.9, 0.9], valid)
    found = propagated(plain, EVERYWHERE[:, None], torch.tensor(0.6), 3, EVERYWHERE)  # two of three count
    assert found.label[0, 0].tolist() == [0, 0, 0, 0, 0, 0] and torch.equal(found.keep, valid)


def test_labels_spread_over_the_pixels_of_a_place_that_they_may_reach() -> None:
    """Two places of four pixels, of which the first two are those of the first place."""
    for pixel, (padded, mixed) in enumerate([(False, False), (True, False), (False, True)]):
        valid, where = row([True] * 4), row([True] * 4)
        valid[0, 0, 1], where[0, 0, 1] = not padded, not mixed
        plain = target([0, 1, 1, 1], [0.9, 0.1, 0.9, 0.9], valid)
        found = propagated(plain, torch.tensor([[[[True, False]]]]), torch.tensor(0.6), 3, where)
        assert found.label[0, 0].tolist() == ([0, 1, 1, 1] if pixel else [0, 0, 1, 1])
        assert found.keep[0, 0].tolist() == [True, not pixel, True, True]


def test_regions_are_rows_of_the_shares_above_the_middle_of_their_range() -> None:
    shares = torch.tensor([[[0.1, 0.2, 0.3, 0.4], [1.0] * 4, [0.4, 0.3, 0.3, 0.0], [0.25] * 4]])
    valid = torch.ones(1, 2, 2, dtype=torch.bool)
    found = regions(shares, torch.tensor([[2, 0, 3]]), valid, (2, 2), (2, 2))
    none = [[False, False], [False, False]]
    assert found.tolist() == [[[[True, True], [True, False]], [[False, False], [True, True]], none]]
    larger = regions(shares, torch.tensor([[0]]), valid, (2, 2), (3, 3))  # 0.25 in the middle: not above it
    assert larger.tolist() == [[[[False] * 3, [False, False, True], [True] * 3]]]


def test_padding_neither_widens_nor_narrows_a_region() -> None:
    """What it has to do with others is 0, and would be the bottom of every range."""
    shares = torch.tensor([0.20, 0.20, 0.18, 0.15, 0.14, 0.13])
    assert regions(shares.view(1, 1, 6), torch.zeros(1, 1).long(), EVERYWHERE, (1, 6), (1, 6))[0, 0, 0].tolist() == [
        True, True, True, False, False, False
    ]  # fmt: skip
    padded, valid = torch.cat([shares, torch.zeros(2)]).view(1, 1, 8), row([True] * 6 + [False] * 2)
    found = regions(padded, torch.zeros(1, 1).long(), valid, (1, 8), (1, 8))
    assert found[0, 0, 0].tolist() == [True, True, True, False, False, False, False, False]
    nothing = regions(0 * padded, torch.zeros(1, 1).long(), torch.zeros_like(valid), (1, 8), (1, 8))
    assert not nothing.any(), "of a place in padding"
