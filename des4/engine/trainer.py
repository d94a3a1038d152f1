"""The training loop. It knows no method, no data set and no network: it receives built objects."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from pydantic import Field
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.optim import Optimizer

from des4.engine.checkpoint import Checkpoints, optimiser_state, restore_optimiser, restore_rng, rng_state
from des4.engine.evaluator import Evaluation, Evaluator
from des4.engine.optim import PolySchedule
from des4.engine.process import prepare_process
from des4.metrics import Results
from des4.runlog import RunFolder
from des4.types import STOP_SIGNALS, Batch, Config, ConfigError, RunError

if TYPE_CHECKING:
    from des4.methods.base import Method


NAMED_SKIPPED = 100
"""Broken images that results.json names, with the reasons; train.log has them all."""


class TrainConfig(Config):
    """How long, how much at a time, and on what to train.

    steps: optimiser steps. epochs: passes over the unlabelled list, or over the labelled one for methods that read no
        unlabelled image. Exactly one of the two is given.
    batch_size: labelled images of a step. unlabelled_batch_size: unlabelled ones; null = as many.
    accumulate: micro-batches a step is split into, to save memory; the loss is the mean over them.
    workers: processes that read images; 0 = the training process reads them.
    precision: `bf16` runs the networks under autocast.
    log_every, checkpoint_every: in steps; a checkpoint is also written before each evaluation and at the end.
    eval_every: in steps; null or 0 = only at the end.
    """

    steps: int | None = Field(None, ge=1)
    epochs: float | None = Field(None, gt=0)
    batch_size: int = Field(16, ge=1)
    unlabelled_batch_size: int | None = Field(None, ge=1)
    accumulate: int = Field(1, ge=1)
    seed: int = Field(0, ge=0)
    workers: int = Field(2, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    log_every: int = Field(20, ge=1)
    eval_every: int | None = Field(None, ge=0)
    checkpoint_every: int = Field(500, ge=1)

    def total_steps(self, num_labelled: int, num_unlabelled: int) -> int:
        """Return all steps of the training. num_unlabelled: 0 for methods that read none. Raises ConfigError."""
        if (self.steps is None) == (self.epochs is None):
            given = "neither is" if self.steps is None else "both are"
            raise ConfigError(f"train.steps and train.epochs: {given} given; give one, e.g. steps=40000 epochs=null")
        if self.epochs is None:
            assert self.steps is not None  # noqa: S101  # as checked above
            return self.steps
        if num_unlabelled:
            return math.ceil(self.epochs * num_unlabelled / (self.unlabelled_batch_size or self.batch_size))
        return math.ceil(self.epochs * num_labelled / self.batch_size)

    def micro_batches(self) -> tuple[int, int]:
        """Return the labelled and unlabelled images of a micro-batch. Raises ConfigError if a batch does not split."""
        sizes = self.batch_size, self.unlabelled_batch_size or self.batch_size
        for size in sizes:
            if size % self.accumulate:
                raise ConfigError(f"train.accumulate={self.accumulate} does not divide a batch of {size}; "
                                  "change accumulate or the batch size")  # fmt: skip
        return sizes[0] // self.accumulate, sizes[1] // self.accumulate


def choose_device(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Return the device of that name; `auto` = a GPU if there is one. Raises ConfigError if there is no GPU."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("train.device=cuda, but PyTorch sees no GPU; use device=auto or device=cpu")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


class BatchSource(Protocol):
    """What the trainer needs of a loader: micro-batches from number `start` on, without end."""

    def batches(self, start: int, device: torch.device) -> Iterator[Batch]:
        """Yield micro-batches on `device`; number m is always the same batch."""


class Interrupted(Exception):  # noqa: N818  # nothing went wrong
    """A signal ended the training; its state is saved. code: the exit code, 128 + the signal's number."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Trainer:
    """Trains a method to the last step of its schedule; continues from the newest checkpoint if there is one.

    method: on `device`. loader: yields micro-batches, `config.accumulate` make a step.
    run: an open run folder. clip: largest gradient norm; null = no clipping.
    evaluator: None = no evaluation; results.json then holds no figure and there is no best.safetensors.
    save_weights: writes one of the method's predictors to a file.
    about: what results.json says of the run besides its figures: method, data, pixel_share, tail_classes.
    """

    def __init__(
        self,
        method: Method,
        loader: BatchSource,
        optimiser: Optimizer,
        schedule: PolySchedule,
        run: RunFolder,
        config: TrainConfig,
        *,
        device: torch.device,
        save_weights: Callable[[Path, nn.Module], None],
        evaluator: Evaluator | None = None,
        clip: float | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.method = method
        self.loader = loader
        self.optimiser = optimiser
        self.schedule = schedule
        self.run = run
        self.config = config
        self.device = device
        self.save_weights = save_weights
        self.evaluator = evaluator
        self.clip = clip
        self.about = dict(about or {})
        self.checkpoints = Checkpoints(run.checkpoints)
        self.parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        self.seconds = 0.0
        self._validated: dict[int, float] = {}  # step → the headline's mIoU there
        self._skipped: dict[str, str] = {}  # images that could not be read, in the order they were met: id → reason
        self.evaluation: Evaluation | None = None  # the newest one
        self._window = _Window()
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        )

    def fit(self) -> dict[str, Any]:
        """Train, evaluate, write weights and results.json; return the results.

        Raises RunError on a loss or gradient that is not finite, with the weights as they were before that step;
        Interrupted on a signal of STOP_SIGNALS, with a checkpoint of the last full step written.
        """
        prepare_process()
        steps, start = self.schedule.steps, self._restore()
        self.method.train()
        self._progress.disable = not self._progress.console.is_terminal
        with self._progress, _Signals() as signals:
            bar = self._progress.add_task("training", total=steps, completed=start)
            if self._evaluation_due(start):  # the run was stopped in the evaluation of its last step
                self._evaluate(start, signals)
            batches = self.loader.batches(start * self.config.accumulate, self.device)
            for step in range(start + 1, steps + 1):
                self._train_step(step, batches)
                if step % self.config.log_every == 0 or step == steps:
                    self._log(step, bar)
                self._progress.advance(bar)
                evaluate = self._evaluation_due(step)
                if evaluate or step % self.config.checkpoint_every == 0 or step == steps or signals.code:
                    self._checkpoint(step)
                signals.check(step, self.run)
                if evaluate:
                    self._evaluate(step, signals)
            if self.evaluator and self.evaluation is None:  # a finished run, fitted once more
                self._evaluate(steps, signals)
        return self._finish()

    def _train_step(self, step: int, batches: Iterator[Batch]) -> None:
        started = time.perf_counter()
        self.schedule.apply(self.optimiser, step - 1)
        with torch.random.fork_rng(devices=[]):  # loaders draw from the global generator when they start workers
            micro_batches = [next(batches) for _ in range(self.config.accumulate)]
        sums: dict[str, Tensor] = {}
        for batch in micro_batches:
            self._note_skipped(batch)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
                terms: dict[str, Tensor] = self.method(batch)
            terms = {name: term.float() / self.config.accumulate for name, term in terms.items()}
            torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
            sums = {name: sums.get(name, 0) + term.detach() for name, term in terms.items()}
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        loss = torch.stack(list(sums.values())).sum()
        if not torch.isfinite(loss + norm):  # the step's one wait for the device
            raise _not_finite(step, sums, norm, micro_batches)
        if self.clip is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, self.clip, norm)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.method.after_step()
        elapsed = time.perf_counter() - started
        self.seconds += elapsed
        images = sum(len(b.labelled.image) + (len(b.unlabelled.weak) if b.unlabelled else 0) for b in micro_batches)
        self._window.add({"loss": loss, **{f"loss/{name}": term for name, term in sums.items()}}, images, elapsed)

    def _note_skipped(self, batch: Batch) -> None:
        """Give the reason for each broken image once."""
        for sample_id, reason in batch.skipped.items():
            if sample_id not in self._skipped:
                self._skipped[sample_id] = reason
                self.run.say(f"skipped: {reason}", echo=self._progress.disable)

    def _log(self, step: int, bar: Any) -> None:
        means = self._window.means()
        speed = self._window.images / self._window.seconds
        self._window = _Window()
        lr = self.optimiser.param_groups[0]["lr"]
        stats = {name: _number(value) for name, value in self.method.stats().items()}
        line = {**means, "lr": lr, "seconds": self.seconds, "images_per_second": speed, **stats}
        self.run.log(step, line)
        text = f"loss {means['loss']:.4f}  {speed:.1f} img/s"
        self._progress.update(bar, description=text)
        left = (self.schedule.steps - step) * self.seconds / step
        self.run.say(
            f"step {step}/{self.schedule.steps}  {text}  lr {lr:.2e}  {left / 60:.1f} min left",
            echo=self._progress.disable,
        )

    def _evaluation_due(self, step: int) -> bool:
        every = self.config.eval_every
        due = step == self.schedule.steps or bool(every and step and step % every == 0)
        return self.evaluator is not None and due and step not in self._validated

    def _evaluate(self, step: int, signals: _Signals) -> None:
        assert self.evaluator  # noqa: S101  # callers asked `_evaluation_due`
        with signals.at_once(step, self.run):  # the checkpoint of this step is written: nothing can be lost
            evaluation = self.evaluation = self.evaluator(self.method.predictors(), self.method.threshold, self._watch)
        headline = evaluation.results[evaluation.headline]
        if step in self._validated:  # a finished run, fitted once more: everything is written already
            return
        if not any(_or_lowest(headline.miou) <= past for past in self._validated.values()):
            self.save_weights(self.run.weights / "best.safetensors", self.method.predictors()[evaluation.headline])
        self._validated[step] = _or_lowest(headline.miou)
        self.run.log(step, validation_line(evaluation))  # after the weights: a line says that they are there
        self.run.say(f"step {step}: {evaluation.headline} mIoU {headline.miou:.4f}  tail mIoU {headline.tail_miou:.4f}")

    def _watch(self, ids: Iterable[str]) -> Iterator[str]:
        """Walk over the ids under a progress bar of their own, which goes with the last."""
        ids = list(ids)
        bar = self._progress.add_task("validation", total=len(ids))
        for sample_id in ids:
            yield sample_id
            self._progress.advance(bar)
        self._progress.remove_task(bar)

    def _checkpoint(self, step: int) -> None:
        moments, numbers = optimiser_state(self.optimiser)
        parts = {"method": self.method.state_dict(), "optimiser": moments, "rng": rng_state(self.device)}
        tensors = {f"{part}/{name}": tensor for part, named in parts.items() for name, tensor in named.items()}
        meta = {"optimiser": numbers, "seconds": self.seconds, "skipped": self._skipped}
        self.checkpoints.save(step, tensors, meta)

    def _restore(self) -> int:
        """Load the newest checkpoint and return its step; 0, and a seeded generator, if there is none."""
        checkpoint = self.checkpoints.load(self.run.say)
        step = checkpoint.step if checkpoint else 0
        if step > self.schedule.steps:
            raise RunError(
                f"{self.run.path} is at step {step}, beyond its {self.schedule.steps} steps; raise train.steps"
            )
        if checkpoint:
            parts: dict[str, dict[str, Tensor]] = {"method": {}, "optimiser": {}, "rng": {}}
            for path, tensor in checkpoint.tensors.items():
                part, _, name = path.partition("/")
                parts[part][name] = tensor
            try:
                self.method.load_state_dict(parts["method"])
            except RuntimeError as error:
                reason = " ".join(str(error).split())
                raise RunError(f"checkpoint {step} of {self.run.path} does not fit the config: {reason}") from error
            restore_optimiser(self.optimiser, parts["optimiser"], checkpoint.meta["optimiser"])
            restore_rng(parts["rng"], self.device)
            self.seconds = checkpoint.meta["seconds"]
            self._skipped = checkpoint.meta.get("skipped", {})  # earlier checkpoints have none
            self.run.say(f"continuing from step {step}")
        else:
            torch.manual_seed(self.config.seed)
        self.run.truncate_metrics(step)
        key = f"val/{next(iter(self.method.predictors()))}/miou"
        self._validated = {row["step"]: _or_lowest(row[key]) for row in self.run.metrics() if key in row}
        return step

    def _finish(self) -> dict[str, Any]:
        predictors = self.method.predictors()
        headline = next(iter(predictors))
        self.save_weights(self.run.weights / "last.safetensors", predictors[headline])
        best = max(self._validated, key=self._validated.__getitem__, default=None)
        results = {
            **_figures(self.evaluation, headline),
            "step": self.schedule.steps,
            "steps": self.schedule.steps,
            "seconds": self.seconds,
            "seed": self.config.seed,
            "best": None if best is None else {"step": best, "miou": self._validated[best], "chosen_on": "val"},
            **self.about,
        }
        named = dict(list(self._skipped.items())[:NAMED_SKIPPED])
        results["data"] = {**results.get("data", {}), "skipped": {"count": len(self._skipped), "images": named}}
        self.run.write_results(results)
        return self.run.results()


