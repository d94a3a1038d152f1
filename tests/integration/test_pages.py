"""Pages at toy size: their own commands, in their own order, on a folder laid out as theirs.

README.md, and of docs/: getting_started, ten_minutes, choosing_a_method and remote_sensing. What a page says that a
command prints is held against it. The commands of the pages of `OF_A_RUN` are executed on one trained toy, but for
those in `PARSED_ALONE`. All commands of all pages are parsed by tests/architecture/test_docs_commands.py.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml
from PIL import Image
from typer.testing import CliRunner

from des4 import api, cli
from des4.plan import plan

ROOT = Path(__file__).parents[2]
TINY = ["encoder=test_efficientnet", "weights=none", "channels=8", "low_channels=8", "embedding_dim=8", "crop_size=33",
        "batch_size=2", "workers=0", "steps=6", "eval_every=3"]  # fmt: skip
BEYOND_TOYS = ("planned: train.", "planned: method.networks", "stopped after")
"""How lines begin that a toy does not print: it is given steps and no minutes, and nobody stops it with Ctrl-C."""
CLASSES = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]


def transcript(file: str) -> list[tuple[str, list[str]]]:
    """Return a page's commands, each with the lines that it prints there; … stands for lines left out."""
    found: list[tuple[str, list[str]]] = []
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", (ROOT / file).read_text(encoding="utf-8"), re.M | re.S):
        for line in block.splitlines() if language in ("", "console") else ():
            if line.startswith("$ " if language else "des4 "):
                found.append((line.removeprefix("$ ").partition("  #")[0].strip(), []))
            elif language and line.strip() not in ("", "…", "^C"):
                found[-1][1].append(line)
    return found


def shape(line: str) -> str:
    """Return how a line begins, whatever its numbers, bars and rules are."""
    line = re.sub(r"[\u2500-\u259f]+", " ", line)
    return " ".join(re.sub(r"[\d.]+", "#", line).split()[:3])


def lay_out(tmp_path: Path) -> None:
    """Make a folder of images and a few masks, and a folder of new images."""
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
    for name in ("a", "d"):
        image = Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
        image.save(tmp_path / "new_images" / f"{name}.jpg")


def work_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder the working directory of commands."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # which the verbs replace
    warnings.simplefilter("always")  # as in a process that has said nothing yet; pytest puts the filters back
    return folder


@pytest.fixture
def mydata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a folder of images and a few masks, and a folder of new images."""
    lay_out(tmp_path)
    return work_in(tmp_path, monkeypatch)


@pytest.fixture
def empty_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports without content, for diagrams take most of the time of a toy run; `test_ten_minutes` draws them."""
    monkeypatch.setattr(api, "write_report", lambda run: run.write_page(""))


def stop(run: Path) -> None:
    """Take a finished run back to where its newest checkpoint but one was."""
    newest = max(run.glob("checkpoints/step-*"), key=lambda path: int(path.name.removeprefix("step-")))
    shutil.rmtree(newest)
    for path in (run / "results.json", run / "report.html", run / "weights" / "last.safetensors"):
        path.unlink()


def repeat(file: str, after_training: int | None = None) -> list[list[str]]:
    """Run a page's commands, with toy networks in the place of budgets; return their words.

    after_training: number of the command after which its run is taken back, for the page stops it with Ctrl-C.
    """
    commands = [(shlex.split(command)[1:], printed) for command, printed in transcript(file) if "des4 " in command[:5]]
    for number, (arguments, printed) in enumerate(commands):
        budget = [word for word in arguments if word.startswith("minutes=")]
        if arguments[0] == "train" and budget:
            assert plan({}, arguments[1:]).minutes == float(budget[0].partition("=")[2])
            arguments = [word for word in arguments if word not in budget] + TINY
        result = CliRunner().invoke(cli.app, arguments)
        assert result.exit_code == 0, result.output
        shapes = {shape(line) for line in result.output.splitlines()}
        for line in (one for one in printed if not one.startswith(BEYOND_TOYS)):
            assert shape(line) in shapes, f"{' '.join(arguments[:2])} does not print: {line}"
        if number == after_training:
            stop(Path("runs/des4_committee-1"))
    return [arguments for arguments, _ in commands]


def python(file: str) -> dict[str, Any]:
    """Run a page's Python, in the same way, and return its names."""
    (text,) = re.findall(r"^```python\n(.*?)^```", (ROOT / file).read_text(encoding="utf-8"), re.M | re.S)
    names: dict[str, Any] = {"toy": dict(word.split("=") for word in TINY)}
    exec(text.replace("minutes=10", "**toy"), names)  # noqa: S102
    return names


def test_ten_minutes(mydata: Path) -> None:
    commands = repeat("docs/ten_minutes.md", after_training=1)
    assert [arguments[0] for arguments in commands] == ["data", "train", "predict", "train", "predict", "train"]
    assert Path("runs/des4_committee-1/report.html").is_file()
    assert (mydata / "predictions" / "masks" / "a.png").is_file()


