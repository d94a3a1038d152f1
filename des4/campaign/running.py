"""Training what is missing of a campaign: several runs at a time, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import yaml
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from des4.campaign.finished import lists_key, look
from des4.campaign.planning import Planned
from des4.config import dump
from des4.engine.signals import interrupted_by_signals
from des4.opening import lists_now
from des4.runlog import RunFolder, write_atomically
from des4.types import DataError, RunError, UserError

POLL = 0.5
"""Seconds between two looks at the runs that are being trained."""


def run_campaign(runs: Sequence[Planned], jobs: int, threads: int | None = None) -> list[str]:
    """Train what is missing of a campaign, `jobs` runs at a time; return one line for each run that failed.

    threads: CPU threads of each run; None shares the cores among the runs. Ctrl-C, and the other signals that end a
    training, stop the runs, which save, and raise Interrupted; given again, the command goes on. Raises RunError as
    `look` does, and DataError, before the first run, for lists of any that cannot be read.
    """
    finished = look(runs).folders
    waiting = [run for run in runs if run.folder not in finished]
    _refuse_unreadable_lists(waiting)
    threads = threads or max(1, (os.cpu_count() or 1) // jobs)
    failures: list[str] = []
    running: dict[subprocess.Popen[bytes], Planned] = {}
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    stopped = "stopped; the runs have saved what they had, and the same command goes on"
    with Progress(*columns, disable=not sys.stdout.isatty()) as progress, interrupted_by_signals(stopped):
        bar = progress.add_task("runs", total=len(runs), completed=len(runs) - len(waiting))
        bars = {}
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    run = waiting.pop(0)
                    process = _start(run, threads)
                    running[process] = run
                    bars[process] = progress.add_task(run.name, total=run.config.train.steps)
                    if progress.disable:
                        print(f"{run.name}: started", flush=True)
                time.sleep(POLL)
                for process, run in list(running.items()):
                    progress.update(bars[process], completed=step_of(run))
                    if process.poll() is None:
                        continue
                    del running[process]
                    progress.remove_task(bars.pop(process))
                    progress.advance(bar)
                    done = process.returncode == 0
                    if not done:
                        failures.append(f"{run.name}: {_reason(run)}")
                    if progress.disable:
                        print(f"{run.name}: {'done' if done else 'failed'}", flush=True)
        finally:  # on Ctrl-C a terminal has told them too; twice does no harm to one that saves
            for process in running:
                process.terminate()
            for process in running:
                process.wait()
    return failures


def _refuse_unreadable_lists(runs: Sequence[Planned]) -> None:
    """Raise DataError where the lists of a run cannot be read, which it would find when its turn comes, days later."""
    seen = set()
    for run in runs:
        key = lists_key(run)
        if key not in seen:
            seen.add(key)
            try:
                lists_now(run.config)
            except UserError as error:
                raise DataError(f"list {run.lists}: {error}") from error


def _start(run: Planned, threads: int) -> subprocess.Popen[bytes]:
    """Start or resume a run in a process of its own; what it prints goes to a file beside its folder."""
    run.folder.parent.mkdir(parents=True, exist_ok=True)
    if RunFolder.is_run(run.folder):
        command = ["train", "--resume", str(run.folder)]
    else:
        settings = run.folder.with_suffix(".yaml")
        write_atomically(settings, yaml.safe_dump(dump(run.config), sort_keys=False, allow_unicode=True))
        command = ["train", str(settings), "--overwrite"]  # of what a kill left before the run had its config
    with _output(run).open("wb") as output:
        return subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "des4", *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )


def _output(run: Planned) -> Path:
    return run.folder.with_suffix(".out")


def _reason(run: Planned) -> str:
    lines = _output(run).read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "stopped without a word")
    return f"{last} (all that it printed: {_output(run)})"


def step_of(run: Planned) -> int:
    """The last step that a run has logged; 0 where that cannot be read: the run itself says so, and stops no other."""
    try:
        lines = RunFolder(run.folder).metrics()
    except RunError:
        return 0
    return int(lines[-1]["step"]) if lines else 0
