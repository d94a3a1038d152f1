"""The view: what it shows, at any size, in any encoding, and that it leaves the terminal as it was."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
import torch
from rich.console import Console

from des4.engine.callbacks import Callbacks, Started, Stepped, Validated
from des4.metrics import Results
from des4.watch.terminal import TerminalView, duration, live_console, sparkline

CLASSES = ("road", "sky [i]", "a class with a long name", "车", "unseen")
LINE = {"loss": 1.25, "loss/labeled": 1.0, "loss/unlabeled": 0.25, "lr": 0.001, "images_per_second": 12.3}


def terminal(width: int = 80, height: int = 24, encoding: str = "utf-8", **options: object) -> Console:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    return Console(file=file, width=width, height=height, force_terminal=True, **options)  # type: ignore[arg-type]


def written(console: Console) -> str:
    console.file.flush()
    return console.file.buffer.getvalue().decode(console.encoding)  # type: ignore[attr-defined,no-any-return]


def scores(*hits: int) -> Results:
    confusion = torch.full((5, 5), 2) * (1 - torch.eye(5, dtype=torch.int64))
    confusion[4], confusion[:, 4] = 0, 0
    return Results(confusion + torch.diag(torch.tensor([*hits, 0])), CLASSES, ("车",))


def view_of(
    console: Console, *, classes: tuple[str, ...] = CLASSES, history: tuple[dict[str, float], ...] = ()
) -> TerminalView:
    view = TerminalView(console)
    view._live.auto_refresh = False
    view.on_start(Started(Path("runs/des4-1"), {}, classes, ("车",), 0, 100, history))
    return view


def test_it_shows_how_far_a_run_is_and_what_it_learns() -> None:
    console = terminal(90, 30, color_system=None)
    view = view_of(console)
    view.on_step(Stepped(40, 100, 0.00123, 75.0, 3725.0, LINE))
    view.on_validation(Validated(20, 100, {"teacher": scores(10, 8, 4, 2)}, True, {}, None))
    view.on_validation(Validated(40, 100, {"teacher": scores(9, 8, 6, 4)}, True, {}, None))
    view._live.refresh()
    shown = written(console)
    for text in ("runs/des4-1", "step 40/100", "40 %", "1 h 02 min left", "12.3 img/s", "lr 1.23e-03", "loss 1.25",
                 "labeled 1", "unlabeled 0.25", "mIoU", "step 40, best", "tail mIoU", "sky [i]", "车 (tail)",
                 "a class with a long…"):  # fmt: skip
        assert text in shown, text
    assert "unseen" not in shown  # it has no score
    assert "▁█" in shown
    view._live.stop()


def test_lines_never_wrap() -> None:
    for width in (120, 80, 40, 20, 12):
        console = terminal(width, 20, color_system=None)
        view = view_of(console)
        view.on_step(Stepped(40, 100, 0.00123, 75.0, 3700.0, LINE))
        view.on_validation(Validated(40, 100, {"teacher": scores(9, 8, 6, 4)}, True, {}, None))
        view.on_scored(3, 20)
        view._warnings.append((40, "a long warning, and what to do about it " * 4))
        lines = console.render_lines(view, pad=False)
        assert all(sum(segment.cell_length for segment in line) <= width for line in lines), width
        assert len(lines) < 20
        view._live.stop()


def test_classes_that_do_not_fit_are_counted() -> None:
    names = tuple(f"class {n}" for n in range(21))
    console = terminal(80, 16, color_system=None)
    view = view_of(console, classes=names)
    view.on_validation(
        Validated(40, 100, {"teacher": Results(torch.eye(21, dtype=torch.int64), names)}, True, {}, None)
    )
    lines = console.render_lines(view, pad=False)
    assert len(lines) < 16
    assert "classes with a higher IoU are not shown" in "".join(s.text for s in lines[-1])
    view._live.stop()


def test_a_run_that_goes_on_has_its_curves(capsys: pytest.CaptureFixture[str]) -> None:
    history = [{"step": n, **LINE, "loss": 3.0 - n} for n in (1, 2)]
    history += [{"step": n, "val/teacher/miou": n / 4, "val/teacher/tail_miou": None, "val/teacher/iou/road": n / 4}
                for n in (1, 2)]  # fmt: skip
    console = terminal(color_system=None)
    view = view_of(console, history=tuple(history))  # type: ignore[arg-type]
    shown = "\n".join("".join(s.text for s in line) for line in console.render_lines(view, pad=False))
    assert "50.0  +25.0" in shown
    assert "█▁" in shown
    assert "tail mIoU" not in shown
    view._live.stop()


def test_without_colours_and_blocks() -> None:
    console = terminal(encoding="ascii", no_color=True)
    view = view_of(console)
    view.on_step(Stepped(1, 2, 0.1, 1.0, None, LINE))
    view.on_validation(Validated(1, 2, {"teacher": scores(9, 8, 6, 4)}, True, {}, None))
    text = "".join(s.text for line in console.render_lines(view, pad=False) for s in line)
    assert "loss 1.25  _" in text
    view._live.stop()
    assert "\x1b[3" not in written(terminal(no_color=True))


def test_warnings_and_prints_go_above_it() -> None:
    console = terminal(color_system=None)
    view = TerminalView(console)
    callbacks = Callbacks([view], Path("runs/x"), {}, CLASSES, (), lambda text, echo: None)
    assert callbacks.take_terminal
    callbacks.start(0, 10, [])
    callbacks.warn("warning: beware of [red]this[/red]")
    callbacks.end("stopped", "Ctrl-C")
    shown = written(console)
    assert "warning: beware of [red]this[/red]\nruns/x" in shown
    assert "warned at step 0: beware" in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1  # the cursor is back


def test_a_narrower_terminal_is_erased_whole() -> None:
    view = view_of(terminal(80))
    list(view.console.render_lines(view, pad=False))
    full = sum(length > 40 for length in view._frame[1])
    assert full >= 2
    assert (view.wrapped(40), view.wrapped(80), view.wrapped(100)) == (full, 0, 0)
    view._live.stop()


def test_curves() -> None:
    assert sparkline([0, 1, 2, 7], 10) == "▁▂▃█"
    assert sparkline([], 5) == sparkline([1.0], 0) == ""
    assert sparkline([3, 3], 5) == "▁▁"
    assert sparkline([0, math.nan, 1], 5) == "▁ █"
    assert sparkline(range(1000), 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([math.nan, math.inf], 5) == "  "


def test_durations() -> None:
    assert [duration(s) for s in (5, 65, 3600 + 120)] == ["5 s", "1:05 min", "1 h 02 min"]


def test_no_terminal_no_view(monkeypatch: pytest.MonkeyPatch) -> None:
    assert live_console() is None  # pytest's output is none
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert live_console() is None
