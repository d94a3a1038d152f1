from __future__ import annotations

import json
import math
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from des4.report.campaign import CampaignReport
from des4.report.campaign_scores import Finished
from des4.report.campaign_tables import by_class, paired_differences


def run(method: str, lists: str, seed: int, miou: float | None, tail: float = 0.1, masks: int = 6) -> Finished:
    results = {
        "miou": miou, "tail_miou": tail, "iou": {"sky": miou, "pole": tail}, "step": 9, "steps": 9,
        "tail_classes": ["pole"] if masks > 6 else ["sky"], "data": {"labeled": masks},
    }  # fmt: skip
    return Finished(method, lists, seed, results)


@pytest.fixture
def report() -> CampaignReport:
    """Two lists of few masks and all of them; the second method misses one run."""
    runs = [
        run("plain", "a", 0, 0.40), run("plain", "a", 1, 0.42), run("plain", "b", 0, 0.30, masks=12),
        run("plain", "all", 0, 0.50, masks=100),
        run("ours", "a", 0, 0.45, 0.12), run("ours", "a", 1, 0.45, 0.14), run("ours", "b", 0, 0.36, 0.1, masks=12),
    ]  # fmt: skip
    return CampaignReport(runs, "plain", "all", planned=8)


def test_differences_are_of_runs_with_the_same_lists_and_seed(report: CampaignReport) -> None:
    assert report.differences("ours", "miou").values == pytest.approx((0.05, 0.03, 0.06))
    assert report.differences("ours", "miou", ["a"]).values == pytest.approx((0.05, 0.03))
    assert report.differences("ours", "tail_miou", ["a"]).mean == pytest.approx(0.03)


def test_headroom_and_the_share_of_it_that_is_closed_by_hand(report: CampaignReport) -> None:
    assert report.headroom("a") == pytest.approx(0.50 - 0.41)
    assert report.closed("ours", "a") == pytest.approx(0.04 / 0.09)
    assert math.isnan(report.headroom("all")) and math.isnan(report.closed("ours", "all"))
    alone = CampaignReport(report.runs, "plain")
    assert math.isnan(alone.headroom("a"))


def test_a_class_is_marked_by_how_many_lists_call_it_rare(report: CampaignReport) -> None:
    rarer = [replace(one, results={**one.results, "pixel_share": {"sky": 0.9, "pole": 0.1}}) for one in report.runs]
    rows = by_class(CampaignReport(rarer, "plain", "all"))
    assert [row[0] for row in rows] == ["IoU %", "sky (tail of 1 of 2 lists)", "pole (tail of 1 of 2 lists)"]
    rows = by_class(CampaignReport(rarer[:2], "plain", "all"))
    assert [row[0] for row in rows[1:]] == ["sky (tail)", "pole"]


def test_lists_side_by_side_leave_out_that_with_all_masks(report: CampaignReport) -> None:
    values = report.list_values()
    assert values["mIoU"] == {
        "a": {"plain": (0.40, 0.42), "ours": (0.45, 0.45)},
        "b": {"plain": (0.30,), "ours": (0.36,)},
    }
    assert values["tail mIoU"]["a"]["ours"] == (0.12, 0.14)
    assert report.with_all_masks("miou", "a") == 0.5
    assert math.isnan(CampaignReport(report.runs, "plain").with_all_masks("miou", "a"))
    other = CampaignReport([*report.runs, run("longer", "all", 0, 0.55, masks=100)], "ours", "all")
    assert list(other.list_values()["mIoU"]["b"]) == ["ours", "plain"], "the reference first; no few masks, no dot"


def test_all_masks_may_be_trained_as_a_method_of_their_own() -> None:
    runs = [run("plain", "a", 0, 0.40), run("ours", "a", 0, 0.43), run("longer", "all", 0, 0.55, masks=100)]
    report = CampaignReport(runs, "plain", "all")
    assert report.headroom("a") == pytest.approx(0.15) and report.closed("ours", "a") == pytest.approx(0.2)
    assert math.isnan(CampaignReport(runs[:2], "plain", "all").headroom("a"))
    own = run("plain", "all", 0, 0.50, masks=100)  # the reference's own run counts, whichever comes first
    report = CampaignReport([runs[2], *runs[:2], own], "plain", "all")
    assert report.with_all_masks("miou", "a") == 0.50 and report.full_method == "plain"
    assert CampaignReport(runs, "plain", "all").full_method == "longer"


def test_what_all_masks_reach_is_over_the_rare_classes_of_the_list_it_is_held_against() -> None:
    runs = [run("plain", "a", 0, 0.40, 0.10), run("plain", "all", 0, 0.50, 0.20, masks=100)]
    report = CampaignReport(runs, "plain", "all")
    assert report.with_all_masks("tail_miou", "a") == 0.50, "sky is rare in a, and pole where there are all masks"
    assert report.with_all_masks("tail_miou", "all") == 0.20


