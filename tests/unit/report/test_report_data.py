"""The table and the page of a data check, from made-up JSON."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from test_report_page import Balanced

from des4.report.data_page import data_page, is_ours
from des4.report.data_table import findings, overview, share


def finding(
    severity: str = "error", code: str = "size-mismatch", path: str = "my data/masks/a.png", **words: str
) -> Any:
    return {"severity": severity, "code": code, "kind": f"Kind of {code}", "path": path,
            "message": "is too small", "remedy": "mend it", **words}  # fmt: skip


def summary(*found: Any, **changes: Any) -> dict[str, Any]:
    classes = [
        {"name": name, "tail": share < 0.1, "labeled": {"pixels": int(1000 * share), "share": share, "images": 4},
         "val": {"pixels": 0, "share": 0.0, "images": 0}}
        for name, share in (("<b>sign</b>", 0.004), ("road", 0.996), ("[red]", 0.0))
    ]  # fmt: skip
    kinds = ("error", "warning", "note")
    return {
        "root": "my data",
        "format": "folder",
        "images": {"labeled": 4, "unlabeled": 3, "val": 2, "unread": 0},
        "classes": classes,
        "imbalance": 249.0,
        "ignored_share": 0.031,
        "sizes": [{"width": 48, "height": 36, "images": 9}],
        "findings": list(found),
        **{f"{kind}s": sum(one["severity"] == kind for one in found) for kind in kinds},
        "suggested": [],
        **changes,
    }


def printed(*parts: Any) -> str:
    console = Console(width=110, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    for part in parts:
        console.print(part)
    return console.export_text()


def test_the_table_says_what_the_data_hold() -> None:
    text = printed(overview(summary()))
    lines = [line for line in text.splitlines() if "│" in line]
    assert [line.split("│")[1].strip() for line in lines] == ["road", "<b>sign</b> (tail)", "[red] (tail)"]
    assert "99.60" in lines[0] and "█" * 16 in lines[0]
    assert "▏" in lines[1] and "▏" not in lines[2]
    assert "my data · folder · 4 labeled · 3 unlabeled · 2 val" in text
    assert "road has 249 times the pixels of <b>sign</b>; 3.1 % of the labeled images' pixels are ignored" in text
    assert "all images are 48×36 pixels" in text
    unread = {"labeled": 4, "unlabeled": 3, "val": 2, "unread": 3}
    assert "3 unlabeled images were not opened (--quick)" in printed(overview(summary(images=unread)))


def test_a_rare_class_does_not_read_as_none() -> None:
    assert [share(value) for value in (0.0, 0.00004, 0.00006, 0.5)] == ["0.00", "<0.01", "0.01", "50.00"]


def test_sizes_are_summed_up() -> None:
    sizes = [{"width": 50, "height": 30, "images": 3}, {"width": 20, "height": 40, "images": 1}]
    text = printed(overview(summary(sizes=sizes)))
    assert "2 sizes, 50×30 the most frequent (75 % of the images); width 20–50, height 30–40 pixels" in text


def test_findings_stand_by_kind_and_the_worst_last() -> None:
    many = [finding(path=f"my data/masks/{n}.png") for n in range(7)]
    other = finding("warning", "alpha", "my data", remedy="")
    text = printed(findings(summary(*many, other)))
    lines = text.splitlines()
    assert lines[0].startswith("warning  Kind of alpha  alpha")
    assert "my data: is too small" in lines[1]
    assert text.index("alpha") < text.index("error  Kind of size-mismatch (7)  size-mismatch")
    assert "masks/4.png: is too small" in text and "masks/5.png" not in text
    assert "… and 2 more, which --json lists" in text
    assert text.count("→ mend it") == 1
    assert lines[-1] == "7 errors · 1 warning"


def test_remedies_that_differ_stand_with_their_findings() -> None:
    text = printed(findings(summary(finding(), finding(remedy="[bold]turn it[/bold]"))))
    assert "→ mend it" in text and "→ [bold]turn it[/bold]" in text


def test_nothing_found_is_said() -> None:
    assert printed(findings(summary())).strip() == "nothing to complain of"


def test_data_that_cannot_be_laid_out_have_no_table() -> None:
    empty = summary(images=dict.fromkeys(("labeled", "unlabeled", "val", "unread"), 0), classes=[], sizes=[],
                    imbalance=None, ignored_share=0.0)  # fmt: skip
    assert "no file has been opened" in printed(overview(empty))
    page = data_page(empty, "", [], ())
    assert "Samples" not in page and "Suggested config" not in page


def test_the_page_holds_everything_and_needs_nothing_else(tmp_path: Path) -> None:
    image = np.full((36, 48, 3), 90, np.uint8)
    label = np.repeat(np.array([0, 1, 255], np.uint8), 12)[:, None].repeat(48, 1)
    found = [finding(path=f"my data/masks/{n}.png") for n in range(250)]
    sizes = [{"width": 48, "height": 36, "images": 8}, {"width": 30, "height": 36, "images": 1}]
    text = summary(*found, finding("note", "decided", "my data", message="<script>", remedy=""), sizes=sizes)
    page = data_page(text, "a: <b>", [("a picture", image, label)], ((0, 0, 0), (128, 0, 0), (0, 128, 0)))
    assert page.count("data:image/") == 3, "the sizes are drawn for a phone too"
    assert not re.search(r"<script|https?://|src=\"(?!data:)", page)
    for expected in ("&lt;b&gt;sign&lt;/b&gt;", "masks/199.png", "and 50 more", "a: &lt;b&gt;", "&lt;script&gt;",
                     "250 errors, 0 warnings", "249 times", "des4 data check &#39;my data&#39; --write"):  # fmt: skip
        assert expected in page, expected
    assert "masks/200.png" not in page
    assert page.index("masks/0.png") < page.index("Kind of decided")
    parser = Balanced()
    parser.feed(page)
    assert not parser.open
    path = tmp_path / "page.html"
    path.write_text(page, encoding="utf-8")
    assert is_ours(path)
    path.write_text("<!doctype html><title>mine</title>")
    assert not is_ours(path)
