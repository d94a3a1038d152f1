"""Multi-Entropy Sampling against a reference that loops over classes and zones as the paper tells it."""

import math
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from des4.ops.entropy import pixel_entropy
from des4.ops.sampling import (
    class_quota,
    class_ratio,
    confidence_sample,
    multi_entropy_sample,
    quantity_sample,
    spread_draw,
    take_places,
    weighted_draw,
)

# ── the reference ────────────────────────────────────────────────────────────────────────────────────────────────────


Counts = list[list[int]]


def zone_of(entropy: float, low: float, high: float, zones: int) -> int:
    """Left-closed, right-open zones of equal width; the last one closed; everything in zone 0 if there is no width."""
    if high == low:
        return 0
    return min(int((entropy - low) * zones / (high - low)), zones - 1)


def zone_shares(means: list[float | None], alpha: float) -> list[float]:
    """Eq. 11; None stands for an empty zone."""
    weights = [0.0 if mean is None else 1 / (alpha + mean) for mean in means]
    return [weight / sum(weights) for weight in weights]


def largest_remainder(shares: list[float], total: int) -> list[int]:
    quotas = [math.floor(share * total) for share in shares]
    order = sorted(
        (zone for zone, share in enumerate(shares) if share > 0), key=lambda zone: quotas[zone] - shares[zone] * total
    )
    for zone in order[: total - sum(quotas)]:
        quotas[zone] += 1
    return quotas


def fill_shortage(quotas: list[int], available: list[int]) -> list[int]:
    """Distance by distance; at one distance every zone asks the harder neighbour first, then all ask the easier."""
    take = [min(wanted, there) for wanted, there in zip(quotas, available, strict=True)]
    lack = [wanted - taken for wanted, taken in zip(quotas, take, strict=True)]
    for distance in range(1, len(quotas)):
        for giver_is in (distance, -distance):
            for zone in range(len(quotas)):
                giver = zone + giver_is
                if 0 <= giver < len(quotas):
                    moved = min(lack[zone], available[giver] - take[giver])
                    lack[zone] -= moved
                    take[giver] += moved
    return take


def reference_counts(entropy: list[float], labels: list[int], quota: list[int], zones: int, alpha: float) -> Counts:
    """Pixels taken of every (class, zone)."""
    counts = []
    for c, wanted in enumerate(quota):
        mine = [e for e, label in zip(entropy, labels, strict=True) if label == c]
        if not mine:
            counts.append([0] * zones)
            continue
        split: list[list[float]] = [[] for _ in range(zones)]
        for e in mine:
            split[zone_of(e, min(mine), max(mine), zones)].append(e)
        means = [sum(zone) / len(zone) if zone else None for zone in split]
        quotas = largest_remainder(zone_shares(means, alpha), min(wanted, len(mine)))
        counts.append(fill_shortage(quotas, [len(zone) for zone in split]))
    return counts


def counts_of(mask: Tensor, entropy: list[float], labels: list[int], num_classes: int, zones: int) -> Counts:
    counts = [[0] * zones for _ in range(num_classes)]
    for c in range(num_classes):
        mine = [e for e, label in zip(entropy, labels, strict=True) if label == c]
        for e, label, kept in zip(entropy, labels, mask.tolist(), strict=True):
            if label == c and kept:
                counts[c][zone_of(e, min(mine), max(mine), zones)] += 1
    return counts


# ── ratio and quota ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_rarest_class_has_ratio_one_and_absent_classes_none() -> None:
    ratio = class_ratio(torch.tensor([1000, 50, 0, 200]))
    torch.testing.assert_close(ratio, torch.tensor([0.05, 1.0, 0.0, 0.25], dtype=torch.float64))
    assert class_ratio(torch.zeros(3)).tolist() == [0, 0, 0]


