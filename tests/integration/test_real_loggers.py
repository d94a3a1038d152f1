"""TensorBoard, W&B and MLflow themselves, where they are installed: what they keep of a run is what was logged.

`tests/unit/watch/test_feed.py` tests with a library of its own what loggers may do to a run. None of these needs a
network: W&B is told to stay offline, MLflow keeps its figures in a file.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from des4.engine.callbacks import Callbacks, Stepped, Validated
from des4.watch.feed import LoggerFeed


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(find_spec(name) is None, reason=f"{name} is not installed")


def logged(name: str, run: Path) -> list[str]:
    """Log a run of four steps and a validation with a real library; return what it said."""
    said: list[str] = []
    run.mkdir()
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(run / "samples.png")
    config = {"train": {"steps": 4}, "out": None, "views": {"scale": [0.5, 2.0]}}
    callbacks = Callbacks([LoggerFeed(name)], run, config, ("sky", "sea"), (), lambda text, echo: said.append(text))
    callbacks.start(0, 4, [])
    for step in range(1, 5):
        callbacks.stepped(Stepped(step, 4, 0.1, 1.0, None, {"loss": 1 / step, "lr": 0.1}))
    row = {"val/student/miou": 0.5, "val/student/iou/<b>$5": 0.25}
    callbacks.validated(Validated(4, 4, {}, True, row, run / "samples.png"))
    callbacks.end("finished")
    assert not [text for text in said if text.startswith("warning")], said
    return said


@needs("tensorboard")
def test_tensorboard_has_scalars_settings_and_the_picture(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logged("tensorboard", tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [(e.step, round(e.value, 3)) for e in events.Scalars("loss")] == [(1, 1.0), (2, 0.5), (3, 0.333), (4, 0.25)]
    assert events.Scalars("val/student/miou")[0].value == 0.5
    (picture,) = events.Images("samples")
    assert (picture.step, picture.width, picture.height) == (4, 6, 4)
    assert events.Tags()["tensors"]


@needs("wandb")
def test_wandb_offline_has_a_run_to_be_uploaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    said = logged("wandb", tmp_path / "run")
    assert "wandb sync" in said[0]
    (file,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    kept = file.read_bytes()
    assert b"val/student/miou" in kept and b"samples" in kept
    assert list(file.parent.glob("files/media/images/samples*.png"))


@needs("mlflow")
def test_mlflow_has_metrics_parameters_and_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)  # where its artifacts go
    logged("mlflow", tmp_path / "run")
    from mlflow import MlflowClient

    client: Any = MlflowClient(uri)
    known = json.loads((tmp_path / "run" / "loggers" / "mlflow.json").read_text())["run"]
    run = client.get_run(known["id"])
    assert run.info.status == "FINISHED"
    assert [(m.step, round(m.value, 3)) for m in client.get_metric_history(known["id"], "loss")] == [
        (1, 1.0), (2, 0.5), (3, 0.333), (4, 0.25)
    ]  # fmt: skip
    assert run.data.metrics["val/student/miou"] == 0.5 and run.data.metrics["val/student/iou/_b__5"] == 0.25
    assert run.data.params["train.steps"] == "4"
    assert [file.path for file in client.list_artifacts(known["id"], "samples")] == ["samples/step-0000004.png"]
