"""Faults that a reader can step over. An ordinary load stops at the first; a check wants to hear of all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from des4.types import DataError


@dataclass(frozen=True)
class Fault:
    """What a reader stepped over. code: the kind, a key of `des4.data_tools.checks.findings.KINDS`."""

    code: str
    error: DataError


_collected: ContextVar[list[Fault] | None] = ContextVar("faults", default=None)


@contextmanager
def collecting() -> Iterator[list[Fault]]:
    """Inside this block, faults that can be stepped over go into the list instead of being raised."""
    faults: list[Fault] = []
    token = _collected.set(faults)
    try:
        yield faults
    finally:
        _collected.reset(token)


def is_collecting() -> bool:
    """Whether faults are being collected, so that a reader may leave undone what reads every file."""
    return _collected.get() is not None


@contextmanager
def stepping_over(code: str) -> Iterator[None]:
    """A DataError in this block ends no more than the block where faults are collected; elsewhere it is raised."""
    try:
        yield
    except DataError as error:
        faults = _collected.get()
        if faults is None:
            raise
        faults.append(Fault(code, error))
