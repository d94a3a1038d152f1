from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image

from des4.models import memory
from des4.report.inside import BINS_A_ZONE, watched
from des4.report.page import flatten, pseudo_label_figures, write_report
from des4.report.templates import code, photographs
from des4.runlog import RunFolder
from des4.types import RunError

MakeRun = Callable[..., RunFolder]
NAMES = ["road", "<b>sign</b>", "$5 [bold]|note"]


class Balanced(HTMLParser):
    """Follow the open elements; every one must be closed in order."""

    VOID = ("meta", "img", "br", "source")

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
    assert page.count("data:image/webp;base64,") == 5 + 2, "curves and stats for a phone too; the bars are in the table"
    assert not re.search(r"<script|https?://|src=\"(?!data:)", page)
    for text in ("60.00", "40.00", "65.00", "72.7", "“Best” was", "labeled-hash", "1 h 2 min", "config.yaml", "2.15.0",
                 "Samples of the validation list", "by hand", "encoder: resnet50"):  # fmt: skip
        assert text in page, text
    assert page.index("Samples of") < page.index("by hand")
    links = re.findall(r'<a href="#([^"]+)">', page)
    assert links == re.findall(r'<h2 id="([^"]+)">', page) and len(set(links)) == len(links) > 3
    assert "pseudo-labels" not in links, "one validation, no drift: there is nothing to head"
    assert "<h2>" not in page and "prefers-color-scheme: dark" in page


def test_a_file_that_is_no_picture_is_named(make_run: MakeRun) -> None:
    run = make_run()
    (run.plots / "mine.png").write_text("none")
    with pytest.raises(RunError, match=r"mine\.png cannot be read as a picture; remove it"):
        write_report(run)


def test_photographs_do_not_make_a_page_too_large_to_be_sent(make_run: MakeRun) -> None:
    run = make_run()
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3), dtype=np.uint8)
    for name in ("samples", "worst"):
        Image.fromarray(noise).save(run.plots / f"{name}.png")
    sizes = [sum(map(len, photographs({n: run.plots / f"{n}.png" for n in ("samples", "worst")}, most).values()))
             for most in (10_000_000, 300_000)]  # fmt: skip
    assert sizes[1] < 400_000 + 100 < sizes[0], "what is left is a third larger in the page"


def test_what_was_seen_inside_is_shown(make_run: MakeRun) -> None:
    run = make_run()
    run.log(10, inside(pixels=[8, 0, 4], taken=[2, 0, 4], moved=[None] * 3))
    run.log(20, inside(pixels=[12, 3, 0], taken=[2, 3, 0], moved=[5.0, None, 2.5]))
    found = watched(run.metrics(), NAMES)["feed"]
    assert {name: zones.step for name, zones in found.zones.items()} == {NAMES[0]: 20, NAMES[1]: 20, NAMES[2]: 10}
    assert found.zones[NAMES[0]].by_zone == [(2, 12), (0, 0), (0, 0), (0, 0), (0, 0)]
    assert found.cosine[:2, :2].tolist() == [[1, 0.25], [0.25, 1]] and np.isnan(found.cosine[2, :2]).all()
    assert found.has_moved and found.drawn(NAMES[::-1]) == NAMES[::-1]
    page = write_report(run).read_text(encoding="utf-8")
    for text in ('<h2 id="prototypes">', "<td>2 of 12</td>", "zone 5", "Cosine of each prototype", "how many degrees"):
        assert text in page, text
    assert {"feed_zones.png", "feed_prototypes.png", "feed_moved.png"} <= {path.name for path in run.plots.iterdir()}
    parser = Balanced()
    parser.feed(page)
    assert not parser.open
    assert BINS_A_ZONE == memory.BINS_A_ZONE


def inside(pixels: list[int], taken: list[int], moved: list[float | None]) -> dict[str, Any]:
    """A watched step of three classes, all pixels in the lowest bin."""

    def bins(counts: list[int]) -> list[int]:
        return [count if bin_ == 0 else 0 for count in counts for bin_ in range(20)]

    values = {"low": [0.1] * 3, "high": [1.0] * 3, "pixels": bins(pixels), "taken": bins(taken),
              "cosine": [0.25, None, None], "moved": moved}  # fmt: skip
    return {f"inside/feed/{key}": value for key, value in values.items()}


def test_a_run_that_stopped_early_says_who_chose_its_length(make_run: MakeRun) -> None:
    run = make_run()
    results = run.results()
    results["early_stop"] = {"step": results["step"], "stop_after": 3, "best_step": 40, "chosen_on": "val"}
    run.write_results(results | {"steps": 9999})
    page = write_report(run).read_text(encoding="utf-8")
    assert f"Stopped early, at step {results['step']} of 9999: 3 validations brought no better mIoU" in page
    assert "chose the length" in page and "not finished" not in page


def test_whose_pseudo_labels_were_measured_is_said(make_run: MakeRun) -> None:
    run = make_run()
    results = run.results()
    for quality, said in (({}, "the student's"), ({"model": "committee", "miou": 0.4567}, "the committee's")):
        run.write_results(results | {"evaluated": "student", "pseudo_labels": results["pseudo_labels"] | quality})
        page = " ".join(write_report(run).read_text(encoding="utf-8").split())
        assert f"Precision is that of {said} predictions as pseudo-labels" in page
        assert ("(mIoU 45.67 %)" in page) == bool(quality)


def test_coverage_is_shown_where_there_is_a_threshold(make_run: MakeRun) -> None:
    run = make_run()
    results = run.results()
    assert pseudo_label_figures(results["pseudo_labels"]) == ("precision",)
    results["pseudo_labels"]["threshold"] = 0.95
    assert pseudo_label_figures(results["pseudo_labels"]) == ("precision",), "coverage is 100 everywhere"
    results["pseudo_labels"]["coverage"]["road"] = 0.7
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
    for text in ("&lt;b&gt;sign&lt;/b&gt;: from step 20 on it had drifted to 2.5 times its labeled share.",
                 "was 3 times", "7 unlabeled images whose masks", "43.21", "On 2 labeled images that", "34.56",
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


def test_what_stands_between_backticks_is_code_and_escaped() -> None:
    assert code("run `a<b>` & <i>") == "run <code>a&lt;b&gt;</code> &amp; &lt;i&gt;"