def test_there_is_no_headroom_across_val_lists() -> None:
    few, most = run("plain", "a", 0, 0.40), run("plain", "all", 0, 0.50, masks=100)
    other = Finished("plain", "all", 0, {**most.results, "data": {"labeled": 100, "val_hash": "other"}})
    assert CampaignReport([few, most], "plain", "all").headroom("a") == pytest.approx(0.1)
    assert math.isnan(CampaignReport([few, other], "plain", "all").headroom("a"))


def test_a_list_without_headroom_closes_nothing() -> None:
    runs = [run("plain", "a", 0, 0.5), run("plain", "all", 0, 0.4), run("ours", "a", 0, 0.6)]
    report = CampaignReport(runs, "plain", "all")
    assert math.isnan(report.closed("ours", "a"))
    assert all(row[-1] == "–" for row in report.tables()[-1][1:])


def test_the_tables_say_who_won_and_what_is_missing(report: CampaignReport) -> None:
    console = Console(width=160, record=True, file=StringIO())
    console.print(report)
    text = console.export_text()
    assert "+4.00 ± 1.41" in text and "44 %" in text and "7 of 8 runs are finished" in text
    markdown = report.markdown()
    assert "| minus plain | lists | pairs | mIoU | tail mIoU | headroom | closed |" in markdown
    assert "| ours | every list | 3 | +4.67 ± 1.53 |" in markdown


def test_too_few_pairs_and_unequal_steps_are_warned_of() -> None:
    runs = [run("plain", "a", 0, 0.4), Finished("ours", "a", 0, {**run("ours", "a", 0, 0.5).results, "steps": 20})]
    text = " ".join(CampaignReport(runs, "plain", planned=2).warnings)
    assert "fewer than 3 pairs" in text and "plain 9; ours 20" in text


def test_markdown_shows_warnings_as_they_are() -> None:
    runs = [run("<b>ours</b>", "a", 0, 0.4)]
    assert "- Warning: fewer than 3 seeds: &lt;b&gt;ours&lt;/b&gt; has 1;" in CampaignReport(runs).markdown()


def test_what_runs_say_of_themselves_is_in_the_warnings_once() -> None:
    few = "mIoU is over 5 val images"

    def with_results(one: Finished, **more: Any) -> Finished:
        return Finished(one.method, one.lists, one.seed, {**one.results, **more})

    runs = [
        with_results(run("plain", "a", 0, 0.4), caution=few),
        with_results(run("ours", "a", 0, 0.5), caution=few, step=4),
        with_results(run("ours", "a", 1, 0.5), caution=f"{few}; chosen on val", step=5),
        with_results(run("told", "a", 0, 0.9), caution="an oracle", oracle=True),
    ]
    warnings = CampaignReport(runs, "plain", planned=4).warnings
    assert (
        "stopped before their last step: ours · a · seed 0 at step 4 of 9, ours · a · seed 1 at step 5 of 9" in warnings
    )
    assert [text for text in warnings if few in text] == [f"plain, ours: {few}", f"ours: {few}; chosen on val"]
    assert not any("an oracle" in text for text in warnings)
    many = [with_results(run("ours", "a", seed, 0.5), step=4) for seed in range(7)]
    assert any(text.endswith("seed 4 at step 4 of 9, and 2 more") for text in CampaignReport(many).warnings)


def test_what_is_closed_over_lists_is_of_the_same_pairs_on_both_sides() -> None:
    runs = [
        *(run("plain", "a", seed, 0.40) for seed in range(3)), run("plain", "b", 0, 0.30),
        *(run("ours", "a", seed, 0.45) for seed in range(3)), run("ours", "b", 0, 0.40),
        run("plain", "all", 0, 0.50, masks=100),
    ]  # fmt: skip
    _, *rows = paired_differences(CampaignReport(runs, "plain", "all"))
    assert [row[-1] for row in rows if row[0] == "ours"] == ["50 %", "50 %", "50 %"]  # of 10 points, of 20, and of both


def test_three_seeds_are_enough_and_a_pair_without_a_score_is_none() -> None:
    runs = [run(method, "a", seed, 0.4) for method in ("plain", "ours") for seed in range(3)]
    assert CampaignReport(runs, "plain").warnings == []
    runs[-1] = run("ours", "a", 2, None)
    (told,) = CampaignReport(runs, "plain").warnings
    assert told.startswith("ours: fewer than 3 pairs")


