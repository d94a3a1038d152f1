"""Runs on disks that fill up, tear and lose files: one clear line, and on from the newest sound state."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from des4 import api
from des4.cli import app
from des4.types import RunError

Alike = Callable[[Path, Path], None]


def log_of(run: Path) -> str:
    return (run / "train.log").read_text()


def refusal(run: Path, *arguments: str) -> str:
    """Resume on the command line, and return the one line it ends in."""
    result = CliRunner().invoke(app, ["train", "--resume", str(run), *arguments])
    assert result.exit_code == 2, (result.exit_code, result.output, result.exception)
    (line,) = result.stderr.splitlines()
    return line


def test_a_damaged_checkpoint_a_torn_line_and_a_partial_folder_change_nothing(
    finished: Path, tmp_path: Path, end_alike: Alike
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    state = run / "checkpoints" / "step-6" / "state.safetensors"
    content = bytearray(state.read_bytes())
    content[-1] ^= 4
    state.write_bytes(content)
    (run / "checkpoints" / ".partial").mkdir()
    (run / "checkpoints" / ".partial" / "state.safetensors").write_bytes(content[:100])
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "lo')
    api.resume(run)
    end_alike(finished, run)
    assert "step-6 is damaged (the hash of state.safetensors differs" in log_of(run)
    assert "step-4 is taken in its place" in log_of(run)
    before, _, after = log_of(run).partition("resumed")
    assert "step 6/6" in before
    assert "continuing from step 4" in after
    assert not (run / "checkpoints" / ".partial").exists()
    steps = [line.partition(",")[0] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == [f'{{"step": {step}' for step in (2, 4, 6, 6, 6)]  # the last two are of the validation


def test_a_disk_that_fills_up_ends_in_one_line_and_the_run_goes_on_when_there_is_space(
    finished: Path, stopped: Path, end_alike: Alike
) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))  # enough for logs and settings
    try:
        line = refusal(stopped)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "step-6 cannot be written" in line
    assert "free some disk space" in line
    assert [path.name for path in (stopped / "checkpoints").iterdir()] == ["step-4"]
    api.resume(stopped)
    end_alike(finished, stopped)


def test_a_file_in_the_place_of_the_checkpoints_is_named(finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints", "results.json"))
    (run / "metrics.jsonl").unlink()
    (run / "checkpoints").write_text("")
    assert "checkpoints/step-2 cannot be written" in refusal(run)


def test_a_run_that_had_got_far_does_not_start_again_because_its_checkpoints_are_gone(stopped: Path) -> None:
    for path in (stopped / "checkpoints").iterdir():
        shutil.rmtree(path)
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    line = refusal(stopped)
    assert "had come to step 6" in line
    assert "holds no checkpoint" in line
    assert before == {path: path.read_bytes() for path in before}


def test_a_finished_run_without_checkpoints_keeps_its_results(finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints", "metrics.jsonl"))
    assert "holds no checkpoint" in refusal(run)
    assert (run / "results.json").read_bytes() == (finished / "results.json").read_bytes()


def test_all_checkpoints_damaged_is_said_and_nothing_is_touched(stopped: Path) -> None:
    (stopped / "checkpoints" / "step-4" / "meta.json").unlink()
    rows = (stopped / "metrics.jsonl").read_bytes()
    with pytest.raises(RunError, match=r"every checkpoint in .* is damaged; start again with --overwrite"):
        api.resume(stopped)
    assert (stopped / "metrics.jsonl").read_bytes() == rows
    assert "step-4 is damaged (meta.json: No such file or directory); there is none before it" in log_of(stopped)
