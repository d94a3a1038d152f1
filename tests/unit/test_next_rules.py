"""Rules that pick images, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from des4.acquisition.rules import EPSILON, RULES, Labeled, Scores, gain_of, pick, ranks, reasons


def scores() -> Scores:
    """Four images of two classes; the second is near the labeled one, the fourth has a speck of the rare class."""
    entropy = np.array([[0.1, np.nan], [0.2, 0.9], [0.3, 0.5], [0.2, 1.0]], np.float32)
    shares = np.array([[1, 0], [0.9, 0.1], [0.5, 0.5], [0.9999, 0.0001]], np.float32)
    features = np.array([[5, 0], [0.1, 0], [0, 4], [1, 0]], np.float32)
    return Scores(["a", "b", "c", "d"], np.nanmean(entropy, 1), entropy, shares, features)


LABELED = Labeled(np.array([9.0, 1.0]), np.zeros((1, 2), np.float32), ["first"])


def test_doubt_is_averaged_over_classes_and_passes_over_specks() -> None:
    assert scores().doubt.tolist() == pytest.approx([0.1, 0.55, 0.4, 0.2])


def test_gain_is_how_much_labeled_pixels_grow() -> None:
    gain = gain_of(np.array([[0.5, 0.5]], np.float32), np.array([9.0, 0.0]))
    assert gain[0] == pytest.approx((math.log1p(0.5 / (9 + EPSILON)) + math.log1p(0.5 / EPSILON)) / 2, rel=1e-5)


def test_each_rule_picks_by_its_number() -> None:
    def first(rule: str) -> str:
        return scores().names[pick(scores(), LABELED, 1, rule)[0].index]  # type: ignore[arg-type]

    assert (first("entropy"), first("rarity"), first("diversity")) == ("b", "c", "a")
    assert first("balanced") == "c"  # b, of which the network is least sure, is nearly labeled


def test_diversity_goes_where_nothing_is_yet_and_names_the_nearest() -> None:
    found = pick(scores(), LABELED, 3, "diversity")
    assert [scores().names[one.index] for one in found] == ["a", "c", "d"]
    assert [one.nearest for one in found] == ["first", "first", "first"]
    assert found[0].distance == pytest.approx(5)


def test_chance_is_repeated_by_its_seed() -> None:
    def drawn(seed: int) -> list[int]:
        return [one.index for one in pick(scores(), LABELED, 9, "random", seed)]

    assert drawn(1) == drawn(1) and sorted(drawn(1)) == [0, 1, 2, 3]
    assert any(drawn(1) != drawn(seed) for seed in range(2, 6))


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_picks_without_anything_labeled_and_says_why(rule: str) -> None:
    nothing = Labeled(np.zeros(2), np.zeros((0, 2), np.float32))
    found = pick(scores(), nothing, 4, rule)  # type: ignore[arg-type]
    assert len({one.index for one in found}) == 4
    for one in found:
        assert reasons(scores(), nothing, one, rule, ["road", "pole"])  # type: ignore[arg-type]


def test_ranks_are_parts_of_the_pool() -> None:
    assert ranks(np.array([3.0, 1, 2], np.float32)).tolist() == [1, 0, 0.5]
    assert ranks(np.array([1.0, 1, 1], np.float32)).tolist() == [0.5, 0.5, 0.5]
