"""docs/ten_minutes.md at toy size: its own commands, in its own order, on a folder laid out as its own."""

from __future__ import annotations

import re
import shlex
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from des4 import cli
from des4.plan import plan

PAGE = Path(__file__).parents[2] / "docs" / "ten_minutes.md"
TINY = ["encoder=test_efficientnet", "weights=none", "channels=8", "low_channels=8", "embedding_dim=8", "crop_size=33",
        "batch_size=2", "workers=0", "steps=6", "eval_every=3"]  # fmt: skip
BEYOND_TOYS = ("planned: train.", "stopped after")
"""How lines begin that a toy does not print: it is told its steps, and nobody stops it with Ctrl-C."""
CLASSES = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]


def transcript() -> list[tuple[str, list[str]]]:
    """Return the page's commands, each with the lines that it prints there; … stands for lines left out."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"```console\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line.removeprefix("$ ").partition("  #")[0].strip(), []))
            elif line.strip() not in ("", "…", "^C"):
                found[-1][1].append(line)
    return found


def shape(line: str) -> str:
    """Return how a line begins, whatever its numbers, bars and rules are."""
    line = re.sub(r"[\u2500-\u259f]+", " ", line)
    return " ".join(re.sub(r"[\d.]+", "#", line).split()[:3])


@pytest.fixture
def mydata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a folder of images and a few masks, and a folder of new images."""
    rng = np.random.default_rng(0)
    for name, masks in [(f"images/{n}", n < 6) for n in range(10)] + [(f"images/val/{n}", True) for n in range(2)]:
        image = tmp_path / "mydata" / f"{name}.jpg"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(image)
        if masks:
            mask = tmp_path / "mydata" / f"{name.replace('images', 'masks', 1)}.png"
            mask.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.repeat(np.arange(64)[None] * 11 // 64, 48, 0).astype(np.uint8)).save(mask)
    (tmp_path / "mydata" / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    (tmp_path / "new_images").mkdir()
    Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(tmp_path / "new_images" / "a.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # which the verbs replace
    warnings.simplefilter("always")  # as in a process that has said nothing yet; pytest puts the filters back
    return tmp_path


def stop(run: Path) -> None:
    """Take a finished run back to where its newest checkpoint but one was."""
    newest = max(run.glob("checkpoints/step-*"), key=lambda path: int(path.name.removeprefix("step-")))
    shutil.rmtree(newest)
    for path in (run / "results.json", run / "report.html", run / "weights" / "last.safetensors"):
        path.unlink()


def test_the_page_is_repeated_at_toy_size(mydata: Path) -> None:
    commands = transcript()
    ours = [(shlex.split(command)[1:], printed) for command, printed in commands if command.startswith("des4 ")]
    assert [arguments[0] for arguments, _ in ours] == ["data", "train", "predict", "train", "predict"]
    installed = " ".join(command for command, _ in commands[: len(commands) - len(ours)])
    assert "git clone" in installed and "-c des4/constraints.txt" in installed
    for number, (arguments, printed) in enumerate(ours):
        budget = [word for word in arguments if word.startswith("minutes=")]
        if arguments[0] == "train" and budget:
            assert plan({}, arguments[1:]).minutes == float(budget[0].partition("=")[2])
            arguments = [word for word in arguments if word not in budget] + TINY
        result = CliRunner().invoke(cli.app, arguments)
        assert result.exit_code == 0, result.output
        shapes = {shape(line) for line in result.output.splitlines()}
        for line in (one for one in printed if not one.startswith(BEYOND_TOYS)):
            assert shape(line) in shapes, f"{' '.join(arguments[:2])} does not print: {line}"
        if arguments[0] == "train" and number == 1:  # the page stops it with Ctrl-C
            stop(Path("runs/des4_committee-1"))
    assert Path("runs/des4_committee-1/report.html").is_file()
    assert (mydata / "predictions" / "masks" / "a.png").is_file()
