from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from des4 import campaign
from des4.campaign import Planned
from des4.campaign.finished import refuse_mixed_lists
from des4.cli import app
from des4.config import dump
from des4.runlog import RunFolder
from des4.types import RunError

Finish = Callable[..., None]


@pytest.mark.parametrize("kind", ["labeled", "unlabeled", "val"])
def test_runs_that_had_different_images_are_not_compared(file: Path, finish: Finish, kind: str) -> None:
    settings = campaign.read_campaign(file)
    plain, ours, _ = campaign.plan(settings)
    finish(plain)
    finish(ours, **{f"{kind}_hash": "123456789abc"})
    if kind == "unlabeled":  # of which supervised training reads none; two seeds of the other method do
        refuse_mixed_lists([plain], {plain.folder: RunFolder(plain.folder).results()["data"]})
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


def test_supervised_runs_may_have_other_unlabeled_lists(file: Path, finish: Finish) -> None:
    settings = campaign.read_campaign(file)
    plain, ours, _ = campaign.plan(settings)
    finish(plain, unlabeled_hash="other")
    finish(ours)
    assert len(campaign.report(settings, [plain, ours]).runs) == 2


def test_a_finished_run_whose_list_has_changed_is_refused(in_files: Path, finish: Finish, tmp_path: Path) -> None:
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


def test_where_the_data_are_gone_the_report_says_so(in_files: Path, finish: Finish, tmp_path: Path) -> None:
    settings = campaign.read_campaign(in_files)
    runs = campaign.plan(settings)
    for run in runs:
        finish(run)
    (tmp_path / "labeled.txt").unlink()
    (doubt, *_) = campaign.report(settings, runs).warnings
    assert doubt.startswith("list few: the data cannot be read, so it is not known") and "labeled.txt" in doubt


def test_a_setting_that_is_newer_than_a_run_has_its_default_there(file: Path, finish: Finish) -> None:
    settings = campaign.read_campaign(file)
    run = campaign.plan(settings)[0]
    old = dump(run.config)
    del old["views"]["flip"], old["guard"]
    finish(run, old)
    report = campaign.report(settings, [run])
    assert len(report.runs) == 1
    (said, *_) = report.warnings  # what a guard does shapes no network
    assert said.startswith("trained before there was views.flip, and taken for runs with its default of today: plain")
    RunFolder(run.folder).write_config({**old, "optim": {**old["optim"], "lr": 0.5}})  # another default, at that time
    with pytest.raises(RunError, match=r"other settings \(optim\.lr: 0\.5 -> "):
        campaign.report(settings, [run])
    RunFolder(run.folder).write_config(old)
    other = run.config.model_copy(update={"guard": run.config.guard.model_copy(update={"held_out": 2.0})})
    with pytest.raises(RunError, match=r"other settings \(guard\.held_out: 0\.0 -> 2\.0"):
        campaign.report(settings, [Planned(run.method, run.lists, run.seed, other)])


def test_a_run_of_a_version_with_other_settings_is_named(file: Path, finish: Finish) -> None:
    settings = campaign.read_campaign(file)
    run = campaign.plan(settings)[0]
    finish(run, dump(run.config) | {"views": {"colour": 1}})
    with pytest.raises(RunError) as error:
        campaign.report(settings, [run])
    assert str(error.value).startswith(f"{run.folder} has settings that this version does not know (views.colour: ")


def test_methods_of_one_list_that_differ_in_the_protocol_are_named(file: Path, finish: Finish) -> None:
    content = yaml.safe_load(file.read_text())
    content["methods"]["ours"] |= {"crop_size": 40, "unlabeled_batch_size": 1, "threshold": 0.5, "method": "fixmatch"}
    content["lists"]["all"]["eval.resize"] = 0.5  # where the reference alone is: nothing to be unfair to
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    settings = campaign.read_campaign(file)
    runs = campaign.plan(settings)
    for run in runs:
        finish(run)
    unfair = [text for text in campaign.report(settings, runs).warnings if "not one protocol" in text]
    assert unfair == ["not one protocol: views.crop_size differs: plain 32; ours 40"]


def test_a_campaign_may_be_moved(file: Path, finish: Finish, tmp_path: Path) -> None:
    runs = campaign.plan(campaign.read_campaign(file))
    for run in runs:
        finish(run)
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    content = {**yaml.safe_load(file.read_text()), "out": str(tmp_path / "elsewhere")}
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    settings = campaign.read_campaign(file)
    assert campaign.run_campaign(campaign.plan(settings), 1) == []
    assert len(campaign.report(settings, campaign.plan(settings)).runs) == 3
