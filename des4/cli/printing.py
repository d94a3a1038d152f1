"""What verbs print: tables of scores, lines in colour, bars."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    track,
)
from rich.table import Column, Table
from rich.text import Text


def complain(text: str, colour: str) -> None:
    """Print a line in colour on standard error."""
    Console(stderr=True, soft_wrap=True).print(Text(text, style=colour))


def show_warnings() -> Console:
    """From here on show warnings as a line of text; return the console that they go to."""
    console = Console(stderr=True, soft_wrap=True)
    warnings.showwarning = lambda message, *place: console.print(Text(str(message), style="yellow"))
    return console


def teller(console: Console) -> Callable[[str], None]:
    """Return what prints a note."""
    return lambda note: console.print(Text(note, style="yellow"))


def show_notes(console: Console, notes: Iterable[str], skipped: Iterable[str]) -> None:
    """Print what is to be known of the images, and why some were left out."""
    for note in notes:
        teller(console)(note)
    for reason in skipped:
        console.print(Text(f"skipped: {reason}", style="red"))


@contextmanager
def bar(what: str, console: Console) -> Iterator[tuple[Callable[[int], None], Callable[[float], None]]]:
    """Yield what takes the number of images, and the part of one that has been done; on a terminal, show a bar.

    What is printed on the console meanwhile stands above it.
    """
    columns = (TextColumn(what), BarColumn(), TaskProgressColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as shown:
        task = shown.add_task(what, total=None)
        yield (
            lambda images: shown.update(task, total=images),
            lambda share: shown.update(task, advance=share),
        )


def progress(what: str) -> Callable[[Sequence[str]], Iterable[str]]:
    """Return a function that walks over a sequence and shows a bar, on a terminal."""
    console = Console(stderr=True)
    return lambda items: track(items, what, console=console, disable=not console.is_terminal)


def print_scores(runs: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the figures of results.json: IoU by class, the tail marked, and the means; a column for each run."""
    table = Table("class", *(Column(name, justify="right") for name in runs), header_style="bold", border_style="dim")
    first = next(iter(runs.values()))
    for name in first["iou"]:
        mark = " (tail)" if name in first["tail_classes"] else ""
        table.add_row(Text(name + mark), *(percent(results["iou"][name]) for results in runs.values()))
    table.add_section()
    for label, key in (("mIoU", "miou"), ("tail mIoU", "tail_miou"), ("pixel accuracy", "pixel_accuracy")):
        table.add_row(Text(label, style="bold"), *(percent(results[key]) for results in runs.values()))
    Console().print(table)
    for caution in dict.fromkeys(filter(None, (results.get("caution") for results in runs.values()))):
        complain(f"caution: {caution}", "yellow")


def percent(value: float | None) -> str:
    """Write a fraction as a percentage, and what is not measured as a dash."""
    return "–" if value is None or value != value else f"{100 * value:.2f}"