def test_getting_started(mydata: Path, empty_reports: None) -> None:
    commands = repeat("docs/getting_started.md", after_training=1)
    assert [arguments[0] for arguments in commands] == ["data", "train", "train", "predict", "train", "compare"]
    names = python("docs/getting_started.md")
    assert names["result"].labels.shape == (48, 64) and Path("overlay.jpg").is_file()
    for file in ("check.html", "compare.html", "predictions/masks/a.png", "predictions/overlays/a.jpg",
                 "predictions/predictions.csv", "runs/des4_committee-1/plots/samples.png"):  # fmt: skip
        assert (mydata / file).is_file(), file


def test_readme(mydata: Path, empty_reports: None) -> None:
    commands = repeat("README.md")
    assert [arguments[0] for arguments in commands] == ["data", "train", "predict"]
    assert Path("runs/des4_committee-1/report.html").is_file()
    assert (mydata / "predictions" / "masks" / "a.png").is_file()
    names = python("README.md")
    assert names["labels"].shape == (48, 64) and names["run"].dir == Path("runs/des4_committee-2")


def test_choosing_a_method(mydata: Path, empty_reports: None) -> None:
    commands = repeat("docs/choosing_a_method.md")
    assert [arguments[0] for arguments in commands] == ["methods", "train", "train", "compare", "train"]
    first, second = (yaml.safe_load(Path("runs", name, "config.yaml").read_text(encoding="utf-8"))
                     for name in ("des4_committee-1", "supervised-same-steps"))  # fmt: skip
    assert second["method"]["name"] == "supervised"
    assert {key for key in first if first[key] != second[key]} == {"method", "out"}


