"""A training that is built as `des4 train` builds it, and takes a few steps: what they cost, and what all will."""

from __future__ import annotations

import math
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from des4 import build
from des4.config import RunConfig
from des4.data_tools.checks.advice import DRAWN_EACH_TIME
from des4.doctor.findings import Finding, duration, size
from des4.doctor.machine import existing, usable_cores
from des4.doctor.timing import matrix_rate, time_shares
from des4.engine import Evaluator, TrainStep, choose_precision
from des4.engine.cost import (
    Flops,
    Memory,
    Part,
    StepCost,
    at_step,
    memory,
    moments_to_come,
    parts_of_run,
    run_cost,
)
from des4.engine.parts import possible_parts, split
from des4.engine.process import free_memory, prepare_process, wait_for
from des4.engine.settings import Precision
from des4.types import Batch, RunError

WARMUP_STEPS, PROFILED_STEPS = 2, 2
LOADER_SECONDS, LOADER_BATCHES = 2.0, 20
VAL_IMAGES = 2
EXPECTED_RATE = 0.1
"""Part of the rate of large matrix products that a step is expected to reach, before it has been measured."""
MOST_WAITING = 0.1
"""Share of a step that may be spent on waiting for data before it is worth a warning."""
KEPT_CHECKPOINTS = 3
"""Two are kept, and a third is there while it is written."""
DATA = "data"
"""The part of a step, beside those of `des4.doctor.timing`, that is waiting for the batch."""


@dataclass(frozen=True)
class TimedPart:
    """A part of the run, of methods that learn in parts: its share of the steps, and the seconds of one of them."""

    share: float
    step: float


@dataclass(frozen=True)
class Measured:
    """What the steps took; times in seconds, rates a second. Of a method that learns in parts, means over the run.

    loader_rate: images that the loader delivers when nothing else is done. waiting: part of `step`, for the batch.
    parts: that the run has.
    validation: all val images once. training: all steps and validations. shares: of a step, by part; empty
    where there was no time to profile.
    flop_rate, matrix_rate: FLOP/s of the steps, and of large matrix products alone. peak: most GPU memory, in bytes.
    steps: that were measured. portion: of a batch that they had; where it is below 1, `step` is scaled up.
    """

    loader_rate: float
    waiting: float
    step: float
    parts: tuple[TimedPart, ...]
    image_rate: float
    validation: float
    training: float
    flop_rate: float
    matrix_rate: float
    shares: dict[str, float]
    peak: int | None
    steps: int
    portion: float


@dataclass(frozen=True)
class DryRun:
    """What a training would cost. steps, validations: of the whole training. parts: that each batch is split into.

    images: labeled and unlabeled ones of a step. flops: of a step, in the mean over the run. memory: of the part of
    the run that needs most. measured: None if the steps were not risked.
    """

    method: str
    encoder: str
    device: str
    precision: Precision
    crop: tuple[int, int]
    images: tuple[int, int]
    parts: int
    lists: dict[str, int]
    steps: int
    validations: int
    flops: Flops
    memory: Memory
    measured: Measured | None


def dry_run(config: RunConfig, num_steps: int = 5, deadline: float = math.inf) -> tuple[DryRun, list[Finding]]:
    """Take a few steps of a training, and say what is wrong with its settings on this machine. Nothing is written.

    deadline: of `perf_counter`, by which an answer is wanted: fewer steps are measured then, of a part of a batch if a
    whole one takes too long. A config that says neither how many steps nor how many epochs is taken for 1,000 steps.
    Raises ConfigError, DataError or WeightsError, as the training would.
    """
    prepare_process()
    training = build.training(_without_traces(config), checked=False)
    return _DryRun(training, deadline).run(num_steps)


def _without_traces(config: RunConfig) -> RunConfig:
    """Return the config without a cache of images, which would be filled, and with a number of steps."""
    train, data = config.train, config.data
    if train.steps is None and train.epochs is None:
        train = train.model_copy(update={"steps": 1000})
    if getattr(data, "cache", 0):
        data = data.model_copy(update={"cache": 0.0})
    return config.model_copy(update={"train": train, "data": data})


