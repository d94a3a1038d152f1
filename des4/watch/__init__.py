"""Watching a training: the view on a terminal, and what feeds TensorBoard, W&B and MLflow. All of it is callbacks."""

from __future__ import annotations

from collections.abc import Iterable

from des4.engine.callbacks import Callback
from des4.watch.feed import LoggerFeed
from des4.watch.terminal import TerminalView, live_console


def watching(log_to: Iterable[str]) -> list[Callback]:
    """Return the callbacks of a run that are not the user's: the view, if there is a terminal, and the loggers."""
    console = live_console()
    return [*([TerminalView(console)] if console else []), *(LoggerFeed(name) for name in log_to)]
