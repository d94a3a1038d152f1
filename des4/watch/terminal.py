"""The view of a training on a terminal: how far it is, what it learns, and what the last validations said.

It is drawn twice a second by a thread, from numbers that the training has at hand; nothing waits for the device. What
is printed meanwhile goes above it. Where there is no terminal, or none that can move its cursor, lines are printed
instead, by the recorder.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, Group, RenderableType, RenderResult
from rich.control import Control
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import ControlType, Segment
from rich.table import Table
from rich.text import Text

from des4.engine.callbacks import Callback, Ended, Started, Stepped, Validated

REFRESHES = 2.0
"""A second."""
BLOCKS, ASCII = "▁▂▃▄▅▆▇█", "_.-~=+*#"
"""Heights of a curve; the second where the terminal's encoding lacks the first."""
KEPT = 400
"""Values of a curve that are kept; more than any terminal is wide."""
WIDE = 100
"""Columns from which classes stand in two columns."""
ROWS_BESIDE = 9
"""Lines that the view needs beside those of the classes, with a spare one."""


def sparkline(values: Iterable[float], width: int, heights: str = BLOCKS) -> str:
    """Draw values as a curve of `width` characters at most, from its lowest to its highest one.

    More values than characters are averaged, neighbours with neighbours; one that is not finite is a space.
    """
    values = list(values)
    if len(values) > width > 0:
        edges = [round(i * len(values) / width) for i in range(width + 1)]
        values = [_mean(values[begin:end]) for begin, end in pairwise(edges)]
    known = [value for value in values if math.isfinite(value)]
    low, span = min(known, default=0.0), max(known, default=0.0) - min(known, default=0.0)
    level = (len(heights) - 1) / span if span else 0.0
    return "".join(heights[round((value - low) * level)] if math.isfinite(value) else " " for value in values[:width])


def live_console() -> Console | None:
    """Return the terminal to draw on; None where output is no terminal, or one that cannot move its cursor."""
    if not sys.stdout.isatty():
        return None
    console = Console()
    return console if console.is_interactive and not console.is_dumb_terminal else None


