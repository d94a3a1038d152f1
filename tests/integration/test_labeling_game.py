"""The benchmark of the rules of `des4 next`, on toy images."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image


@pytest.fixture
def script(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("benchmarks/next_rules.py")


@pytest.fixture
def command(tiny: dict[str, Any], tmp_path: Path) -> list[str]:
    """A game with seven images, all with masks, of which two are labeled at first and one is for validation."""
    rng = np.random.default_rng(0)
    for number in range(7):
        for side, shape, values in (("images", (24, 24, 3), 256), ("masks", (24, 24), 3)):
            path = tmp_path / "data" / side / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, values, shape, dtype=np.uint8)).save(path)
    (tmp_path / "data" / "classes.txt").write_text("sky\nland\nsea\n")
    for name, numbers in (("labeled", "01"), ("unlabeled", "2345"), ("val", "6")):
        (tmp_path / f"{name}.txt").write_text("\n".join(numbers) + "\n")
    settings = {**tiny, "data": str(tmp_path / "data"), "data.val": str(tmp_path / "val.txt")}
    settings["train"] = {**tiny["train"], "steps": 1, "eval_every": 0}
    settings["views"] = {"crop_size": 16}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    lists = ["--labeled", str(tmp_path / "labeled.txt"), "--unlabeled", str(tmp_path / "unlabeled.txt")]
    return [str(tmp_path / "config.yaml"), *lists, "--out", str(tmp_path / "out"), "--seeds", "0", "--count", "1"]


def test_a_game_goes_on_where_it_was_stopped_and_reports(
    script: ModuleType, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("des4.api.write_report", lambda run: None)  # it takes longer than all the rest
    monkeypatch.setattr(sys, "argv", ["next_rules", *command, "--rounds", "1"])
    script.main()
    kept = {path.name: path.read_bytes() for path in (tmp_path / "out" / "figures").iterdir()}
    assert set(kept) == {f"seed-0-{name}.json" for name in ("beginning-0", "balanced-1", "random-1")}
    monkeypatch.setattr(sys, "argv", ["next_rules", *command, "--rounds", "2"])
    script.main()
    figures = {path.name: path.read_bytes() for path in (tmp_path / "out" / "figures").iterdir()}
    assert len(figures) == 5 and figures.items() > kept.items()
    masks = [json.loads(figures[f"seed-0-balanced-{n}.json"])["data"]["labeled"] for n in (1, 2)]
    assert masks == [3, 4] and len({json.loads(one)["tail_classes"][0] for one in figures.values()}) == 1
    chosen = (tmp_path / "out" / "seed-0" / "random" / "choice-1" / "next.txt").read_text().split()
    assert len(chosen) == 1 and set(chosen) < set("2345")
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"campaign.md", "campaign.png", "curve.png"}
    assert "| balanced | every list | 2 |" in capsys.readouterr().out

    monkeypatch.setattr(sys, "argv", ["next_rules", *command, "steps=2"])
    with pytest.raises(SystemExit, match="a game with other settings"):
        script.main()


def test_an_image_without_a_mask_is_found_before_anything_is_trained(
    script: ModuleType, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data" / "masks" / "5.png").unlink()
    monkeypatch.setattr(sys, "argv", ["next_rules", *command])
    with pytest.raises(SystemExit, match=r"(?s)5.*mask"):
        script.main()
    assert not (tmp_path / "out" / "seed-0").exists()
