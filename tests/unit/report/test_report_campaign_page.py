"""The page of a campaign says what limits it, how it was made, and what it found; what is not known is a dash."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from des4.methods import METHODS
from des4.report.campaign import CampaignReport
from des4.report.campaign_page import campaign_page, first_runs, shown_list
from des4.report.campaign_scores import Finished
from des4.report.compare import compare
from des4.report.compare_page import Pictures, compare_page
from des4.runlog import RunFolder

MakeRun = Callable[..., RunFolder]


@pytest.fixture
def report(make_run: MakeRun) -> CampaignReport:
    """Two methods and two lists of few masks, with all of them for one; the second method is a reconstruction."""
    runs = []
    for method, lists, seed, miou in (
        ("plain", "6<a>", 0, 0.40), ("plain", "6<a>", 1, 0.42), ("plain", "all", 0, 0.60),
        ("ours", "6<a>", 0, 0.45), ("ours", "6<a>", 1, 0.44),
    ):  # fmt: skip
        data = {"labeled": 100 if lists == "all" else 6, "labeled_hash": f"{lists}-0123456789abcdef"}
        run = make_run(f"{method}-{lists[0]}-{seed}", seed, miou, data=data)
        run.log(20, {"val/teacher/miou": miou, "val/teacher/tail_miou": 0.2, "images_per_second": 11.0})
        if method == "ours":
            run.log(20, {"drift/shares": [0.5, 0.1, 0.4]})
            run.write_env({"parameters": {"trained": 2_500_000, "predicting": 1_200_000},
                           "peak_memory": {"device": None, "process": 3 * 2**29}})  # fmt: skip
        runs.append(Finished(method, lists, seed, run.results(), run))
    return CampaignReport(runs, "plain", "all", planned=6, reconstructions=("ours",))


def test_the_page_says_it_all(report: CampaignReport, tmp_path: Path) -> None:
    page = campaign_page(report, "few & rare")
    assert "<h1>few &amp; rare</h1>" in page and "2 methods × 2 lists × 2 seeds (0, 1)" in page
    for text in (
        "5 of 6 runs are finished", "fewer than 3 seeds: plain has 1, ours has 2",
        "reconstructed, for too little was published: ours", "ours: fewer than 3 pairs",
    ):  # fmt: skip
        assert text in page.partition("Protocol</h2>")[0], text
    for cells in (
        ("model.encoder", "resnet50"), ("steps", "100"), ("train.unlabeled_batch_size", "null"),
        ("6&lt;a&gt;", "none", "6, 6&lt;a&gt;-0123456789a", "4, unlabeled-hash", "4, val-hash"),
        ("plain", "3", "1 h 2 min", "10.0", "–", "–", "–"),
        ("ours", "2", "1 h 2 min", "10.0", "2.50 M", "1.20 M", "1.50"),
        ("ours", "every list", "2", "+3.50 ± 2.12", "+3.50 ± 2.12", "19.00", "18 %"),
    ):  # fmt: skip
        assert re.search(r"\s*".join(f"<td>{re.escape(cell)}</td>" for cell in cells), page), cells
    ids = re.findall(r'<h2 id="([a-z]+)">', page)
    assert ids == [
        "limits",
        "protocol",
        "scores",
        "differences",
        "masks",
        "classes",
        "curves",
        "shares",
        "cost",
        "runs",
    ]
    assert page.count("data:image/webp") == 2 * 6  # each diagram wide and narrow
    assert "<b>sign</b>" not in page and 'src="http' not in page


def test_several_lists_of_few_masks_are_drawn_list_by_list(report: CampaignReport) -> None:
    assert "list by list" not in campaign_page(report, "x")
    few = [one for one in report.runs if one.lists == "6<a>"]
    both = replace(report, runs=[*report.runs, *(replace(one, lists="6b") for one in few)])
    page = campaign_page(both, "x")
    assert "mIoU and tail mIoU of each method, list by list" in page and page.count("data:image/webp") == 2 * 7


def test_the_markdown_has_classes_and_cost_too(report: CampaignReport) -> None:
    text = report.markdown()
    assert "| IoU % | plain | ours |" in text and "| road | 72.73 ± 0.00 | 72.73 ± 0.00 |" in text
    assert "| ours | 2 | 1 h 2 min | 10.0 | 2.50 M | 1.20 M | 1.50 |" in text


def test_pictures_are_of_the_list_that_most_methods_have(report: CampaignReport) -> None:
    assert shown_list(report) == "6<a>"
    assert [run.path.name for run in first_runs(report, "6<a>").values()] == ["plain-6-0", "ours-6-0"]
    page = campaign_page(report, "x", Pictures(None, "the data is gone"))
    assert "There are none: the data is gone." in page


def test_one_run_of_one_method_has_a_page_too(report: CampaignReport) -> None:
    page = campaign_page(CampaignReport(report.runs[:1]), "x")
    assert "1 method × 1 list × 1 seed (0)" in page and 'id="differences"' not in page


def test_many_methods_have_tables_in_the_place_of_bars(report: CampaignReport, monkeypatch: pytest.MonkeyPatch) -> None:
    for page in ("campaign_page", "compare_page"):
        monkeypatch.setattr(f"des4.report.{page}.MOST_BARS", 0)
    comparison = compare([one.run for one in report.runs if one.run])
    for page in (campaign_page(report, "x"), compare_page(comparison)):
        assert "figure 3" in page and "Shares of the classes" not in page


def test_methods_say_whether_they_are_reconstructions() -> None:
    for name, cls in METHODS.items():
        first = (import_module(cls.__module__).__doc__ or "").splitlines()[0]
        assert ("a reconstruction" in first) == cls.RECONSTRUCTION, name
