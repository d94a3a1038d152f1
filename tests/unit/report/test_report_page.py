from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser

import pytest
from PIL import Image

from des4.report.page import flatten, write_report
from des4.runlog import RunFolder
from des4.types import RunError

MakeRun = Callable[..., RunFolder]


class Balanced(HTMLParser):
    """Follow the open elements; every one must be closed in order."""

    VOID = ("meta", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_report_holds_everything_and_needs_nothing_else(make_run: MakeRun) -> None:
    run = make_run()
    Image.new("RGB", (40, 20)).save(run.plots / "samples.png")
    Image.new("RGB", (40, 20)).save(run.plots / "by_hand.png")
    path = write_report(run)
    page = path.read_text(encoding="utf-8")
    assert path == run.report
    assert {p.name for p in run.plots.iterdir()} == {
        "samples.png", "by_hand.png", "iou.png", "confusion.png", "curves.png", "pseudo_labels.png", "stats.png"
    }  # fmt: skip
    assert page.count("data:image/png;base64,") == 7
    assert not re.search(r"<script|https?://|src=\"(?!data:)", page)
    for text in ("60.00", "40.00", "65.00", "72.7", "“Best” was", "labelled-hash", "1 h 2 min", "config.yaml", "2.15.0",
                 "Samples of the validation list", "by hand", "encoder: resnet50"):  # fmt: skip
        assert text in page, text
    assert page.index("Samples of") < page.index("by hand")


def test_a_run_that_stopped_early_says_who_chose_its_length(make_run: MakeRun) -> None:
    run = make_run()
    results = run.results()
    results["early_stop"] = {"step": results["step"], "stop_after": 3, "best_step": 40, "chosen_on": "val"}
    run.write_results(results | {"steps": 9999})
    page = write_report(run).read_text(encoding="utf-8")
    assert f"Stopped early, at step {results['step']} of 9999: 3 validations brought no better mIoU" in page
    assert "chose the length" in page and "not finished" not in page


def test_coverage_is_shown_where_there_is_a_threshold(make_run: MakeRun) -> None:
    run = make_run()
    assert "<th>coverage</th>" not in write_report(run).read_text(encoding="utf-8")
    results = run.results()
    results["pseudo_labels"]["threshold"] = 0.95
    run.write_results(results)
    page = write_report(run).read_text(encoding="utf-8")
    assert "<th>coverage</th>" in page and "confidence of at least 0.95" in page


def test_what_became_of_the_pseudo_labels_is_shown(make_run: MakeRun) -> None:
    run = make_run()
    names = ["road", "<b>sign</b>", "$5 [bold]|note"]
    for step in (20, 30):
        run.log(step, {"loss": 1.0, "drift/shares": [0.5, 0.1, 0.4], "drift/confidence": 0.9, "drift/agreement": 0.8,
                       "drift/kept": 1.0})  # fmt: skip
        run.log(step, {f"truth/precision/{name}": 0.5 for name in names} | {"truth/miou": 0.4})
    quality = {"threshold": 0.9, "precision": dict.fromkeys(names, 0.5), "coverage": dict.fromkeys(names, 0.7)}
    run.write_results(
        run.results()
        | {
            "drift": {
                "factor": 2.0,
                "ratio": dict.fromkeys(names, 3.0),
                "warned": [{"name": "<b>sign</b>", "step": 20, "ratio": 2.5}],
            },
            "truth": {"images": 7, "model": "teacher", "miou": 0.4321, "iou": {}, **quality},
            "held_out": {"images": ["a", "b"], "models": {"student": {"miou": 0.3456, "tail_miou": None, "iou": {}}}},
            "oracle": True,
        }
    )
    page = write_report(run).read_text(encoding="utf-8")
    assert {"drift.png", "truth.png", "truth_over_time.png"} <= {path.name for path in run.plots.iterdir()}
    for text in ("&lt;b&gt;sign&lt;/b&gt;: from step 20 on it had drifted to 2.5 times its labelled share.",
                 "was 3 times", "7 unlabelled images whose masks", "43.21", "On 2 labelled images that", "34.56",
                 "ORACLE RUN. NO RESULT.",
                 "<title>ORACLE"):  # fmt: skip
        assert text in page, text
    parser = Balanced()
    parser.feed(page)
    assert not parser.open


def test_what_the_user_named_is_escaped(make_run: MakeRun) -> None:
    run = make_run("a <em>name")
    page = write_report(run).read_text(encoding="utf-8")
    assert "&lt;b&gt;sign&lt;/b&gt;" in page and "<b>sign" not in page
    assert "&lt;script&gt;alert" in page and "<em>" not in page
    parser = Balanced()
    parser.feed(page)
    assert not parser.open


def test_a_run_without_validation_is_reported_as_such(make_run: MakeRun) -> None:
    run = make_run("my run", seed=4, scored=False)
    page = write_report(run).read_text(encoding="utf-8")
    assert "was not scored" in page and "Confusion" not in page and "“Best” was" not in page
    assert f"des4 eval &#39;{run.path}&#39;" in page, "a folder with spaces is quoted"
    assert f"out=&#39;{run.path}-seed5&#39; seed=5" in page
    assert write_report(run).read_text(encoding="utf-8") == page, "a second report replaces the first"


def test_a_run_without_results_is_refused(make_run: MakeRun) -> None:
    run = make_run()
    (run.path / "results.json").unlink()
    with pytest.raises(RunError, match="has not finished"):
        write_report(run)


def test_flatten_joins_keys_with_dots() -> None:
    assert flatten({"a": {"b": {"c": 1}, "d": []}, "e": None}) == {"a.b.c": 1, "a.d": [], "e": None}
