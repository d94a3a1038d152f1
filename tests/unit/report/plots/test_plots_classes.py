from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from des4.report.inside import Zones
from des4.report.plots import classes

IsPicture = Callable[[Path], bool]


def test_bars_by_class_are_written_without_a_warning(tmp_path: Path, is_picture: IsPicture) -> None:
    scores = {"a": 0.5, "$x$": None, "<b>": math.nan}
    share = {"a": 0.5, "$x$": 0.4, "<b>": 0.0}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classes.class_bars({"teacher": scores, "student": scores}, share, ["<b>"], tmp_path / "bars.png")
    assert is_picture(tmp_path / "bars.png")


@pytest.mark.parametrize("count", [2, 21, 30])
def test_confusion_is_drawn_for_few_and_many_classes(tmp_path: Path, is_picture: IsPicture, count: int) -> None:
    matrix = np.eye(count, dtype=np.int64)
    matrix[0] = 0  # a class without a pixel
    classes.confusion(matrix, [f"class {i}" for i in range(count)], tmp_path / "confusion.png")
    assert is_picture(tmp_path / "confusion.png")


@pytest.mark.parametrize("narrow", [False, True])
def test_what_prototypes_and_shares_draw_is_written_without_a_warning(
    tmp_path: Path, is_picture: IsPicture, narrow: bool
) -> None:
    counts = np.arange(20)
    zones = {"a": Zones(3, 0.1, 1.2, counts, counts // 3), "<b>": Zones(1, 0.5, 0.5, counts, counts)}
    cosine = np.array([[1, -0.96, np.nan], [-0.96, 1, np.nan], [np.nan, np.nan, np.nan]])
    shares = {"a": 0.9, "<b>": 0.1, "$x$": 0.0}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classes.zones(zones, ["a", "<b>"], tmp_path / "zones.png", narrow)
        classes.cosines(cosine, ["a", "<b>", "$x$"], tmp_path / "cosines.png", narrow)
        classes.distribution(shares, {"one": {}, "two": shares}, ["a", "<b>", "$x$"], tmp_path / "shares.png", narrow)
    assert all(is_picture(path) for path in tmp_path.iterdir())
    widths = {Image.open(path).width for path in tmp_path.iterdir() if path.stem != "cosines"}
    assert widths == {598 if narrow else 1536}