def test_quotas_by_hand() -> None:
    ratio = torch.tensor([0.05, 1.0, 0.3, 0.0], dtype=torch.float64)
    labels = torch.tensor([0] * 50 + [1] * 7 + [255] * 9 + [-1] * 2 + [3] * 4)
    # 2.5 rounds to even; class 2 does not occur; class 3 occurs here though its ratio is 0
    assert class_quota(labels, ratio).tolist() == [2, 7, 0, 1]
    assert class_quota(torch.tensor([0] * 3), ratio).tolist() == [1, 0, 0, 0]
    assert class_quota(torch.full((5,), 255), ratio).tolist() == [0, 0, 0, 0]
    assert class_quota(labels.to(torch.uint8)[:66], ratio).tolist() == [2, 7, 0, 0]


# ── Multi-Entropy Sampling ───────────────────────────────────────────────────────────────────────────────────────────


@st.composite
def pixels(draw: st.DrawFn) -> dict[str, Any]:
    num_classes, count = draw(st.integers(1, 6)), draw(st.integers(0, 120))
    few = draw(st.booleans())  # few levels: many ties, classes without width, empty zones
    # Multiples of 1/64: (e - low)·zones is exact, so reference and operation agree on every zone border.
    levels = st.integers(0, 3).map(lambda i: i * 0.75) if few else st.integers(0, 192).map(lambda i: i / 64)
    return {
        "entropy": draw(st.lists(levels, min_size=count, max_size=count)),
        "labels": draw(st.lists(st.sampled_from([*range(num_classes), -1, 255]), min_size=count, max_size=count)),
        "quota": draw(st.lists(st.integers(0, 50), min_size=num_classes, max_size=num_classes)),
        "zones": draw(st.sampled_from([1, 2, 4, 5, 8])),
        "alpha": draw(st.sampled_from([0.01, 0.1, 1.0])),
    }


@settings(deadline=None, max_examples=150)
@given(pixels(), st.integers(0, 2**31))
def test_counts_of_every_class_and_zone_are_those_of_the_reference(case: dict[str, Any], seed: int) -> None:
    entropy, labels, quota = case["entropy"], case["labels"], case["quota"]
    mask = multi_entropy_sample(
        torch.tensor(entropy, dtype=torch.float32),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(quota),
        zones=case["zones"],
        alpha=case["alpha"],
        generator=torch.Generator().manual_seed(seed),
    )
    assert mask.dtype == torch.bool
    assert mask.shape == (len(labels),)
    assert all(0 <= label < len(quota) for label, kept in zip(labels, mask.tolist(), strict=True) if kept)
    found = counts_of(mask, entropy, labels, len(quota), case["zones"])
    assert [sum(zone) for zone in found] == [min(q, labels.count(c)) for c, q in enumerate(quota)]
    expected = reference_counts(entropy, labels, quota, case["zones"], case["alpha"])
    for c in range(len(quota)):
        # Two equal remainders may be ranked differently by the last bit; nothing else may differ.
        assert found[c] == expected[c] or _has_tied_remainders(case, c)


def _has_tied_remainders(case: dict[str, Any], c: int) -> bool:
    mine = [Fraction(e) for e, label in zip(case["entropy"], case["labels"], strict=True) if label == c]
    split: dict[int, list[Fraction]] = {}
    for e in mine:
        split.setdefault(zone_of(float(e), float(min(mine)), float(max(mine)), case["zones"]), []).append(e)
    weights = [1 / (Fraction(str(case["alpha"])) + sum(zone) / len(zone)) for zone in split.values()]
    shares = [weight / sum(weights) * min(case["quota"][c], len(mine)) for weight in weights]
    remainders = [share - math.floor(share) for share in shares]
    return len(set(remainders)) < len(remainders)


def test_zone_means_of_01_05_10_15_25_give_the_shares_of_eq_11() -> None:
    # Zones of [0, 2.5]: the first holds 0 and 0.2, each other one its left border, the last its right one.
    levels = torch.tensor([0.0, 0.2, 0.5, 1.0, 1.5, 2.5])
    entropy = levels.repeat_interleave(torch.tensor([3000, 3000, 6000, 6000, 6000, 6000]))
    labels = torch.zeros(len(entropy), dtype=torch.int64)
    mask = multi_entropy_sample(entropy, labels, torch.tensor([10_000]))
    taken = [int((mask & (entropy == level)).sum()) for level in levels]
    assert [taken[0] + taken[1], *taken[2:]] == [5824, 1941, 1059, 728, 448]


