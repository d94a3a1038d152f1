"""The progress of a long task in bytes. This package prints no bars: the caller shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Bar(Protocol):
    """Shows how far one task is, in bytes."""

    def expect(self, total: int) -> None:
        """Learn how much there is in all."""

    def advance(self, count: int) -> None:
        """Learn that so much more is done; less than nothing where a part has to be done again."""


Meter = Callable[[str, int | None], AbstractContextManager[Bar]]
"""Called with the name of a task and its total, if known; the context lasts as long as the task."""


class _NoBar:
    def expect(self, total: int) -> None:
        pass

    def advance(self, count: int) -> None:
        pass


NO_BAR: Bar = _NoBar()


@contextmanager
def silent(_task: str, _total: int | None) -> Iterator[Bar]:
    """Show no progress: the Meter of who does not want one."""
    yield NO_BAR