def validation_line(evaluation: Evaluation) -> dict[str, float]:
    """Return what metrics.jsonl keeps of an evaluation, by key."""
    line = {}
    for model, results in evaluation.results.items():
        line[f"val/{model}/miou"] = results.miou
        line[f"val/{model}/tail_miou"] = results.tail_miou
        line |= {f"val/{model}/iou/{name}": iou for name, iou in results.iou.items()}
    quality = evaluation.pseudo_labels
    line |= {f"pseudo/precision/{name}": value for name, value in quality.precision.items()}
    return line | {f"pseudo/coverage/{name}": value for name, value in quality.coverage.items()}


def _figures(evaluation: Evaluation | None, headline: str) -> dict[str, Any]:
    """Return the part of results.json that an evaluation gives; the headline's figures are repeated at the top."""
    if evaluation is None:
        return {"miou": None, "tail_miou": None, "pixel_accuracy": None, "iou": {}, "evaluated": headline,
                "models": {}, "pseudo_labels": None}  # fmt: skip
    quality = evaluation.pseudo_labels
    return {
        **_summary(evaluation.results[headline]),
        "evaluated": headline,
        "models": {
            name: {**_summary(results), "confusion": results.confusion.tolist()}
            for name, results in evaluation.results.items()
        },
        "pseudo_labels": {
            "threshold": quality.threshold,
            "precision": quality.precision,
            "coverage": quality.coverage,
        },
    }


