"""Signals that ask a training to save and stop."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from des4.engine.distributed import agree
from des4.types import STOP_SIGNALS


class Interrupted(BaseException):  # nothing went wrong
    """A signal ended the training; its state is saved. code: the exit code, 128 + the signal's number.

    As KeyboardInterrupt it is no Exception: it rises wherever the program stands, and nothing may take it for a file
    that cannot be read, or for a callback that failed.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def _handled(handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Let a function handle the STOP_SIGNALS; return what did before."""
    if threading.current_thread() is not threading.main_thread():  # Python allows handlers nowhere else
        return {}
    outlived = {getattr(signal, "SIGHUP", None)}  # `nohup` has it ignored, and that is to stay
    return {
        number: signal.signal(number, handler)
        for number in STOP_SIGNALS
        if number not in outlived or signal.getsignal(number) != signal.SIG_IGN
    }


def _give_back(before: Mapping[int, Any]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)


@contextmanager
def interrupted_by_signals(message: str) -> Iterator[None]:
    """Inside, each of the STOP_SIGNALS raises Interrupted, with this message, where the program stands."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted(message, 128 + number)

    before = _handled(stop)
    try:
        yield
    finally:
        _give_back(before)


class StopSignals:
    """Turns the STOP_SIGNALS into a request to stop; another one, seconds later, acts as it would without us.

    Not at once: a launcher such as `timeout` passes on what the whole process group has already received.
    run: how the message names the training.
    """

    def __init__(self, run: object) -> None:
        self._run = run
        self._code = 0
        self._since = 0.0
        self._at_once: int | None = None  # the step whose checkpoint is written, where a signal may act at once
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        self._before = _handled(self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        _give_back(self._before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._code and time.monotonic() - self._since > 2:
            self.__exit__()
            signal.raise_signal(number)
        elif not self._code:
            self._code, self._since = 128 + number, time.monotonic()
        if self._at_once is not None:
            step, self._at_once = self._at_once, None
            self._stop(step, self._code)

    @contextmanager
    def at_once(self, step: int) -> Iterator[None]:
        """Inside, a signal raises Interrupted where the program stands. The checkpoint of `step` has been written."""
        self._at_once = step
        if self._code:
            self._stop(step, self._code)
        yield
        self._at_once = None

    def asked(self, code: int = 0) -> int:
        """Return the exit code to stop with, 0 to go on; the same on all processes, whichever of them was asked.

        code: of another reason to stop, which this process alone may know.
        """
        return agree(max(self._code, code))

    def _stop(self, step: int, code: int) -> None:
        raise Interrupted(f"stopped after step {step}; continue with: des4 train --resume {self._run}", code)

    def stop(self, step: int, code: int) -> None:
        """Raise Interrupted if `code` is not 0. The checkpoint of `step` has been written."""
        if code:
            self._stop(step, code)
