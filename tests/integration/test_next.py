"""`des4 next` end to end on a tiny network, and the way back: from drawn masks to PNGs."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

import des4
from des4 import cli
from des4.acquisition import Settings, choose, choose_next
from des4.acquisition.scoring import Ledger, row_width, score
from des4.config import load_config
from des4.datasets.files import FilesConfig
from des4.engine import inference
from des4.images.windows import Decoded
from des4.types import DataError, RunError


@pytest.fixture(scope="module")
def on_files(tmp_path_factory: pytest.TempPathFactory, tiny_settings: dict[str, Any]) -> Path:
    """A run on a folder of eight images, of which four have masks."""
    root = tmp_path_factory.mktemp("next")
    rng = np.random.default_rng(0)
    for number in range(8):
        for side, shape in (("images", (32, 40, 3)), ("masks", (32, 40))):
            if side == "masks" and number > 3:
                continue
            path = root / "data" / side / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256 if side == "images" else 3, shape, dtype=np.uint8)).save(path)
    (root / "data" / "classes.txt").write_text("sky\nland\nsea\n")
    settings: dict[str, Any] = {
        **tiny_settings,
        "data": str(root / "data"),
        "train": {**tiny_settings["train"], "steps": 1},
    }
    return des4.train(settings, out=root / "run").dir


def test_a_batch_to_label_and_back_into_masks(on_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    broken = on_files.parent / "data" / "images" / "7.png"
    whole = broken.read_bytes()
    broken.write_bytes(b"nothing")
    done = CliRunner().invoke(cli.app, ["next", str(on_files), "--count", "2", "--shapes", "masks"])
    broken.write_bytes(whole)
    assert done.exit_code == 1, done.output
    assert "7.png: cannot be read" in done.stderr.replace("\n", "")
    out = Path("next/run")
    names = (out / "next.txt").read_text().split()
    assert len(names) == 2 and set(names) < {"4", "5", "6"}
    assert set((out / "lists" / "labeled.txt").read_text().split()) > set(names)
    assert not set((out / "lists" / "unlabeled.txt").read_text().split()) & set(names)
    told = json.loads((out / "next.json").read_text())
    assert told["finished"] and [one["image"] for one in told["picks"]] == names and "7" in told["skipped"]
    assert len((out / "next.csv").read_text().splitlines()) == 4
    page = (out / "next.html").read_text()
    assert "<script" not in page and "<h2>" not in page and (out / "contact.png").is_file()
    assert all(f'<a href="#{place}">' in page for place in ("classes", "places", "images", "skipped", "label"))
    assert '<source media="(max-width: 640px)"' in page and '<img class="diagram"' in page
    assert not list(out.glob("scores.*"))
    tasks = json.loads((out / "label_studio" / "tasks.json").read_text())
    sure = [round(1 - one["entropy"], 4) for one in told["picks"]]
    assert [task["predictions"][0]["score"] for task in tasks] == sure and 0.5 not in sure  # not the doubt

    command = ["data", "masks", str(out), "--out", "new", "--classes", str(out / "classes.txt")]
    drawn = CliRunner().invoke(cli.app, [*command, "data.background=ignore"])
    assert drawn.exit_code == 0, drawn.output
    predictor = des4.load(on_files)
    for name in names:
        with Image.open(f"new/{name}.png") as mask:
            assert (np.array(mask) == predictor.predict(out / "images" / f"{name}.png")).all()
    again = CliRunner().invoke(cli.app, [*command, "data.background=ignore"])
    assert again.exit_code == 2 and "nothing is overwritten" in again.output.replace("\n", " ")


def test_a_stopped_scoring_goes_on(on_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(count=2, shapes=None)
    whole = choose_next(on_files, settings=settings, out=tmp_path / "whole")
    calls: list[float] = []

    def stop(share: float) -> None:
        calls.append(share)
        if len(calls) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        choose_next(on_files, settings=settings, out=tmp_path / "out", progress=stop)
    with pytest.raises(RunError, match="go on with --resume"):
        choose_next(on_files, settings=settings, out=tmp_path / "out")
    with pytest.raises(RunError, match="begun with other settings"):
        choose_next(on_files, settings=Settings(count=1), out=tmp_path / "out", resume=True)
    first: list[float] = []
    resumed = choose_next(on_files, settings=settings, out=tmp_path / "out", resume=True, progress=first.append)
    assert resumed.names == whole.names and first[0] > 0
    with pytest.raises(RunError, match="nothing in it is replaced"):
        choose_next(on_files, settings=settings, out=tmp_path / "out", resume=True)


@pytest.mark.parametrize("rule", ["random", "diversity"])
def test_painted_data_and_files_can_be_picked_from(trained: Path, tmp_path: Path, rule: Any) -> None:
    settings = Settings(count=2, rule=rule)
    assert len(choose_next(trained, settings=settings, out=tmp_path / "own").names) == 2
    photos = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(photos):
        Image.fromarray(np.full((30, 40, 3), 60 * number, np.uint8)).save(path)
    found = choose_next(trained, photos, settings=settings, out=tmp_path / "files")
    assert set(found.names) < set(map(str, photos))


def test_a_pass_that_ran_out_of_memory_is_not_heard_twice(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8)
    pool: Any = SimpleNamespace(names=["a"], open=lambda name: Decoded(image, name))

    def row_of(window: int) -> Any:
        predictor = des4.load(trained)
        predictor.configure([f"eval.window={window}", "eval.mode=sliding", "eval.resize=1"])
        ledger = Ledger(tmp_path / f"{window}", row_width(len(predictor.classes)))
        score(predictor, pool, ledger, lambda share: None)
        assert predictor.eval.window == 128
        return ledger.rows[0]

    alone = row_of(128)
    enlarge = inference.upsample

    def with_little_memory(logits: Tensor, size: tuple[int, int]) -> Tensor:  # it is behind the head, which was heard
        if 36 < logits.shape[-1] < image.shape[0]:  # of a window of more than 128 pixels; not of the whole image
            raise torch.OutOfMemoryError("CUDA out of memory")
        return enlarge(logits, size)

    monkeypatch.setattr(inference, "upsample", with_little_memory)
    with pytest.warns(UserWarning, match="by windows of 128 pixels"):
        after = row_of(256)
    np.testing.assert_array_equal(after, alone)


def test_images_that_are_labeled_already_are_not_picked(on_files: Path, tmp_path: Path) -> None:
    (tmp_path / "labeled.txt").write_text("0\n1\n")
    (tmp_path / "unlabeled.txt").write_text("0\n1\n4\n5\n")
    (tmp_path / "val.txt").write_text("2\n3\n")
    lists = [f"data.{name}={tmp_path / name}.txt" for name in ("labeled", "unlabeled", "val")]
    for rule in ("random", "entropy"):
        chosen = choose_next(on_files, settings=Settings(9, rule), overrides=lists, out=tmp_path / rule)
        assert sorted(chosen.names) == ["4", "5"]
        listed = (tmp_path / rule / "lists" / "labeled.txt").read_text().split()
        assert sorted(listed) == ["0", "1", "4", "5"]
    (tmp_path / "unlabeled.txt").write_text("0\n1\n")
    with pytest.raises(DataError, match="no image without a label"):
        choose_next(on_files, overrides=lists, out=tmp_path / "none")


def test_as_many_as_wanted_are_drawn_where_some_cannot_be_read(on_files: Path, tmp_path: Path) -> None:
    broken = on_files.parent / "data" / "images" / "7.png"
    whole = broken.read_bytes()
    passed_over = 0
    for seed in range(4):
        settings = Settings(count=2, rule="random", seed=seed)
        before = choose_next(on_files, settings=settings, out=tmp_path / f"whole-{seed}").names
        broken.write_bytes(b"nothing")
        chosen = choose_next(on_files, settings=settings, out=tmp_path / f"broken-{seed}")
        broken.write_bytes(whole)
        assert len(set(chosen.names)) == 2 and set(chosen.names) >= {*before} - {"7"}
        assert [*chosen.skipped] == (["7"] if "7" in before else [])
        passed_over += "7" in before
    assert 0 < passed_over < 4


def test_the_next_training_reads_the_data_as_the_run_did(on_files: Path, tmp_path: Path) -> None:
    given = {"skip_broken": True, "exif": "stored", "cache_dir": tmp_path / "of images"}
    settings = Settings(count=1, rule="random")
    overrides = [f"data.{key}={value}" for key, value in given.items()]
    chosen = choose_next(on_files, settings=settings, overrides=overrides, out=tmp_path / "out")
    verb, noun, *words = shlex.split(chosen.train)
    assert (verb, noun, words.pop()) == ("des4", "train", "minutes=30")
    config = load_config({"method": "supervised"}, words).data
    assert isinstance(config, FilesConfig)
    assert {key: getattr(config, key) for key in given} == given
    assert config.root == on_files.parent / "data" and config.labeled == tmp_path / "out" / "lists" / "labeled.txt"


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are text there")
def test_names_that_no_list_can_hold_are_passed_over(trained: Path, tmp_path: Path) -> None:
    pixels = Image.fromarray(np.full((30, 40, 3), 60, np.uint8))
    (tmp_path / "odd").mkdir()
    for name in ("a.png", os.fsdecode(b"b\xff.png"), "c\nd.png"):
        pixels.save(tmp_path / "odd" / name)
    chosen = choose_next(trained, [tmp_path / "odd"], settings=Settings(shapes=None), out=tmp_path / "out")
    assert chosen.names == [str(tmp_path / "odd" / "a.png")]
    assert len(chosen.skipped) == 2 and all("rename the file" in reason for reason in chosen.skipped.values())
    (tmp_path / "odd" / "a.png").unlink()
    with pytest.raises(DataError, match="the name is no text"):
        choose_next(trained, [tmp_path / "odd"], out=tmp_path / "nothing")


def test_mistakes_are_one_line(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("mine")
    done = CliRunner().invoke(cli.app, ["next", str(trained), "--out", str(tmp_path / "mine")])
    assert done.exit_code == 2 and "is not empty" in done.output.replace("\n", " ")
    assert choose.SUMMARY not in {path.name for path in (tmp_path / "mine").iterdir()}
