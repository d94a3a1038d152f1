"""Groups of runs are called by as little as tells them apart; by hand."""

from __future__ import annotations

from typing import Any

import pytest

from des4.report.group_names import name_groups


def names(*groups: dict[str, Any]) -> list[str]:
    return name_groups([{"method.name": "des4", **group} for group in groups]).names


def test_a_method_that_occurs_once_is_called_by_its_name() -> None:
    assert names({"train.steps": 1}, {"method.name": "cps", "train.steps": 2}) == ["des4", "cps"]
    assert names({}, {"train.oracle": True}) == ["des4", "des4 · ORACLE"]


def test_one_setting_is_enough_where_it_tells_all_apart() -> None:
    few = [{"optim.lr": lr, "train.steps": steps, "views.flip": lr} for lr, steps in ((0.1, 1), (0.2, 1), (0.3, 2))]
    assert names(*few) == ["des4 · lr=0.1", "des4 · lr=0.2", "des4 · lr=0.3"]
    both = [{"optim.lr": lr, "train.steps": steps} for lr, steps in ((0.1, 1), (0.2, 1), (0.1, 2))]
    assert names(*both)[2] == "des4 · lr=0.1 · steps=2"


def test_a_setting_of_the_method_comes_first_and_what_decides_no_score_last() -> None:
    groups = [{"train.workers": n, "data.root": f"{n}", "method.sampling": f"s{n}"} for n in range(2)]
    assert names(*groups) == ["des4 · sampling=s0", "des4 · sampling=s1"]
    assert names({"train.workers": 0}, {"train.workers": 2}) == ["des4 · workers=0", "des4 · workers=2"]


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ((0.00123456789, 0.01), ("0.00123", "0.01")),
        ((0.123456, 0.1234567), ("0.123456", "0.123457")),
        ((1e-05, 2), ("1e-05", "2")),
        (([0.3, 0.6], None), ("[0.3,0.6]", "null")),
        ((True, False), ("true", "false")),
        (("lists/6a/labeled.txt", "lists/6b/labeled.txt"), ("6a", "6b")),
        (("runs/a/x", "runs/a/y", "runs/b/x"), ("a/x", "a/y", "b/x")),
        (("start/here.pt", None), ("here.pt", "null")),
        (("a" * 40, "b"), ("aaaaaaaaaaaaa…aaaaaaaaaaaaaa", "b")),
        (
            ("a" * 20 + "1" + "a" * 20, "a" * 20 + "2" + "a" * 20),
            ("a" * 20 + "1" + "a" * 20, "a" * 20 + "2" + "a" * 20),
        ),
    ],
)
def test_values_are_as_short_as_keeps_them_apart(values: tuple[Any, ...], shown: tuple[str, ...]) -> None:
    assert names(*({"data.x": value} for value in values)) == [f"des4 · x={text}" for text in shown]


def test_keys_that_share_their_last_word_stand_in_full_and_absent_ones_are_dashes() -> None:
    assert names({"a.x": 1, "b.x": 1}, {"a.x": 2, "b.x": 1}) == ["des4 · a.x=1", "des4 · a.x=2"]
    assert names({"a.x": 1}, {}) == ["des4 · x=1", "des4 · x=–"]


def test_alike_groups_end_the_search() -> None:
    assert names({"a.x": 1}, {"a.x": 1}) == ["des4", "des4"]