def _summary(results: Results) -> dict[str, Any]:
    return {"miou": results.miou, "tail_miou": results.tail_miou, "pixel_accuracy": results.pixel_accuracy,
            "iou": results.iou}  # fmt: skip


def _not_finite(step: int, terms: Mapping[str, Tensor], norm: Tensor, batches: Iterable[Batch]) -> RunError:
    figures = ", ".join(f"{name} {float(term):g}" for name, term in terms.items())
    ids = [i for b in batches for i in (*b.labelled.ids, *(b.unlabelled.ids if b.unlabelled else ()))]
    return RunError(
        f"step {step} is not finite ({figures}, gradient norm {float(norm):g}) and was not applied; "
        f"look at its images ({', '.join(ids)}), or lower optim.lr"
    )


def _or_lowest(miou: float | None) -> float:
    """Return a mIoU for comparisons: one that is undefined is worse than any other."""
    return -1.0 if miou is None or math.isnan(miou) else miou


def _number(value: float | Tensor) -> Any:
    return value.tolist() if isinstance(value, Tensor) else value


class _Window:
    """Means of the loss terms since the last log line; they stay on the device until asked for."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.steps = 0
        self.images = 0
        self.seconds = 0.0

    def add(self, values: Mapping[str, Tensor], images: int, seconds: float) -> None:
        self.sums = {name: self.sums.get(name, 0) + value for name, value in values.items()}
        self.steps += 1
        self.images += images
        self.seconds += seconds

    def means(self) -> dict[str, float]:
        return {name: float(value) / self.steps for name, value in self.sums.items()}


class _Signals:
    """Turns the STOP_SIGNALS into a request to stop; another one, seconds later, acts as it would without us.

    Not at once: a launcher such as `timeout` passes on what the whole process group has already received.
    """

    def __init__(self) -> None:
        self.code = 0
        self._since = 0.0
        self._at_once: tuple[int, RunFolder] | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            self._before = {number: signal.signal(number, self._handle) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.code and time.monotonic() - self._since > 2:
            self.__exit__()
            signal.raise_signal(number)
        elif not self.code:
            self.code, self._since = 128 + number, time.monotonic()
        if self._at_once:
            place, self._at_once = self._at_once, None
            self.check(*place)

    @contextmanager
    def at_once(self, step: int, run: RunFolder) -> Iterator[None]:
        """Inside, a signal raises Interrupted where the program stands."""
        self._at_once = step, run
        self.check(step, run)
        yield
        self._at_once = None

    def check(self, step: int, run: RunFolder) -> None:
        """Raise Interrupted if a signal has come. The checkpoint of `step` has been written."""
        if self.code:
            raise Interrupted(f"stopped after step {step}; continue with: des4 train --resume {run.path}", self.code)
