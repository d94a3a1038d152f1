"""Trainings killed at random and at chosen moments end as undisturbed ones, to the bit."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

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


@pytest.mark.slow
def test_fifty_runs_of_each_method_and_number_of_workers_survive(tmp_path: Path) -> None:
    rows = campaign(tmp_path / "runs", "--workers", "0", "2", "4", "--kills", "50")
    assert len(rows) == 3 * len(METHODS)
    assert all(row["identical"] == row["runs"] == 50 for row in rows)


def test_the_campaign_sees_what_differs(finished: Path, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("kills", SCRIPT)
    assert spec
    assert spec.loader
    kills = importlib.util.module_from_spec(spec)
    sys.modules["kills"] = kills  # dataclasses look their module up
    spec.loader.exec_module(kills)
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
