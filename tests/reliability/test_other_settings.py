"""Resuming with other settings: what is taken over, what has to be forced, and what never changes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from des4 import api
from des4.config import RunConfig
from des4.continuation import FIXED, HARMLESS, PLACES
from des4.types import RunError


def contents(run: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}


def config_of(run: Path, name: str = "config.yaml") -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((run / name).read_text())
    return config


def test_the_settings_named_here_exist() -> None:
    from des4.config import KEYS

    known = {*KEYS, *RunConfig.model_fields}
    assert known >= HARMLESS | PLACES
    assert all(any(key.startswith(name) for key in known) for name in FIXED)


def test_what_changes_no_number_is_taken_over_unasked(
    finished: Path, stopped: Path, end_alike: Callable[[Path, Path], None]
) -> None:
    api.resume(stopped, overrides=["workers=1", "log_every=3"])
    end_alike(finished, stopped)
    assert config_of(stopped)["train"]["workers"] == 1
    assert config_of(stopped, "config.1.yaml") == config_of(finished)
    assert "settings changed: train.log_every: 2 -> 3; train.workers: 0 -> 1" in (stopped / "train.log").read_text()


def test_a_finished_run_can_be_forced_to_go_on_for_longer(finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    results = api.resume(run, overrides=["steps=8", "eval_every=4"], force=True).results
    assert results["steps"] == 8
    log = (run / "train.log").read_text()
    assert "settings changed: train.eval_every: None -> 4; train.steps: 6 -> 8" in log
    assert "continuing from step 6" in log
    assert (run / "results.1.json").read_bytes() == (finished / "results.json").read_bytes()
    assert config_of(run, "config.1.yaml") == config_of(finished)
    assert json.loads((run / "results.json").read_text())["steps"] == 8


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["steps=8", "lr=0.5"], r"unless --force .*: optim\.lr: 0\.001 -> 0\.5; train\.steps: 6 -> 8$"),
        (["labeled=2"], "list of labeled images: 3 -> 2"),
        (["data.val=1"], "list of val images: 2 -> 1"),
    ],
)
def test_what_changes_numbers_is_listed_and_has_to_be_forced(stopped: Path, overrides: list[str], reason: str) -> None:
    before = contents(stopped)
    with pytest.raises(RunError, match=reason) as error:
        api.resume(stopped, overrides=overrides)
    assert "\n" not in str(error.value)
    assert contents(stopped) == before


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["method=fixmatch"], r"another method.*method\.name: des4 -> fixmatch$"),
        (["encoder=resnet18", "lr=0.5"], r"another method.*model\.encoder: test_efficientnet -> resnet18$"),
        (["seed=1"], r"train\.seed: 0 -> 1"),
        (["optim.name=adamw"], r"optim\.name: sgd -> adamw"),
        (["steps=3"], "is at step 4, beyond 3 steps; raise train.steps"),
        (["decoupled=false"], r"another network than these settings \(teacher\.decoder.* differs\)"),
    ],
)
def test_what_the_state_does_not_fit_is_refused_even_then(stopped: Path, overrides: list[str], reason: str) -> None:
    before = contents(stopped)
    with pytest.raises(RunError, match=reason) as error:
        api.resume(stopped, overrides=overrides, force=True)
    assert "\n" not in str(error.value)
    assert contents(stopped) == before


def test_other_classes_are_refused_even_then(stopped: Path) -> None:
    data = json.loads((stopped / "data.json").read_text())
    data["classes"][0] = "heaven"
    (stopped / "data.json").write_text(json.dumps(data))
    with pytest.raises(RunError, match=r"trained on the classes heaven, .*now have sky, "):
        api.resume(stopped, force=True)


def test_a_list_that_has_changed_by_itself_is_noticed(stopped: Path) -> None:
    data = json.loads((stopped / "data.json").read_text())
    data["unlabeled"] = {"images": 5, "hash": "0"}
    (stopped / "data.json").write_text(json.dumps(data))
    with pytest.raises(RunError, match="list of unlabeled images: 5 -> 4, of other ids"):
        api.resume(stopped)
