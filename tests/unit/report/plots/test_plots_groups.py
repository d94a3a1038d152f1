from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from des4.report.plots import groups

IsPicture = Callable[[Path], bool]


def test_bars_of_groups_are_written_without_a_warning(tmp_path: Path, is_picture: IsPicture) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        groups.group_bars({"g": {"mIoU": [0.5, 0.6], "tail mIoU": [math.nan]}}, tmp_path / "groups.png")
    assert is_picture(tmp_path / "groups.png")


@pytest.mark.parametrize(("narrow", "width"), [(False, 1536), (True, 598)])
def test_courses_of_runs_are_drawn_wide_and_narrow(
    tmp_path: Path, is_picture: IsPicture, narrow: bool, width: int
) -> None:
    runs = {"one, with a rather long name": [{"miou": ([1.0, 2.0], [0.1, 0.2])}], "two": [{}]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        groups.runs_over_time(runs, tmp_path / "runs.png", narrow)
    assert is_picture(tmp_path / "runs.png") and Image.open(tmp_path / "runs.png").width == width


@pytest.mark.parametrize("narrow", [False, True])
def test_lists_are_drawn_with_what_is_missing_left_out(tmp_path: Path, is_picture: IsPicture, narrow: bool) -> None:
    panels = {
        "mIoU": {"6a": {"plain": [0.4], "ours": [0.45, 0.47]}, "6b": {"plain": [0.3], "ours": []}},
        "tail mIoU": {"6a": {"plain": [math.nan], "ours": [0.1]}, "6b": {"plain": [], "ours": []}},
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        groups.list_by_list(panels, tmp_path / "lists.png", narrow, most={"mIoU": {"6a": 0.6}})
        groups.list_by_list(panels, tmp_path / "without.png", narrow)
    assert is_picture(tmp_path / "lists.png") and is_picture(tmp_path / "without.png")
    with Image.open(tmp_path / "lists.png") as marked, Image.open(tmp_path / "without.png") as plain:
        assert marked.tobytes() != plain.tobytes()