def test_zones_are_closed_on_the_left_and_the_last_on_both_sides() -> None:
    # Zones of [0, 5]: 0 | 1 | 2 | 3 | 4 and 5. Weights 1/(1+e): 1, 1/2, 1/3, 1/4, 1/5.5.
    entropy = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    labels = torch.zeros(6, dtype=torch.int64)
    kept = torch.zeros(6)
    for seed in range(200):
        mask = multi_entropy_sample(
            entropy, labels, torch.tensor([5]), alpha=1.0, generator=torch.Generator().manual_seed(seed)
        )
        kept += mask
    # Five zones give one each once shortages are filled; 4 and 5 share the last zone, and one of them stays out.
    assert kept[:4].tolist() == [200] * 4
    assert 60 < kept[4] < 140
    assert kept[4] + kept[5] == 200


def test_pixels_of_one_entropy_are_all_in_zone_0() -> None:
    mask = multi_entropy_sample(torch.full((50,), 1.3), torch.zeros(50, dtype=torch.int64), torch.tensor([20]))
    assert mask.sum() == 20


@pytest.mark.parametrize("labels", [[], [255] * 8, [-1, 7, 255]])
def test_nothing_labeled_gives_nothing(labels: list[int]) -> None:
    target = torch.tensor(labels, dtype=torch.int64)
    quota = torch.tensor([3, 3])
    assert not multi_entropy_sample(torch.rand(len(labels)), target, quota).any()
    assert not quantity_sample(target, quota).any()
    assert not confidence_sample(torch.rand(len(labels)), target, quota).any()


def test_a_missing_pixel_comes_from_the_nearest_zone_and_the_harder_one_first() -> None:
    # Zones of [0, 3], all weighing alike: {0 ×6}, {}, {2 ×3, 3 ×6}; of 13 one zone is to give 7, which zone 0 has not.
    entropy = torch.tensor([0.0] * 6 + [2.0] * 3 + [3.0] * 6)
    mask = multi_entropy_sample(entropy, torch.zeros(15, dtype=torch.int64), torch.tensor([13]), zones=3, alpha=1e6)
    assert mask[:6].sum() == 6
    assert mask[6:].sum() == 7
    # The reference itself, by hand: zone 1 lacks two, zone 2 (harder) has one to spare, zone 0 the other.
    assert fill_shortage([1, 3, 1, 0, 0], [9, 1, 2, 9, 9]) == [2, 1, 2, 0, 0]


def test_shortage_by_hand() -> None:
    # Zones of [0, 5): values 0.5, 1.5, ... with anchors 0 and 5; alpha 1e9 makes all shares equal: 25 / 5 = 5 a zone.
    available = {0.5: 9, 1.5: 9, 2.5: 1, 3.5: 7, 4.5: 9}
    entropy = torch.tensor([0.0, 5.0] + [value for value, count in available.items() for _ in range(count)])
    labels = torch.zeros(len(entropy), dtype=torch.int64)
    mask = multi_entropy_sample(entropy, labels, torch.tensor([25]), alpha=1e9)
    taken = [int(mask[(entropy >= zone) & (entropy < zone + 1 + (zone == 4))].sum()) for zone in range(5)]
    # Zone 2 lacks 4: zone 3 (harder) spares 2, then zone 1 (easier, same distance) gives 2.
    assert taken == [5, 7, 1, 7, 5]


