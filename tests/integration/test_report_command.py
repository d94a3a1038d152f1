from __future__ import annotations

import shutil
from pathlib import Path

from typer.testing import CliRunner

from des4.cli import app


def test_several_runs_are_reported_each_and_together(trained: Path, tmp_path: Path) -> None:
    runs = [str(shutil.copytree(trained, tmp_path / name)) for name in ("a", "b")]
    page = tmp_path / "both.html"
    done = CliRunner().invoke(app, ["report", *runs, "--html", str(page)])
    assert done.exit_code == 0, done.output
    assert done.stdout.split() == [f"{runs[0]}/report.html", f"{runs[1]}/report.html", str(page)]
    text = page.read_text(encoding="utf-8")
    assert "Shares of the pseudo-labels" in text and "Shares of the classes in truth and pseudo-labels" in text
    (tmp_path / "mine.html").write_text("mine")
    refused = CliRunner().invoke(app, ["report", *runs, "--html", str(tmp_path / "mine.html")])
    assert refused.exit_code == 2 and (tmp_path / "mine.html").read_text() == "mine"
    one = CliRunner().invoke(app, ["report", runs[0], "--html", str(page)])
    assert one.exit_code == 2 and "takes several runs" in one.output
