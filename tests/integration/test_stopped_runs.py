"""A run that was stopped, or killed, is of use before it has finished: its newest checkpoint holds its network."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

import des4
from des4 import cli
from des4.api import resume
from des4.runlog import RunFolder
from des4.types import RunError, WeightsError
from des4.weights import load_weights, run_of, weights_file

STANDS = "the weights are those of step 2 of 4, for the run has not finished; it goes on with: des4 train --resume"


@pytest.fixture
def stopped(trained: Path, tmp_path: Path) -> Path:
    """The finished run as it stood after step 2 of 4."""
    run = shutil.copytree(trained, tmp_path / "stopped")
    shutil.rmtree(run / "checkpoints" / "step-4")
    for path in (run / "results.json", run / "report.html", *run.glob("weights/*"), *run.glob("plots/*")):
        path.unlink()
    return run


@pytest.fixture
def verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Call the command line in an empty working directory."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # which the verbs replace
    warnings.simplefilter("always")  # as in a process that has not said it yet; pytest puts the filters back
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save("photo.png")
    return lambda *arguments: CliRunner().invoke(cli.app, [str(a) for a in arguments])


def test_micro_batches_that_memory_chose_stay_when_a_run_goes_on(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With other free memory: another number of them would show BatchNorm other images at a time."""
    tiny["train"] |= {"batch_size": 4, "accumulate": "auto"}
    monkeypatch.setattr("des4.build.free_memory", lambda device: 0)
    whole = des4.train(tiny, out=tmp_path / "whole").dir
    assert RunFolder.open(whole).micro_batches() == 2
    cut = shutil.copytree(whole, tmp_path / "cut")
    shutil.rmtree(cut / "checkpoints" / "step-4")
    (cut / "results.json").unlink()
    monkeypatch.setattr("des4.build.free_memory", lambda device: 2**40)
    resume(cut)
    one, other = (load_file(run / "weights" / "last.safetensors") for run in (whole, cut))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_checkpoint_holds_the_weights_that_a_weights_file_would(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = trained / "checkpoints" / "step-4"
    network, info = load_weights(checkpoint)
    last, its_info = load_weights(trained / "weights" / "last.safetensors")
    assert info == its_info
    state, expected = network.state_dict(), last.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in state)
    assert weights_file(trained) == trained / "weights" / "last.safetensors"  # of a finished run
    assert run_of(checkpoint) == run_of(trained / "weights" / "best.safetensors") == trained
    monkeypatch.chdir(trained / "weights")
    assert run_of(Path("best.safetensors")) == trained.absolute()


def test_python_loads_a_stopped_run_and_says_where_it_stands(stopped: Path) -> None:
    with pytest.warns(UserWarning, match=STANDS):
        predictor = des4.load(stopped)
    assert predictor.path == stopped / "checkpoints" / "step-2"
    assert predictor.predict(np.zeros((20, 30, 3), np.uint8)).shape == (20, 30)
    with pytest.warns(UserWarning, match="of step 2 of 4"):
        assert des4.evaluate(stopped).miou >= 0
    with pytest.warns(UserWarning, match="of step 2 of 4"):
        assert des4.evaluate(predictor.path, overrides=["eval.mode=sliding", "window=32"]).miou >= 0


def test_the_verbs_take_a_stopped_run(verb: Callable[..., Result], stopped: Path) -> None:
    predicted = verb("predict", stopped, "photo.png", "--out", "p")
    assert predicted.exit_code == 0, predicted.output
    assert f"{stopped}: {STANDS} {stopped}" in predicted.stderr
    assert Path("p/masks/photo.png").is_file()
    scored = verb("eval", stopped)
    assert scored.exit_code == 0, scored.output
    assert "of step 2 of 4" in scored.stderr
    exported = verb("export", stopped, "--format", "safetensors")
    assert exported.exit_code == 0, exported.output
    assert "of step 2 of 4" in exported.stderr
    (folder,) = (stopped / "export").iterdir()
    state, network = load_file(folder / "model.safetensors"), load_weights(stopped / "checkpoints" / "step-2")[0]
    assert all(torch.equal(state[name], value) for name, value in network.state_dict().items())
    assert verb("export", stopped / "checkpoints" / "step-2", "--format", "safetensors", "--overwrite").exit_code == 0
    assert not (stopped / "checkpoints" / "step-2" / "export").exists()


def test_a_run_that_goes_on_is_newer_than_its_last_weights(trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "onwards")
    (run / "results.json").rename(run / "results.1.json")  # as --resume with more steps leaves it
    with pytest.warns(UserWarning, match="of step 4 of 4"):
        assert weights_file(run) == run / "checkpoints" / "step-4"
    shutil.rmtree(run / "checkpoints")
    assert weights_file(run) == run / "weights" / "last.safetensors"
    shutil.rmtree(run / "weights")
    with pytest.raises(RunError, match="has the run come to its first checkpoint"):
        weights_file(run)


def test_a_checkpoint_that_cannot_be_used_is_named(stopped: Path, trained: Path) -> None:
    meta, manifest = (stopped / "checkpoints" / "step-2" / name for name in ("meta.json", "manifest.json"))
    state = meta.with_name("state.safetensors")
    state.write_bytes(state.read_bytes()[:-1])
    with pytest.raises(RunError, match=r"step-2 is damaged \(the hash of state.safetensors .*there is no other"):
        load_weights(stopped / "checkpoints" / "step-2")
    shutil.copytree(trained / "checkpoints" / "step-4", stopped / "checkpoints" / "step-4")
    with pytest.raises(RunError, match=r"give .*step-4 in its place"):
        load_weights(stopped / "checkpoints" / "step-2")
    shutil.rmtree(stopped / "checkpoints" / "step-4")
    meta.write_text("{}")
    with pytest.raises(RunError, match=r"the hash of meta.json"), warnings.catch_warnings():
        des4.load(stopped)
    before = json.loads((trained / "checkpoints" / "step-2" / "meta.json").read_text())
    del before["network"]
    meta.write_text(json.dumps(before))
    import hashlib

    noted = json.loads(manifest.read_text()) | {"meta.json": hashlib.sha256(meta.read_bytes()).hexdigest()}
    manifest.write_text(json.dumps(noted))
    with pytest.raises(WeightsError, match="did not note the network"), pytest.warns(UserWarning, match="of step 2"):
        des4.load(stopped)
