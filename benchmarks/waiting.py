"""The share of a training step that the trainer waits for its data.

python benchmarks/waiting.py [CONFIG] [KEY=VALUE …] [--workers N …] [--steps N] [--rounds N] [--threads N]

Trains as `des4 train` would with these settings (by default des4 on the embedded scenes), without evaluation, into a
temporary folder, and times what the trainer spends on getting its next batch: waiting for the workers, copying, and
making the views on the device. The first steps of a training, in which workers start, do not count. Numbers of workers
take turns.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from timing import machine, prepare

from des4 import build
from des4.config import RunConfig, load_config
from des4.data import Loader
from des4.engine import PolySchedule, Recorder, Trainer, TrainStep, choose_precision
from des4.runlog import RunFolder
from des4.types import Batch

WARMUP = 5
"""Steps that do not count."""


class Watched:
    """A loader that takes the time of each of its batches."""

    def __init__(self, loader: Loader) -> None:
        self.loader, self.waits, self.ends = loader, [], []

    def batches(self, start: int, device: torch.device) -> Iterator[Batch]:
        stream = self.loader.batches(start, device)
        while True:
            asked = time.perf_counter()
            batch = next(stream)
            self.ends.append(time.perf_counter())
            self.waits.append(self.ends[-1] - asked)
            yield batch


def share_of_waiting(config: RunConfig, steps: int) -> float:
    """Train some steps; return what part of their time went into getting batches."""
    training = build.training(config)
    loader = Watched(training.loader)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        run = RunFolder.create(Path(folder) / "run")
        schedule = PolySchedule(WARMUP + steps, 0.9)
        recorder = Recorder(
            run, training.method, schedule, config.train, save_weights=lambda path, network, state: None
        )
        take_step = TrainStep(
            training.method, training.optimiser, training.device,
            precision=choose_precision(config.train.precision, training.device),
        )  # fmt: skip
        Trainer(take_step, loader, schedule, recorder, config.train).fit()
    return sum(loader.waits[WARMUP:]) / (loader.ends[-1] - loader.ends[WARMUP - 1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("settings", nargs="*", metavar="CONFIG KEY=VALUE")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    prepare(args.threads)
    files = [text for text in args.settings if "=" not in text]
    settings = [text for text in args.settings if "=" in text]
    if not args.settings:
        settings = ["method=des4", "data=scenes", "steps=100", "batch_size=4", "crop_size=128"]
    configs = {
        number: load_config(
            files[0] if files else {}, [*settings, f"train.workers={number}", "checkpoint_every=100000"]
        )
        for number in args.workers
    }
    shares: dict[int, list[float]] = {number: [] for number in configs}
    for _ in range(args.rounds):
        for number, config in configs.items():
            shares[number].append(share_of_waiting(config, args.steps))
    print(f"{machine()}; {args.rounds} × {args.steps} steps")
    for number, values in shares.items():
        print(f"{number} workers: {100 * statistics.median(values):5.2f} % of the step "
              f"({100 * min(values):.2f} to {100 * max(values):.2f})")  # fmt: skip


if __name__ == "__main__":
    main()
