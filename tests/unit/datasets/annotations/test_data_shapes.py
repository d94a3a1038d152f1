from pathlib import Path

import numpy as np
import pytest

from des4.datasets.annotations.regions import RegionError
from des4.datasets.annotations.shapes import (
    ImageNames,
    class_table,
    coordinates,
    extent,
    member,
    naming,
    number,
    points,
    shown,
    sorted_names,
)
from des4.types import DataError

PATH = Path("classes.txt")


def test_background_is_a_class_in_front_unless_it_is_ignored():
    table = class_table(PATH, ["cat", "dog"], "class")
    assert (table.classes, table.background) == (("background", "cat", "dog"), 0)
    assert (table.label("dog"), table.label("_background_"), table.label("__ignore__")) == (2, 0, 255)
    table = class_table(PATH, ["cat", "dog"], "ignore")
    assert (table.classes, table.background, table.label("dog")) == (("cat", "dog"), 255, 1)
    with pytest.raises(RegionError, match="'background' is not among the classes"):
        table.label("background")


def test_a_background_that_is_named_keeps_its_place():
    table = class_table(PATH, ["__ignore__", "cat", "_background_"], "class")
    assert (table.classes, table.background) == (("cat", "_background_"), 1)
    assert table.label("background") == 1
    drawn = class_table(PATH, ["cat", "_background_"], "ignore")
    assert (drawn.label("_background_"), drawn.background) == (1, 255)


def test_names_that_nobody_ordered_are_sorted_behind_the_background():
    assert sorted_names(["road", "Car", "road", "_background_", "box"]) == ["_background_", "Car", "box", "road"]


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["cat", "cat"], "names the class 'cat' twice"),
        (["cat", "dog"] * 10**5, "names 200000 classes"),
        (["cat", "a\nb"], "is no name that can be printed"),
        (["cat", "\ud800"], "is no name that can be printed"),
        (["cat", " "], "is no name that can be printed"),
        (["cat"], "names 1 classes"),
        ([f"c{number}" for number in range(256)], "names 256 classes, expected 2..255"),
    ],
)
def test_classes_that_are_none_are_refused(names, reason):
    with pytest.raises(DataError, match=reason) as error:
        class_table(PATH, names, "ignore")
    assert str(error.value).startswith("classes.txt: ")
    assert "\n" not in str(error.value)


def test_images_are_found_by_the_end_of_their_path():
    names = ImageNames({name: Path(f"{name}.jpg") for name in ("a/one", "b/one", "b/c/two", "three")})
    assert names.find("a/one.jpg") == names.find("one.jpg", "a") == names.find("elsewhere\\a\\one.jpg") == "a/one"
    assert names.find("two.png") == names.find("/x/c/two") == names.find("c/two", "d") == "b/c/two"
    assert names.find("images/three.jpg") == "three"
    assert names.find("x/four.jpg", "a") == "x/four"
    with pytest.raises(RegionError, match="fits 'a/one' and 'b/one'"):
        names.find("one.jpg")
    assert names.identify("two.jpg") == "b/c/two"
    assert names.identify("one") == "one"
    for wrong in ("", "a\nb", "\ud800", "x" * 2000):
        with pytest.raises(RegionError, match="no name of an image file"):
            names.find(wrong)


def test_values_are_taken_from_strangers_with_care():
    assert coordinates([1, 2.5]).tolist() == [1, 2.5]
    assert coordinates([]).size == 0
    assert points([[1, 2]]).tolist() == [[1, 2]]
    for wrong in ("1", None, [None], ["1", "2"], [[1], [2, 3]], [10**400], {"a": 1}, [True], [[[[1]]]], [1, {}]):
        with pytest.raises(RegionError):
            points(wrong)
    assert number({"x": 3}, "x") == 3.0
    for wrong in ({}, [], {"x": True}, {"x": "3"}, {"x": float("inf")}, {"x": 10**400}):
        with pytest.raises(RegionError):
            number(wrong, "x")
    assert member({"x": []}, "x", list) == []
    for wrong in ({}, [], None, {"x": "y"}):
        with pytest.raises(RegionError, match="'x' is missing or no list"):
            member(wrong, "x", list)
    assert extent(2, 3) == (2, 3)
    for wrong in ((0, 3), (2, -3), (True, 3), (2.0, 3), ("2", 3), (None, None), (10**5, 10**5)):
        with pytest.raises(RegionError):
            extent(*wrong)


def test_values_are_shown_on_one_short_line():
    assert shown("a b") == "'a b'"
    assert shown("é\n\ud800") == "'\\xe9\\n\\ud800'"
    assert len(shown("x" * 10**6)) < 70
    assert shown([1, 2]) == "[1, 2]"
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert (shown(deep), shown({"a": deep})) == ("a list", "a dict")
    with pytest.raises(DataError, match=r"^classes\.txt: shape 3: odd; mend or delete it$"), naming(PATH, "shape 3"):
        raise RegionError("odd")


def test_a_ragged_list_is_no_array_of_objects():
    assert coordinates([[1, 2], [3, 4]]).dtype == np.float64
