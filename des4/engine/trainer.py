"""The training loop. It knows no method, no data set and no network: it receives built objects."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text
from torch import Tensor, nn
from torch.optim import Optimizer

from des4.engine.checkpoint import Checkpoints, optimiser_state, restore_optimiser
from des4.engine.distributed import on_first
from des4.engine.evaluator import Evaluation, Evaluator
from des4.engine.guards import Guards, quality_figures
from des4.engine.inside import Inside
from des4.engine.optim import PolySchedule
from des4.engine.process import deterministic_kernels, prepare_process
from des4.engine.settings import TrainConfig, choose_precision
from des4.engine.sharding import gather_whole, moments_in_shards, own_moments, spread, whole_weights
from des4.engine.signals import StopSignals
from des4.engine.step import Outcome, TrainStep
from des4.metrics import Results
from des4.ops.reduce import gather_over_ranks, num_ranks, sum_over_ranks, this_rank
from des4.runlog import RunFolder
from des4.types import Batch, RunError

if TYPE_CHECKING:
    from des4.methods.base import Method


FIRST_ESTIMATE = 5
"""Steps after which the time that is left is told for the first time."""
NAMED_SKIPPED = 100
"""Broken images that results.json names, with the reasons; train.log has them all."""


class BatchSource(Protocol):
    """What the trainer needs of a loader: this process's batches from step `start` on, without end."""

    def batches(self, start: int, device: torch.device) -> Iterator[Batch]:
        """Yield one batch a step on `device`; that of a step is always the same."""


