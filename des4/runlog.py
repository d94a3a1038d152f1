"""The run folder: written by the engine, read by the report. Knows no torch.

    config.yaml  env.json  data.json  train.log  metrics.jsonl  results.json  report.html
    plots/  checkpoints/step-N/  weights/  export/   parts.json, if the run chose how to split its batches
    loggers/  tensorboard/  wandb/   if `train.log_to` asked for them

JSON and YAML files are replaced atomically; `train.log` and `metrics.jsonl` only grow. A run that went on with other
settings keeps the earlier ones in `config.1.yaml`, `config.2.yaml`, …, and the results they had led to in
`results.1.json`, …. `.lock` is held by the process that trains here.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from des4.types import RunError

_MARK = "# des4 run folder"
_FOLDERS = ("weights", "plots", "checkpoints")
EXPORTS = "export"
"""The folder of what `des4 export` made from the run's weights."""
_LOGS = ("loggers", "tensorboard", "wandb")
_FILES = ("config.yaml", "env.json", "data.json", "metrics.jsonl", "results.json", "report.html", "parts.json")
_FIGURES = (
    "miou", "tail_miou", "iou", "tail_classes", "pixel_share", "evaluated", "step", "steps", "seed", "data"
)  # fmt: skip
"""What every results.json has, and reports and comparisons read."""
_NUMBERED = ("config.[0-9]*.yaml", "results.[0-9]*.json", ".parts.json.*.partial")


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
        if path.is_dir() and any(path.iterdir()) and not _is_unborn(path):
            if not overwrite:
                raise RunError(f"{path} is not empty; continue it with --resume, replace it with --overwrite, "
                               "or choose another folder with out=FOLDER")  # fmt: skip
            if not _is_marked(path):
                raise RunError(f"{path} is not a des4 run, so --overwrite leaves it alone; choose another folder")
            with cls(path).claimed():
                _remove_run(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            # the mark comes first and goes last, so that a kill leaves nothing that --overwrite would not take
            (path / "train.log").write_text(f"{_MARK}\n", encoding="utf-8")
            for name in _FOLDERS:
                (path / name).mkdir(exist_ok=True)
        except OSError as error:
            raise RunError(f"{path} cannot be written: {error.strerror}; choose another with out=FOLDER") from error
        return cls(path)

    @staticmethod
    def is_run(path: str | Path) -> bool:
        """Whether `path` is a run that can be opened."""
        return _is_marked(Path(path)) and (Path(path) / "config.yaml").exists()

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """Open an existing run. Raises RunError if `path` is none."""
        path = Path(path)
        if _is_marked(path) and not (path / "config.yaml").exists():
            raise RunError(f"{path} was stopped before it had trained anything; start it again with --overwrite")
        if not _is_marked(path):
            raise RunError(f"{path} is not a des4 run folder (config.yaml and train.log are expected in it)")
        return cls(path)

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Inside, no other process may train here. Raises RunError if one does.

        The system ends the claim with the process, however that ends; child processes do not inherit it.
        """
        if sys.platform == "win32":  # has no such locks: there two trainings in one folder are not noticed
            yield
            return
        import fcntl

        path = self.path / ".lock"
        try:
            file = path.open("a")
        except OSError as error:
            raise unwritable(path, error) from error
        with file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:
                raise RunError(f"another process is training in {self.path}; wait for its end, or stop it") from error
            except OSError as error:  # a file system without locks
                self.say(f"{path} cannot be locked ({error.strerror}); see to it that nothing else trains here")
            yield

    def say(self, text: str, echo: bool = True) -> None:
        """Add a line with the time to train.log; print it too unless `echo` is off. Raises RunError."""
        self._append("train.log", f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}")
        if echo:
            print(text, flush=True)

    def say_resumed(self) -> None:
        """Draw a line in train.log: what follows repeats lines that were written after the last checkpoint."""
        log = self.path / "train.log"
        if not log.read_bytes().endswith(b"\n"):  # the machine lost power, or the disk was full
            self._append("train.log", "")
        self.say("──── resumed: the steps after its newest checkpoint come again ────", echo=False)

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Add a line to metrics.jsonl. Values are numbers or lists of numbers; non-finite ones become null.

        Raises RunError.
        """
        line = json.dumps(_plain({"step": step, **values}), ensure_ascii=False, allow_nan=False)
        self._append("metrics.jsonl", line)

    def sync(self) -> None:
        """Wait until the lines of metrics.jsonl have reached the disk, as a checkpoint will, which they lead up to."""
        path = self.path / "metrics.jsonl"
        try:
            if path.exists():
                sync(path)
        except OSError as error:
            raise unwritable(path, error) from error

    def _append(self, name: str, line: str) -> None:
        try:
            with (self.path / name).open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
        except OSError as error:
            raise unwritable(self.path / name, error) from error

    def metrics(self) -> list[dict[str, Any]]:
        """Read metrics.jsonl. A torn last line, left by a killed run, is dropped; RunError if another is unreadable."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else []
        lines = lines[:-1] if lines and not lines[-1] else lines  # what ends a line does not begin one
        rows = []
        for number, line in enumerate(lines, 1):
            if (row := _metrics_row(line)) is not None:
                rows.append(row)
            elif number < len(lines):
                raise RunError(f"{path}, line {number}, is no line of metrics; remove that line")
        return rows

    def truncate_metrics(self, step: int) -> None:
        """Drop the lines of metrics.jsonl that lie after `step`, so a resumed run writes each line once."""
        rows = [row for row in self.metrics() if row["step"] <= step]
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_atomically(self.path / "metrics.jsonl", "".join(lines))

    def write_config(self, config: Mapping[str, Any], comments: Sequence[str] = ()) -> None:
        """Keep the effective config of the run, comments first."""
        text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
        heading = "".join(f"# {' '.join(comment.split())}\n" for comment in comments)
        write_atomically(self.path / "config.yaml", heading + text)

    def replace_config(self, config: Mapping[str, Any]) -> None:
        """Give the run other settings; the earlier ones, and the results they had led to, are kept under a number."""
        number = next(n for n in count(1) if not (self.path / f"config.{n}.yaml").exists())
        before = (self.path / "config.yaml").read_text(encoding="utf-8")
        write_atomically(self.path / f"config.{number}.yaml", before)
        if (results := self.path / "results.json").exists():  # first, lest a kill leaves them beside other settings
            results.replace(self.path / f"results.{number}.json")
        self.write_config(config)

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

    def write_micro_batches(self, number: int) -> None:
        """Keep into how many micro-batches all processes split a step, as memory has it. Any of them may say so."""
        write_json(self.path / "parts.json", {"micro_batches": number}, shared=True)

    def micro_batches(self) -> int | None:
        """Return what `write_micro_batches` kept, None if it never was. Raises RunError."""
        path = self.path / "parts.json"
        if not path.exists():
            return None
        told = read_json(path)
        return int(told["micro_batches"] if "micro_batches" in told else told["parts"])  # earlier runs, of one process

    def write_data(self, data: Mapping[str, Any]) -> None:
        """Keep what the run is trained on: class names and lists."""
        write_json(self.path / "data.json", data)

    def data(self) -> dict[str, Any]:
        """Return what `write_data` kept, empty if the run was stopped before it did. Raises RunError."""
        path = self.path / "data.json"
        return read_json(path) if path.exists() else {}

    def write_results(self, results: Mapping[str, Any]) -> None:
        """Keep the final figures of the run."""
        write_json(self.path / "results.json", results)

    def write_page(self, page: str) -> None:
        """Keep the report."""
        write_atomically(self.report, page)

    def results(self) -> dict[str, Any]:
        """Read results.json. Raises RunError, also when the run has not finished."""
        if not (self.path / "results.json").exists():
            raise RunError(
                f"{self.path} has no results.json: the run has not finished; continue it with: {self._resume}"
            )
        return read_json(self.path / "results.json")

    def figures(self) -> dict[str, Any]:
        """Read results.json for a report. Raises RunError as `results` does, and where it lacks what all runs have."""
        results = self.results()
        if lacking := [name for name in _FIGURES if name not in results]:
            raise RunError(f"{self.path / 'results.json'} lacks {', '.join(lacking)}, which every run writes; remove "
                           f"it, and have it written again with: {self._resume}")  # fmt: skip
        return results

    @property
    def _resume(self) -> str:
        return f"des4 train --resume {shlex.quote(str(self.path))}"


@contextmanager
def replacing(path: Path, shared: bool = False) -> Iterator[Path]:
    """Yield the path of a file to write; when the block ends it is synced to the disk and takes the place of `path`.

    A reader, or a crash, sees the old file or the new one. shared: several processes may write it at once; the last one
    stays. Raises RunError; `path` is then as it was.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial" if shared else f".{path.name}.partial")
    try:
        yield partial
        sync(partial)
        partial.replace(path)
        sync(path.parent)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise unwritable(path, error) from error
        raise


class FollowedRun(RunFolder):
    """A run folder as all processes but the first have it: they read what that one writes, and write nothing."""

    def _leave_it(self, *args: Any, **options: Any) -> None:
        """Do nothing. `write_micro_batches` is not replaced: memory may run out in any process."""

    say = say_resumed = log = sync = truncate_metrics = _leave_it
    write_config = replace_config = write_env = write_data = write_results = _leave_it


def write_atomically(path: Path, text: str, shared: bool = False) -> None:
    """Replace `path` by `text` as a whole; see `replacing`. Raises RunError."""
    with replacing(path, shared) as partial:
        partial.write_text(text, encoding="utf-8")


def sync(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, has reached the disk. Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def unwritable(path: Path, error: Exception) -> RunError:
    """Return the error of a run whose folder takes no more: a disk that is full or read-only, a folder that is gone."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error).partition("\n")[0]
    return RunError(f"{path} cannot be written ({reason}); free some disk space or make its folder writable; a "
                    "training then continues with --resume")  # fmt: skip


def write_json(path: Path, values: Mapping[str, Any], shared: bool = False) -> None:
    """Write a JSON object atomically; non-finite numbers become null. shared: see `replacing`."""
    write_atomically(path, json.dumps(_plain(values), indent=2, ensure_ascii=False, allow_nan=False) + "\n", shared)


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


def _metrics_row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


def _is_marked(path: Path) -> bool:
    """Whether des4 made this folder."""
    log = path / "train.log"
    if not log.is_file():
        return False
    with log.open(encoding="utf-8", errors="replace") as file:
        return file.readline().rstrip() == _MARK


def _is_unborn(path: Path) -> bool:
    """Whether a kill came between the making of the log file and its first line."""
    names = [entry.name for entry in path.iterdir()]
    return names == ["train.log"] and (path / "train.log").is_file() and not (path / "train.log").stat().st_size


def _remove_run(path: Path) -> None:
    try:
        for name in (*_FOLDERS, EXPORTS, *_LOGS):
            if (folder := path / name).is_dir() and not folder.is_symlink():
                shutil.rmtree(folder)
        numbered = [file for pattern in _NUMBERED for file in path.glob(pattern)]
        named = [path / name for name in (*_FOLDERS, *_FILES, *(f".{file}.partial" for file in _FILES))]
        for file in (*named, *numbered, path / "train.log"):
            file.unlink(missing_ok=True)  # a link is removed, what it points to is not
    except OSError as error:
        raise RunError(f"{path} cannot be replaced ({error.strerror}); choose another with out=FOLDER") from error
