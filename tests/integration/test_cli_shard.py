"""`des4 data shard`, and training on what it makes, as a user meets them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

import des4
from des4 import cli

Des4 = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Des4:
    """Call `des4 data shard`; the working directory holds the folder `photos`."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for n in range(6):
        pixels = np.random.default_rng(n).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"photos/{n}.jpg")
    return lambda *arguments: CliRunner().invoke(cli.app, ["data", "shard", *map(str, arguments)])


def test_shards_are_made_and_the_way_to_use_them_is_said(run: Des4) -> None:
    result = run("photos", "--out", "shards")
    assert result.exit_code == 0, result.output
    assert result.stdout == "6 images packed, shards: 1; train with: data.shards=shards\n"
    assert sorted(path.name for path in Path("shards").iterdir()) == ["photos-00000.tar", "photos-00000.tar.index"]


def test_a_path_with_a_space_is_quoted_in_the_command_to_copy(run: Des4) -> None:
    assert run("photos", "--out", "my shards").stdout.endswith("train with: 'data.shards=my shards'\n")


def test_what_is_left_out_is_named(run: Des4) -> None:
    Path("photos/7.png").write_bytes(b"no image")
    result = run("photos", "--out", "shards", "--size", 1)
    assert result.exit_code == 1
    assert result.stderr.startswith("skipped: photos/7.png: cannot be read as an image")
    again = run("photos", "--out", "shards")
    assert again.exit_code == 2
    assert again.stderr == "error: shards: is not empty; choose another folder for the shards, or empty this one\n"


def test_images_of_val_and_test_are_counted_and_left_out(run: Des4) -> None:
    for place in ("field/images", "field/images/val"):
        Path(place).mkdir(parents=True)
        Path(place, "0.jpg").write_bytes(Path("photos/0.jpg").read_bytes())
    result = run("field", "--out", "shards")
    assert result.exit_code == 0, result.output
    first, second = result.stdout.splitlines()
    assert first == "1 images in folders of val and test left out: shards are trained on"
    assert second.startswith("1 images packed")


def test_broken_images_are_skipped_named_and_counted(run: Des4, folder: Path, tiny: dict[str, Any]) -> None:
    run("photos", "--out", "shards")
    for name in ("4", "5"):
        path = folder / "images" / f"{name}.png"
        path.write_bytes(path.read_bytes()[:-200])
    data = {"root": folder, "shards": "shards", "cache": 0.01, "cache_dir": "cache"}
    settings = tiny | {"data": data, "train": tiny["train"] | {"steps": 8, "workers": 1}}
    results = des4.train(settings, out="run").results
    assert results["data"]["unlabeled"] == 8
    skipped = results["data"]["skipped"]
    assert skipped["count"] == 2
    assert set(skipped["images"]) == {"4", "5"}
    log = Path("run/train.log").read_text()
    for reason in skipped["images"].values():
        assert log.count(f"skipped: {reason}\n") == 1
    assert json.loads(Path("run/results.json").read_text())["data"]["skipped"] == skipped
