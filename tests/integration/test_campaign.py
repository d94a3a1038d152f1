from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from des4 import campaign
from des4.opening import lists_now
from des4.campaign import Planned
from des4.cli import app
from des4.config import dump, load_config
from des4.runlog import RunFolder
from des4.types import ConfigError, RunError


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


@pytest.mark.parametrize("own", [{"data.labeled": 3}, {"data": {"val": 2}}, {"unlabeled": 3}])
def test_a_method_has_no_lists_of_its_own(file: Path, own: dict[str, Any]) -> None:
    content = yaml.safe_load(file.read_text())
    content["methods"]["ours"] |= own
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(ConfigError, match=r"methods\.ours: data\.\w+ cannot be a method's own.*write it under lists"):
        campaign.plan(campaign.read_campaign(file))


def test_the_file_of_a_method_brings_no_other_lists(file: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(file.read_text())
    (tmp_path / "own.yaml").write_text("data: {name: scenes, unlabeled: 3, val: 2}")
    content["methods"]["ours"]["config"] = str(tmp_path / "own.yaml")
    del content["settings"]["data"]["val"]
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(ConfigError, match=r"lists\.few: data\.val is 64 for plain and 2 for ours"):
        campaign.plan(campaign.read_campaign(file))
    del content["methods"]["plain"]  # alone it may
    content["reference"] = None
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    assert len(campaign.plan(campaign.read_campaign(file))) == 1


def finish(run: Planned, settings: dict[str, Any] | None = None, **data: Any) -> None:
    """Write the folder of a finished run. settings: its config, else what was planned. data: laid over its lists."""
    folder = RunFolder.create(run.folder)
    folder.write_config(dump(run.config) if settings is None else settings)
    folder.write_env({})
    iou = {"sky": 0.5}
    scores = {"miou": 0.5, "tail_miou": 0.5, "iou": iou, "tail_classes": [], "pixel_share": {"sky": 1.0}}
    steps = {"steps": 4, "step": 4, "seed": run.seed, "evaluated": "student"}
    folder.write_results({**scores, **steps, "seconds": 1.0, "data": {**lists_now(run.config), **data}})


@pytest.fixture
def in_files(file: Path, folder: Path, tmp_path: Path) -> Path:
    """The campaign with one list of data in files, and two seeds."""
    for name, numbers in (("labeled", "01"), ("unlabeled", "45"), ("val", "3")):
        (tmp_path / f"{name}.txt").write_text("\n".join(numbers))
    lists = {f"data.{name}": str(tmp_path / f"{name}.txt") for name in ("labeled", "unlabeled", "val")}
    content = {**yaml.safe_load(file.read_text()), "lists": {"few": lists}, "seeds": [0, 1], "full": None}
    content["settings"]["data"] = str(folder)
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


@pytest.mark.parametrize("kind", ["labeled", "unlabeled", "val"])
def test_runs_that_had_different_images_are_not_compared(file: Path, kind: str) -> None:
    settings = campaign.read_campaign(file)
    plain, ours, _ = campaign.plan(settings)
    finish(plain)
    finish(ours, **{f"{kind}_hash": "123456789abc"})
    if kind == "unlabeled":  # of which supervised training reads none; two seeds of the other method do
        campaign._refuse_mixed_lists([plain], {plain.folder: RunFolder(plain.folder).results()["data"]})
        other = Planned(ours.method, ours.lists, 1, ours.config.model_copy(update={"out": ours.folder.parent / "s"}))
        finish(other)
        names = "ours · few · seed 0 and ours · few · seed 1"
        runs = [plain, ours, other]
    else:
        names, runs = "plain · few · seed 0 and ours · few · seed 0", [plain, ours]
    for judged in (lambda: campaign.report(settings, runs), lambda: campaign.run_campaign(runs, 1)):
        with pytest.raises(RunError) as error:
            judged()
        said = str(error.value)
        assert said.startswith(f"{names} had different {kind} images under one list name, few (")
        assert "12345678…" in said
        assert "a name of its own" in said and str(ours.folder) in said


def test_supervised_runs_may_have_other_unlabeled_lists(file: Path) -> None:
    settings = campaign.read_campaign(file)
    plain, ours, _ = campaign.plan(settings)
    finish(plain, unlabeled_hash="other")
    finish(ours)
    assert len(campaign.report(settings, [plain, ours]).runs) == 2


def test_a_finished_run_whose_list_has_changed_is_refused(in_files: Path, tmp_path: Path) -> None:
    settings = campaign.read_campaign(in_files)
    runs = campaign.plan(settings)
    for run in runs:
        finish(run)
    assert len(campaign.report(settings, runs).runs) == 4
    (tmp_path / "unlabeled.txt").write_text("5\n4\n")  # an order is no other list
    assert len(campaign.report(settings, runs).runs) == 4
    (tmp_path / "labeled.txt").write_text("0\n2\n")
    answer = CliRunner().invoke(app, ["compare", str(in_files)])
    said = " ".join(answer.output.split())
    assert answer.exit_code == 2 and "was trained with other lists than are there now" in said
    assert "labeled images: 2 -> 2, of other ids); bring those back" in said


def test_where_the_data_are_gone_the_report_says_so(in_files: Path, tmp_path: Path) -> None:
    settings = campaign.read_campaign(in_files)
    runs = campaign.plan(settings)
    for run in runs:
        finish(run)
    (tmp_path / "labeled.txt").unlink()
    (doubt, *_) = campaign.report(settings, runs).warnings
    assert doubt.startswith("list few: the data cannot be read, so it is not known") and "labeled.txt" in doubt


def test_a_setting_that_is_newer_than_a_run_has_its_default_there(file: Path) -> None:
    settings = campaign.read_campaign(file)
    run = campaign.plan(settings)[0]
    old = dump(run.config)
    del old["views"]["flip"], old["guard"]
    finish(run, old)
    assert len(campaign.report(settings, [run]).runs) == 1
    RunFolder(run.folder).write_config({**old, "optim": {**old["optim"], "lr": 0.5}})  # another default, at that time
    with pytest.raises(RunError, match=r"other settings \(optim\.lr: 0\.5 -> "):
        campaign.report(settings, [run])
    RunFolder(run.folder).write_config(old)
    other = run.config.model_copy(update={"guard": run.config.guard.model_copy(update={"held_out": 2.0})})
    with pytest.raises(RunError, match=r"other settings \(guard\.held_out: 0\.0 -> 2\.0"):
        campaign.report(settings, [Planned(run.method, run.lists, run.seed, other)])


def test_a_campaign_may_be_moved(file: Path, tmp_path: Path) -> None:
    runs = campaign.plan(campaign.read_campaign(file))
    for run in runs:
        finish(run)
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    content = {**yaml.safe_load(file.read_text()), "out": str(tmp_path / "elsewhere")}
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    settings = campaign.read_campaign(file)
    assert campaign.run_campaign(campaign.plan(settings), 1) == []
    assert len(campaign.report(settings, campaign.plan(settings)).runs) == 3


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