class Trainer:
    """Trains a method to the last step of its schedule; continues from the newest checkpoint if there is one.

    method: on `device`. loader: yields this process's batch of each step.
    run: an open run folder; of several processes only the first writes into it. clip: largest gradient norm; null =
    no clipping. parts: that a batch is split into, more if memory has run out before.
    evaluator: None = no evaluation; results.json then holds no figure and there is no best.safetensors.
    save_weights: writes one of the method's predictors to a file, given its state.
    about: what results.json says of the run besides its figures: method, data, pixel_share, tail_classes, caution.
    network: what a checkpoint says of the headline's network, so that it can be built without the training.
    guards: what is watched beside the evaluations; None = nothing.
    on_validation: shows an evaluation before the last one; it leaves the method as it is.
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
        save_weights: Callable[[Path, nn.Module, Mapping[str, Tensor]], None],
        evaluator: Evaluator | None = None,
        clip: float | None = None,
        parts: int = 1,
        about: Mapping[str, Any] | None = None,
        network: Mapping[str, Any] | None = None,
        guards: Guards | None = None,
        on_validation: Callable[[Evaluation], None] | None = None,
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
        self.clip, self.parts = clip, parts
        self.about = dict(about or {})
        self.network = dict(network or {})
        self.guards = guards or Guards()
        self.inside = Inside(method)
        self.on_validation = on_validation
        self.checkpoints = Checkpoints(run.checkpoints)
        self.step, self.seconds = 0, 0.0  # of the whole run
        self._paced = 0, 0.0  # step and seconds from which the pace is taken
        self._watched: list[_Watched] = []  # steps since the host last waited for the device
        self._skipped_steps: list[int] = []
        self._skipped_in_a_row = 0
        self._validated: dict[int, float] = {}  # step → the headline's mIoU there
        self._skipped_images: dict[str, str] = {}  # that could not be read, in the order met: id → reason
        self.evaluation: Evaluation | None = None  # the newest one
        self._window = _Window()
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        )

    def fit(self) -> dict[str, Any]:
        """Train, evaluate, write weights and results.json; return the results.

        Raises RunError when too many steps in a row are not finite, or memory runs out; Interrupted on a signal of
        STOP_SIGNALS, with a checkpoint of the last full step written.
        """
        prepare_process()
        take_step = self._make_step()
        steps, start = self.schedule.steps, self._restore(take_step)
        self.step = start
        self.method.train()
        self._progress.disable = this_rank() > 0 or not self._progress.console.is_terminal
        kernels = deterministic_kernels(self.device, self.config.deterministic)
        with kernels, self._progress, StopSignals(self.run.path) as signals:
            bar = self._progress.add_task("training", total=steps, completed=start)
            if self._evaluation_due(start):  # the run was stopped in the evaluation of its last step
                self._evaluate(start, signals)
            batches = self.loader.batches(start, self.device)
            for step in range(start + 1, steps + 1):
                if self._stands_still():
                    break
                evaluate = self._evaluation_due(step)
                self.inside.watch(evaluate)
                self._train(step, batches, take_step)
                self.step = step
                if step - 1 in (start, *self.schedule.restarts):
                    self._paced = step, self.seconds  # the first of its kind sets things up, and is no measure
                if step % self.config.log_every == 0 or step == steps:
                    self._log(step, bar)
                elif step == start + FIRST_ESTIMATE:
                    self._look_at_steps()
                    self.run.say(f"step {step}/{steps}  about {self._left(step)}", echo=self._progress.disable)
                self._progress.advance(bar)
                if evaluate and (seen := self.inside.line()):
                    self.run.log(step, seen)
                stop = signals.asked()
                if evaluate or step % self.config.checkpoint_every == 0 or step == steps or stop:
                    self._checkpoint(step, take_step)
                signals.stop(step, stop)
                if evaluate:
                    self._evaluate(step, signals)
            if self.evaluator and self.evaluation is None:  # a finished run, fitted once more
                self._evaluate(self.step, signals)
            if (early := self._early_stop()) is not None:
                self.run.say(f"stopped early at step {early['step']}/{steps}: {early['stop_after']} validations "
                             f"without a better mIoU than that of step {early['best_step']}")  # fmt: skip
        return self._finish()

    def _make_step(self) -> TrainStep:
        def on_smaller(parts: int, reason: str) -> None:
            self.run.say(f"out of memory ({reason}): from now on a batch is split into {parts} parts")
            self.run.write_parts(parts)

        return TrainStep(
            self.method,
            self.optimiser,
            self.device,
            precision=choose_precision(self.config.precision, self.device),
            clip=self.clip,
            parts=max(self.parts, self.run.parts()),
            sync_norm=self.config.sync_norm,
            on_smaller=on_smaller,
        )

    def _train(self, step: int, batches: Iterator[Batch], take_step: TrainStep) -> None:
        started = time.perf_counter()
        self.schedule.apply(self.optimiser, step - 1)
        batch = next(batches)
        self._note_skipped(batch)
        # Dropout draws from the global generator: a function of these, it is the same in a resumed run.
        torch.manual_seed(random.Random(f"{self.config.seed}/{step}/{this_rank()}").getrandbits(63))
        outcome = take_step(batch)
        self._watched.append(_Watched(step, _ids(batch), outcome))
        elapsed = time.perf_counter() - started
        self.seconds += elapsed
        images = len(batch.labelled.image) + (len(batch.unlabelled.weak) if batch.unlabelled else 0)
        self._window.add(outcome, images, elapsed)

    def _look_at_steps(self) -> None:
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
            self.run.say(text, echo=self._progress.disable)

    def _note_skipped(self, batch: Batch) -> None:
        """Give the reason for each broken image once."""
        for sample_id, reason in batch.skipped.items():
            if sample_id not in self._skipped_images:
                self._skipped_images[sample_id] = reason
                self.run.say(f"skipped: {reason}", echo=self._progress.disable)

    def _log(self, step: int, bar: Any) -> None:
        self._look_at_steps()
        means = self._window.means()
        speed = num_ranks() * self._window.images / self._window.seconds
        self._window = _Window()
        lr = self.optimiser.param_groups[0]["lr"]
        stats = {name: _mean_over_ranks(value) for name, value in self.method.stats().items()}
        targets = self.method.tally.take()
        drift = {f"drift/{name}": value for name, value in (targets._asdict() if targets else {}).items()}
        line = {**means, "lr": lr, "seconds": self.seconds, "images_per_second": speed, **stats, **drift}
        self.run.log(step, line)
        text = f"loss {means['loss']:.4f}  {speed:.1f} img/s"
        self._progress.update(bar, description=text)
        self.run.say(
            f"step {step}/{self.schedule.steps}  {text}  lr {lr:.2e}  {self._left(step)}",
            echo=self._progress.disable,
        )
        for warning in self.guards.look(step, targets.shares) if targets else ():
            self.run.say(warning, echo=self._progress.disable)
            if not self._progress.disable:  # above the bar
                self._progress.console.print(Text(warning, style="yellow"))

    def _left(self, step: int) -> str:
        """Say how much time is left, at the pace of this part of the run."""
        first, then = self._paced
        pace = (self.seconds - then) / (step - first) if step > first else self.seconds / step
        starts = (0, *(start for start in self.schedule.restarts if start))
        part = sum(start < step for start in starts)
        of_part = f" at the pace of part {part} of {len(starts)}" if part < len(starts) else ""
        most = " at most" if self.config.stop_after else ""
        return f"{(self.schedule.steps - step) * pace / 60:.1f} min left{most}{of_part}"

    def _without_gain(self) -> tuple[int, int] | None:
        """Return the best validation of the last part of the run, by its step, and how many have come after it."""
        last = max(self.schedule.restarts, default=0)
        steps = sorted(step for step in self._validated if step > last)
        if not steps:
            return None
        best = max(steps, key=self._validated.__getitem__)  # the first of equal ones
        return best, len(steps) - 1 - steps.index(best)

    def _stands_still(self) -> bool:
        """Whether the config asks for a stop here. It rests on the validations alone, so a resumed run stops alike."""
        found = self._without_gain() if self.config.stop_after else None
        return found is not None and found[1] >= (self.config.stop_after or 0)

    def _early_stop(self) -> dict[str, Any] | None:
        """Return what results.json says of a run that stopped before its last step; None of one that went there."""
        found = self._without_gain()
        if found is None or self.step == self.schedule.steps:
            return None
        return {"step": self.step, "stop_after": self.config.stop_after, "best_step": found[0], "chosen_on": "val"}

    def _evaluation_due(self, step: int) -> bool:
        every = self.config.eval_every
        due = step == self.schedule.steps or bool(every and step and step % every == 0)
        return self.evaluator is not None and due and step not in self._validated

    def _evaluate(self, step: int, signals: StopSignals) -> None:
        assert self.evaluator  # noqa: S101  # callers asked `_evaluation_due`
        # At once: the checkpoint of this step is written, so nothing can be lost.
        with signals.at_once(step), whole_weights(self.method):
            predictors, threshold = self.method.predictors(), self.method.threshold
            evaluation = self.evaluator(predictors, threshold, self._watch)
            watched = self.guards.evaluate(predictors, threshold, self._watch)
            if (show := self.on_validation) and step < self.schedule.steps:
                on_first(lambda: show(evaluation))
        self.evaluation = evaluation
        headline = evaluation.results[evaluation.headline]
        if step in self._validated:  # a finished run, fitted once more: everything is written already
            return
        if not any(_or_lowest(headline.miou) <= past for past in self._validated.values()):
            self._save_weights("best")
        self._validated[step] = _or_lowest(headline.miou)
        line = validation_line(evaluation) | watched
        if self.config.stop_after and (found := self._without_gain()):
            line["val/without_gain"] = found[1]
        self.run.log(step, line)  # after the weights: a line says that they are there
        self.run.say(f"step {step}: {evaluation.headline} mIoU {headline.miou:.4f}  tail mIoU {headline.tail_miou:.4f}")

    def _watch(self, ids: Iterable[str]) -> Iterator[str]:
        """Walk over the ids under a progress bar of their own, which goes with the last."""
        ids = list(ids)
        bar = self._progress.add_task("validation", total=len(ids))
        for sample_id in ids:
            yield sample_id
            self._progress.advance(bar)
        self._progress.remove_task(bar)

    def _checkpoint(self, step: int, take_step: TrainStep) -> None:
        self._look_at_steps()
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
            "network": {"prefix": self._headline_name(), "info": self.network},
            "seconds": self.seconds,
            "skipped": self._all_skipped_images(),
            "skipped_steps": self._skipped_steps,
            "skipped_in_a_row": self._skipped_in_a_row,
            "window": self._window.state(),
            "targets": self.method.tally.state(),
            "loss_scale": take_step.scaler.state_dict(),
        }
        on_first(lambda: self.checkpoints.save(step, tensors, meta))

    def _restore(self, take_step: TrainStep) -> int:
        """Load the newest checkpoint and return its step; 0 if there is none."""
        checkpoint = self.checkpoints.load(self.run.say)
        step = checkpoint.step if checkpoint else 0
        if step > self.schedule.steps:
            raise RunError(
                f"{self.run.path} is at step {step}, beyond its {self.schedule.steps} steps; raise train.steps"
            )
        if checkpoint:
            parts: dict[str, dict[str, Tensor]] = {}
            for path, tensor in checkpoint.tensors.items():
                part, _, name = path.partition("/")
                parts.setdefault(part, {})[name] = tensor
            try:
                self.method.load_state_dict(spread(parts["method"], self.method.state_dict()))
            except RuntimeError as error:
                reason = " ".join(str(error).split())
                raise RunError(f"checkpoint {step} of {self.run.path} does not fit the config: {reason}") from error
            moments = own_moments(parts.get("optimiser", {}), dict(self.method.named_parameters()))
            restore_optimiser(self.optimiser, moments, checkpoint.meta["optimiser"])
            self.inside.restore(parts.get("inside", {}))
            self.seconds = checkpoint.meta["seconds"]
            self._skipped_images = checkpoint.meta.get("skipped", {})  # earlier checkpoints lack these
            self._skipped_steps = checkpoint.meta.get("skipped_steps", [])
            self._skipped_in_a_row = checkpoint.meta.get("skipped_in_a_row", 0)
            self._window.restore(checkpoint.meta.get("window", {}), self.device)
            if targets := checkpoint.meta.get("targets"):
                self.method.tally.restore(targets)
            if scale := checkpoint.meta.get("loss_scale"):
                take_step.scaler.load_state_dict(scale)
            self.run.say(f"continuing from step {step}")
        if len(set(gather_over_ranks(step))) > 1:
            raise RunError(f"not all processes see the checkpoints in {self.run.path}; put out= where all machines "
                           "read and write")  # fmt: skip
        on_first(lambda: self.checkpoints.delete_old(step))  # a kill may have come before the last save did
        on_first(lambda: self.run.truncate_metrics(step))
        key = f"val/{next(iter(self.method.predictors()))}/miou"
        rows = self.run.metrics()
        self._validated = {row["step"]: _or_lowest(row[key]) for row in rows if key in row}
        self.guards.replay(rows)
        return step

    def _finish(self) -> dict[str, Any]:
        predictors = self.method.predictors()
        headline = next(iter(predictors))
        self._save_weights("last")
        best = max(self._validated, key=self._validated.__getitem__, default=None)
        stop = self._early_stop()
        results = {
            **_figures(self.evaluation, headline),
            "step": self.step,
            "steps": self.schedule.steps,
            "seconds": self.seconds,
            "seed": self.config.seed,
            "skipped_steps": self._skipped_steps,
            "best": None if best is None else {"step": best, "miou": self._validated[best], "chosen_on": "val"},
            "early_stop": stop,
            **self.guards.results(),
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
    return {
        **_summary(evaluation.results[headline]),
        "evaluated": headline,
        "models": {
            name: {**_summary(results), "confusion": results.confusion.tolist()}
            for name, results in evaluation.results.items()
        },
        "pseudo_labels": quality_figures(evaluation),
    }


def _summary(results: Results) -> dict[str, Any]:
    return {"miou": results.miou, "tail_miou": results.tail_miou, "pixel_accuracy": results.pixel_accuracy,
            "iou": results.iou}  # fmt: skip


def _ids(batch: Batch) -> list[str]:
    return [*batch.labelled.ids, *(batch.unlabelled.ids if batch.unlabelled else ())]


def _terms(outcome: Outcome) -> str:
    terms = {**outcome.terms, "gradient norm": outcome.norm}
    return ", ".join(f"{name} {float(term):g}" for name, term in terms.items())


def _or_lowest(miou: float | None) -> float:
    """Return a mIoU for comparisons: one that is undefined is worse than any other."""
    return -1.0 if miou is None or math.isnan(miou) else miou


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


class _Window:
    """Means of the loss terms since the last log line, over finite steps; they stay on the device until asked for."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.images = 0
        self.seconds = 0.0

    def add(self, outcome: Outcome, images: int, seconds: float) -> None:
        loss = torch.stack(list(outcome.terms.values())).sum()
        values = {"loss": loss, **{f"loss/{name}": term for name, term in outcome.terms.items()}}
        values = {name: torch.where(outcome.skipped > 0, 0, value) for name, value in values.items()}
        values["steps"] = 1 - outcome.skipped
        zero = torch.zeros_like(loss)  # a method that learns in two parts has other terms in the second
        self.sums = {
            name: self.sums.get(name, zero) + values.get(name, zero) for name in dict.fromkeys([*self.sums, *values])
        }
        self.images += images
        self.seconds += seconds

    def means(self) -> dict[str, float]:
        """Over steps and processes; NaN if no step was finite."""
        means = self._over_ranks()
        steps = means.pop("steps")
        return {name: value / steps if steps else math.nan for name, value in means.items()}

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that a resumed run logs the same means."""
        return {"sums": self._over_ranks(), "images": self.images, "seconds": self.seconds}

    def restore(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Undo `state`."""
        self.sums = {name: torch.tensor(value, device=device) for name, value in state.get("sums", {}).items()}
        self.images, self.seconds = state.get("images", 0), state.get("seconds", 0.0)

    def _over_ranks(self) -> dict[str, float]:
        """The sums, as the mean over processes."""
        if not self.sums:
            return {}
        (sums,) = sum_over_ranks(torch.stack(list(self.sums.values())))
        return dict(zip(self.sums, (sums / num_ranks()).tolist(), strict=True))
