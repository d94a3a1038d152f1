from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from des4 import comparing
from des4.report.compare import compare
from des4.report.compare_page import MARK, Pictures, class_shares, compare_page
from des4.runlog import RunFolder
from des4.types import RunError

MakeRun = Callable[..., RunFolder]


@pytest.fixture
def runs(make_run: MakeRun) -> list[RunFolder]:
    """A run without pseudo-labels, and two seeds of one that has some, the truth known in the last."""
    found = [make_run("plain", method__name="supervised"), make_run("a"), make_run("b", seed=1, miou=0.7)]
    for run, shares in zip(found[1:], ([0.8, 0.0, 0.2], [0.6, 0.2, 0.2]), strict=True):
        run.log(20, {"drift/shares": [1.0, 0.0, 0.0]})
        for step in range(30, 100, 10):
            run.log(step, {"drift/shares": [0.5, 0.5, 0.0] if step < 90 else shares})
        run.log(90, {"val/teacher/miou": 0.5, "val/teacher/tail_miou": 0.1})
    truth = {"images": 5, "share": {"road": 0.5, "<b>sign</b>": 0.2, "$5 [bold]|note": 0.3}}
    found[2].write_results(found[2].results() | {"truth": truth})
    return found


def test_shares_of_pseudo_labels_are_those_of_the_last_quarter_over_the_seeds(runs: list[RunFolder]) -> None:
    shares = class_shares(compare(runs).groups)
    assert shares is not None and list(shares.groups) == ["des4"]
    assert shares.groups["des4"] == pytest.approx({"road": 0.6, "<b>sign</b>": 0.3, "$5 [bold]|note": 0.1})
    assert shares.truth["road"] == 0.5 and "5 unlabeled images" in shares.told
    assert shares.rows[0] == ["% of the pixels", "truth", "des4"]
    assert shares.rows[1] == ["road", "50.00", "60.00 (×1.2)"]
    assert shares.rows[3] == ["<b>sign</b>", "20.00", "30.00 (×1.5)"]
    assert class_shares(compare(runs[:1]).groups) is None
    labeled = class_shares(compare(runs[:2]).groups)
    assert labeled is not None and labeled.truth["road"] == 0.7 and "the labeled images" in labeled.told


def test_the_page_holds_the_comparison_and_needs_nothing_else(runs: list[RunFolder], tmp_path: Path) -> None:
    Image.new("RGB", (40, 20)).save(tmp_path / "grid.png")
    page = compare_page(compare(runs), {"": Pictures(tmp_path / "grid.png")}, {"des4": "the <method>"})
    assert MARK in page[:1024]
    assert page.count("data:image/") == 9, "four diagrams, wide and narrow, and the pictures"
    assert not re.search(r"<script|https?://|src=\"(?!data:)", page)
    for text in ("one seed only", "65.00 ± 7.07", "the &lt;method&gt;", "&lt;b&gt;sign", "60.00 (×1.2)", "figure 3",
                 str(runs[2].path), 'href="#pictures"'):  # fmt: skip
        assert text in page, text
    assert page.index("one seed only") < page.index("65.00"), "what is unfair comes first"


def test_data_with_other_classes_have_a_page_too(runs: list[RunFolder], make_run: MakeRun) -> None:
    other = make_run("other", data__root="elsewhere")
    other.write_results(other.results() | {"pixel_share": {"road": 0.6, "cat": 0.4}, "iou": {"road": 0.5, "cat": 0.1}})
    other.log(90, {"drift/shares": [0.5, 0.5]})
    comparison = compare([runs[1], other])
    shares = class_shares(comparison.groups)
    assert shares is not None and shares.rows[2] == ["$5 [bold]|note", "29.96", "10.00 (×0.33)", "–"]
    page = compare_page(comparison)
    assert "not one protocol: data.root differs" in page and "<td>cat</td><td>–</td><td>10.00</td>" in page


def test_a_picture_of_the_first_groups_says_so(make_run: MakeRun, tmp_path: Path) -> None:
    Image.new("RGB", (40, 20)).save(tmp_path / "grid.png")
    runs = [make_run(f"r{number}", method__alpha=number) for number in range(7)]
    for count, told in ((6, "each group predicts"), (7, "each of the first 6 groups predicts")):
        page = compare_page(compare(runs[:count]), {"": Pictures(tmp_path / "grid.png")})
        assert f"what the first run of {told}" in page


def test_families_stay_apart_and_missing_pictures_have_a_reason(make_run: MakeRun) -> None:
    runs = [make_run("a", data={"protocol": "voc/u2pl/1323"}), make_run("b", data={"protocol": "voc/blended/1323"})]
    page = compare_page(compare(runs), {"voc/u2pl": Pictures(None, "the data are <gone>")})
    assert "Scores · voc/u2pl/1323" in page and "Scores · voc/blended/1323" in page
    assert "There are none: the data are &lt;gone&gt;." in page
    links = re.findall(r'<a href="#([^"]+)">', page)
    assert len(set(links)) == len(links) and "scores-2" in links


def test_runs_may_have_names(runs: list[RunFolder]) -> None:
    result = compare(runs, ["no pictures", "ours", "ours again"])
    assert [group.label for group in result.groups] == ["no pictures", "ours"]
    assert [run.path.name for run in result.groups[1].runs] == ["a", "b"]


def test_only_a_page_of_ours_is_replaced(runs: list[RunFolder], tmp_path: Path) -> None:
    page = tmp_path / "new" / "page.html"
    comparing.write_page(compare(runs), page)
    comparing.check_page(page)
    assert "There are none: " in page.read_text(encoding="utf-8"), "these runs have no weights"
    page.write_text("mine")
    with pytest.raises(RunError, match="no page of des4 compare"):
        comparing.write_page(compare(runs), page)
    with pytest.raises(RunError, match="is a folder"):
        comparing.check_page(tmp_path)
    assert page.read_text() == "mine"