class _Reflowed(Live):
    """A live display that leaves nothing behind where the terminal has become narrower and has wrapped its lines."""

    def __init__(self, view: TerminalView, console: Console) -> None:
        super().__init__(view, console=console, auto_refresh=True, refresh_per_second=REFRESHES)
        self._view = view

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Go to the beginning of the last frame, wherever that is now."""
        more = self._view.wrapped(self.console.width)
        up: list[Any] = [(ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1)] * more
        return [*([Control(*up)] if up else []), *super().process_renderables(renderables)]


class TerminalView(Callback):
    """Draws a run on a terminal. console: of that terminal."""

    optional = True
    takes_terminal = True

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live = _Reflowed(self, console)
        self._frame: tuple[int, list[int]] = 0, []  # width of the terminal, and of each line of the newest frame
        self._state = ""  # what it is doing, if it is not taking steps
        self._ended = False
        self._last: Stepped | None = None
        self._line: dict[str, Any] = {}  # the newest one of metrics.jsonl on steps
        # Replaced as a whole, never changed, for another thread may be drawing them.
        self._losses: tuple[float, ...] = ()
        self._scored = 0, 0  # images of a validation that is going on
        self._curves: dict[str, tuple[float, ...]] = {}  # mIoU, tail mIoU, and IoU by class, in %
        self._validations: tuple[int, ...] = ()  # their steps
        self._warnings: list[tuple[int, str]] = []

    # ── what a training calls ────────────────────────────────────────────────────────────────────────────────────────

    def on_start(self, started: Started) -> None:
        """Take what the run has logged so far, and begin to draw."""
        self._run, self._step, self._steps = started.run, started.step, started.steps
        self._tail, self._classes = set(started.tail), started.classes
        for row in started.history:
            if "loss" in row:
                self._take_line(row)
            headline = next((key.split("/")[1] for key in row if key.startswith("val/") and key.endswith("/miou")), "")
            if headline:
                iou = {name: _number(row.get(f"val/{headline}/iou/{name}")) for name in self._classes}
                self._take_scores(row["step"], _number(row[f"val/{headline}/miou"]),
                                  _number(row.get(f"val/{headline}/tail_miou")), iou)  # fmt: skip
        self._live.start()

    def on_step(self, step: Stepped) -> None:
        """Take a step."""
        self._state, self._last, self._step = "", step, step.step
        if step.metrics:
            self._take_line(step.metrics)

    def on_scored(self, done: int, total: int) -> None:
        """Take an image of a validation."""
        self._state, self._scored = "validation", (done, total)

    def on_validation(self, validation: Validated) -> None:
        """Take the scores."""
        headline = validation.headline
        self._take_scores(validation.step, headline.miou, headline.tail_miou, headline.iou)
        self._state = "drawing samples and the report" if validation.step == self._steps else ""

    def on_warning(self, text: str) -> None:
        """Print a warning above the view, where it stays, and count it."""
        self._warnings.append((self._step, text))
        self.console.print(Text(_writable(text, self.console.encoding), style="yellow"))

    def on_end(self, end: Ended) -> None:
        """Leave a short picture of the whole run."""
        self._state, self._ended = end.status, True
        self._live.stop()

    # ── what is known ────────────────────────────────────────────────────────────────────────────────────────────────

    def _take_line(self, line: Any) -> None:
        self._line = dict(line)
        self._losses = (*self._losses, _number(line.get("loss")))[-KEPT:]

    def _take_scores(self, step: int, miou: float, tail: float, iou: dict[str, float]) -> None:
        self._validations = (*self._validations, step)[-KEPT:]
        scores = {"mIoU": miou, "tail mIoU": tail, **{f"class {name}": value for name, value in iou.items()}}
        self._curves = {name: (*self._curves.get(name, ()), 100 * value)[-KEPT:] for name, value in scores.items()}

    # ── the picture ──────────────────────────────────────────────────────────────────────────────────────────────────

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = options.max_width, options.size.height
        heights = ASCII if options.ascii_only else BLOCKS
        parts: list[RenderableType] = [self._heading(width), self._bar(options.ascii_only), self._pace(width)]
        parts += self._loss(width, heights)
        if self._curves:
            parts += self._scores(width, heights)
            if not self._ended:
                parts += self._by_class(width, max(0, height - ROWS_BESIDE), heights)
        if self._warnings:
            step, text = self._warnings[-1]
            count = f"{len(self._warnings)} warnings, the last " if len(self._warnings) > 1 else "warned "
            parts.append(_line(Text(f"{count}at step {step}: {text.removeprefix('warning: ')}", style="yellow")))
        lines = [
            [segment if segment.control else Segment(_writable(segment.text, options.encoding), segment.style)
             for segment in line]
            for line in console.render_lines(Group(*parts), options, pad=False)
        ]  # fmt: skip
        self._frame = width, [Segment.get_line_length(line) for line in lines]
        for line in lines:
            yield from line
            yield Segment.line()

    def wrapped(self, width: int) -> int:
        """Return how many more lines the newest frame takes on a terminal of `width` columns."""
        before, lengths = self._frame
        return sum(max(0, -(-length // width) - 1) for length in lengths) if width < before else 0

    def _heading(self, width: int) -> RenderableType:
        done = Text(f"step {self._step}/{self._steps}", style="bold")
        name = Text(str(self._run), style="cyan", overflow="ellipsis", no_wrap=True)
        if self._state:
            done = Text(self._state, style="bold") + Text("  ") + done
        return _between(name, done)

    def _bar(self, ascii_only: bool) -> RenderableType:
        share = self._step / self._steps if self._steps else 1.0
        table = Table.grid(expand=True, padding=(0, 1))
        table.add_column(ratio=1)
        table.add_column(justify="right", no_wrap=True)
        bar = ProgressBar(total=max(1, self._steps), completed=self._step)
        table.add_row(bar, Text(f"{100 * share:.0f} %"))
        return table

    def _pace(self, width: int) -> RenderableType:
        parts = []
        done, total = self._scored
        if self._state == "validation":
            parts.append(f"image {done}/{total}")
        if not self._ended and self._last and self._last.seconds_left is not None:
            parts.append(f"{duration(self._last.seconds_left)} left")
        if self._last:
            parts.append(f"{duration(self._last.seconds)} trained")
        if "images_per_second" in self._line:
            parts.append(f"{self._line['images_per_second']:.1f} img/s")
        lr = self._last.lr if self._last else self._line.get("lr")
        if lr is not None:
            parts.append(f"lr {lr:.2e}")
        return _fitting(parts, width)

    def _loss(self, width: int, heights: str) -> list[RenderableType]:
        if not self._losses:
            return [_line(Text("no losses yet", style="dim"))]
        curve = sparkline(self._losses, max(0, min(40, width - 20)), heights)
        first = _line(Text("loss ") + Text(f"{self._losses[-1]:.4g}", style="bold") + Text(f"  {curve}", style="green"))
        terms = [f"{key.removeprefix('loss/')} {_number(value):.3g}" for key, value in self._line.items()
                 if key.startswith("loss/")]  # fmt: skip
        return [first, _fitting(terms, width, style="dim")] if terms else [first]

    def _scores(self, width: int, heights: str) -> list[RenderableType]:
        lines: list[RenderableType] = []
        steps = self._validations
        for name in ("mIoU", "tail mIoU"):
            values = self._curves[name]
            known = {value: step for value, step in zip(values, steps, strict=True) if math.isfinite(value)}
            if not known:
                continue
            best = max(known)
            said = f"step {steps[-1]}, best {best:.1f} at step {known[best]}" if name == "mIoU" and width >= 60 else ""
            text = Text(f"{name:9} ") + Text(f"{values[-1]:5.1f}", style="bold")
            text += Text(f" {_change(values):>6}  ", style=_colour(values))
            text += Text(sparkline(values, min(40, max(0, width - 26 - len(said))), heights), style="green")
            lines.append(_line(text + Text(f"  {said}", style="dim")))
        return lines

    def _by_class(self, width: int, rows: int, heights: str) -> list[RenderableType]:
        """Show as many classes as there is room for, those with the lowest IoU first to stay, in the data's order."""
        columns = 2 if width >= WIDE and len(self._classes) > 4 else 1
        names = [name for name in self._classes if any(map(math.isfinite, self._curves[f"class {name}"]))]
        room = rows * columns
        if len(names) > room:
            room = max(0, (rows - 1) * columns)
            lowest = sorted(names, key=lambda name: _or_highest(self._curves[f"class {name}"][-1]))[:room]
            shown = [name for name in names if name in lowest]
        else:
            shown = names
        table = Table.grid(expand=columns > 1, padding=(0, 3))
        for _ in range(columns):
            table.add_column(ratio=1 if columns > 1 else None, no_wrap=True, overflow="ellipsis")
        each = (width - 3 * (columns - 1)) // columns
        cells = [self._class(name, each, heights) for name in shown]
        depth = -(-len(cells) // columns)
        for row in range(depth):
            table.add_row(*(cells[row + depth * i] if row + depth * i < len(cells) else "" for i in range(columns)))
        parts: list[RenderableType] = [table] if cells else []
        if hidden := len(names) - len(shown):
            parts.append(_line(Text(f"{hidden} classes with a higher IoU are not shown: no room", style="dim")))
        return parts

    def _class(self, name: str, width: int, heights: str) -> Text:
        values = self._curves[f"class {name}"]
        label = min(20, max(6, width - 26))
        mark = " (tail)" if name in self._tail and label > 12 else ""
        shown = Text(name)
        shown.truncate(label - len(mark), overflow="ellipsis")
        shown += Text(mark, style="dim")
        shown.truncate(label, pad=True)
        text = shown + Text(f" {values[-1]:5.1f}") + Text(f" {_change(values):>6} ", style=_colour(values))
        return text + Text(sparkline(values, max(0, min(20, width - label - 14)), heights), style="green")


def duration(seconds: float) -> str:
    """Write a time with its two largest units."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes}:{rest:02} min" if minutes else f"{rest} s"


def _writable(text: str, encoding: str) -> str:
    """Put question marks in the place of what a terminal cannot show."""
    return text.encode(encoding, "replace").decode(encoding)


def _line(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _between(left: Text, right: Text) -> Table:
    table = Table.grid(expand=True, padding=(0, 1))
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column(justify="right", no_wrap=True)
    table.add_row(left, right)
    return table


def _fitting(parts: Sequence[str], width: int, style: str = "") -> Text:
    """Join as many parts as fit into a line."""
    text = ""
    for part in parts:
        longer = f"{text}  {part}" if text else part
        if len(longer) > width and text:
            break
        text = longer
    return _line(Text(text, style=style))


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _or_highest(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def _change(values: Sequence[float]) -> str:
    """Write by how much the last value differs from the one before."""
    if len(values) < 2 or not math.isfinite(values[-1] - values[-2]):
        return ""
    return f"{values[-1] - values[-2]:+.1f}"


def _colour(values: Sequence[float]) -> str:
    change = _change(values)
    return "" if not change else "red" if change.startswith("-") and change != "-0.0" else "green"
