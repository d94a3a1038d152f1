"""`des4 predict` on the command line: where results go, what may be given, how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from des4 import cli

Des4 = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Des4:
    """Call the command line in a folder with three photos."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for number, name in enumerate(("photos/a.png", "photos/b.png", "photos/deep/c.png")):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(name)
    return lambda *arguments, stdin=None: CliRunner().invoke(cli.app, [str(a) for a in arguments], input=stdin)


def masks(out: str) -> list[str]:
    return sorted(path.relative_to(out, "masks").as_posix() for path in Path(out, "masks").rglob("*.png"))


def test_results_go_where_they_are_found_again(run: Des4, trained: Path) -> None:
    done = run("predict", trained, "photos")
    assert done.exit_code == 0, done.output
    assert done.stdout == "3 images, written to predictions/run\n"
    assert masks("predictions/run") == ["a.png", "b.png", "deep/c.png"]
    assert run("predict", trained, "photos").stdout.endswith("predictions/run-2\n")
    assert run("predict", trained, "photos", "--resume").stdout == "3 images, written to predictions/run-2\n"
    assert run("predict", trained, "photos/a.png", "--overwrite").stdout == "1 images, written to predictions/run-2\n"


def test_patterns_lists_settings_and_outputs(run: Des4, trained: Path) -> None:
    options = ("--out", "p", "--overwrite")
    assert run("predict", trained, "photos/*/*.png", *options).exit_code == 0
    assert masks("p") == ["deep/c.png"]
    listed = run("predict", trained, "-", *options, stdin="photos/a.png\nphotos/deep/c.png\nphotos/gone.png\n")
    assert listed.exit_code == 1
    assert "skipped: photos/gone.png: no such file" in listed.stderr
    assert masks("p") == ["a.png", "deep/c.png"]
    settings = ("eval.mirror=true", "eval.scales=[1,0.5]", "--entropy", "--probs", "--no-overlays", "--tile", "65")
    assert run("predict", trained, "photos/a.png", *settings, "--batch", "2", *options).exit_code == 0
    told = json.loads(Path("p/predictions.json").read_text())
    assert told["eval"]["mirror"] is True
    assert told["outputs"] == {"overlays": False, "entropy": True, "probs": True}
    assert Path("p/entropy/a.png").is_file() and Path("p/probs/a.npy").is_file()
    assert not Path("p/overlays").exists()


def test_settings_have_short_names_too(run: Des4, trained: Path) -> None:
    Path("photos/a.png").rename("mode=whole")  # a file all the same
    done = run("predict", trained, "mode=whole", "photos", "mirror=true", "resize=1", "--out", "p")
    assert (done.exit_code, done.stdout) == (0, "3 images, written to p\n"), done.output
    assert json.loads(Path("p/predictions.json").read_text())["eval"]["mirror"] is True
    other = run("predict", trained, "mode=whole", "photos", "resize=1", "--out", "p", "--resume")
    assert "p: was made with other weights or settings (eval.mirror: True -> False); give" in other.stderr
    assert "mirorr: unknown key; did you mean mirror?" in run("predict", trained, "photos", "mirorr=true").stderr
    assert "data.val: a prediction reads eval.* alone" in run("predict", trained, "photos", "data.val=x").stderr
    for missing in ("size=2.mp4", "photos/size=2"):  # a file's name may hold the sign
        assert f"{missing}: no such file" in run("predict", trained, missing).stderr


def test_how_images_are_resized_is_told(run: Des4, trained: Path) -> None:
    done = run("predict", trained, "photos")  # of 30×20 pixels, and the training's have 48×48
    (line,) = done.stderr.splitlines()
    assert line.startswith("photos/a.png: 30×20 pixels") and line.endswith(
        "so it sees this one at 48×32, and others accordingly; eval.resize=1 turns this off"
    )
    assert run("predict", trained, "photos", "eval.resize=1").stderr == ""
    half = run("predict", trained, "photos", "eval.resize=0.5").stderr.splitlines()
    assert half == [
        "eval.resize=0.5: the network sees images at 0.5 times their size; masks have the size of the images"
    ]
    assert json.loads(Path("predictions/run/predictions.json").read_text())["fitted"] is True
    assert "eval.resize" in run("eval", trained, "eval.resize=auto").stderr


def test_two_of_one_name_are_told(run: Des4, trained: Path) -> None:
    with Image.open("photos/a.png") as image:
        image.save("photos/a.jpg")
    done = run("predict", trained, "photos", "--out", "p")
    assert done.exit_code == 0
    assert "photos/a.png: has the name of photos/a.jpg; its results are called a-2" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["photos/none.png"], "photos/none.png: no such file or folder"),
        (["photos/*.gif"], "photos/*.gif: matches no file"),
        (["photos", "eval.miror=true"], "did you mean eval.mirror?"),
        (["photos", "--overwrite", "--resume"], "give one of the two"),
        (["-"], "standard input: no image there"),
    ],
)
def test_a_mistake_is_one_line(run: Des4, trained: Path, arguments: list[str], said: str) -> None:
    done = run("predict", trained, *arguments)
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr
    assert not Path("predictions").exists()


def test_ctrl_c_says_how_to_go_on(run: Des4, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*arguments: object, **options: object) -> None:
        Path("p").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr("des4.predict.predict_files", stopped)
    done = run("predict", trained, "photos", "--out", "p")
    assert done.exit_code == 130
    assert done.stderr == "stopped; p has what is done, and --resume goes on\n"


def test_an_unknown_device_is_wrong_usage(run: Des4, trained: Path) -> None:
    assert "give auto, cpu or cuda" in run("predict", trained, "photos", "--device", "gpu").stderr
    both = run("predict", trained, "photos", "--device", "cpu", "--devices", "cpu,cpu")
    assert both.exit_code == 2 and "give one of the two" in both.stderr
