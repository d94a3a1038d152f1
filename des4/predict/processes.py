"""Image files shared out among processes, each with a network of its own: on several GPUs, or on the cores of a CPU.

Whoever has done a chunk gets the next one, so a slow device gets fewer. What the processes say comes out here as one
stream. This process alone writes the table.
"""

from __future__ import annotations

import json
import queue
import threading
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any

import torch

from des4.engine.process import start_module
from des4.predict.predictor import Predictor
from des4.predict.segmenting import READ_AHEAD, Outcome, chunked, frames_of
from des4.predict.sources import Job
from des4.predict.writing import Outputs
from des4.types import RunError

GRACE = 10.0
"""Seconds that a process is given to take away what it has half written."""


def segment_in_processes(
    predictor: Predictor,
    devices: Sequence[torch.device],
    jobs: Sequence[Job],
    done: set[str],
    out: Path,
    outputs: Outputs,
    progress: Callable[[float], None],
) -> Generator[Outcome]:
    """Segment files by a process for each device, and yield what comes of them, in the order in which it comes.

    predictor: its settings are taken over, and its network is not used. done: as of `Segmenting`.
    Raises RunError where `out` takes no more, or a process is lost; the others are ended then, as they are by Ctrl-C.
    """
    waiting = (
        {"jobs": [[str(job.source), str(job.place)] for job in chunk], "done": frames_of(chunk, done)}
        for chunk in chunked(jobs, predictor.batch)
    )
    ahead = 1 + -(-READ_AHEAD // predictor.batch)
    heard: queue.SimpleQueue[tuple[_Worker, str]] = queue.SimpleQueue()
    used = devices[: -(-len(jobs) // predictor.batch)]
    sharing = sum(device.type == "cpu" for device in used)
    workers: list[_Worker] = []
    try:
        for device in used:
            threads = max(1, torch.get_num_threads() // sharing) if device.type == "cpu" else None
            task = {
                "weights": str(predictor.path), "device": str(device), "threads": threads,
                "eval": predictor.eval.model_dump(mode="json"), "fitted": predictor.fitted, "tile": predictor.tile,
                "batch": predictor.batch, "out": str(out), "outputs": asdict(outputs),
            }  # fmt: skip
            workers.append(_Worker(device, task, heard))
        for _ in range(ahead):
            for worker in workers:
                worker.give(next(waiting, None))
        running = set(workers)
        while running:
            worker, line = heard.get()
            if not line:
                worker.check_end()
                running.remove(worker)
                continue
            message = json.loads(line)
            if "progress" in message:
                progress(message["progress"])
            elif "file" in message:
                yield Outcome(**message)
            elif "chunk" in message:
                worker.in_hand -= 1
                worker.give(next(waiting, None))
            elif "warning" in message:
                warnings.warn(message["warning"], stacklevel=2)
            elif "error" in message:
                raise RunError(message["error"])
            else:
                raise RuntimeError(f"the process on {worker.device} failed:\n{message['bug']}")
    finally:
        for worker in workers:
            worker.stop()
        for worker in workers:
            worker.wait()


class _Worker:
    """A process that segments. in_hand: chunks that it was given and has not done."""

    def __init__(
        self, device: torch.device, task: dict[str, Any], heard: queue.SimpleQueue[tuple[_Worker, str]]
    ) -> None:
        self.device, self.in_hand = device, 0
        self._process = start_module("des4.predict.worker")
        self._heard = heard
        self._listener = threading.Thread(target=self._listen, name=f"answers of {device}", daemon=True)
        self._listener.start()
        self._write(task)

    def give(self, chunk: dict[str, Any] | None) -> None:
        """Hand over a chunk; None: there are no more."""
        assert self._process.stdin is not None  # noqa: S101  # as `start_module` has made it
        if chunk is not None:
            self.in_hand += 1
            self._write(chunk)
        else:
            with suppress(OSError):
                self._process.stdin.close()

    def check_end(self) -> None:
        """Raise RunError if the process, which says no more, had not done everything."""
        code = self._process.wait()
        if code or self.in_hand:
            how = f"was killed by signal {-code}, as when memory runs out" if code < 0 else f"ended with code {code}"
            raise RunError(
                f"the process on {self.device} {how}; go on with --resume, if it was memory on fewer devices"
            )

    def stop(self) -> None:
        """Ask the process to end, if it has not."""
        self.give(None)
        if self._process.poll() is None:
            self._process.terminate()

    def wait(self) -> None:
        """Wait for the end of the process, or make it."""
        try:
            self._process.wait(GRACE)
        except TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join()
        assert self._process.stdout is not None  # noqa: S101
        self._process.stdout.close()

    def _write(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None  # noqa: S101
        with suppress(OSError):  # it has ended, which its output says
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None  # noqa: S101
        with suppress(OSError, ValueError):
            for line in self._process.stdout:
                self._heard.put((self, line))
        self._heard.put((self, ""))