def test_remote_sensing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_reports: None) -> None:
    rng = np.random.default_rng(0)
    monkeypatch.chdir(tmp_path)
    place = [(33550, 12, 3, (10.0, 10.0, 0.0), True), (33922, 12, 6, (0.0, 0.0, 0.0, 5e5, 54e5, 0.0), True),
             (34735, 3, 8, (1, 1, 0, 1, 3072, 0, 1, 32633), True)]  # fmt: skip
    for name in [f"satellite/images/{n}.tif" for n in range(8)] + ["new_scenes/a.tif"]:
        scene = rng.integers(0, 10_000, (48, 64, 4), dtype=np.uint16)
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(name, scene, planarconfig="contig", photometric="minisblack", extratags=place)
    for n in range(6):
        mask = np.repeat(np.arange(64)[None] // 22, 48, 0).astype(np.uint8)
        Path("satellite/masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(f"satellite/masks/{n}.png")
    assert [arguments[0] for arguments in repeat("docs/remote_sensing.md")] == ["train", "predict"]
    (shown,) = re.findall(r"^bands 4, 3, 2 .*", (ROOT / "docs/remote_sensing.md").read_text(encoding="utf-8"), re.M)
    assert shown in Path("runs/des4_committee-1/train.log").read_text(encoding="utf-8")
    assert Path("land_cover/masks/a.pgw").read_text().split()[:4] == ["10", "0", "0", "-10"]
    assert "EPSG:32633" in Path("land_cover/masks/a.png.aux.xml").read_text()


OWN = re.compile(r"data=(mydata|photos|FOLDER|scenes)\b")
"""Data of which a command says nothing more than that they are some folder, or the built-in scenes."""
BEYOND = re.compile(
    r"data\.labeled|start_from|log_to|--resume|shards|lists=|configs/|config\.yaml|pseudo_label |weights="
)
"""What a command needs that the toy folder has not: lists, runs, other programs, other weights."""


def trainings() -> list[str]:
    """Return the trainings of all pages that the toy folder will do for, each once."""
    pages = [str(page.relative_to(ROOT)) for page in sorted(ROOT.glob("docs/**/*.md"))]
    shown = dict.fromkeys(command for page in pages for command, _ in transcript(page))
    return [one for one in shown if one.startswith("des4 train ") and OWN.search(one) and not BEYOND.search(one)]


@pytest.mark.slow
@pytest.mark.parametrize("command", trainings())
def test_trainings_that_pages_show(command: str, mydata: Path, empty_reports: None) -> None:
    words = [word for word in shlex.split(OWN.sub("data=mydata", command))[1:] if not word.startswith("minutes=")]
    result = CliRunner().invoke(cli.app, [*words, *TINY])
    assert result.exit_code == 0, result.output


OF_A_RUN = ("prediction", "export", "next", "reports", "evaluation", "unlabeled", "campaigns", "deployment")
"""Pages whose commands are about a run that is there, most of them."""
PARSED_ALONE = {
    r"pip ": "installs things",
    r".*--devices 0,1": "needs two GPUs; test_predict_devices.py shares images out among processes on the CPU",
    r".*int8": "takes too long here; test_export.py makes these formats",
    r".*hf://": "needs the hub; test_hub.py has one of its own",
    r"des4 serve": "does not end; test_serve.py asks what is served",
    r"des4 (compare campaign|curve)": "trains many times; integration/campaign runs small ones",
    r"des4 report": "draws for seconds; test_report_command.py runs it",
    r"python benchmarks/": "trains many times; test_labeling_game.py and test_gpu_campaign.py run these programs",
    r"des4 train (?!.*(start_from|out=|next/|--resume))": "says nothing of a run; test_trainings_that_pages_show",
}
"""How commands begin that are not executed here → why."""
STANDS_FOR = {r"\bRUN\b": "runs/des4-1", r"\bRUNS\b": "runs/des4-1 runs/supervised-1",
              r"\b(FOLDER|OTHER)\b": "mydata", r"\bSETTING\b": "eval.mirror=true",
              r"--count 20": "--count 2", r"--exported exported": "--exported runs/des4-1/export",
              r"step-\d+": "step-6", r" (minutes|steps)=\d+": ""}  # fmt: skip
"""What pages call things → what they are called in the toy's folder."""


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what these pages speak of: a run, copies of it under the names of others, data, photos."""
    folder = tmp_path_factory.mktemp("toy")
    lay_out(folder)
    for name in ("photos", "new_photos"):
        shutil.copytree(folder / "new_images", folder / name)
    shutil.copy(folder / "photos" / "a.jpg", folder / "photo.jpg")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(api, "write_report", lambda run: run.write_page(""))
        words = ["train", "method=des4", "data=mydata", "out=runs/des4-1", *TINY]
        assert CliRunner().invoke(cli.app, words).exit_code == 0
    for name in ("des4_committee-1", "supervised-1"):
        shutil.copytree(folder / "runs" / "des4-1", folder / "runs" / name)
    return folder


def executed(commands: list[str]) -> list[str]:
    """Return the commands that are executed, as they are on the toy. A verb alone is named, not called."""
    whole = [one.partition("  #")[0].strip() for one in dict.fromkeys(commands) if "…" not in one]
    found = [one for one in whole if one.count(" ") > 1 and not any(re.match(start, one) for start in PARSED_ALONE)]
    for name, meant in STANDS_FOR.items():
        found = [re.sub(name, meant, one) for one in found]
    return found


@pytest.mark.parametrize("page", OF_A_RUN)
def test_what_pages_do_with_a_run(
    page: str, toy: Path, monkeypatch: pytest.MonkeyPatch, load_script: Callable[[str], ModuleType], empty_reports: None
) -> None:
    if page == "export":
        pytest.importorskip("onnxruntime")
    work_in(toy, monkeypatch)
    shown = load_script("tests/architecture/test_docs_commands.py").commands(ROOT / "docs" / f"{page}.md")
    commands, drawn = executed(shown), list[Path]()
    assert commands or page == "campaigns"
    for command in commands:
        program, *words = shlex.split(command)
        if program == "python":
            monkeypatch.setattr(sys, "argv", words)
            load_script(words[0]).main(*words[1:2], words[2:])
            continue
        more = TINY if words[0] == "train" and "--resume" not in words else []
        result = CliRunner().invoke(cli.app, [*words, *more])
        assert result.exit_code == 0, f"{command}\n{result.output}"
        if words[:2] == ["data", "masks"]:
            drawn = [Path(shutil.copy(path, "mydata/masks")) for path in Path("new_masks").glob("*.png")]  # as it says
    for path in drawn:
        path.unlink()


def test_each_reason_not_to_execute_a_command_has_one(load_script: Callable[[str], ModuleType]) -> None:
    find = load_script("tests/architecture/test_docs_commands.py").commands
    shown = [command for page in OF_A_RUN for command in find(ROOT / "docs" / f"{page}.md")]
    assert [start for start in PARSED_ALONE if not any(re.match(start, one) for one in shown)] == []


def test_figures_of_the_readme_are_those_of_the_results() -> None:
    def plain(file: str) -> str:
        return (ROOT / file).read_text(encoding="utf-8").replace("**", "")

    shown = plain("README.md").partition("<!-- results of few masks")[2].partition("<!-- end of results")[0]
    pairs = re.findall(r"\d+\.\d+(?: ± \d+\.\d+)? / \d+\.\d+(?: ± \d+\.\d+)?", shown)
    figures = [*pairs, *re.findall(r"[+−-]?\d+\.\d+ ± \d+\.\d+", shown), *re.findall(r"\d+\.\d+", shown)]
    assert len(figures) >= 6
    assert [figure for figure in figures if figure not in plain("docs/results/few_masks.md")] == []
