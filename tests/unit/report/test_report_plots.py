from __future__ import annotations

import math
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from des4.report import plots
from des4.report.inside import Zones

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


def is_picture(path: Path) -> bool:
    with Image.open(path) as image:
        return image.format == "PNG" and min(image.size) > 200 and len(set(image.convert("L").tobytes())) > 5


def test_each_plot_is_written_without_a_warning(tmp_path: Path) -> None:
    scores = {"a": 0.5, "$x$": None, "<b>": math.nan}
    share = {"a": 0.5, "$x$": 0.4, "<b>": 0.0}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.curves(TRAINING + VALIDATION, tmp_path / "curves.png")
        plots.stats(TRAINING, ["a", "b"], ["b"], tmp_path / "stats.png")
        plots.class_bars({"teacher": scores, "student": scores}, share, ["<b>"], tmp_path / "bars.png")
        plots.group_bars({"g": {"mIoU": [0.5, 0.6], "tail mIoU": [math.nan]}}, tmp_path / "groups.png")
    assert all(is_picture(tmp_path / f"{name}.png") for name in ("curves", "stats", "bars", "groups"))


@pytest.mark.parametrize("count", [2, 21, 30])
def test_confusion_is_drawn_for_few_and_many_classes(tmp_path: Path, count: int) -> None:
    matrix = np.eye(count, dtype=np.int64)
    matrix[0] = 0  # a class without a pixel
    plots.confusion(matrix, [f"class {i}" for i in range(count)], tmp_path / "confusion.png")
    assert is_picture(tmp_path / "confusion.png")


def test_stats_are_what_no_other_panel_shows() -> None:
    assert plots.has_stats(TRAINING)
    bare = [{"step": 1, "loss": 1.0, "loss/a": 1.0, "lr": 0.1, "seconds": 1.0, "images_per_second": 2.0}]
    assert not plots.has_stats(bare + VALIDATION)


def test_drift_and_truth_are_drawn_without_a_warning(tmp_path: Path) -> None:
    rows = [
        {"step": i, "drift/shares": [0.5, 0.0, 0.5], "drift/confidence": 0.5, "drift/agreement": None,
         "drift/kept": 1.0, "truth/precision/a": 0.5, "truth/precision/b": None, "truth/coverage/a": 0.1}
        for i in range(1, 50)
    ]  # fmt: skip
    assert not plots.has_stats(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.drift(rows, {"a": 0.4, "$x$": 0.6, "never": 0.0}, ["a", "$x$"], 2.0, tmp_path / "drift.png")
        plots.drift(rows[:2], {"a": 0.4, "$x$": 0.6, "never": 0.0}, ["$x$"], None, tmp_path / "few.png")
        plots.quality_over_time(rows, "truth", ["b", "a"], tmp_path / "truth.png")
    assert plots.has_quality(rows, "truth") and not plots.has_quality(rows[:1], "truth")
    full = [{"step": i, "pseudo/precision/a": 1.0, "pseudo/coverage/a": 1.0} for i in (1, 2)]
    assert not plots.has_quality(full, "pseudo"), "a line that is 100 throughout says nothing"
    assert all(is_picture(tmp_path / f"{name}.png") for name in ("drift", "few", "truth"))


@pytest.mark.parametrize("narrow", [False, True])
def test_what_comparisons_and_prototypes_draw_is_written_without_a_warning(tmp_path: Path, narrow: bool) -> None:
    counts = np.arange(20)
    zones = {"a": Zones(3, 0.1, 1.2, counts, counts // 3), "<b>": Zones(1, 0.5, 0.5, counts, counts)}
    cosine = np.array([[1, -0.96, np.nan], [-0.96, 1, np.nan], [np.nan, np.nan, np.nan]])
    groups = {"one, with a rather long name": [{"miou": ([1.0, 2.0], [0.1, 0.2])}], "two": [{}]}
    shares = {"a": 0.9, "<b>": 0.1, "$x$": 0.0}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.zones(zones, ["a", "<b>"], tmp_path / "zones.png", narrow)
        plots.cosines(cosine, ["a", "<b>", "$x$"], tmp_path / "cosines.png", narrow)
        plots.moved([1, 2], [[None, None], [3.0, None]], ["a", "<b>"], ["a"], tmp_path / "moved.png", narrow)
        plots.runs_over_time(groups, tmp_path / "runs.png", narrow)
        plots.distribution(shares, {"one": {}, "two": shares}, ["a", "<b>", "$x$"], tmp_path / "shares.png", narrow)
    assert all(is_picture(path) for path in tmp_path.iterdir())
    widths = {Image.open(path).width for path in tmp_path.iterdir() if path.stem != "cosines"}
    assert widths == {598 if narrow else 1536}


def test_curves_without_a_value_say_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no values"):
        plots.curves([{"step": 1}], tmp_path / "curves.png")


def test_percent_writes_a_dash_for_what_does_not_occur() -> None:
    assert [plots.percent(x) for x in (0.1234, None, math.nan)] == ["12.3", "–", "–"]


def test_the_report_room_knows_no_torch_and_leaves_pyplot_alone() -> None:
    code = """
import sys
import des4.report.compare_page, des4.report.page, des4.report.pictures, des4.report.plots
print([name for name in ("torch", "matplotlib.pyplot") if name in sys.modules])
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert found.stdout.strip() == "[]"
