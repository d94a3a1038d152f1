"""What a training says of itself: log lines, metrics, pictures, weights and results.json. The loop itself writes none.

Whatever a run records passes through a `Recorder`, and every line of metrics.jsonl through its `log`; whoever watches
the run (`des4.engine.callbacks`) is told here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from des4.engine.callbacks import Callbacks, Stepped, Validated
from des4.engine.distributed import on_first
from des4.engine.evaluator import Evaluation
from des4.engine.optim import PolySchedule
from des4.engine.settings import TrainConfig
from des4.engine.sharding import gather_whole, whole_weights
from des4.engine.step import Outcome
from des4.engine.validation import Validation
from des4.engine.window import Window
from des4.ops.reduce import gather_over_ranks, num_ranks, sum_over_ranks
from des4.runlog import RunFolder
from des4.types import Batch, RunError

if TYPE_CHECKING:
    from des4.methods.base import Method

FIRST_ESTIMATE = 5
"""Steps after which the time that is left is told for the first time."""
NAMED_SKIPPED = 100
"""Broken images that results.json names, with the reasons; train.log has them all."""


class Recorder:
    """Writes down what a training does, in its run folder and on the terminal; it changes nothing that is trained.

    run: an open run folder; of several processes only the first writes into it. validation: scores the method.
    save_weights: writes one of the method's predictors to a file, given its state.
    about: what results.json says of the run besides its figures: method, data, pixel_share, tail_classes, caution.
    network: what a checkpoint says of the headline's network, so that it can be built without the training.
    on_validation: draws samples of an evaluation before the last one; it leaves the method as it is.
    callbacks: who else is told.
    """

    def __init__(
        self,
        run: RunFolder,
        method: Method,
        schedule: PolySchedule,
        config: TrainConfig,
        *,
        save_weights: Callable[[Path, nn.Module, Mapping[str, Tensor]], None],
        validation: Validation | None = None,
        about: Mapping[str, Any] | None = None,
        network: Mapping[str, Any] | None = None,
        on_validation: Callable[[Evaluation], Path | None] | None = None,
        callbacks: Callbacks | None = None,
    ) -> None:
        self.run = run
        self.method = method
        self.schedule = schedule
        self.config = config
        self.save_weights = save_weights
        self.validation = validation or Validation(schedule)
        self.about = dict(about or {})
        self.network = dict(network or {})
        self.on_validation = on_validation
        self.callbacks = callbacks or Callbacks(say=run.say)
        self.seconds = 0.0  # of the whole run
        self._start = 0  # the step that this process began at
        self._paced = 0, 0.0  # step and seconds from which the pace is taken
        self._watched: list[_Watched] = []  # steps since the host last waited for the device
        self._skipped_steps: list[int] = []
        self._skipped_in_a_row = 0
        self._skipped_images: dict[str, str] = {}  # that could not be read, in the order met: id → reason
        self._unsaid: list[str] = []
        self._window = Window()
        self._samples: Path | None = None  # the picture of the newest validation

    # ── one line ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def say(self, text: str) -> None:
        """Add a line to train.log; print it too, unless the terminal shows the run in another way."""
        self.run.say(text, echo=not self.callbacks.take_terminal)

    def log(self, step: int, line: Mapping[str, Any]) -> None:
        """Add a line to metrics.jsonl."""
        self.run.log(step, line)

    # ── beginning and going on ───────────────────────────────────────────────────────────────────────────────────────

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that a resumed run records what a whole one does."""
        return {
            "network": {"prefix": self._headline_name(), "info": self.network},
            "seconds": self.seconds,
            "skipped": self._all_skipped_images(),
            "skipped_steps": self._skipped_steps,
            "skipped_in_a_row": self._skipped_in_a_row,
            "window": self._window.state(),
            "targets": self.method.tally.state(),
        }

    def restore(self, step: int, state: Mapping[str, Any], device: torch.device) -> None:
        """Undo `state`, and drop what was logged after `step`. An empty state is one of a run that begins."""
        if state:
            self.seconds = state["seconds"]
            self._skipped_images = state.get("skipped", {})  # earlier checkpoints lack these
            self._skipped_steps = state.get("skipped_steps", [])
            self._skipped_in_a_row = state.get("skipped_in_a_row", 0)
            self._window.restore(state.get("window", {}), device)
            if targets := state.get("targets"):
                self.method.tally.restore(targets)
        on_first(lambda: self.run.truncate_metrics(step))
        self.validation.replay(self.run.metrics(), next(iter(self.method.predictors())))

    def begin(self, start: int) -> None:
        """Take the step that this process begins at."""
        self._start = start
        self.callbacks.start(start, self.schedule.steps, self.run.metrics())

    # ── a step ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def note_broken(self, batch: Batch) -> None:
        """Give the reason for each broken image once: at once or, of several processes, at the next log line."""
        for sample_id, reason in batch.skipped.items():
            if sample_id not in self._skipped_images:
                self._skipped_images[sample_id] = reason
                self._unsaid.append(reason)
        if num_ranks() == 1:
            self._say_broken()

    def _say_broken(self) -> None:
        """Name the images that any process has found broken since it was last asked."""
        for reason in dict.fromkeys(reason for reasons in gather_over_ranks(self._unsaid) for reason in reasons):
            self.callbacks.warn(f"skipped: {reason}")
        self._unsaid.clear()

    def note_parts(self, parts: int, reason: str) -> None:
        """Note that memory has run out, and into how many micro-batches a batch is cut from now on."""
        self.callbacks.warn(f"out of memory ({reason}): from now on a batch is split into {parts} parts")
        self.run.write_micro_batches(parts * num_ranks())

    def note_step(self, step: int, batch: Batch, outcome: Outcome, seconds: float, lr: float) -> None:
        """Take what a step was, without waiting for it; log if it is time to. Raises RunError, see `wait`.

        seconds: that the host spent on it. lr: the learning rate of the first group.
        """
        self.seconds += seconds
        self._watched.append(_Watched(step, _ids(batch), outcome))
        images = len(batch.labeled.image) + (len(batch.unlabeled.weak) if batch.unlabeled else 0)
        self._window.add(outcome, images, seconds)
        if step - 1 in (self._start, *self.method.part_starts):
            self._paced = step, self.seconds  # the first of its kind sets things up, and is no measure
        line: dict[str, Any] = {}
        if step % self.config.log_every == 0 or step == self.schedule.steps:
            line = self._log_steps(step, lr)
        elif step == self._start + FIRST_ESTIMATE:
            self.wait()
            self.say(f"step {step}/{self.schedule.steps}  about {self._left(step)}")
        left = self._seconds_left(step) if step >= self._start + FIRST_ESTIMATE else None
        self.callbacks.stepped(Stepped(step, self.schedule.steps, lr, self.seconds, left, line))

    def wait(self) -> None:
        """Wait for the steps taken, and name those that were not finite. Raises RunError if they are too many."""
        watched, self._watched = self._watched, []
        if not watched:
            return
        started = time.perf_counter()
        flags = torch.stack([one.outcome.skipped for one in watched]).tolist()
        self._window.seconds += (waited := time.perf_counter() - started)  # for a GPU, most of the steps' time
        self.seconds += waited
        for one, skipped in zip(watched, flags, strict=True):
            if not skipped:
                self._skipped_in_a_row = 0
                continue
            self._skipped_in_a_row += 1
            self._skipped_steps.append(one.step)
            text = f"step {one.step} is not finite ({_terms(one.outcome)}) and was skipped; its images: "
            text += ", ".join(i for ids in gather_over_ranks(one.ids) for i in ids)
            if self._skipped_in_a_row > self.config.max_skipped_steps:
                raise RunError(f"{text}. {self._skipped_in_a_row} such steps in a row: look at these images, "
                               "or lower optim.lr")  # fmt: skip
            self.callbacks.warn(text)

    def _log_steps(self, step: int, lr: float) -> dict[str, Any]:
        """Write a line on the steps since the last one, and return it."""
        self.wait()
        if num_ranks() > 1:
            self._say_broken()
        means = self._window.means()
        speed = num_ranks() * self._window.images / self._window.seconds
        self._window = Window()
        stats = {name: _mean_over_ranks(value) for name, value in self.method.stats().items()}
        targets = self.method.tally.take()
        drift = {f"drift/{name}": value for name, value in (targets._asdict() if targets else {}).items()}
        line = {**means, "lr": lr, "seconds": self.seconds, "images_per_second": speed, **stats, **drift}
        self.log(step, line)
        self.say(f"step {step}/{self.schedule.steps}  loss {means['loss']:.4f}  {speed:.1f} img/s  lr {lr:.2e}  "
                 f"{self._left(step)}")  # fmt: skip
        for warning in self.validation.guards.look(step, targets.shares) if targets else ():
            self.callbacks.warn(warning)
        return line

    def _seconds_left(self, step: int) -> float:
        """Return how long it takes to the last step, at the pace of this part of the run."""
        first, then = self._paced
        pace = (self.seconds - then) / (step - first) if step > first else self.seconds / step
        return (self.schedule.steps - step) * pace

    def _left(self, step: int) -> str:
        """Say how much time is left."""
        starts = self.method.part_starts
        part = sum(start < step for start in starts)
        of_part = f" at the pace of part {part} of {len(starts)}" if part < len(starts) else ""
        most = " at most" if self.validation.stop_after else ""
        return f"{self._seconds_left(step) / 60:.1f} min left{most}{of_part}"

    # ── a validation ─────────────────────────────────────────────────────────────────────────────────────────────────

    def evaluate(self, step: int) -> tuple[Evaluation, dict[str, float]]:
        """Score the method and show it; nothing is written but pictures. Raises DataError."""
        with whole_weights(self.method):
            evaluation, line = self.validation.evaluate(self.method, self.callbacks.watch)
            if (show := self.on_validation) and step < self.schedule.steps:
                self._samples = on_first(lambda: show(evaluation))
        return evaluation, line

    def note_validation(self, step: int, evaluation: Evaluation, line: Mapping[str, float]) -> None:
        """Take what `evaluate` has returned: keep the weights if they are the best so far, and log the figures."""
        self.validation.newest = evaluation
        if step in self.validation.scores:  # a finished run, fitted once more: everything is written already
            return
        if best := self.validation.is_best(evaluation):
            self._save_weights("best")
        self.validation.take(step, evaluation)
        found = self.validation.without_gain() if self.validation.stop_after else None
        line = {**line, **({"val/without_gain": found[1]} if found else {})}
        self.log(step, line)  # says that the weights are there
        headline = evaluation.results[evaluation.headline]
        self.run.say(f"step {step}: {evaluation.headline} mIoU {headline.miou:.4f}  tail mIoU {headline.tail_miou:.4f}")
        samples, self._samples = self._samples, None
        self.callbacks.validated(Validated(step, self.schedule.steps, evaluation.results, bool(best), line, samples))

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def note_early_stop(self, step: int) -> None:
        """Say so if the run has ended before its last step."""
        if (early := self.validation.early_stop(step)) is not None:
            self.run.say(f"stopped early at step {early['step']}/{self.schedule.steps}: {early['stop_after']} "
                         f"validations without a better mIoU than that of step {early['best_step']}")  # fmt: skip

    def finish(self, step: int) -> dict[str, Any]:
        """Write the last weights and results.json of a run that has ended at `step`; return what it holds."""
        self._save_weights("last")
        stop = self.validation.early_stop(step)
        results = {
            **self.validation.figures(next(iter(self.method.predictors()))),
            "step": step,
            "steps": self.schedule.steps,
            "seconds": self.seconds,
            "seed": self.config.seed,
            "skipped_steps": self._skipped_steps,
            "best": self.validation.best(),
            "early_stop": stop,
            **self.validation.guards.results(),
            **self.about,
        }
        if stop is not None:
            asked = f"train.stop_after={stop['stop_after']}"
            said = f"the run's length was chosen on the val images that score it ({asked})"
            results["caution"] = "; ".join(filter(None, [results.get("caution"), said]))
        images = self._all_skipped_images()
        named = dict(list(images.items())[:NAMED_SKIPPED])
        results["data"] = {**results.get("data", {}), "skipped": {"count": len(images), "images": named}}
        on_first(lambda: self.run.write_results(results))
        return self.run.results()

    def _save_weights(self, name: str) -> None:
        """Write the headline's weights."""
        headline = next(iter(self.method.predictors().values()))
        state = gather_whole(headline.state_dict())
        on_first(lambda: self.save_weights(self.run.weights / f"{name}.safetensors", headline, state))

    def _headline_name(self) -> str:
        """Where the headline's network stands in the method: its tensors in a state begin with this."""
        headline = next(iter(self.method.predictors().values()))
        found: str = next(name for name, module in self.method.named_modules() if module is headline)
        return found

    def _all_skipped_images(self) -> dict[str, str]:
        """Images that could not be read, of all processes: id → reason."""
        return {i: reason for skipped in gather_over_ranks(self._skipped_images) for i, reason in skipped.items()}


def _ids(batch: Batch) -> list[str]:
    return [*batch.labeled.ids, *(batch.unlabeled.ids if batch.unlabeled else ())]


def _terms(outcome: Outcome) -> str:
    terms = {**outcome.terms, "gradient norm": outcome.norm}
    return ", ".join(f"{name} {float(term):g}" for name, term in terms.items())


def _mean_over_ranks(value: float | Tensor) -> Any:
    if not isinstance(value, Tensor):
        return value
    (total,) = sum_over_ranks(value.float())
    return (total / num_ranks()).tolist()


class _Watched(NamedTuple):
    """A step that the host has not waited for yet."""

    step: int
    ids: list[str]
    outcome: Outcome
