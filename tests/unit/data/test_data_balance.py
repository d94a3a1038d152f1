"""Repeat-factor sampling and pasted rare classes: by hand, and as exact as all else in the loader."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from des4.data import Balance, BalanceConfig, Loader, ViewsConfig
from des4.data.balance import COPY, RepeatedOrder, repeat_factors
from des4.data.order import Order
from des4.datasets import Scenes, ScenesConfig
from des4.types import IGNORE, DataError, ViewSpec

WHOLE = ViewsConfig(crop_size=8, scale=(1, 1), flip=0)


class Blocks:
    """Four labeled images of 8 × 8 pixels in one grey each; class 2 is in `d` alone, two columns of it."""

    classes, skip_broken, notes, bands = ("ground", "wall", "lamp"), False, (), None
    labeled, unlabeled, val, held_out = ("a", "b", "c", "d"), (), (), ()
    broken: tuple[str, ...] = ()

    def image(self, sample_id: str) -> Tensor:
        return torch.full((3, 8, 8), 10 * (1 + self.labeled.index(sample_id)), dtype=torch.uint8)

    def label(self, sample_id: str) -> Tensor:
        if sample_id in self.broken:
            raise DataError(f"{sample_id}: broken")
        label = torch.zeros(8, 8, dtype=torch.uint8)
        label[:3] = 1
        if sample_id == "d":
            label[:, :2] = 2
        return label


def loader(data: Any = None, *, batch: int = 4, workers: int = 0, views: ViewsConfig = WHOLE, rank: int = 0,
           ranks: int = 1, **settings: float) -> Loader:  # fmt: skip
    data = data or Blocks()
    return Loader(
        data, views, ViewSpec(), labeled_batch=batch, unlabeled_batch=1, seed=3, workers=workers,
        fill=(0.5, 0.5, 0.5), rank=rank, ranks=ranks, balance=Balance(BalanceConfig(**settings), data),
    )  # fmt: skip


# ── how often ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_repeat_factors_by_hand() -> None:
    shown = {"a": [0], "b": [0, 1], "c": [0, 1], "d": [0, 2], "e": []}
    found = repeat_factors(shown, 0.5)
    expected = {"a": 1.0, "b": math.sqrt(0.5 / 0.4), "c": math.sqrt(0.5 / 0.4), "d": math.sqrt(0.5 / 0.2), "e": 1.0}
    assert found == pytest.approx(expected)
    assert set(repeat_factors(shown, 0.0).values()) == {1.0}


def test_an_image_occurs_as_often_as_it_is_due_each_time_as_another_copy() -> None:
    factors = {"a": 1.0, "b": 1.0, "c": 1.25, "d": 2.5}
    order = RepeatedOrder(tuple("abcd"), "key", factors)
    assert order.length == 6
    totals: Counter[str] = Counter()
    for epoch in range(200):
        drawn = order.batch(epoch, order.length)
        assert len(set(drawn)) == 6 and {e % COPY for e, _ in drawn} == {epoch}
        counts = Counter(sample_id for _, sample_id in drawn)
        assert all(math.floor(f * 6 / 5.75) <= counts[i] <= math.ceil(f * 6 / 5.75) for i, f in factors.items())
        totals += counts
    assert totals["d"] / 200 == pytest.approx(2.5 * 6 / 5.75, abs=0.1)
    assert totals["c"] / 200 == pytest.approx(1.25 * 6 / 5.75, abs=0.1)


def test_the_row_of_places_does_not_depend_on_how_it_is_asked_for() -> None:
    factors = {"d": 2.5, "b": 1.3}
    whole = RepeatedOrder(tuple("abcd"), "key", factors).batch(0, 60)
    assert [one for step in range(20) for one in RepeatedOrder(tuple("dcba"), "key", factors).batch(step, 3)] == whole
    assert RepeatedOrder(tuple("abcd"), "key", factors).batch(7, 5) == whole[35:40]  # as after a resume
    assert RepeatedOrder(tuple("abcd"), "other", factors).batch(0, 60) != whole


def test_without_a_threshold_the_order_is_the_plain_one() -> None:
    data = Blocks()
    assert type(Balance(BalanceConfig(paste_rare=1.0), data).order(data.labeled, "key")) is Order
    row = [i for m in range(10) for i in loader(repeat_threshold=1.0, batch=4)[m].labeled.ids]
    assert Counter(row)["d"] == 16 and len(row) == 40  # 2 of 5 places of an epoch


def test_a_copy_is_cut_otherwise() -> None:
    views = ViewsConfig(crop_size=4, scale=(0.5, 2))
    cut = loader(repeat_threshold=1.0, batch=5, views=views).cut(0).labeled
    first, second = [n for n, sample_id in enumerate(cut.ids) if sample_id == "d"]
    assert cut.keys[first] != cut.keys[second] and cut.boxes[first] != cut.boxes[second]


# ── pasting ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_pixels_of_rare_classes_are_laid_over_other_images_label_and_all() -> None:
    batch = loader(paste_rare=1.0)[0].labeled
    for sample_id, image, label in zip(batch.ids, batch.image, batch.label, strict=True):
        own = 10 * (1 + "abcd".index(sample_id))
        assert torch.equal(label[:, :2], torch.full((8, 2), 2))
        assert torch.equal(label[:, 2:], Blocks().label("a")[:, 2:].long())
        assert torch.equal((image * 255).round(), torch.where(label == 2, 40, own).expand(3, -1, -1).float())


def test_all_rare_classes_of_the_other_image_are_pasted_not_only_the_one_it_was_chosen_for() -> None:
    class TwoRare(Blocks):
        classes = (*Blocks.classes, "pole")  # type: ignore[assignment]

        def label(self, sample_id: str) -> Tensor:
            label = super().label(sample_id)
            label[-1, -1] = 3 if sample_id == "d" else 0
            return label

    for label in loader(TwoRare(), paste_rare=1.0)[0].labeled.label:
        assert label[:, :2].eq(2).all() and label[-1, -1] == 3


def test_crops_of_the_other_image_are_drawn_until_one_shows_the_class() -> None:
    """A crop of 4 of its 8 columns shows the first two in 2 places of 5; ten crops do, but for once in 165 times."""
    source = loader(paste_rare=1.0, views=ViewsConfig(crop_size=4, scale=(1, 1), flip=0))
    batches = [source[number].labeled for number in range(20)]
    labels = [label for batch in batches for i, label in zip(batch.ids, batch.label, strict=True) if i != "d"]
    assert len(labels) == 60 and sum(bool(label.eq(2).any()) for label in labels) > 55


def test_no_image_gets_its_own_pixels() -> None:
    balance = Balance(BalanceConfig(paste_rare=1.0), Blocks())
    assert balance.donor("a", random.Random(0)) == (2, "d")
    assert balance.donor("d", random.Random(0)) is None  # no other one has a lamp


def test_the_tail_is_pasted_and_padding_stays() -> None:
    """Of wall, 24 + 24 + 24 + 18 pixels, and ground, 150, the median is wall's: lamp alone is rare."""
    balance = Balance(BalanceConfig(paste_rare=1.0), Blocks())
    assert balance.donors == {2: ("d",)}
    views = ViewsConfig(crop_size=12, scale=(0.5, 0.5), flip=0)
    batch = loader(paste_rare=1.0, views=views)[0].labeled
    plain = loader(views=views)[0].labeled
    assert torch.equal(batch.label == IGNORE, plain.label == IGNORE)
    assert torch.equal(batch.image[:, 0][batch.label == IGNORE], plain.image[:, 0][plain.label == IGNORE])


