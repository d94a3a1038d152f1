from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from des4.data_tools.checks.labels import judge_names, judge_occurrence, judge_presence, judge_values, judge_variety

ROOT = Path("data")
NAMES = tuple("abcdefgh")


def counts(*labels: int) -> list[int]:
    return [9 if label in labels else 0 for label in range(256)]


def values(labels: tuple[int, ...], num_classes: int, named: bool = True) -> list[tuple[str, str]]:
    return [(f.severity, f.code) for f in judge_values(counts(*labels), NAMES[:num_classes], named, ROOT)]


@pytest.mark.parametrize(
    ("labels", "num_classes", "expected"),
    [
        ((0, 1, 2), 3, []),
        ((1, 2, 255), 4, []),  # class 0 and class 3 do not occur, which is said elsewhere
        ((1, 2, 3), 3, [("error", "shifted-labels")]),
        ((0, 1, 2, 3, 255), 3, [("error", "shifted-labels")]),
        ((0, 2, 3), 3, [("error", "shifted-labels")]),
        ((3,), 3, []),  # one label may be anything; it is said of each mask that it is none of the classes
        ((0, 60, 120, 180), 4, [("error", "stretched-labels")]),
        ((0, 127, 254), 3, [("error", "stretched-labels")]),
        ((0, 1, 2, 77), 3, []),  # a stray label, which is said of its mask
        ((0, 255), 2, [("error", "binary-mask")]),
        ((255,), 2, []),  # which is said of the labeled and the val masks
        ((0,), 2, []),
    ],
)
def test_maps_of_another_convention_are_recognised(labels, num_classes, expected):
    assert values(labels, num_classes) == expected


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ((0, 1, 2), []),
        ((1, 2), [("warning", "shifted-labels")]),
        ((0,), [("error", "class-missing")]),
        ((0, 255), [("error", "binary-mask")]),
    ],
)
def test_counted_classes_are_judged_by_where_they_begin(labels, expected):
    assert values(labels, 3, named=False) == expected


@given(st.sets(st.integers(0, 7), min_size=2), st.booleans())
def test_labels_inside_the_classes_are_never_accused(labels, ignored):
    assert values((*labels, *([255] if ignored else [])), 8) == []


def test_both_readings_of_one_label_too_many_are_given():
    (finding,) = judge_values(counts(0, 1, 2, 3), NAMES[:3], True, ROOT)
    assert "3 classes are numbered 0..2, but the labels are 0..3" in finding.message
    assert "ADE20K" in finding.remedy and "'background'" in finding.remedy


@pytest.mark.parametrize(
    ("labels", "num_classes", "remedy"),
    [
        ((0, 60, 180), 4, "data.values=0,60,120,180, or divide each by 60"),
        ((0, 127, 254), 3, "data.values=0,127,254, or divide each by 127"),
        ((0, 127, 255), 3, "data.values=0,127,255 if 255 is the last class, or number them 0..2"),
        ((0, 127, 254, 255), 3, "data.values=0,127,254, or divide each by 127"),
        ((0, 128, 255), 3, "data.values=0,128,255 if 255 is the last class, or number them 0..2"),
        ((0, 64, 128, 192, 255), 5, "data.values=0,64,128,192,255 if 255 is the last class, or number them 0..4"),
        ((0, 85, 170, 255), 4, "data.values=0,85,170,255, or divide each by 85"),
        ((0, 60, 120, 255), 3, "data.values=0,60,120, or divide each by 60"),
    ],
)
def test_values_of_stretched_labels_are_those_that_masks_hold(labels, num_classes, remedy):
    (finding,) = judge_values(counts(*labels), NAMES[:num_classes], True, ROOT)
    assert (finding.code, finding.remedy) == ("stretched-labels", f"say {remedy}")


@pytest.mark.parametrize(
    ("labels", "blamed"),
    [((0,), True), ((1,), True), ((1, 255), True), ((0, 1, 255), False), ((255,), False), ((3,), False)],
)
def test_labeled_masks_of_one_class_are_refused_with_and_without_255(labels, blamed):
    found = judge_variety(counts(*labels), NAMES[:3], ROOT)
    assert [f.code for f in found] == ["one-class"] * blamed


@pytest.mark.parametrize("name", ["void", "Ignore", "un_labeled".replace("_", ""), "do_not_care", " unknown "])
def test_classes_that_are_none_by_name(name):
    (finding,) = judge_names(("road", name), ROOT)
    assert finding.code == "class-named-ignore"
    assert finding.message.startswith(f"class 1 is called '{name}'")


def test_other_names_are_fine():
    assert judge_names(("background", "other", "road", "voidance", "unknown animal"), ROOT) == []


@pytest.mark.parametrize(
    ("labeled", "val", "blamed"),
    [
        ((255,), (0, 1), ["labeled"]),
        ((0, 1), (255,), ["val"]),
        ((255,), (255,), ["labeled", "val"]),
        ((255,), (), ["labeled"]),
        ((0, 255), (1, 255), []),
        ((0,), (), []),
    ],
)
def test_masks_that_label_no_pixel_are_refused(labeled, val, blamed):
    found = judge_presence(counts(*labeled), counts(*val), ROOT)
    assert [(f.severity, f.code, f.message.split()[1]) for f in found] == [
        ("error", "no-labeled-pixel", role) for role in blamed
    ]


def test_classes_that_are_missing_where_they_are_needed():
    found = judge_occurrence(NAMES[:5], (9, 0, 0, 9, 2), (9, 0, 9, 0, 1), (4, 0, 0, 4, 2), (3, 4), ROOT)
    assert [(f.severity, f.code, f.message.split(" (")[0]) for f in found] == [
        ("warning", "class-missing", "class 1"),
        ("warning", "class-only-in-val", "class 2"),
        ("warning", "class-not-in-val", "class 3"),
        ("note", "class-in-few-images", "class 4"),
    ]
    assert "seen in 2 labeled images alone" in found[3].message
    assert "1 labeled image alone" in judge_occurrence(("a",), (1,), (1,), (1,), (0,), ROOT)[0].message
