"""Callbacks: code that is told what a training does. The terminal's view, the loggers and users' own are all of this.

They are called in the process that speaks for all (rank 0), on the thread that trains: what they do takes its time.
docs/watching.md is the user's page about them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from des4.metrics import Results
from des4.types import CallbackError

Status = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True)
class Started:
    """A training is about to take its first step, or goes on.

    run: its folder. config: its settings, as `config.yaml` has them. classes, tail: names of all classes, and of the
    rare ones. step: steps taken so far, by an earlier process. steps: of the whole run.
    history: the lines of metrics.jsonl so far.
    """

    run: Path
    config: Mapping[str, Any]
    classes: tuple[str, ...]
    tail: tuple[str, ...]
    step: int
    steps: int
    history: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Stepped:
    """An optimiser step was taken.

    step: its number, from 1. steps: of the whole run. lr: the learning rate of encoders. seconds: of training so far.
    seconds_left: at the pace of this part of the run; None before there is a pace.
    metrics: after each `train.log_every` steps and at the end what metrics.jsonl keeps: `loss` and each of its terms as
    means since the last such line, `images_per_second`, …; empty at other steps, whose losses nobody has waited for.
    """

    step: int
    steps: int
    lr: float
    seconds: float
    seconds_left: float | None
    metrics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Validated:
    """The method was scored on the validation images.

    models: results of each model, the headline first, whose figures are those of the run: `miou`, `tail_miou` and
    `iou`, by class, in [0, 1], NaN where there is nothing to score. best: whether `best.safetensors` is now this state.
    metrics: what metrics.jsonl keeps of it. samples: the picture that shows samples; None after the last step, where
    `Ended` has it.
    """

    step: int
    steps: int
    models: Mapping[str, Results]
    best: bool
    metrics: Mapping[str, Any]
    samples: Path | None

    @property
    def headline(self) -> Results:
        """Results of the model that the run is judged by."""
        return next(iter(self.models.values()))


@dataclass(frozen=True)
class Ended:
    """The training is over, and all its files are written.

    status: `finished`, `stopped` (by a signal, or by an error in a callback; it may be resumed) or `failed`.
    step: the last one taken. results: what results.json holds, if it finished. samples: the picture that shows samples,
    if it finished. reason: why it did not.
    """

    status: Status
    step: int
    results: Mapping[str, Any] | None = None
    samples: Path | None = None
    reason: str = ""


class Callback:
    """What is told of a training. Override what you need; nothing has to be returned.

    An error in it stops the run, which is saved first; if `optional`, it is a warning, and the rest of the run goes
    on without this callback.
    """

    optional = False
    takes_terminal = False
    """Whether it shows itself what the run says, so that lines of progress are not printed."""
    _callbacks: Callbacks

    def on_start(self, started: Started) -> None:
        """Take the facts of a run before its first step here."""

    def on_step(self, step: Stepped) -> None:
        """Take each optimiser step, once it has been asked for; a GPU may still be at it."""

    def on_scored(self, done: int, total: int) -> None:
        """Take each image of a validation that is going on: how many are done, and of how many."""

    def on_validation(self, validation: Validated) -> None:
        """Take each validation, after its line is written and the weights are kept if they are the best."""

    def on_warning(self, text: str) -> None:
        """Take what the run warns of, which stands in train.log already."""

    def on_end(self, end: Ended) -> None:
        """Take the end of the run, whatever it was; called once, if `on_start` was."""

    def say(self, text: str) -> None:
        """Add a line to train.log, and print it."""
        self._callbacks.say(text)

    def warn(self, text: str) -> None:
        """Add a warning to train.log, print it, and let all callbacks know."""
        self._callbacks.warn(text)


class Callbacks:
    """The callbacks of one run, as the engine sees them: told of everything, in their order.

    callbacks: none in processes that do not speak for all. run, config, classes, tail: see `Started`.
    say: writes a line to train.log, and prints it if the second argument says so.
    """

    def __init__(
        self,
        callbacks: Sequence[Callback] = (),
        run: Path = Path(),
        config: Mapping[str, Any] | None = None,
        classes: Sequence[str] = (),
        tail: Sequence[str] = (),
        say: Callable[[str, bool], None] = lambda text, echo: None,
    ) -> None:
        self._callbacks = list(callbacks)
        self._run, self._config = run, config or {}
        self._classes, self._tail = tuple(classes), tuple(tail)
        self._say = say
        self._step = 0
        self._started = False
        self.error: CallbackError | None = None
        """The first error in a callback that is not optional; the run is to save and stop."""
        for callback in self._callbacks:
            callback._callbacks = self

    @property
    def take_terminal(self) -> bool:
        """Whether one of them shows what the run says; else its lines are to be printed."""
        return any(callback.takes_terminal for callback in self._callbacks)

    def start(self, step: int, steps: int, history: Sequence[Mapping[str, Any]]) -> None:
        """Tell that a run begins, or goes on, after `step`."""
        self._step, self._started = step, True
        started = Started(self._run, self._config, self._classes, self._tail, step, steps, history)
        self._all("on_start", started)

    def stepped(self, step: Stepped) -> None:
        """Tell of a step."""
        self._step = step.step
        self._all("on_step", step)

    def validated(self, validation: Validated) -> None:
        """Tell of a validation."""
        self._all("on_validation", validation)

    def watch(self, ids: Iterable[str]) -> Iterator[str]:
        """Walk over the images of a validation, and tell of each."""
        ids = list(ids)
        for done, sample_id in enumerate(ids, 1):
            yield sample_id
            self._all("on_scored", done, len(ids))

    def say(self, text: str) -> None:
        """Say something, on the terminal too."""
        self._say(text, True)

    def warn(self, text: str) -> None:
        """Say a warning, and tell of it."""
        self._say(text, not self.take_terminal)
        self._all("on_warning", text)

    def end(self, status: Status, reason: str = "", results: Any = None, samples: Path | None = None) -> None:
        """Tell that the run is over, if it has begun."""
        if self._started:
            self._started = False
            self._all("on_end", Ended(status, self._step, results, samples, reason))

    def _all(self, name: str, *arguments: Any) -> None:
        for callback in list(self._callbacks):
            try:
                getattr(callback, name)(*arguments)
            except Exception as error:
                self._callbacks.remove(callback)  # what has failed once is not asked again
                text = f"{type(callback).__name__}.{name} raised {type(error).__name__}: {_one_line(error)}"
                if callback.optional:
                    self.warn(f"warning: {text}; the run goes on without it")
                elif self.error is None:
                    self.error = CallbackError(f"callback {text}")
                    self.error.__cause__ = error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or "no message"