class _DryRun:
    """The steps on the way to a DryRun; findings are added as they come."""

    def __init__(self, training: build.Training, deadline: float) -> None:
        self.training, self.config, self.deadline = training, training.config, deadline
        self.device = training.device
        self.precision = choose_precision(self.config.train.precision, self.device)
        self.parts = training.parts
        self.findings: list[Finding] = []
        self.take_step = TrainStep(
            training.method,
            training.optimiser,
            self.device,
            precision=self.precision,
            clip=self.config.optim.clip,
            parts=self.parts,
            sync_norm=self.config.train.sync_norm,
            on_smaller=self._split_further,
        )

    def run(self, num_steps: int) -> tuple[DryRun, list[Finding]]:
        method, train = self.training.method, self.config.train
        method.train()
        if method.WAITS:
            text = f"{self.config.method.name} asks the device for values in each step, and waits for them"
            self.findings.append(Finding("ok", "step", text, ""))
        whole = self.training.loader.unlabeled_from  # from there on batches have all that a step may read
        with closing(self.training.loader.batches(whole, self.device)) as batches:  # type: ignore[type-var]
            batch = next(batches)
            self._look_at(batch)
            costs = run_cost(method, split(batch, self.parts)[0], self.precision)
            kept, flops = max(cost.kept_bytes for _, cost in costs), self._mean_flops(costs)
            measured = None
            if self._fits(self._held(kept)):
                measured = self._measure(batches, _num_images(batch), flops.total, num_steps)
        held = self._held(kept)
        self._look_at_disk(held.weights + held.optimiser)
        data, labeled, unlabeled = self.training.dataset, *_images(batch)
        done = DryRun(
            method=self.config.method.name,
            encoder=self.config.model.encoder,
            device=torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu",
            precision=self.precision,
            crop=self.config.views.crop,
            images=(labeled, unlabeled),
            parts=self.take_step.parts,
            lists={"labeled": len(data.labeled), "unlabeled": len(data.unlabeled), "val": len(data.val)},
            steps=self.training.schedule.steps,
            validations=self._validations(),
            flops=flops,
            memory=held,
            measured=measured,
        )
        if train.workers > usable_cores():
            self._warn("workers", f"train.workers={train.workers} on {usable_cores()} cores", "take fewer of them")
        return done, self.findings

    def _held(self, kept: int) -> Memory:
        """Return the memory of a step, with the moments as they will be where there was none that has made them."""
        held = memory(self.training.method, self.training.optimiser, kept)
        if held.optimiser:
            return held
        return replace(held, optimiser=moments_to_come(self.training.method, self.config.optim.num_moments))

    def _mean_flops(self, costs: Sequence[tuple[Part, StepCost]]) -> Flops:
        """Return the work of a step, in the mean over the run."""

        def mean(name: str) -> int:
            return self.parts * round(sum(part.share * float(getattr(cost.flops, name)) for part, cost in costs))

        return Flops(mean("plain"), mean("forward"), mean("backward"))

    # ── measuring ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _measure(self, batches: Iterator[Batch], images: int, flops: int, num_steps: int) -> Measured | None:
        loader_rate = images / self._seconds_per_batch(batches)
        rate = matrix_rate(self.device, self.precision)
        parts = parts_of_run(self.training.method)
        cuts = self._cuts(next(batches), len(parts) * flops / (EXPECTED_RATE * rate))
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        try:
            times = [self._times_of(part, batches, cuts, num_steps, len(parts) - n) for n, part in enumerate(parts)]
        except RunError as error:  # there is no part small enough
            self._problem("memory", str(error), "")
            return None
        medians = [[statistics.median(values) for values in zip(*of_part, strict=True)] for of_part in times]
        steps = [waited + cuts * (whole - waited) for waited, whole in medians]
        waiting = sum(part.share * waited for part, (waited, _) in zip(parts, medians, strict=True))
        step = sum(part.share * seconds for part, seconds in zip(parts, steps, strict=True))
        timed = tuple(TimedPart(part.share, seconds) for part, seconds in zip(parts, steps, strict=True))
        peak = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None
        shares = self._shares_of(next(batches), waiting / step, timed) if cuts == 1 else {}
        validation = self._validation_seconds()
        self._look_at_speed(waiting, step, loader_rate, rate)
        return Measured(
            loader_rate=loader_rate,
            waiting=waiting,
            step=step,
            parts=timed,
            image_rate=images / step,
            validation=validation,
            training=self.training.schedule.steps * step + self._validations() * validation,
            flop_rate=flops / step,
            matrix_rate=rate,
            shares=shares,
            peak=peak,
            steps=sum(len(of_part) for of_part in times),
            portion=1 / cuts,
        )

    def _left(self) -> float:
        return self.deadline - time.perf_counter()

    def _cuts(self, batch: Batch, seconds: float) -> int:
        """Return into how many parts a batch has to be cut for a step on one of them to be done in time.

        seconds: that a step on the whole is expected to take. Half of the time that is left is for steps.
        """
        fitting = possible_parts(batch)
        return next((cuts for cuts in fitting if seconds / cuts < self._left() / 2), fitting[-1])

    def _times_of(
        self, part: Part, batches: Iterator[Batch], cuts: int, num_steps: int, to_come: int
    ) -> list[tuple[float, float]]:
        """Take steps of a part of the run; the first ones, which set things up, do not count if others fit.

        to_come: parts that share the time that is left, this one among them.
        """
        with at_step(self.training.method, part.first):
            times = [self._timed_step(batches, cuts)]
            while len(times) < WARMUP_STEPS + num_steps and 3 * times[-1][1] < self._left() / to_come:
                times.append(self._timed_step(batches, cuts))
        return times[WARMUP_STEPS:] or times[-1:]

    def _shares_of(self, batch: Batch, waiting: float, timed: Sequence[TimedPart]) -> dict[str, float]:
        """Profile some steps of each part of the run, if there is time for it. waiting: part of a step."""
        if 3 * PROFILED_STEPS * sum(part.step for part in timed) > self._left():  # the profiler takes its time as well
            return {}
        method, whole = self.training.method, sum(part.share * part.step for part in timed)
        found: dict[str, float] = {DATA: waiting}
        for part, one in zip(parts_of_run(method), timed, strict=True):
            with at_step(method, part.first):
                shares = time_shares(method, lambda: self.take_step(batch), PROFILED_STEPS)
            for name, share in shares.items():
                weight = (1 - waiting) * one.share * one.step / whole
                found[name] = found.get(name, 0.0) + weight * share
        return found

    def _seconds_per_batch(self, batches: Iterator[Batch]) -> float:
        """Ask for batches and do nothing with them. The first ones do not count: workers have prepared them."""
        for _ in range(2 * self.config.train.workers):
            next(batches)
        wait_for(self.device)
        start, number = time.perf_counter(), 0
        while number < 2 or (time.perf_counter() - start < LOADER_SECONDS and number < LOADER_BATCHES):
            next(batches)
            number += 1
        wait_for(self.device)
        return (time.perf_counter() - start) / number

    def _timed_step(self, batches: Iterator[Batch], cuts: int) -> tuple[float, float]:
        """Return the seconds of waiting for the batch, and of the step on one of its `cuts` parts with that."""
        start = time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter() - start
        outcome = self.take_step(split(batch, cuts)[0] if cuts > 1 else batch)
        wait_for(self.device)
        elapsed = time.perf_counter() - start
        if outcome.skipped.item():
            terms = ", ".join(f"{name} {float(term):g}" for name, term in outcome.terms.items())
            self._warn("step", f"is not finite ({terms})", "look at the images with des4 data check, or lower optim.lr")
        return waited, elapsed

    def _validation_seconds(self) -> float:
        """Evaluate a few images, and scale up."""
        method, training = self.training.method, self.training
        ids = training.dataset.val[: VAL_IMAGES if self._left() > 0 else 1]
        evaluate = Evaluator(training.dataset, ids, self.config.eval, self.device)
        start = time.perf_counter()
        evaluate(method.predictors(), method.threshold)
        num_val = len(training.dataset.val)
        scored = num_val + training.guards.num_images + min(DRAWN_EACH_TIME, num_val)
        return (time.perf_counter() - start) / len(ids) * scored

    def _validations(self) -> int:
        steps, every = self.training.schedule.steps, self.training.eval_every
        return -(-steps // every) if every else 1

    # ── finding fault ────────────────────────────────────────────────────────────────────────────────────────────────

    def _warn(self, subject: str, text: str, advice: str) -> None:
        finding = Finding("warn", subject, text, advice)
        if finding not in self.findings:
            self.findings.append(finding)

    def _problem(self, subject: str, text: str, advice: str) -> None:
        self.findings.append(Finding("problem", subject, text, advice))

    def _split_further(self, parts: int, reason: str) -> None:
        self._warn("memory", f"ran out ({reason}); the batch went in {parts} parts", f"set train.accumulate={parts}")

    def _look_at(self, batch: Batch) -> None:
        for reason in batch.skipped.values():
            self._warn("data", reason, "look at all of them with des4 data check")

    def _fits(self, held: Memory) -> bool:
        """Whether a step can be risked: a GPU refuses what it has no room for, but Linux ends a process for it."""
        free, needed = free_memory(self.device), held.gradients + held.optimiser + held.kept
        if self.device.type == "cuda" or free is None or needed < free:
            return True
        self._problem("memory", f"a step needs {size(needed)} more, and {size(free)} are free",
                      "raise train.accumulate, or lower train.batch_size or views.crop_size")  # fmt: skip
        return False

    def _look_at_speed(self, waiting: float, step: float, loader_rate: float, rate: float) -> None:
        if waiting > MOST_WAITING * step:
            workers, cores = self.config.train.workers, usable_cores()
            advice = f"try train.workers={cores}" if workers < cores else "keep decoded images with data.cache=GIB"
            text = f"{loader_rate:.1f} images/s are too few: a step of {duration(step)} waits {duration(waiting)}"
            self._warn("data", text, advice)
        if self.precision != "fp32" and rate < matrix_rate(self.device, "fp32"):
            self._warn("precision", f"{self.precision} is slower than fp32 on this device", "set train.precision=fp32")

    def _look_at_disk(self, checkpoint: int) -> None:
        folder = existing(self.config.out or Path("runs"))
        free, needed = shutil.disk_usage(folder).free, KEPT_CHECKPOINTS * checkpoint
        if needed > free:
            text = f"checkpoints take {size(needed)}, and {size(free)} are free in {folder}"
            self._problem("disk", text, "free some, or choose another folder for the run with out=FOLDER")


def _images(batch: Batch) -> tuple[int, int]:
    return len(batch.labeled.image), len(batch.unlabeled.weak) if batch.unlabeled else 0


def _num_images(batch: Batch) -> int:
    return sum(_images(batch))