def test_every_pixel_of_a_zone_is_as_likely() -> None:
    entropy = torch.tensor([0.0] * 10 + [1.0] * 10)
    labels = torch.zeros(20, dtype=torch.int64)
    generator = torch.Generator().manual_seed(0)
    draws, kept = 2000, torch.zeros(20)
    for _ in range(draws):
        kept += multi_entropy_sample(entropy, labels, torch.tensor([6]), generator=generator)
    # Zone 0 weighs 1/0.1, zone 4 1/1.1: 5.5 and 0.5 of 6. Which of the two tied remainders wins does not matter here.
    for zone in (kept[:10], kept[10:]):
        share = zone.sum() / draws / 10
        deviation = math.sqrt(draws * share * (1 - share)) + 1e-9
        assert ((zone - draws * share).abs() < 4 * deviation).all()


def test_the_generator_decides_alone() -> None:
    entropy, labels = torch.rand(500), torch.randint(0, 4, (500,))
    quota = torch.tensor([10, 20, 30, 5])

    def draw(seed: int) -> Tensor:
        torch.rand(seed + 1)  # the global generator takes no part
        return multi_entropy_sample(entropy, labels, quota, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(draw(3), draw(3))
    assert not torch.equal(draw(3), draw(4))


def test_a_large_alpha_moves_the_budget_to_uncertain_pixels() -> None:
    entropy, labels = torch.linspace(0, 3, 1001), torch.zeros(1001, dtype=torch.int64)
    quota = torch.tensor([100])
    easy, fair = (entropy[multi_entropy_sample(entropy, labels, quota, alpha=alpha)].mean() for alpha in (0.1, 100.0))
    assert fair > easy + 0.2


# ── the rivals ───────────────────────────────────────────────────────────────────────────────────────────────────────


@settings(deadline=None, max_examples=50)
@given(pixels())
def test_the_rivals_meet_their_quotas_too(case: dict[str, Any]) -> None:
    labels, quota = torch.tensor(case["labels"], dtype=torch.int64), torch.tensor(case["quota"])
    expected = [min(q, case["labels"].count(c)) for c, q in enumerate(case["quota"])]
    for mask in (quantity_sample(labels, quota), confidence_sample(torch.rand(len(labels)), labels, quota)):
        assert mask.shape == labels.shape
        assert [int((mask & (labels == c)).sum()) for c in range(len(quota))] == expected
        assert int(mask.sum()) == sum(expected)


def test_quantity_is_uniform_within_the_class() -> None:
    labels, generator = torch.tensor([0] * 8 + [1] * 4 + [255]), torch.Generator().manual_seed(1)
    kept = torch.stack([quantity_sample(labels, torch.tensor([2, 1]), generator=generator) for _ in range(3000)])
    frequency = kept.float().mean(0)
    torch.testing.assert_close(frequency, torch.tensor([0.25] * 12 + [0.0]), atol=0.035, rtol=0)


def test_one_pixel_is_drawn_in_proportion_to_its_confidence() -> None:
    confidence = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.9])
    labels = torch.tensor([0, 0, 0, 0, 1])
    generator = torch.Generator().manual_seed(2)
    kept = torch.stack(
        [confidence_sample(confidence, labels, torch.tensor([1, 0]), generator=generator) for _ in range(4000)]
    )
    torch.testing.assert_close(kept.float().mean(0), torch.tensor([0.1, 0.2, 0.3, 0.4, 0.0]), atol=0.035, rtol=0)


def test_a_confidence_of_zero_is_drawn_last() -> None:
    confidence, labels = torch.tensor([0.0, 0.5, 0.0, 0.7]), torch.zeros(4, dtype=torch.int64)
    assert confidence_sample(confidence, labels, torch.tensor([2])).tolist() == [False, True, False, True]
    assert confidence_sample(torch.zeros(4), labels, torch.tensor([4])).all()


# ── cost ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

WAITS = {
    "_local_scalar_dense",
    "item",
    "nonzero",
    "bincount",
    "equal",
    "is_nonzero",
    "unique",
    "_unique2",
    "masked_select",
}
"""Operations whose result's shape or value the host must wait for on a GPU; so is indexing by a bool mask."""


