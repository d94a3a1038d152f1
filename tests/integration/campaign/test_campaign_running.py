from __future__ import annotations

from pathlib import Path

from des4 import campaign
from des4.campaign.running import step_of
from des4.runlog import RunFolder


def test_a_failed_run_is_named_and_the_others_go_on(file: Path, tmp_path: Path) -> None:
    runs = campaign.plan(campaign.read_campaign(file))
    blocked = runs[0].folder
    blocked.mkdir(parents=True)
    (blocked / "mine.txt").write_text("not a run")
    (failure,) = campaign.run_campaign(runs[:2], jobs=2, threads=1)
    assert failure.startswith("plain · few · seed 0: error:") and "mine.txt" not in failure
    assert (blocked / "mine.txt").read_text() == "not a run"
    assert RunFolder.open(runs[1].folder).results()["step"] == 4


def test_a_torn_line_of_metrics_is_no_step(file: Path) -> None:
    run = campaign.plan(campaign.read_campaign(file))[0]
    assert step_of(run) == 0
    run.folder.mkdir(parents=True)
    (run.folder / "metrics.jsonl").write_text('{"step": 4')
    assert step_of(run) == 0
    (run.folder / "metrics.jsonl").write_text('{"step": 4}\n{"st')
    assert step_of(run) == 4