def test_a_share_of_the_crops_is_pasted_into() -> None:
    source = loader(paste_rare=0.5)
    found = [(label == 2).any() for m in range(50) for label in source[m].labeled.label]
    assert 0.5 < sum(found) / len(found) < 0.75  # 1/4 + 3/4 · 1/2 = 0.625


def test_nothing_is_pasted_from_a_mask_that_cannot_be_read() -> None:
    data = Blocks()
    source = loader(data, paste_rare=1.0)
    data.broken = ("d",)
    with pytest.raises(DataError, match="d: broken"):
        source[0]
    data.skip_broken = True  # type: ignore[misc]
    batch = source[0]
    assert batch.skipped == {"d": "d: broken"} and not (batch.labeled.label == 2).any()
    with pytest.raises(DataError):
        other = Blocks()
        other.broken = ("a",)
        Balance(BalanceConfig(paste_rare=1.0), other)


# ── exactness ────────────────────────────────────────────────────────────────────────────────────────────────────────

SCENES = Scenes(ScenesConfig(labeled=6, unlabeled=2, val=1, size=48))
BOTH = {"repeat_threshold": 0.9, "paste_rare": 0.7}
CROPS = ViewsConfig(crop_size=24)


def same(one: Any, two: Any) -> bool:
    pairs = [(one.labeled.image, two.labeled.image), (one.labeled.label, two.labeled.label)]
    return one.labeled.ids == two.labeled.ids and all(torch.equal(a, b) for a, b in pairs)


def test_batches_are_the_same_with_workers_and_after_a_resume() -> None:
    plain = loader(SCENES, views=CROPS, **BOTH)
    stream = loader(SCENES, views=CROPS, workers=2, **BOTH).batches(3)
    for number in (3, 4, 5):
        assert same(next(stream), plain[number])


def test_two_processes_share_the_batch_of_one() -> None:
    whole = loader(SCENES, views=CROPS, batch=4, **BOTH)
    parts = [loader(SCENES, views=CROPS, batch=2, rank=rank, ranks=2, **BOTH) for rank in range(2)]
    for step in range(4):
        halves = [next(part.batches(step)).labeled for part in parts]
        assert torch.equal(torch.cat([half.image for half in halves]), whole[step].labeled.image)
        assert torch.equal(torch.cat([half.label for half in halves]), whole[step].labeled.label)
        assert halves[0].ids + halves[1].ids == whole[step].labeled.ids
