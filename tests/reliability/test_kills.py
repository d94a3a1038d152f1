"""Trainings killed at random and at chosen moments end as undisturbed ones, to the bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from des4.methods import METHODS

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kills.py"
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that can fork")


def campaign(folder: Path, *arguments: str) -> list[dict[str, object]]:
    """Run the campaign in a process of its own: one that has trained has threads, and cannot fork safely."""
    command = [sys.executable, str(SCRIPT), "--folder", str(folder), "--json", str(folder / "rows.json"), *arguments]
    folder.mkdir()
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})  # noqa: S603
    assert done.returncode == 0, done.stdout + done.stderr
    rows: list[dict[str, object]] = json.loads((folder / "rows.json").read_text())
    return rows


def test_a_run_of_each_method_survives_kills_at_the_worst_moments(tmp_path: Path) -> None:
    aimed = ["--moments", "save", "validation", "after_step", "commit"]
    rows = campaign(tmp_path / "runs", "--workers", "2", "--kills", "1", *aimed)
    assert [row["method"] for row in rows] == list(METHODS)
    assert all(row["identical"] == row["runs"] == 1 for row in rows)
    assert all(row["kills"] for row in rows)


def test_two_processes_survive_the_kill_of_either(tmp_path: Path) -> None:
    aimed = ["--moments", "save", "validation", "commit", "log"]
    (row,) = campaign(
        tmp_path / "runs", "--processes", "2", "--methods", "des4", "--workers", "0", "--kills", "2", *aimed
    )
    assert row["identical"] == row["runs"] == 2
    assert row["survivors"]


@pytest.mark.slow
def test_fifty_runs_of_two_processes_survive(tmp_path: Path) -> None:
    rows = campaign(tmp_path / "runs", "--processes", "2", "--workers", "0", "2", "--kills", "50")
    assert len(rows) == 2 * len(METHODS)
    assert all(row["identical"] == row["runs"] == 50 for row in rows)


@pytest.mark.slow
def test_fifty_runs_of_each_method_and_number_of_workers_survive(tmp_path: Path) -> None:
    rows = campaign(tmp_path / "runs", "--workers", "0", "2", "4", "--kills", "50")
    assert len(rows) == 3 * len(METHODS)
    assert all(row["identical"] == row["runs"] == 50 for row in rows)


@pytest.fixture
def kills(load_script: Callable[[str], ModuleType]) -> ModuleType:
    """The script as a module."""
    return load_script("benchmarks/kills.py")


def test_the_campaign_sees_what_differs(kills: ModuleType, finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    assert kills.compare(finished, run) == []
    state = run / "checkpoints" / "step-6" / "state.safetensors"
    content = bytearray(state.read_bytes())
    content[-1] ^= 1
    state.write_bytes(content)
    (run / "weights" / "best.safetensors").unlink()
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join([*lines, lines[-1]]) + "\n")
    (run / ".results.json.partial").touch()
    names = [line.split()[0] for line in kills.compare(finished, run)]
    assert names == [".results.json.partial", "checkpoints/step-6/state.safetensors", "metrics.jsonl",
                     "weights/best.safetensors"]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "words", "is_bad"),
    [
        (1 << 8, "RunError: another process of this training has ended, so this one cannot go on", False),
        (1 << 8, "RunError: the processes of this training cannot join (reset)", False),
        (0, "step 12: mIoU 0.5", False),
        (1 << 8, "RuntimeError: connection closed by peer", True),
        (1 << 8, "Traceback (most recent call last):\nRunError: another process of this training has ended", True),
        (1 << 8, "", True),
        (signal.SIGSEGV, "step 2/12", True),
    ],
)
def test_the_campaign_sees_how_a_survivor_ends(
    kills: ModuleType, tmp_path: Path, status: int, words: str, is_bad: bool
) -> None:
    log = tmp_path / "run.log"
    log.write_text(f"of another start\n{words}\n")
    survivor = kills.Process(1, log, len("of another start\n"), status)
    assert bool(list(kills._bad_ends([survivor]))) == is_bad
    survivor.hung = True
    assert list(kills._bad_ends([survivor]))
