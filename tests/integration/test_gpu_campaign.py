"""The campaign for a lent GPU, on toy images and the CPU."""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from des4 import campaign
from des4.config import load_config, read_yaml

ROOT = Path(__file__).parents[2]
TOY = ["model.encoder=test_efficientnet", "model.weights=none", "model.channels=8", "model.low_channels=4"]


@pytest.fixture
def script(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("benchmarks/gpu_campaign.py")


@pytest.fixture
def packed(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six images with masks, of which the list 6a labels two and one is for validation, in one file."""
    rng = np.random.default_rng(0)
    data, lists = tmp_path / "data", tmp_path / "lists"
    for number in range(7):  # the last is in no list
        for side, shape, values in (("images", (24, 24, 3), 256), ("masks", (24, 24), 3)):
            path = data / side / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, values, shape, dtype=np.uint8)).save(path)
    (data / "classes.txt").write_text("sky\nland\nsea\n")
    (lists / "6a").mkdir(parents=True)
    for name, numbers in (("6a/labeled", "01"), ("6a/unlabeled", "234"), ("val", "5")):
        (lists / f"{name}.txt").write_text("\n".join(numbers) + "\n")
    file = tmp_path / "data.tar"
    arguments = ["pack", str(file), "--camvid", str(data), "--camvid-lists", str(lists)]
    monkeypatch.setattr(sys, "argv", ["gpu_campaign", *arguments])
    script.main()
    return file


def test_what_is_packed_is_trained_and_told_of(
    script: ModuleType, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    command = ["run", str(packed), *TOY, "views.crop_size=16", "--out", str(out), "--workers", "0", "--device", "cpu"]
    options = ["--steps", "1", "--lists", "6a", "all", "--seeds", "0", "--stages", "curve", "few-whole"]
    monkeypatch.setattr(sys, "argv", ["gpu_campaign", *command, *options])
    script.main()
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [(row["stage"], row["method"], row["lists"], row["data"]["labeled"]) for row in rows] == [
        ("camvid_curve", "supervised", "all", 5), ("camvid_curve", "supervised", "6a", 2),
        ("camvid-whole", "supervised", "6a", 2), ("camvid-whole", "des4", "6a", 2),
    ]  # fmt: skip
    told = (out / "report.md").read_text()
    assert "4 of 4 trainings done" in told and "| des4 | 6a | 1 |" in told and "Not reached" not in told
    assert (out / "camvid_curve.png").is_file()


def test_what_fails_and_what_is_not_reached_is_named(
    script: ModuleType, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    command = ["run", str(packed), "--out", str(out), "--workers", "0", "--lists", "6a", "--seeds", "0"]
    monkeypatch.setattr(sys, "argv", ["gpu_campaign", *command, "--minutes", "0"])
    script.main()
    assert "- camvid · supervised · 6a · seed 0: not begun" in (out / "report.md").read_text()

    tried = []

    def fail(entry: object, images: object, residents: object) -> None:
        tried.append(residents is not None)
        raise RuntimeError("no such kernel")

    monkeypatch.setattr("gpu.workers.train", fail)
    monkeypatch.setattr(sys, "argv", ["gpu_campaign", *command, "--seeds", "0", "1", "--stages", "few"])
    script.main()
    told = (out / "report.md").read_text()
    assert tried == [True, False, False]  # once more from the host; and after two failures no more
    assert "2 failed" in told and "- camvid · des4 · 6a · seed 0: RuntimeError: no such kernel" in told
    assert "- camvid · supervised · 6a · seed 1: not begun" in told


def test_no_training_begins_that_takes_longer_than_is_left(
    script: ModuleType, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "camvid").mkdir()
    options = ["--out", str(tmp_path), "--lists", "6a", "--seeds", "0", "1"]
    monkeypatch.setattr(sys, "argv", ["gpu_campaign", "run", str(packed), *options])
    plan = script.planned(script.stages(["few"]), tmp_path, script.arguments())
    assert [entry.run.method for entry in plan.entries] == ["supervised", "des4"] * 2
    shared = script.Shared(plan, {}, time.time() + 60, workers=0)
    assert [shared.next(), shared.next()] == [0, 1]  # how long they take is not known
    shared.took(plan.entries[0], 59.0)
    shared.took(plan.entries[1], 61.0)
    assert [shared.next(), shared.next()] == [2, None]


@pytest.mark.parametrize("file", sorted((ROOT / "configs" / "gpu").glob("*.yaml")), ids=lambda path: path.stem)
def test_its_campaigns_are_whole(script: ModuleType, file: Path, tmp_path: Path) -> None:
    data = file.stem.partition("_")[0]
    (tmp_path / data).mkdir()
    filled = importlib.import_module("gpu.stages").filled
    content = filled(read_yaml(file), tmp_path, data)
    runs = campaign.plan(campaign.CampaignConfig.model_validate(content))
    assert len({run.folder for run in runs}) == len(runs) >= 15
    assert all(str(tmp_path) in str(run.config.data) for run in runs)
    whole = load_config(runs[0].config, [f"{key}={value}" for key, value in script.WHOLE[data].items()])
    assert whole.eval.resize == 1.0
