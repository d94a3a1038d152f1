from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from des4 import campaign
from des4.cli import app
from des4.config import load_config
from des4.runlog import RunFolder
from des4.types import ConfigError


@pytest.fixture
def file(tiny: dict[str, Any], tmp_path: Path) -> Path:
    """A campaign of two methods and two lists; the second method has one of the lists alone."""
    del tiny["method"]
    content = {
        "out": str(tmp_path / "out"),
        "settings": tiny,
        "methods": {"plain": {"method": "supervised"}, "ours": {"method": "des4", "lists": ["few"]}},
        "lists": {"few": {"data.labeled": 2}, "all": {"data.labeled": 4}},
        "seeds": [0],
        "reference": "plain",
        "full": "all",
    }
    path = tmp_path / "campaign.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


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


def test_a_failed_run_is_named_and_the_others_go_on(file: Path, tmp_path: Path) -> None:
    runs = campaign.plan(campaign.read_campaign(file))
    blocked = runs[0].folder
    blocked.mkdir(parents=True)
    (blocked / "mine.txt").write_text("not a run")
    (failure,) = campaign.run_campaign(runs[:2], jobs=2, threads=1)
    assert failure.startswith("plain · few · seed 0: error:") and "mine.txt" not in failure
    assert (blocked / "mine.txt").read_text() == "not a run"
    assert RunFolder.open(runs[1].folder).results()["step"] == 4


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"reference": "theirs"}, "reference: `theirs` is none of the methods plain, ours"),
        ({"full": "most"}, "full: `most` is none of the lists few, all"),
        ({"methods": {"ours": {"lists": ["some"]}}, "reference": None}, "methods.ours.lists: some is none of few, all"),
        ({"methods": {"plain": {"lists": "few"}}}, "methods.plain.lists: is a list, such as [few]"),
        ({"colour": 1}, "colour"),
        ({"lists": {}}, "lists"),
    ],
)
def test_a_mistake_in_the_file_is_named(file: Path, changed: dict[str, Any], message: str) -> None:
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **changed}, sort_keys=False))
    with pytest.raises(ConfigError) as error:
        campaign.read_campaign(file)
    assert message in str(error.value) and str(file) in str(error.value)


def test_a_wrong_setting_is_found_before_anything_is_trained(file: Path) -> None:
    content = yaml.safe_load(file.read_text())
    content["methods"]["ours"]["treshold"] = 0.5
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(ConfigError, match="treshold"):
        campaign.plan(campaign.read_campaign(file))


def test_a_campaign_without_a_length_is_refused_before_anything_is_trained(file: Path, tmp_path: Path) -> None:
    answer = CliRunner().invoke(app, ["compare", str(file), "steps=null"])
    assert answer.exit_code == 2 and "train.steps and train.epochs" in answer.output
    assert not (tmp_path / "out").exists()


def test_a_torn_line_of_metrics_is_no_step(file: Path) -> None:
    run = campaign.plan(campaign.read_campaign(file))[0]
    assert campaign._step(run) == 0
    run.folder.mkdir(parents=True)
    (run.folder / "metrics.jsonl").write_text('{"step": 4')
    assert campaign._step(run) == 0
    (run.folder / "metrics.jsonl").write_text('{"step": 4}\n{"st')
    assert campaign._step(run) == 4


def test_without_a_finished_run_there_is_no_report(file: Path) -> None:
    answer = CliRunner().invoke(app, ["compare", str(file), "--no-training"])
    assert answer.exit_code == 2 and "no run of this campaign is finished" in answer.output


def test_a_learning_curve_from_a_folder(folder: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    del tiny["data"]
    config.write_text(yaml.safe_dump({**tiny, "method": "supervised"}))
    command = ["curve", str(config), f"data={folder}", "--out", str(tmp_path / "curve"), "--masks", "3"]
    answer = CliRunner().invoke(app, command)
    assert answer.exit_code == 0, answer.output
    assert (tmp_path / "curve" / "campaign.md").exists()
    other = CliRunner().invoke(app, [*command, "--masks", "1"])
    assert other.exit_code == 2 and "holds lists of other sizes" in other.output


def test_a_learning_curve_is_of_supervised_training(folder: Path, tmp_path: Path) -> None:
    config = load_config({"method": "des4", "data": str(folder)})
    with pytest.raises(ConfigError, match="leave method out"):
        campaign.curve(config, tmp_path / "curve", (), (0,))
