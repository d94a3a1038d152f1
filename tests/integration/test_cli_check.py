"""`des4 data check`, as a user and as a script meet it."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from des4 import cli
from des4.config import load_config

Des4 = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Des4:
    """Call `des4 data check`; the working directory holds the folder `data`."""
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *arguments: CliRunner().invoke(cli.app, ["data", "check", *map(str, arguments)])


def complaint(result: Result) -> str:
    """Return the one line that a refused command wrote to stderr."""
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    return line


def test_what_a_user_reads(run: Des4) -> None:
    result = run("data")
    assert result.exit_code == 0, result.output
    for text in ("data · folder · 3 labeled · 2 unlabeled · 1 val", "land", "all images are 40×32 pixels",
                 "crop_size: 49", "val: 1 of the 4 labeled images", "1 note"):  # fmt: skip
        assert text in result.stdout
    assert result.stderr == ""


def test_json_is_all_that_a_script_reads(run: Des4) -> None:
    Path("data/images/empty.png").write_bytes(b"")
    result = run("data", "--json", "val_seed=1", "--html", "page.html", "--write", "start.yaml")
    found = json.loads(result.stdout)
    assert found["images"] == {"labeled": 3, "unlabeled": 3, "val": 1, "unread": 0}
    assert [name["name"] for name in found["classes"]] == ["sky", "land", "sea"]
    assert found["sizes"] == [{"width": 40, "height": 32, "images": 6}]
    assert [finding["code"] for finding in found["findings"]] == ["few-val", "empty-file", "decided"]
    assert found["findings"][1] == {
        "severity": "warning", "code": "empty-file", "kind": "A file without content", "path": "data/images/empty.png",
        "message": "is empty", "remedy": "replace the file or take it off the list",
    }  # fmt: skip
    assert (found["errors"], found["warnings"], found["notes"]) == (0, 2, 1)
    config = load_config("start.yaml")
    assert config.data == load_config({"method": "des4", "data": "data"}, ["val_seed=1", "val_fraction=0.3"]).data
    assert {f"{s}.{k}" for s, keys in yaml.safe_load(Path("start.yaml").read_text()).items() for k in keys} == {
        setting["key"] for setting in found["suggested"]
    }
    assert "Suggested config" in Path("page.html").read_text()


def test_the_suggested_config_trains(run: Des4) -> None:
    assert run("data", "--write", "start.yaml").exit_code == 0
    tiny = ["encoder=test_efficientnet", "weights=none", "channels=8", "embedding_dim=8", "steps=1", "workers=0"]
    result = CliRunner().invoke(cli.app, ["train", "start.yaml", *tiny, "crop_size=32", "out=run"])
    assert result.exit_code == 0, result.output
    assert "mIoU" in result.stdout


def test_exit_codes(run: Des4) -> None:
    Path("data/images/empty.png").write_bytes(b"")
    assert [run("data", *more).exit_code for more in ([], ["--strict"], ["--quick"])] == [0, 1, 0]
    Image.fromarray(np.zeros((3, 3), np.uint8)).save("data/masks/0.png")
    result = run("data")
    assert result.exit_code == 2
    assert "masks/0.png: is 3×3 pixels" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("1 error · 2 warnings")


def test_nothing_that_exists_is_replaced_and_nothing_goes_into_the_data(run: Des4) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path("data").rglob("*")}
    Path("mine.html").write_text("<title>mine</title>")
    Path("mine.yaml").write_text("x: 1\n")
    for option, path in (("--html", "mine.html"), ("--write", "mine.yaml")):
        assert "is not replaced" in complaint(run("data", option, path))
        assert "lies in the data folder" in complaint(run("data", option, f"data/new{path[4:]}"))
        assert "a folder that exists" in complaint(run("data", option, f"nowhere/{path}"))
    assert Path("mine.yaml").read_text() == "x: 1\n"
    assert "give them two names" in complaint(run("data", "--html", "new.html", "--write", "./new.html"))
    assert not Path("new.html").exists()
    assert [run("data", "--html", "page.html").exit_code for _ in range(2)] == [0, 0], "a page of ours may be renewed"
    assert {path: path.stat().st_mtime_ns for path in Path("data").rglob("*")} == before


def test_a_full_disk_is_one_line_and_leaves_the_earlier_page(run: Des4, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("data", "--html", "page.html").exit_code == 0
    before = Path("page.html").read_bytes()

    def full(path: Path, *_: object, **__: object) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")  # as a write says it, without a name

    monkeypatch.setattr(Path, "write_text", full)
    for option, name in (("--html", "page.html"), ("--write", "start.yaml")):
        assert f"{name} cannot be written (No space left on device)" in complaint(run("data", option, name))
    assert Path("page.html").read_bytes() == before
    assert sorted(path.name for path in Path().iterdir()) == ["data", "page.html"]


def test_mistakes_are_one_line(run: Des4) -> None:
    assert "no such data folder" in complaint(run("nowhere"))
    assert "did you mean data.labeled?" in complaint(run("data", "data.labelled=x.txt"))
    assert "settings of data alone" in complaint(run("data", "steps=5"))
    assert "is none of" in complaint(run("data", "--format", "cvta"))
    assert "data.root: not a setting of scenes" in complaint(run("data", "--format", "scenes"))


def test_a_folder_without_layout_is_an_error_and_suggests_nothing(run: Des4) -> None:
    Path("empty/images").mkdir(parents=True)
    result = run("empty", "--write", "start.yaml", "--html", "page.html")
    assert result.exit_code == 2
    assert "holds no images" in result.stdout
    assert "not written: start.yaml" in result.stderr
    assert not Path("start.yaml").exists()
    assert Path("page.html").is_file()