def test_an_undefined_score_is_left_out() -> None:
    runs = [run("plain", "a", 0, None), run("ours", "a", 0, 0.5)]
    report = CampaignReport(runs, "plain")
    assert math.isnan(report.differences("ours", "miou").mean)
    assert "| ours |" in report.markdown()


def test_the_curve_and_its_verdict(report: CampaignReport) -> None:
    means = {n: score.mean for n, score in report.curve("miou")["plain"].items()}
    assert means == pytest.approx({6: 0.41, 12: 0.30, 100: 0.5})
    tails = {n: score.mean for n, score in report.curve("tail_miou")["ours"].items()}
    assert tails == pytest.approx({6: 0.13, 12: 0.1})  # the tail of the longest list, for short ones too
    few, more = report.verdict("plain")
    assert "All 100 masks give 9.0 points of mIoU more than 6." in few and "there is room" in few
    assert "More masks would still help." in more
    flat = CampaignReport([run("plain", "a", 0, 0.40), run("plain", "all", 0, 0.405, masks=100)])
    assert "little left to win" in flat.verdict("plain")[0] and "would help little" in flat.verdict("plain")[1]
    assert CampaignReport([run("plain", "a", 0, 0.4)]).verdict("plain") == []
    sizes = [run("plain", "a", 0, 0.40), run("plain", "b", 0, 0.60, masks=12), run("plain", "all", 0, 0.605, masks=100)]
    few, more = CampaignReport(sizes).verdict("plain")
    assert "give 20.5 points" in few and "there is room" in few
    assert "From 12 to 100 masks it gained 0.5." in more and "would help little" in more  # the last step alone counts
    sizes[-1] = run("plain", "all", 0, 0.55, masks=100)
    assert "From 12 to 100 masks it lost 5.0." in CampaignReport(sizes).verdict("plain")[1]
    sizes[-1] = run("plain", "all", 0, 0.32, masks=100)
    (said,) = CampaignReport(sizes).verdict("plain")
    assert "All 100 masks give 8.0 points of mIoU less than 6" in said and "says nothing yet" in said


def test_lists_with_every_mask_have_no_part_in_what_is_closed() -> None:
    runs = [run(m, lists, 0, score) for m, lists, score in (
        ("plain", "a", 0.40), ("ours", "a", 0.44), ("plain", "all", 0.50), ("ours", "all", 0.40)
    )]  # fmt: skip
    rows = CampaignReport(runs, "plain", "all").tables()[-1]
    assert rows[-1] == ["ours", "every list", "1", "+4.00", "+0.00", "10.00", "40 %"]


def test_a_list_that_a_method_misses_has_no_part_in_what_it_closes(report: CampaignReport) -> None:
    runs = [one for one in report.runs if (one.method, one.lists) != ("ours", "b")]  # of 20 points, against 9 of a
    row = CampaignReport(runs, "plain", "all").tables()[-1][-1]
    assert row[1:4] == ["every list", "2", "+4.00 ± 1.41"] and row[-2:] == ["9.00", "44 %"]


def test_many_methods_stand_below_each_other() -> None:
    runs = [run(name, "a", 0, 0.4) for name in "vwxyz"]
    scores = CampaignReport(runs).tables()[0]
    assert scores[0] == ["mIoU %", "a"] and [row[0] for row in scores[1:]] == list("vwxyz")
    assert CampaignReport(runs[:4]).tables()[0][0] == ["mIoU %", *"vwxy"]


def test_without_scores_or_reference_there_is_still_a_report(tmp_path: Path) -> None:
    report = CampaignReport([run("plain", "a", 0, None), run("plain", "all", 0, 0.5, masks=9)])
    assert report.verdict("plain") == []
    report.plot(tmp_path / "scores.png")
    with Image.open(tmp_path / "scores.png") as picture:
        assert picture.width > 1000


def test_it_writes_figures_and_pictures(report: CampaignReport, tmp_path: Path) -> None:
    report.write(tmp_path)
    kept = json.loads((tmp_path / "campaign.json").read_text())
    assert kept["reference"] == "plain" and len(kept["runs"]) == 7
    assert (tmp_path / "campaign.md").read_text() == report.markdown()
    for name in ("campaign.png", "curve.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 1000


def test_it_may_open_otherwise_and_draw_the_curve_of_other_runs(report: CampaignReport, tmp_path: Path) -> None:
    few = CampaignReport(report.runs[:2], "plain")
    for name in "ab":
        (tmp_path / name).mkdir()
    few.write(tmp_path / "a", "Before all: 1")
    assert (tmp_path / "a" / "campaign.md").read_text() == f"Before all: 1\n\n{few.markdown()}"
    assert not (tmp_path / "a" / "curve.png").exists()
    few.write(tmp_path / "b", curve=report.runs)
    assert (tmp_path / "b" / "curve.png").exists()
