"""Shell completion: what is offered, in the forms in which shells ask for it, and that asking is quick."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
from typer.testing import CliRunner

from des4 import cli
from des4.cli import completion
from des4.methods import METHODS


def bash(*words: str) -> list[str]:
    """Ask as bash does for the last of some words: it makes a word of each `=`."""
    env = {"_DES4_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(["des4", *words]), "COMP_CWORD": str(len(words))}
    return CliRunner().invoke(cli.app, env=env, prog_name="des4").stdout.split()


def zsh(*words: str) -> str:
    """Ask as zsh does: what is typed so far, as one text."""
    env = {"_DES4_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": " ".join(["des4", *words])}
    return CliRunner().invoke(cli.app, env=env, prog_name="des4").stdout


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two runs, one of them deep down, and a config file."""
    monkeypatch.chdir(tmp_path)
    for name in ("runs/des4-1", "runs/few/des4/6a/seed-0"):
        Path(name).mkdir(parents=True)
        Path(name, "config.yaml").touch()
        Path(name, "train.log").touch()
    Path("mine.yaml").touch()
    return tmp_path


def test_methods_and_other_choices_in_both_forms() -> None:
    assert bash("train", "method", "=", "u") == [name for name in METHODS if name.startswith("u")]
    assert bash("train", "method", "=") == list(METHODS)
    assert bash("train", "method=sup") == ["method=supervised"]
    assert "precision=bf16" in zsh("train", "precision=b")
    assert bash("train", "model.encoder", "=", "resnet10") == ["resnet101"]
    assert bash("train", "data", "=", "sc") == ["scenes"]
    assert bash("train", "nothing", "=", "x") == []


def test_settings_by_short_and_by_full_name() -> None:
    assert bash("train", "train.st") == ["train.start_from=", "train.steps=", "train.stop_after="]
    assert bash("train", "crop") == ["crop_size=", "crop_size=256"]  # two, or bash sets a space behind the only one
    assert {"train.steps=", "train.seed="} <= set(bash("train", "train"))
    assert bash("eval", "runs/des4-1", "eval.mo") == ["eval.mode=", "eval.mode=whole", "eval.mode=sliding"]
    assert "mine.yaml" in bash("train", "") and "minutes=" in bash("train", "")
    assert bash("demo", "optim.lr", "=") == ["0.001"]


def test_run_folders_wherever_they_are() -> None:
    assert bash("eval", "") == ["runs/des4-1", "runs/few/des4/6a/seed-0"]
    assert bash("predict", "runs/few") == bash("train", "--resume", "runs/f") == ["runs/few/des4/6a/seed-0"]
    assert bash("compare", "runs/d") == ["runs/des4-1"]
    assert bash("compare", "pa") == ["paper"] and bash("compare", "mi") == ["mine.yaml"]
    assert "steps=" in bash("compare", "mine.yaml", "ste")
    assert bash("eval", "elsewhere/") == []


def test_encoders_are_networks_of_timm() -> None:
    assert set(completion.ENCODERS) <= set(timm.list_models())


def test_asking_imports_no_torch_and_the_option_is_there() -> None:
    code = (
        "import sys\nfrom des4.cli import app\n"
        "try: app(prog_name='des4')\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'numpy', 'yaml'} & set(sys.modules), 'imported'"
    )
    asked = {"_DES4_COMPLETE": "complete_bash", "COMP_WORDS": "des4 train method = uni", "COMP_CWORD": "4"}
    environment = {**os.environ, **asked}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)  # noqa: S603
    assert done.stdout.split() == ["unimatch", "unimatch_v2"]
    assert "--install-completion" in CliRunner().invoke(cli.app, ["--help"]).stdout