class Operations(TorchDispatchMode):
    """Counts the operations that reach the device, and names those that would make the host wait."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.waits = 0, set[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        name = func.__name__.split(".")[0]
        indices = args[1] if name in ("index", "index_put_") else []
        if name in WAITS or any(index is not None and index.dtype == torch.bool for index in indices):
            self.waits.add(name)
        return func(*args, **(kwargs or {}))


def operations_of_sampling(num_classes: int, count: int = 2000) -> Operations:
    generator = torch.Generator().manual_seed(0)
    probs = torch.randn(count, num_classes, generator=generator).softmax(1)
    labels = torch.randint(0, num_classes, (count,), generator=generator)
    labels[::7] = 255
    ratio = class_ratio(torch.arange(1, num_classes + 1))
    with Operations() as operations:
        multi_entropy_sample(pixel_entropy(probs), labels, class_quota(labels, ratio), generator=generator)
    return operations


def test_sampling_costs_the_same_for_any_number_of_classes_and_waits_for_nothing() -> None:
    voc, ade = operations_of_sampling(21), operations_of_sampling(150)
    assert voc.count == ade.count <= 200
    assert voc.waits == ade.waits == set()


def test_the_counter_sees_what_waits() -> None:
    labels = torch.tensor([0, 1, 1])
    with Operations() as operations:
        labels[labels > 0], labels.bincount(), labels.sum().item()
    assert operations.waits >= {"index", "bincount", "_local_scalar_dense"}


# ── a few places of each row ─────────────────────────────────────────────────────────────────────────────────────────


def test_of_few_places_all_are_drawn_once() -> None:
    mask = torch.tensor([[False, True, False, True, True], [False] * 5, [True] * 5])
    places, drawn = spread_draw(mask, torch.rand(3, 5))
    assert places[0][drawn[0]].tolist() == [1, 3, 4]
    assert not drawn[1].any()
    assert places[2][drawn[2]].tolist() == [0, 1, 2, 3, 4]


def test_of_many_places_as_many_as_asked_for_are_drawn_and_each_as_often() -> None:
    mask = torch.zeros(60, dtype=torch.bool)
    mask[::2] = True
    places, drawn = spread_draw(mask.expand(4000, 60), torch.rand(4000, 6, generator=torch.Generator().manual_seed(0)))
    assert drawn.all()
    assert mask[places].all()
    frequency = torch.bincount(places.flatten(), minlength=60)[::2] / 4000
    assert frequency.sum() == pytest.approx(6)
    assert (frequency - 0.2).abs().max() < 0.03
    extremes, _ = spread_draw(mask, torch.tensor([0.0, 0.0, 1 - 2**-24]))
    assert extremes.tolist() == [0, 20, 58]


def test_a_weighted_draw_takes_so_many_in_proportion_and_none_without_weight() -> None:
    weight = torch.tensor([1.0, 3.0, 0.0, 6.0])
    noise = torch.rand(6000, 4, generator=torch.Generator().manual_seed(0))
    one = weighted_draw(weight.expand(6000, 4), noise, 1)
    assert (one.sum(1) == 1).all()
    assert one.float().mean(0).tolist() == pytest.approx([0.1, 0.3, 0, 0.6], abs=0.02)
    two = weighted_draw(weight.expand(6000, 4), noise, 2)
    assert (two.sum(1) == 2).all() and (two | ~one).all()
    # second after the first: 0.1 + 0.3 · 1/7 + 0.6 · 1/4
    assert two[:, 0].float().mean().item() == pytest.approx(0.1 + 0.3 / 7 + 0.6 / 4, abs=0.02)
    assert weighted_draw(weight, torch.zeros(4), 9).tolist() == [True, True, False, True]  # all there are
    assert not weighted_draw(torch.zeros(2, 4), torch.rand(2, 4), 2).any()


def test_places_are_counted_along_rows() -> None:
    features = torch.arange(24.0).view(2, 2, 2, 3)
    found = take_places(features, torch.tensor([[[0, 4]], [[5, 5]]]))
    assert found.tolist() == [[[[0, 6], [4, 10]]], [[[17, 23], [17, 23]]]]
