from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from des4.cli import app


def test_a_campaign_trains_what_is_missing_goes_on_and_reports(file: Path, tmp_path: Path) -> None:
    answer = CliRunner().invoke(app, ["compare", str(file), "steps=3"])
    assert answer.exit_code == 0, answer.output
    kept = json.loads((tmp_path / "out" / "campaign.json").read_text())
    assert [(r["method"], r["lists"], r["steps"]) for r in kept["runs"]] == [
        ("plain", "few", 3), ("ours", "few", 3), ("plain", "all", 3)
    ]  # fmt: skip
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {
        "campaign.md", "campaign.html", "campaign.png", "curve.png"
    }  # fmt: skip
    page = (tmp_path / "out" / "campaign.html").read_text()
    assert 'id="pictures"' in page and "data:image/webp" in page and "plain · all · seed 0" in page
    assert re.search(
        r"<td>ours</td><td>1</td><td>\d+ s</td><td>[\d.]+</td><td>0\.\d\d M</td><td>0\.\d\d M</td><td>\d", page
    )
    stopped = tmp_path / "out" / "ours" / "few" / "seed-0"
    (stopped / "results.json").unlink()
    content = {**yaml.safe_load(file.read_text()), "table": 3, "report": str(tmp_path / "tables")}
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    again = CliRunner().invoke(app, ["compare", str(file), "steps=3", "--markdown"])
    assert again.exit_code == 0 and "| minus plain |" in again.output
    assert "### Table 3" in again.output and (tmp_path / "tables" / "campaign.md").exists()
    assert again.output.count("started") == 1 and "resumed" in (stopped / "train.log").read_text()
    other = CliRunner().invoke(app, ["compare", str(file), "steps=2"])
    assert other.exit_code == 2 and "trained with other settings (train.steps: 3 -> 2)" in " ".join(
        other.output.split()
    )


def test_a_page_that_is_not_ours_is_left_alone_before_anything_is_trained(file: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "campaign.html").write_text("mine")
    answer = CliRunner().invoke(app, ["compare", str(file)])
    assert answer.exit_code == 2 and "left alone" in answer.output
    assert (tmp_path / "out" / "campaign.html").read_text() == "mine" and not (tmp_path / "out" / "plain").exists()


@pytest.mark.parametrize("name", ["campaign.md", "campaign.json", "campaign.png", "curve.png"])
def test_tables_that_are_not_ours_are_left_alone(name: str, file: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text('{"runs": 3}')
    answer = CliRunner().invoke(app, ["compare", str(file)])
    assert answer.exit_code == 2 and f"{name} is of no campaign" in " ".join(answer.output.split())
    assert (tmp_path / "out" / name).read_text() == '{"runs": 3}' and not (tmp_path / "out" / "plain").exists()


def test_a_folder_of_reports_that_is_a_file_is_refused_before_anything_is_trained(file: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    content = {**yaml.safe_load(file.read_text()), "report": str(tmp_path / "mine" / "tables")}
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    answer = CliRunner().invoke(app, ["compare", str(file)])
    assert answer.exit_code == 2 and f"{tmp_path / 'mine'} is a file" in answer.output.replace("\n", "")
    assert not (tmp_path / "out").exists()


def test_a_campaign_without_a_length_is_refused_before_anything_is_trained(file: Path, tmp_path: Path) -> None:
    answer = CliRunner().invoke(app, ["compare", str(file), "steps=null"])
    assert answer.exit_code == 2 and "train.steps and train.epochs" in answer.output
    assert not (tmp_path / "out").exists()


def test_without_a_finished_run_there_is_no_report(file: Path) -> None:
    answer = CliRunner().invoke(app, ["compare", str(file), "--no-training"])
    assert answer.exit_code == 2 and "no run of this campaign is finished" in answer.output
