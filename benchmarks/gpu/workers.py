"""Processes that take one training after the other from a common list."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import queue
import shutil
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from des4 import build
from des4.config import dump
from des4.engine import Interrupted
from des4.engine.process import prepare_process
from des4.runlog import RunFolder
from gpu.images import Resident
from gpu.stages import Entry, Plan

KEPT = ("miou", "tail_miou", "iou", "tail_classes", "steps", "evaluated", "seconds", "data")
MOST_FAILURES = 2
"""Trainings in a row that may fail in a process."""


class Shared:
    """What workers have in common: the list of trainings, the images, and how long trainings take.

    images: by the name of the data. ends: when all have to be done, by `time.time`. said: a queue of what workers say.
    """

    def __init__(
        self, plan: Plan, images: dict[str, dict[str, tuple[Tensor, Tensor]]], ends: float, workers: int
    ) -> None:
        context = multiprocessing.get_context("fork")
        self.plan, self.images, self.ends = plan, images, ends
        self.said: Any = context.Queue() if workers else queue.SimpleQueue()
        self._taken = context.Array("b", len(plan.entries))
        kinds = list(dict.fromkeys(entry.kind for entry in plan.entries))
        self._kinds = {kind: number for number, kind in enumerate(kinds)}
        self._seconds = context.Array("d", len(kinds))  # of the last training of a kind; 0 = none was done yet

    def next(self) -> int | None:
        """Take the first entry that can be done in time, as far as is known; None if there is none."""
        left = self.ends - time.time()
        with self._taken.get_lock():
            for number, entry in enumerate(self.plan.entries):
                if not self._taken[number] and max(self._seconds[self._kinds[entry.kind]], 0.001) < left:
                    self._taken[number] = 1
                    return number
        return None

    def took(self, entry: Entry, seconds: float) -> None:
        """Remember how long a training took, for those of its kind."""
        self._seconds[self._kinds[entry.kind]] = seconds


def work(shared: Shared, log: Path | None) -> None:
    """Train one entry after the other. log: a file for what they print.

    A training that fails is tried once more with its images in the host's memory; after two that fail even so, this
    process ends: a GPU that has met an error answers nothing any more, and the others shall have the rest of the list.
    """
    prepare_process()
    torch.set_num_threads(1)
    residents: dict[tuple[str, str], Resident] = {}
    on_device, failures = True, 0
    while failures < MOST_FAILURES and (number := shared.next()) is not None:
        entry = shared.plan.entries[number]
        images = shared.images[entry.stage.data]
        shared.said.put({"number": number, "state": "running"})
        started, told = time.perf_counter(), None
        while told is None:
            try:
                with log.open("a") if log else io.StringIO() as file, contextlib.redirect_stdout(file):
                    results = train(entry, images, residents if on_device else None)
            except Interrupted:
                return
            except Exception as error:  # one training that fails must not cost the others
                traceback.print_exc()
                reason = f"{type(error).__name__}: {error}"
                if on_device:
                    on_device = False
                    shared.said.put({"number": number, "state": "running", "reason": f"{reason}; again from the host"})
                else:
                    told, failures = {"state": "failed", "reason": reason}, failures + 1
            else:
                seconds = time.perf_counter() - started
                shared.took(entry, seconds)
                told, failures = {"state": "done", "seconds": seconds, "results": results}, 0
        shared.said.put({"number": number, **told})


def train(
    entry: Entry, images: Mapping[str, tuple[Tensor, Tensor]], residents: dict[tuple[str, str], Resident] | None
) -> dict[str, Any]:
    """Take a training to its end and score it; return what is kept of its results.

    residents: the data sets on the GPU so far, by name and device; None: images stay in the host's memory.
    """
    training = build.training(entry.run.config, checked=False)
    key = entry.stage.data, str(training.device)
    if residents is None:
        resident = Resident(images, torch.device("cpu"))
    else:
        resident = residents.setdefault(key, Resident(images, training.device))
    data = resident.of(training.dataset)
    training.loader.dataset = training.evaluator.dataset = data  # type: ignore[assignment]
    run = RunFolder.create(entry.run.folder, overwrite=True)
    run.write_config(dump(entry.run.config))
    results = training.trainer(run).fit()
    shutil.rmtree(run.path)
    return {key: results[key] for key in KEPT}
