"""The run folder: written by the engine, read by the report. Knows no torch.

    config.yaml  env.json  train.log  metrics.jsonl  results.json  report.html  plots/  checkpoints/step-N/  weights/

JSON and YAML files are replaced atomically; `train.log` and `metrics.jsonl` only grow.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from des4.types import RunError

_MARK = "# des4 run folder"
_FOLDERS = ("weights", "plots", "checkpoints")
_FILES = ("config.yaml", "env.json", "train.log", "metrics.jsonl", "results.json", "report.html")


class RunFolder:
    """One training's folder. Made by `create` or `open`, never directly."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.weights, self.plots, self.checkpoints = (path / name for name in _FOLDERS)
        self.report = path / "report.html"

    @classmethod
    def create(cls, path: str | Path, overwrite: bool = False) -> RunFolder:
        """Make a new run folder.

        overwrite: remove what an earlier run wrote here. Only des4's own files go; anything else in the folder stays.
        Raises RunError if the folder holds something and may not be, or is not des4's to be, overwritten.
        """
        path = Path(path)
        if path.exists() and not path.is_dir():
            raise RunError(f"{path} is a file; choose another run folder with out=FOLDER")
        if path.is_dir() and any(path.iterdir()):
            if not overwrite:
                raise RunError(f"{path} is not empty; continue it with --resume, replace it with --overwrite, "
                               "or choose another folder with out=FOLDER")  # fmt: skip
            if not _is_run(path):
                raise RunError(f"{path} is not a des4 run, so --overwrite leaves it alone; choose another folder")
            _remove_run(path)
        try:
            for name in _FOLDERS:
                (path / name).mkdir(parents=True, exist_ok=True)
            (path / "train.log").write_text(f"{_MARK}\n", encoding="utf-8")
        except OSError as error:
            raise RunError(f"{path} cannot be written: {error.strerror}; choose another with out=FOLDER") from error
        return cls(path)

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """Open an existing run. Raises RunError if `path` is none."""
        path = Path(path)
        if not _is_run(path):
            raise RunError(f"{path} is not a des4 run folder (config.yaml and train.log are expected in it)")
        return cls(path)

    def say(self, text: str, echo: bool = True) -> None:
        """Add a line with the time to train.log; print it too unless `echo` is off."""
        with (self.path / "train.log").open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        if echo:
            print(text, flush=True)

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Add a line to metrics.jsonl. Values are numbers or lists of numbers; non-finite ones become null."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(_plain({"step": step, **values}), ensure_ascii=False, allow_nan=False) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """Read metrics.jsonl. A torn last line, left by a killed run, is dropped; RunError if another is unreadable."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
        rows = []
        for number, line in enumerate(lines, 1):
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                if number < len(lines):
                    raise RunError(f"{path}, line {number}, is not JSON; remove that line") from error
        return rows

    def truncate_metrics(self, step: int) -> None:
        """Drop the lines of metrics.jsonl that lie after `step`, so a resumed run writes each line once."""
        rows = [row for row in self.metrics() if row["step"] <= step]
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_atomically(self.path / "metrics.jsonl", "".join(lines))

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Keep the effective config of the run."""
        text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
        write_atomically(self.path / "config.yaml", text)

    def config(self) -> dict[str, Any]:
        """Read config.yaml. Raises RunError if it is no mapping."""
        path = self.path / "config.yaml"
        try:
            config = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise RunError(f"{path} cannot be read: {_first_line(error)}") from error
        if not isinstance(config, dict):
            raise RunError(f"{path} holds no settings")
        return config

    def write_env(self, env: Mapping[str, Any]) -> None:
        """Keep versions, machine and command of the run."""
        write_json(self.path / "env.json", env)

    def env(self) -> dict[str, Any]:
        """Read env.json. Raises RunError."""
        return read_json(self.path / "env.json")

    def write_results(self, results: Mapping[str, Any]) -> None:
        """Keep the final figures of the run."""
        write_json(self.path / "results.json", results)

    def results(self) -> dict[str, Any]:
        """Read results.json. Raises RunError, also when the run has not finished."""
        if not (self.path / "results.json").exists():
            raise RunError(f"{self.path} has no results.json: the run has not finished; "
                           f"continue it with: des4 train --resume {self.path}")  # fmt: skip
        return read_json(self.path / "results.json")


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` by `text` as a whole: a reader, or a crash, sees the old file or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON object atomically; non-finite numbers become null."""
    write_atomically(path, json.dumps(_plain(values), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises RunError if the file is missing or holds something else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {_first_line(error)}") from error
    if not isinstance(values, dict):
        raise RunError(f"{path} holds no JSON object")
    return values


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _plain(value: Any) -> Any:
    """JSON knows no NaN and no infinity: null stands for them."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _is_run(path: Path) -> bool:
    log = path / "train.log"
    if not (path / "config.yaml").is_file() or not log.is_file():
        return False
    with log.open(encoding="utf-8", errors="replace") as file:
        return file.readline().rstrip() == _MARK


def _remove_run(path: Path) -> None:
    for name in _FOLDERS:
        if (folder := path / name).is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)
    for name in (*_FOLDERS, *_FILES):  # a link is removed, what it points to is not
        (path / name).unlink(missing_ok=True)
