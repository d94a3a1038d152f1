"""The notebook: its cells run, on a tiny network, and what it holds is what they show."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import run_notebook
from PIL import Image

import des4
from des4.metrics import Results

FILE = Path(__file__).parents[2] / "docs" / "notebooks" / "first_run.ipynb"


def kinds(notebook: dict[str, Any]) -> list[set[str]]:
    """What is kept of each cell of code: `stream`, or the types of what it shows."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [{kind for one in cell["outputs"] for kind in one.get("data", ["stream"])} for cell in cells]


def test_its_cells_run_and_show_what_it_holds(tiny: dict[str, Any], tmp_path: Path) -> None:
    kept = run_notebook.read(FILE)
    done = run_notebook.execute(kept, tmp_path, {"SETTINGS": tiny})
    assert kinds(done) == kinds(kept)
    assert (tmp_path / "runs" / "first" / "report.html").exists()
    assert [cell["source"] for cell in done["cells"]] == [cell["source"] for cell in kept["cells"]]
    assert sum("image/png" in shown for shown in kinds(kept)) == 4
    for cell in kept["cells"]:
        for output in cell.get("outputs", ()):
            if png := output.get("data", {}).get("image/png"):
                Image.open(BytesIO(base64.b64decode(png))).verify()


def test_its_page_shows_what_it_holds() -> None:
    text, pictures = run_notebook.page(run_notebook.read(FILE), FILE.stem)
    mend = "the page is out of date: python tools/run_notebook.py --page docs/notebooks/first_run.ipynb"
    assert FILE.with_suffix(".md").read_text(encoding="utf-8") == text, mend
    assert len(pictures) == 4
    for file, png in pictures.items():
        assert Image.open(FILE.with_name(file)).size == Image.open(BytesIO(png)).size, mend
        assert f"]({file})" in text


def test_it_is_small_and_says_nothing_of_the_machine_that_ran_it() -> None:
    text = FILE.read_text(encoding="utf-8")
    assert len(text) < 500_000
    assert str(Path.home()) not in text and "tmp/" not in text and "Traceback" not in text
    assert json.loads(text)["nbformat"] == 4


def test_a_cell_shows_its_last_expression_and_what_it_displays(tmp_path: Path) -> None:
    def cell(source: str) -> dict[str, Any]:
        return {"cell_type": "code", "metadata": {}, "source": [source]}

    cells = [cell("print('a')\ndisplay(1)\n2"), cell("2;"), {"cell_type": "markdown", "source": ["x"]}]
    first, second, text = run_notebook.execute({"cells": cells}, tmp_path)["cells"]
    assert [one["output_type"] for one in first["outputs"]] == ["stream", "display_data", "execute_result"]
    assert first["outputs"][2]["data"] == {"text/plain": ["2"]}
    assert second["outputs"] == [] and "outputs" not in text
    with pytest.raises(ZeroDivisionError):
        run_notebook.execute({"cells": [cell("1 / 0")]}, tmp_path)


def test_results_and_runs_show_themselves(trained: Path) -> None:
    results = des4.evaluate(trained)
    shown = Results(results.confusion, ("<b>", *results.classes[1:]), results.classes[-1:])._repr_html_()
    assert "<td>&lt;b&gt;</td>" in shown and f"<td>{results.classes[-1]} (tail)</td>" in shown
    assert f"<th>mIoU</th><th>{100 * results.miou:.2f}</th>" in shown
    run = des4.Run(trained, json.loads((trained / "results.json").read_text()))
    assert "| IoU % | teacher | student |" in run._repr_markdown_()
    assert "| **mIoU** |" in run._repr_markdown_()
    unscored = des4.Run(trained, {**run.results, "models": {}, "iou": {}})
    assert "no validation list" in unscored._repr_markdown_()
