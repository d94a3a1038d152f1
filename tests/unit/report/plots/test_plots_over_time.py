from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from des4.report.plots import over_time

IsPicture = Callable[[Path], bool]

TRAINING = [
    {
        "step": i,
        "loss": 3 / i,
        "loss/a": 2 / i,
        "lr": 0.1 / i,
        "entropy/low": 0.1,
        "entropy/high": 0.9,
        "counts": [i, None],
    }
    for i in range(1, 50)
]
VALIDATION = [
    {"step": 40, "val/teacher/miou": 0.5, "val/teacher/tail_miou": None, "val/teacher/iou/x": 0.5,
     "pseudo/precision/x": None}
]  # fmt: skip


def test_curves_and_stats_are_written_without_a_warning(tmp_path: Path, is_picture: IsPicture) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        over_time.curves(TRAINING + VALIDATION, tmp_path / "curves.png")
        over_time.stats(TRAINING, ["a", "b"], ["b"], tmp_path / "stats.png")
    assert all(is_picture(tmp_path / f"{name}.png") for name in ("curves", "stats"))


def test_stats_are_what_no_other_panel_shows() -> None:
    assert over_time.has_stats(TRAINING)
    bare = [{"step": 1, "loss": 1.0, "loss/a": 1.0, "lr": 0.1, "seconds": 1.0, "images_per_second": 2.0}]
    assert not over_time.has_stats(bare + VALIDATION)


def test_drift_and_truth_are_drawn_without_a_warning(tmp_path: Path, is_picture: IsPicture) -> None:
    rows = [
        {"step": i, "drift/shares": [0.5, 0.0, 0.5], "drift/confidence": 0.5, "drift/agreement": None,
         "drift/kept": 1.0, "truth/precision/a": 0.5, "truth/precision/b": None, "truth/coverage/a": 0.1}
        for i in range(1, 50)
    ]  # fmt: skip
    assert not over_time.has_stats(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        over_time.drift(rows, {"a": 0.4, "$x$": 0.6, "never": 0.0}, ["a", "$x$"], 2.0, tmp_path / "drift.png")
        over_time.drift(rows[:2], {"a": 0.4, "$x$": 0.6, "never": 0.0}, ["$x$"], None, tmp_path / "few.png")
        over_time.quality_over_time(rows, "truth", ["b", "a"], tmp_path / "truth.png")
    assert over_time.has_quality(rows, "truth") and not over_time.has_quality(rows[:1], "truth")
    full = [{"step": i, "pseudo/precision/a": 1.0, "pseudo/coverage/a": 1.0} for i in (1, 2)]
    assert not over_time.has_quality(full, "pseudo"), "a line that is 100 throughout says nothing"
    assert all(is_picture(tmp_path / f"{name}.png") for name in ("drift", "few", "truth"))


@pytest.mark.parametrize(("narrow", "width"), [(False, 1536), (True, 598)])
def test_moves_of_prototypes_are_drawn_wide_and_narrow(
    tmp_path: Path, is_picture: IsPicture, narrow: bool, width: int
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        over_time.moved([1, 2], [[None, None], [3.0, None]], ["a", "<b>"], ["a"], tmp_path / "moved.png", narrow)
    assert is_picture(tmp_path / "moved.png") and Image.open(tmp_path / "moved.png").width == width


def test_curves_without_a_value_say_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no values"):
        over_time.curves([{"step": 1}], tmp_path / "curves.png")
