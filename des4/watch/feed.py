"""Feeds a logger (`des4.loggers`) in a process of its own, which can neither hold a training up nor end it.

What a training says goes into a bounded queue; a thread hands it to the process, a line at a time, and waits for the
answer. A logger that fails, hangs, falls too far behind or dies is given up, with one warning.
"""

from __future__ import annotations

import base64
import json
import math
import queue
import subprocess
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from des4.engine.callbacks import Callback, Ended, Started, Stepped, Validated
from des4.engine.process import start_module
from des4.loggers.logger import LOGGERS
from des4.types import ConfigError

PATIENCE = 180.0
"""Seconds that a logger may take over one line, or over its beginning, in which libraries load and servers answer."""
GRACE = {"finished": 60.0, "stopped": 5.0, "failed": 5.0}
"""Seconds that a training waits at its end for what is still in the queue."""
MOST_WAITING = 1000
"""Lines in the queue; one more, and the logger is too slow for this training."""


def check_installed(names: Iterable[str]) -> None:
    """Raise ConfigError if a logger's library is not there."""
    for name in names:
        if find_spec(name) is None:
            raise ConfigError(f'train.log_to={name}: needs the package {name}; pip install "des4[{name}]"')


class LoggerFeed(Callback):
    """Feeds one logger. name: of `LOGGERS`.

    patience, grace, most_waiting: see the constants of this module.
    """

    optional = True

    def __init__(
        self,
        name: str,
        patience: float = PATIENCE,
        grace: Mapping[str, float] = GRACE,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        if name not in LOGGERS:
            raise ConfigError(f"train.log_to={name}: there are {', '.join(LOGGERS)}")
        self.name = name
        self.patience, self.grace = patience, grace
        self._waiting: queue.Queue[dict[str, Any]] = queue.Queue(most_waiting)
        self._answers: queue.Queue[str] = queue.Queue()
        self._trouble = ""  # set by the thread, said by the training
        self._news: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._given_up = False
        self._classes: Sequence[str] = ()
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None

    # ── what a training calls ────────────────────────────────────────────────────────────────────────────────────────

    def on_start(self, started: Started) -> None:
        """Start the process, and give it the run so far."""
        self._classes = started.classes
        folder = started.run / "loggers"
        folder.mkdir(exist_ok=True)
        self._log = folder / f"{self.name}.log"
        self._process = start_module("des4.loggers.serve", self.name, str(started.run))
        self._put({
            "do": "open", "run": started.run.name, "config": dict(started.config), "step": started.step,
            "rows": [
                {"step": row["step"], "values": self._numbers(row)}
                for row in started.history
                if not any(key.startswith("inside/") for key in row)  # matrices, which are not passed on live either
            ],
        })  # fmt: skip
        threading.Thread(target=self._listen, name=f"answers of {self.name}", daemon=True).start()
        self._thread = threading.Thread(target=self._deliver, name=f"lines to {self.name}", daemon=True)
        self._thread.start()

    def on_step(self, step: Stepped) -> None:
        """Pass a line of metrics on."""
        if step.metrics:
            self._put({"do": "row", "step": step.step, "values": self._numbers(step.metrics)})
        self._speak()

    def on_validation(self, validation: Validated) -> None:
        """Pass the scores of all models and the picture on."""
        self._put({"do": "row", "step": validation.step, "values": self._numbers(validation.metrics)})
        self._put_picture(validation.step, validation.samples)
        self._speak()

    def on_end(self, end: Ended) -> None:
        """Wait a little for what is on its way, then leave."""
        self._put_picture(end.step, end.samples)
        self._put({"do": "end", "status": end.status})
        seconds = self.grace[end.status]
        if self._thread is not None and not self._given_up:
            self._thread.join(seconds)
            if self._thread.is_alive():
                self._trouble = self._trouble or (
                    f"had not taken everything {seconds:g} seconds after the end of the run; metrics.jsonl has it all"
                )
        self._speak()
        self._kill()

    # ── the queue ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _put(self, message: dict[str, Any]) -> None:
        if self._trouble:
            return
        try:
            self._waiting.put_nowait(message)
        except queue.Full:
            self._trouble = f"is {self._waiting.maxsize} lines behind"

    def _put_picture(self, step: int, path: Path | None) -> None:
        if path is not None and path.exists() and not self._trouble:
            self._put({"do": "picture", "step": step, "png": base64.b64encode(path.read_bytes()).decode()})

    def _numbers(self, line: Mapping[str, Any]) -> dict[str, float]:
        """Return the finite numbers of a line; of a list of a number a class, each by the class's name."""
        numbers: dict[str, Any] = {}
        for key, value in line.items():
            if isinstance(value, list | tuple):
                names = self._classes if len(value) == len(self._classes) else [str(i) for i in range(len(value))]
                numbers |= {f"{key}/{name}": one for name, one in zip(names, value, strict=True)}
            else:
                numbers[key] = value
        numbers.pop("step", None)
        return {
            key: float(value)
            for key, value in numbers.items()
            if isinstance(value, int | float) and math.isfinite(value)
        }

    def _speak(self) -> None:
        """Say what the thread has met; once, if the logger is given up."""
        while not self._news.empty():
            self.say(self._news.get())
        if (trouble := self._trouble) and not self._given_up:
            self._given_up = True
            self._kill()
            self.warn(f"warning: train.log_to: {self.name} {trouble}; the run goes on without it "
                      f"(what it printed: {self._log})")  # fmt: skip

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):  # a process in the middle of a read that the system cannot end
                self._process.wait(1)

    # ── the threads ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _listen(self) -> None:
        """Take the answers of the process; an empty one says that it has ended."""
        assert self._process and self._process.stdout  # noqa: S101  # as `on_start` has made it
        with suppress(OSError, ValueError):
            for line in self._process.stdout:
                self._answers.put(line)
        self._answers.put("")

    def _deliver(self) -> None:
        """Hand over what waits, in its order, until the end or the first trouble."""
        assert self._process and self._process.stdin  # noqa: S101
        done = ""
        while done != "end" and not self._trouble:
            message = self._waiting.get()
            try:
                self._process.stdin.write(json.dumps(message) + "\n")
                self._process.stdin.flush()
                answer = self._answers.get(timeout=self.patience)
            except queue.Empty:
                self._trouble = f"has not answered for {self.patience:g} seconds"
                return
            except (OSError, ValueError):  # of a closed pipe
                answer = ""
            done = message["do"]
            found = json.loads(answer) if answer else {"error": "its process has ended"}
            if "error" in found:
                self._trouble = f"failed: {found['error']}"
            elif found.get("at"):
                self._news.put(f"{self.name}: logging to {found['at']}")
