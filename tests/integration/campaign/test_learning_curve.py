from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from des4 import campaign
from des4.cli import app
from des4.config import load_config
from des4.types import ConfigError, RunError


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


@pytest.mark.parametrize(("name", "what"), [("labeled", "images with masks"), ("val", "val images")])
def test_a_curve_does_not_go_on_with_lists_of_other_images(
    folder: Path, tiny: dict[str, Any], tmp_path: Path, name: str, what: str
) -> None:
    (folder / "labeled.txt").write_text("0\n1\n")
    (folder / "val.txt").write_text("2\n")
    config = load_config({**tiny, "method": "supervised", "data": str(folder)})
    campaign.curve(config, tmp_path / "curve", (1,), (0,))
    campaign.curve(config, tmp_path / "curve", (1,), (0,))
    (folder / f"{name}.txt").write_text("0\n3\n" if name == "labeled" else "3\n")
    with pytest.raises(RunError, match=f"was drawn from other {what}"):
        campaign.curve(config, tmp_path / "curve", (1,), (0,))


def test_impossible_sizes_are_refused_before_anything_else(folder: Path, tmp_path: Path) -> None:
    for masks in ("0", "99"):
        command = ["curve", f"data={folder}", "minutes=9", "--out", str(tmp_path / "curve"), "--masks", masks]
        answer = CliRunner().invoke(app, command)
        assert (answer.exit_code, answer.stdout) == (2, "")
        assert f"--masks {masks}: there are " in answer.stderr
    assert not (tmp_path / "curve").exists()


def test_a_learning_curve_is_of_supervised_training(folder: Path, tmp_path: Path) -> None:
    config = load_config({"method": "des4", "data": str(folder)})
    with pytest.raises(ConfigError, match="leave method out"):
        campaign.curve(config, tmp_path / "curve", (), (0,))
