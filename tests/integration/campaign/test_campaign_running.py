from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from des4 import campaign
from des4.campaign import running
from des4.campaign.running import step_of
from des4.engine import Interrupted
from des4.runlog import RunFolder
from des4.types import DataError


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
    (run.folder / "metrics.jsonl").write_text('damaged\n{"step": 4}\n')
    assert step_of(run) == 0, "the run itself fails then, and the others go on"


def test_a_list_that_is_not_there_is_found_before_anything_is_trained(in_files: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(in_files.read_text())
    content["lists"]["gone"] = {**content["lists"]["few"], "data.labeled": str(tmp_path / "gone.txt")}
    in_files.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(DataError, match=r"list gone: .*gone\.txt"):
        campaign.run_campaign(campaign.plan(campaign.read_campaign(in_files)), jobs=1, threads=1)
    assert not (tmp_path / "out").exists()


def test_a_signal_ends_the_runs_too(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler's, or that of a closed terminal, which tell the campaign alone."""
    started: list[subprocess.Popen[bytes]] = []

    class Process(subprocess.Popen):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Process)
    monkeypatch.setattr(running.time, "sleep", lambda seconds: signal.raise_signal(signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="the same command goes on") as stopped:
        campaign.run_campaign(campaign.plan(campaign.read_campaign(file)), jobs=2, threads=1)
    assert stopped.value.code == 143
    assert len(started) == 2 and all(process.returncode is not None for process in started)
    assert signal.getsignal(signal.SIGTERM) is before
