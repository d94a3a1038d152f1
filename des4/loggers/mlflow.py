"""MLflow. `MLFLOW_TRACKING_URI`, `MLFLOW_EXPERIMENT_NAME` and its other variables mean what they mean elsewhere."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # who asks for logs has not asked for that

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from des4.loggers.logger import PROJECT, FirstStep, flat

_LONGEST = 6000
"""Characters that MLflow keeps of a parameter."""
_AT_A_TIME = 100
"""Parameters of one request."""
_STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class MLflow:
    """Logs to one MLflow run, however many processes train it."""

    forgets = False

    def open(self, run: Path, first: FirstStep, known: dict[str, Any]) -> dict[str, Any]:
        """Begin an MLflow run, or go on with it, at the server that it began at."""
        uri = known.get("uri") or _anchored(mlflow.get_tracking_uri())
        mlflow.set_tracking_uri(uri)
        self._client = MlflowClient()
        if "id" in known:
            self._id: str = known["id"]
            self._client.update_run(self._id, status="RUNNING")
        else:
            self._id = self._client.create_run(self._experiment(), run_name=first.name).info.run_id
            settings = [Param(_plain(key), str(value)[:_LONGEST]) for key, value in flat(first.config).items()]
            for begin in range(0, len(settings), _AT_A_TIME):
                self._client.log_batch(self._id, params=settings[begin : begin + _AT_A_TIME])
        # MLflow's parameters never change, and settings of a run that goes on may
        self._client.log_dict(self._id, dict(first.config), "config.yaml")
        return {"id": self._id, "uri": uri, "at": f"{uri}, run {self._id}"}

    def _experiment(self) -> str:
        if key := os.environ.get("MLFLOW_EXPERIMENT_ID"):
            return key
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log numbers by key."""
        now = int(1000 * time.time())
        self._client.log_batch(
            self._id, metrics=[Metric(name, value, now, step) for name, value in _names(values).items()]
        )

    def picture(self, step: int, png: bytes) -> None:
        """Add a picture to the artifacts, a file a validation."""
        with TemporaryDirectory() as folder:
            path = Path(folder, f"step-{step:07d}.png")
            path.write_bytes(png)
            self._client.log_artifact(self._id, str(path), "samples")

    def close(self, status: str) -> None:
        """End the run."""
        self._client.set_terminated(self._id, _STATUS[status])


def _anchored(uri: str) -> str:
    """Make the place of a local store independent of the working directory, so that a resumed run finds it."""
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        return f"sqlite:///{Path(uri.removeprefix('sqlite:///')).absolute()}"
    return uri if "://" in uri or uri.startswith(("databricks", "uc", "file:")) else Path(uri).absolute().as_uri()


def _plain(name: str) -> str:
    """Return a name of the characters that MLflow allows, which is no path with dots or empty parts."""
    parts = re.sub(r"[^\w./ -]", "_", name)[:250].split("/")
    return "/".join("_" if part in ("", ".", "..") else part for part in parts)


def _names(values: Mapping[str, float]) -> dict[str, float]:
    """Give each number a name that MLflow allows, and that no other has."""
    named: dict[str, float] = {}
    for key, value in values.items():
        name, number = _plain(key), 2
        while name in named:
            name, number = f"{_plain(key)[:240]}_{number}", number + 1
        named[name] = value
    return named
