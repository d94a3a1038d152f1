"""The training loop. It knows no method, no data set and no network: it receives built objects."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from des4.engine.checkpoint import Checkpoint, Checkpoints, optimiser_state, restore_optimiser
from des4.engine.distributed import on_first
from des4.engine.inside import Inside
from des4.engine.optim import PolySchedule
from des4.engine.process import deterministic_kernels, prepare_process
from des4.engine.recorder import Recorder
from des4.engine.settings import TrainConfig
from des4.engine.sharding import gather_whole, moments_in_shards, own_moments, spread
from des4.engine.signals import StopSignals
from des4.engine.step import TrainStep
from des4.ops.reduce import gather_over_ranks, this_rank
from des4.types import Batch, RunError

FAILED_CALLBACK = 1
"""Exit code of processes that stop because a callback has failed."""


class BatchSource(Protocol):
    """What the trainer needs of a loader: this process's batches from step `start` on, without end."""

    def batches(self, start: int, device: torch.device) -> Iterator[Batch]:
        """Yield one batch a step on `device`; that of a step is always the same."""


class Trainer:
    """Trains a method to the last step of its schedule; continues from the newest checkpoint if there is one.

    take_step: takes an optimiser step with the method, on its device. loader: yields this process's batch of each step.
    recorder: writes down what happens, in the run folder whose checkpoints the trainer keeps.
    """

    def __init__(
        self, take_step: TrainStep, loader: BatchSource, schedule: PolySchedule, recorder: Recorder, config: TrainConfig
    ) -> None:
        self.take_step = take_step
        self.method, self.optimiser, self.device = take_step.method, take_step.optimiser, take_step.device
        self.loader = loader
        self.schedule = schedule
        self.recorder = recorder
        self.config = config
        self.inside = Inside(self.method)
        self.run = recorder.run
        self.checkpoints = Checkpoints(self.run.checkpoints)

    def fit(self) -> dict[str, Any]:
        """Train, evaluate, write weights and results.json; return the results.

        Raises RunError when too many steps in a row are not finite, or memory runs out; Interrupted on a signal of
        STOP_SIGNALS, or an error in a callback, with a checkpoint of the last full step written.
        """
        prepare_process()
        recorder, validation = self.recorder, self.recorder.validation
        step = start = self._restore()
        self.method.train()
        kernels = deterministic_kernels(self.device, self.config.deterministic)
        with kernels, StopSignals(self.run.path) as signals:
            recorder.begin(start)
            if validation.due(start):  # the run was stopped in the evaluation of its last step
                self._evaluate(start, signals)
            batches = self.loader.batches(start, self.device)
            while step < self.schedule.steps and not validation.stands_still():
                step += 1
                evaluate = validation.due(step)
                self.inside.watch(evaluate)
                started = time.perf_counter()
                batch = self._begin(step, batches)
                outcome = self.take_step(batch)
                lr = self.optimiser.param_groups[0]["lr"]
                recorder.note_step(step, batch, outcome, time.perf_counter() - started, lr)
                self._end(step, evaluate, signals)
            if validation.missing:
                self._evaluate(step, signals)
            recorder.note_early_stop(step)
        return recorder.finish(step)

    def _begin(self, step: int, batches: Iterator[Batch]) -> Batch:
        """Set learning rate and seed of a step, and return its batch."""
        self.schedule.apply(self.optimiser, step - 1)
        batch = next(batches)
        self.recorder.note_broken(batch)
        # Dropout draws from the global generator: a function of these, it is the same in a resumed run.
        torch.manual_seed(random.Random(f"{self.config.seed}/{step}/{this_rank()}").getrandbits(63))
        return batch

    def _end(self, step: int, evaluate: bool, signals: StopSignals) -> None:
        """Save, stop and evaluate after a step, where that is due."""
        if evaluate and (line := self.inside.line()):
            self.recorder.log(step, line)
        stop = self._asked(signals)
        if evaluate or stop or step % self.config.checkpoint_every == 0 or step == self.schedule.steps:
            self._checkpoint(step)
        signals.stop(step, stop)
        if evaluate:
            self._evaluate(step, signals)
            if step < self.schedule.steps:
                signals.stop(step, self._asked(signals))

    def _asked(self, signals: StopSignals) -> int:
        """Return the exit code to stop with, 0 to go on: a signal has asked for it, or a callback has failed."""
        return signals.asked(FAILED_CALLBACK if self.recorder.callbacks.error else 0)

    def _evaluate(self, step: int, signals: StopSignals) -> None:
        with signals.at_once(step):  # the checkpoint of this step is written, so nothing can be lost
            evaluation, line = self.recorder.evaluate(step)
        self.recorder.note_validation(step, evaluation, line)

    def _checkpoint(self, step: int) -> None:
        self.recorder.wait()
        self.run.sync()
        moments, numbers = optimiser_state(self.optimiser)
        moments = moments_in_shards(moments, dict(self.method.named_parameters()))
        parts = {"method": self.method.state_dict(), "optimiser": moments, "inside": self.inside.state()}
        tensors = gather_whole(
            {f"{part}/{name}": value for part, named in parts.items() for name, value in named.items()}
        )
        meta = {
            "optimiser": numbers,
            "steps": self.schedule.steps,
            **self.recorder.state(),
            "loss_scale": self.take_step.scaler.state_dict(),
        }
        on_first(lambda: self.checkpoints.save(step, tensors, meta))

    def _restore(self) -> int:
        """Load the newest checkpoint and return its step; 0 if there is none."""
        checkpoint = self.checkpoints.load(self.run.say)
        step = checkpoint.step if checkpoint else 0
        if step > self.schedule.steps:
            raise RunError(
                f"{self.run.path} is at step {step}, beyond its {self.schedule.steps} steps; raise train.steps"
            )
        if checkpoint:
            self._load(checkpoint)
            self.run.say(f"continuing from step {step}")
        if len(set(gather_over_ranks(step))) > 1:
            raise RunError(f"not all processes see the checkpoints in {self.run.path}; put out= where all machines "
                           "read and write")  # fmt: skip
        on_first(lambda: self.checkpoints.delete_old(step))  # a kill may have come before the last save did
        self.recorder.restore(step, checkpoint.meta if checkpoint else {}, self.device)
        return step

    def _load(self, checkpoint: Checkpoint) -> None:
        """Put a state into method, optimiser and loss scale. Raises RunError if it does not fit them."""
        parts: dict[str, dict[str, Tensor]] = {}
        for path, tensor in checkpoint.tensors.items():
            part, _, name = path.partition("/")
            parts.setdefault(part, {})[name] = tensor
        try:
            self.method.load_state_dict(spread(parts["method"], self.method.state_dict()))
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise RunError(
                f"checkpoint {checkpoint.step} of {self.run.path} does not fit the config: {reason}"
            ) from error
        moments = own_moments(parts.get("optimiser", {}), dict(self.method.named_parameters()))
        restore_optimiser(self.optimiser, moments, checkpoint.meta["optimiser"])
        self.inside.restore(parts.get("inside", {}))
        if scale := checkpoint.meta.get("loss_scale"):  # earlier checkpoints lack it
            self.take_step.scaler.load_state_dict(scale)
