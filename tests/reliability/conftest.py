"""A finished tiny run, and copies of it as a kill would have left it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import des4

SETTINGS: dict[str, Any] = {
    "method": "des4",
    "data": {"name": "scenes", "size": 32, "labeled": 3, "unlabeled": 4, "val": 2},
    "model": {"encoder": "test_efficientnet", "weights": "none", "channels": 8, "low_channels": 4, "embedding_dim": 8},
    "train": {"steps": 6, "batch_size": 2, "workers": 0, "log_every": 2, "checkpoint_every": 2, "device": "cpu"},
    "views": {"crop_size": 32},
}


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints of steps 4 and 6. Tests only read it."""
    torch.set_flush_denormal(True)
    return des4.train(SETTINGS, out=tmp_path_factory.mktemp("finished") / "run").dir


@pytest.fixture
def stopped(finished: Path, tmp_path: Path) -> Path:
    """The same run, killed between its checkpoint of step 4 and the next."""
    run = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(run / "checkpoints" / "step-6")
    for path in (run / "results.json", run / "report.html", *run.glob("weights/*"), *run.glob("plots/*")):
        path.unlink()
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines if "val/" not in line))
    return run


@pytest.fixture
def end_alike() -> Callable[[Path, Path], None]:
    """Function that asserts that two runs have ended with one state."""

    def check(first: Path, second: Path) -> None:
        for name in ("weights/last.safetensors", "checkpoints/step-6/state.safetensors"):
            one, other = load_file(first / name), load_file(second / name)
            assert one.keys() == other.keys()
            assert all(torch.equal(one[key], other[key]) for key in one), name

    return check
