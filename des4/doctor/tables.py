"""What the doctor prints: a line for each finding, and tables of what a training costs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from des4.doctor.findings import Finding, Level, count, duration, size

if TYPE_CHECKING:
    from des4.doctor.dry_run import DryRun, Measured

COLOURS: dict[Level, str] = {"ok": "green", "warn": "yellow", "problem": "red"}
BAR = 30
"""Characters of a whole step."""


def findings_table(findings: Iterable[Finding]) -> RenderableType:
    """Lay out findings, with what to do below each that needs it."""
    table = Table.grid(padding=(0, 2))
    for finding in findings:
        text = Text(finding.text)
        if finding.advice:
            text.append(f"\n→ {finding.advice}", style="bold")
        table.add_row(Text(finding.level, style=COLOURS[finding.level]), Text(finding.subject), text)
    return table


def dry_run_tables(run: DryRun) -> RenderableType:
    """Lay out what a training costs: time and work, memory, and where the time of a step goes."""
    parts: list[RenderableType] = [Text(_headline(run)), Text(), _costs(run), Text(), _memory(run)]
    if run.measured and run.measured.shares:
        parts += [Text(), _shares(run.measured)]
    elif run.measured:
        text = "there was no time to profile a step; where its time goes is told with --seconds 600"
        parts += [Text(), Text(text, style="dim")]
    return Group(*parts)


def _headline(run: DryRun) -> str:
    height, width = run.crop
    split = f" in {run.parts} parts" if run.parts > 1 else ""
    lists = " · ".join(f"{number} {name}" for name, number in run.lists.items())
    return (f"{run.method} · {run.encoder} · {run.images[0]} + {run.images[1]} images of {width}×{height}{split} · "
            f"{run.precision} on {run.device} · {lists}")  # fmt: skip


def _costs(run: DryRun) -> Table:
    table = _table("a step")
    flops = run.flops
    if measured := run.measured:
        how = f", {measured.steps} measured" + f" on 1/{round(1 / measured.portion)} of a batch" * (
            measured.portion < 1
        )
        table.add_row("time", duration(measured.step), f"{measured.image_rate:.1f} images/s{how}")
        if len(measured.parts) > 1:
            times, shares = (duration(part.step) for part in measured.parts), (part.share for part in measured.parts)
            of_steps = " · ".join(f"{100 * share:.0f} %" for share in shares)
            table.add_row("in the run's parts", " · ".join(times), f"{of_steps} of the steps")
        table.add_row("waiting for data", duration(measured.waiting),
                      f"the loader alone: {measured.loader_rate:.1f} images/s")  # fmt: skip
    table.add_row("work", count(flops.total, "FLOP"),
                  f"{count(flops.plain, 'FLOP')} without gradient, {count(flops.forward, 'FLOP')} forward, "
                  f"{count(flops.backward, 'FLOP')} backward")  # fmt: skip
    if measured:
        share = 100 * measured.flop_rate / measured.matrix_rate
        table.add_row("speed", count(measured.flop_rate, "FLOP/s"),
                      f"{share:.0f} % of large {run.precision} matrix products, {count(measured.matrix_rate, 'FLOP/s')}"
                      )  # fmt: skip
        table.add_section()
        table.add_row("the training", duration(measured.training),
                      f"{run.steps} steps, {run.validations} × {duration(measured.validation)} of validation"
                      )  # fmt: skip
    return table


def _memory(run: DryRun) -> Table:
    table, held = _table("memory"), run.memory
    table.add_row("weights", size(held.weights), "of all networks, with their buffers")
    table.add_row("gradients", size(held.gradients), "")
    table.add_row("optimiser", size(held.optimiser), "")
    images = sum(run.images) // run.parts
    table.add_row("for the backward pass", size(held.kept), f"{size(held.kept / images)} an image, {images} at a time")
    table.add_section()
    table.add_row("together", size(held.total), "counted; single operations need some more for a moment")
    if run.measured and run.measured.peak:
        table.add_row("most of the GPU", size(run.measured.peak), "measured")
    return table


def _shares(measured: Measured) -> Table:
    table = Table("share of a step", "", "", header_style="bold", border_style="dim")
    for name, share in sorted(measured.shares.items(), key=lambda item: -item[1]):
        table.add_row(name, f"{100 * share:.1f} %", "█" * round(BAR * share))
    return table


def _table(title: str) -> Table:
    table = Table(title, "", "", header_style="bold", border_style="dim")
    table.columns[1].justify = "right"
    return table
