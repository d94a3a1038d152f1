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


def on_a_line() -> Scores:
    """Four images of which the network is equally unsure, with features of one number."""
    return with_shares(a=[1, 0], b=[0.5, 0.5], c=[0.8, 0.2], d=[0.9, 0.1], features=(4, 3, -2, 1))


def with_shares(features: tuple[float, ...] = (), **images: list[float]) -> Scores:
    """Images with these shares of the classes, and half of the most entropy in each class."""
    shares = np.array(list(images.values()), np.float32)
    vectors = np.array(features or [0] * len(images), np.float32)[:, None]
    half = np.full_like(shares, 0.5)
    return Scores(list(images), half[:, 0], half, shares, vectors)


FROM_ZERO = Labeled(np.array([9.0, 1.0]), np.zeros((1, 1), np.float32), ["zero"])


def test_doubt_is_averaged_over_classes_and_passes_over_specks() -> None:
    assert scores().doubt.tolist() == pytest.approx([0.1, 0.55, 0.4, 0.2])


def test_a_class_of_just_the_smallest_share_is_no_speck() -> None:
    both = with_shares(enough=[0.999, 0.001], speck=[0.9991, 0.0009])
    assert both.counted.tolist() == [[True, True], [True, False]]


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


def test_an_image_that_was_picked_may_be_the_nearest() -> None:
    found = pick(on_a_line(), FROM_ZERO, 4, "diversity")
    assert [(on_a_line().names[one.index], one.distance, one.nearest) for one in found] == [
        ("a", 4, "zero"), ("c", 2, "zero"), ("b", 1, "a"), ("d", 1, "zero")
    ]  # fmt: skip


def test_distances_are_to_the_nearest_of_several_labeled_images() -> None:
    labeled = Labeled(np.array([1.0, 1.0]), np.array([[1], [3]], np.float32), ["one", "three"])
    found = {one.index: one for one in pick(on_a_line(), labeled, 4, "diversity")}
    assert [(found[place].distance, found[place].nearest) for place in range(4)] == [
        (1, "three"), (0, "three"), (3, "one"), (0, "one")
    ]  # fmt: skip


def test_diversity_begins_in_the_middle_where_nothing_is_labeled() -> None:
    nothing = Labeled(np.zeros(2), np.zeros((0, 1), np.float32))  # the mean of 4, 3, -2 and 1 is 1.5
    found = pick(on_a_line(), nothing, 2, "diversity")
    assert [(on_a_line().names[one.index], one.nearest) for one in found] == [("d", None), ("a", "d")]


def test_rarity_counts_what_was_picked_as_labeled() -> None:
    alike = with_shares(a=[0.5, 0.5, 0], b=[0.5, 0.5, 0], c=[0.6, 0, 0.4])
    labeled = Labeled(np.array([5, 0, 0.1]), np.zeros((1, 1), np.float32), ["zero"])
    found = pick(alike, labeled, 3, "rarity")
    assert [alike.names[one.index] for one in found] == ["a", "c", "b"]  # b has no more of the rare class than a
    assert found[2].gain == pytest.approx((math.log1p(0.5 / 6.101) + math.log1p(0.5 / 0.501)) / 3, rel=1e-5)


def test_a_speck_of_a_class_that_nobody_labeled_is_no_rarity() -> None:
    both = with_shares(speck=[0.9995, 0.0005, 0], pole=[0.9, 0, 0.1])
    labeled = Labeled(np.array([9.0, 0, 1]), np.zeros((1, 1), np.float32), ["zero"])
    assert [both.names[one.index] for one in pick(both, labeled, 2, "rarity")] == ["pole", "speck"]


def test_balanced_ranks_gain_and_distance_among_the_images_that_are_left() -> None:
    """By hand: gains are .053, .230, .134, .095 at first, then .050, –, .103, .077, then .046 and .070."""
    found = pick(on_a_line(), FROM_ZERO, 3)
    assert [on_a_line().names[one.index] for one in found] == ["b", "c", "d"]  # not a, the farthest and least gain
    assert np.array([one.ranks for one in found]) == pytest.approx(
        np.array([[0.5, 1, 2 / 3], [0.5, 1, 1], [0.5, 1, 0.5]])
    )
    assert [one.value for one in found] == pytest.approx([3 / 4 * 1.5 / 2, 1.5 / 2, 1.5 / 2])
    assert [one.nearest for one in found] == ["zero", "zero", "zero"]


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
