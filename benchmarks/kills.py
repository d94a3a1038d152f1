"""Kills trainings, resumes them, and compares what they end with to a training nobody disturbed.

python benchmarks/kills.py [--methods NAME …] [--workers N …] [--kills N] [--moments NAME …] [--seed N] [--folder DIR]
                           [--json FILE]

A tiny network learns 12 steps of the embedded scenes, with a checkpoint every 2 and a validation every 4. Every run
is a process of its own, forked from this one, which has imported everything and started no thread. It is killed at a
moment drawn from `--moments`, resumed, killed once more with a chance of a third, and so on until it has written its
results; then checkpoints and weights are compared byte by byte, metrics.jsonl and results.json without their times.

`anywhere` is uniform over the run, by SIGKILL from outside; `file` by SIGKILL as the process begins any operation on a
file of the run. The other moments are aimed at: the process itself sets an alarm when it enters them, for a time
uniform over how long they last, and the kernel ends it then, between any two instructions and as little prepared. A
third of the killed processes leave orphaned workers behind for the next one to meet. Exit code 1 if a run ended
otherwise than undisturbed. For systems that can fork.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import safe_open

from des4 import api, build
from des4.engine import Checkpoints, Evaluator
from des4.methods import METHODS
from des4.models.prototypes import PrototypeFeed
from des4.runlog import RunFolder

SETTINGS: dict[str, Any] = {
    "data": {"name": "scenes", "size": 40, "labeled": 4, "unlabeled": 6, "val": 3},
    "model": {"encoder": "test_efficientnet", "weights": "none", "channels": 8, "low_channels": 4, "embedding_dim": 8},
    "train": {"steps": 12, "batch_size": 2, "log_every": 2, "checkpoint_every": 2, "eval_every": 4, "device": "cpu"},
    "views": {"crop_size": 32},
}
PROTOTYPES = ("supervised", "cutmixseg")
"""Methods that are given the prototype head, so that commits are met in all kinds of methods; des4 has it anyway."""
MOMENTS: dict[str, Callable[[str], tuple[Any, str]]] = {
    "save": lambda method: (Checkpoints, "save"),
    "validation": lambda method: (Evaluator, "__call__"),
    "after_step": lambda method: (METHODS[method], "after_step"),
    "commit": lambda method: (PrototypeFeed, "commit"),
    "weights": lambda method: (build, "save_weights"),
    "log": lambda method: (RunFolder, "log"),
}
"""Moment → the function during which it is, of the runs of a method."""
OPERATIONS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.scandir", "shutil.rmtree"}
"""Audit events of operations on files."""
MOST_KILLS = 4
"""Of one run."""


@dataclass(frozen=True)
class Kill:
    """When to kill: `seconds` after the start, or after the `occurrence`-th entry of a moment; 0 is the first."""

    moment: str
    seconds: float = 0.0
    occurrence: int = 0


@dataclass
class Undisturbed:
    """A run that nobody killed. spans: moment → seconds of each time it was in it."""

    path: Path
    seconds: float
    spans: dict[str, list[float]]


@dataclass
class Survival:
    """One run that was killed. inside: aimed kills that came while the process was in the moment."""

    method: str
    workers: int
    kills: list[str] = field(default_factory=list)
    inside: int = 0
    differences: list[str] = field(default_factory=list)


# ── one run in a process of its own ──────────────────────────────────────────────────────────────────────────────────


def settings(method: str, workers: int) -> dict[str, Any]:
    """Return the settings of the tiny run."""
    head = {"head": "prototype"} if method in PROTOTYPES else {}
    return {
        **SETTINGS,
        "method": method,
        "model": {**SETTINGS["model"], **head},
        "train": {**SETTINGS["train"], "workers": workers},
    }


def start(method: str, workers: int, run: Path, watch: Callable[[], None], seconds: float | None = None) -> int:
    """Train or resume `run` in a new process until it has written its results; return how it ended, as os.waitpid.

    watch: called in that process before it begins. seconds: after which it is killed from here.
    """
    log = run.with_suffix(".log")
    child = os.fork()
    if child == 0:
        _train(method, workers, run, watch, log)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"{run} failed:\n{log.read_text()[-2000:]}")
    return child if os.WIFSIGNALED(status) else 0


def _train(method: str, workers: int, run: Path, watch: Callable[[], None], log: Path) -> NoReturn:
    """Be the new process."""
    code = 1
    try:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        watch()
        _around(RunFolder, "write_results", leave=lambda: os._exit(0))  # pictures and report cost more than the steps
        if (run / "config.yaml").exists():
            api.resume(run)
        else:
            api.train(settings(method, workers), out=run, overwrite=True)
    except BaseException as error:  # nothing may go on in a copy of this program
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(code)


def _around(
    owner: Any, name: str, enter: Callable[[], None] | None = None, leave: Callable[[], None] | None = None
) -> None:
    """Have a function of a class or module call `enter` before it runs and `leave` after it has."""
    original = getattr(owner, name)

    def watched(*args: Any, **kwargs: Any) -> Any:
        if enter:
            enter()
        result = original(*args, **kwargs)
        if leave:
            leave()
        return result

    setattr(owner, name, watched)


def _before_operations(run: Path, act: Callable[[], object]) -> None:
    """Have `act` called before each operation on a file of the run."""

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event in OPERATIONS and str(arguments[0]).startswith(f"{run}{os.sep}"):
            act()

    sys.addaudithook(look)


def run_undisturbed(method: str, folder: Path) -> Undisturbed:
    """Train to the end without workers, and note how long each moment lasts."""
    run, times = folder / f"{method}-undisturbed", folder / f"{method}-times.txt"

    def watch() -> None:
        output = os.open(times, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        _before_operations(run, lambda: os.write(output, b"file 0\n"))
        for moment, place in MOMENTS.items():
            entered: list[float] = []

            def leave(moment: str = moment, entered: list[float] = entered) -> None:
                os.write(output, f"{moment} {time.perf_counter() - entered.pop()}\n".encode())

            _around(*place(method), enter=lambda entered=entered: entered.append(time.perf_counter()), leave=leave)

    began = time.perf_counter()
    start(method, 0, run, watch)
    seconds = time.perf_counter() - began
    spans: dict[str, list[float]] = {}
    for line in times.read_text().splitlines():
        moment, span = line.split()
        spans.setdefault(moment, []).append(float(span))
    return Undisturbed(run, seconds, spans)


# ── killing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def survive(
    undisturbed: Undisturbed, method: str, workers: int, moments: list[str], run: Path, rng: random.Random
) -> Survival:
    """Train a run that is killed at least once, at one of `moments` first."""
    survival, killed = Survival(method, workers), []
    try:
        while True:
            enough = survival.kills and (rng.random() > 1 / 3 or len(survival.kills) == MOST_KILLS)
            kill = None if enough else _draw(undisturbed, moments, rng)
            process, inside = _start_and_kill(kill, method, workers, run)
            if not process:
                if survival.kills:
                    break
                for path in (run, *run.parent.glob(f"{run.name}.*")):  # it ended before its kill: another try
                    _remove(path)
                continue
            assert kill is not None
            survival.kills.append(kill.moment)
            survival.inside += inside
            if torn := _torn(run):
                survival.differences.append(torn)
            killed.append(process)
            if rng.random() > 1 / 3:
                _end_session(killed.pop())
    finally:
        for process in killed:
            _end_session(process)
    survival.differences += compare(undisturbed.path, run)
    return survival


def _draw(undisturbed: Undisturbed, moments: list[str], rng: random.Random) -> Kill:
    moment = rng.choice([m for m in moments if m == "anywhere" or m in undisturbed.spans])
    if moment == "anywhere":
        return Kill(moment, rng.uniform(0, undisturbed.seconds))
    occurrence = rng.randrange(len(undisturbed.spans[moment]))
    return Kill(moment, rng.uniform(0, undisturbed.spans[moment][occurrence]), occurrence)


def _kill_before_operation(number: int, run: Path) -> None:
    """Have this process kill itself before its operation of this number on a file of the run."""
    left = itertools.count(number, -1)

    def act() -> None:
        if next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    _before_operations(run, act)


def _start_and_kill(kill: Kill | None, method: str, workers: int, run: Path) -> tuple[int, bool]:
    """Start a process; return its number if it was killed, else 0, and whether that was inside the moment."""
    if kill is None or kill.moment == "anywhere":
        return start(method, workers, run, lambda: None, kill.seconds if kill else None), False
    if kill.moment == "file":
        process = start(method, workers, run, lambda: _kill_before_operation(kill.occurrence, run))
        return process, bool(process)
    inside, outside = os.pipe()
    left_to_enter = kill.occurrence

    def enter() -> None:
        nonlocal left_to_enter
        left_to_enter -= 1
        if left_to_enter == -1:
            os.write(outside, b"<")
            signal.setitimer(signal.ITIMER_REAL, max(kill.seconds, 1e-6))

    def leave() -> None:
        if left_to_enter == -1:
            os.write(outside, b">")

    process = start(method, workers, run, lambda: _around(*MOMENTS[kill.moment](method), enter=enter, leave=leave))
    os.close(outside)
    os.set_blocking(inside, False)  # orphaned workers hold the other end
    with suppress(BlockingIOError), os.fdopen(inside, "rb", buffering=0) as pipe:
        return process, pipe.read(2) == b"<"
    return process, False


def _end_session(process: int) -> None:
    """End the workers that a killed process has left."""
    with suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.unlink(missing_ok=True)


def _torn(run: Path) -> str | None:
    """Name what a kill has torn besides the end of metrics.jsonl."""
    with suppress(FileNotFoundError):
        *lines, _ = (run / "metrics.jsonl").read_text(encoding="utf-8").split("\n")
        for line in lines:
            try:
                json.loads(line)
            except ValueError:
                return f"metrics.jsonl torn: {line[:40]}"
    return None


# ── comparing ────────────────────────────────────────────────────────────────────────────────────────────────────────


def compare(first: Path, second: Path) -> list[str]:
    """Name what two runs have ended with and differs; times left out."""
    one, other = dict(_ends(first)), dict(_ends(second))
    names = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    return [f"{name}{_tensors(first / name, second / name)}" for name in names]


def _ends(run: Path) -> Iterator[tuple[str, Any]]:
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if path.suffix == ".safetensors":
            yield name, path.read_bytes()
        elif name == "results.json" or path.name == "meta.json":
            yield name, _without_times(json.loads(path.read_text()))
        elif name == "metrics.jsonl":
            yield name, [_without_times(json.loads(line)) for line in path.read_text().splitlines()]
        elif path.name.startswith(".") and path.name != ".lock":
            yield name, "left over"


def _without_times(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not re.search("second", name)}


def _tensors(first: Path, second: Path) -> str:
    """Name the tensors that differ between two safetensors files."""
    if first.suffix != ".safetensors" or not (first.exists() and second.exists()):
        return ""
    with safe_open(first, "pt") as one, safe_open(second, "pt") as other:
        names = set(one.keys()) ^ set(other.keys())
        names |= {n for n in set(one.keys()) & set(other.keys()) if not one.get_tensor(n).equal(other.get_tensor(n))}
    return f" ({len(names)} tensors, such as {min(names)})" if names else " (its header)"


# ── the campaign ─────────────────────────────────────────────────────────────────────────────────────────────────────


def campaign(
    methods: list[str], workers: list[int], kills: int, moments: list[str], seed: int, folder: Path
) -> Iterator[list[Survival]]:
    """Kill `kills` runs of each method and number of workers; yield them together."""
    rng = random.Random(seed)
    for method in methods:
        undisturbed = run_undisturbed(method, folder)
        for count in workers:
            survivals = []
            for number in range(kills):
                run = folder / f"{method}-{count}-{number}"
                survivals.append(survive(undisturbed, method, count, moments, run, rng))
                if not survivals[-1].differences:
                    _remove(run)
            yield survivals


def summary(survivals: list[Survival]) -> dict[str, Any]:
    """Return the figures of runs of one method with one number of workers."""
    kills = [moment for s in survivals for moment in s.kills]
    return {
        "method": survivals[0].method,
        "workers": survivals[0].workers,
        "runs": len(survivals),
        "identical": sum(not s.differences for s in survivals),
        "kills": len(kills),
        "moments": {moment: kills.count(moment) for moment in ("anywhere", "file", *MOMENTS)},
        "inside": sum(s.inside for s in survivals),
        "differences": [f"killed in {', '.join(s.kills)}: {line}" for s in survivals for line in s.differences],
    }


def main() -> None:
    """Kill, compare and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 2, 4])
    parser.add_argument("--kills", type=int, default=50, help="runs killed, of each method and number of workers")
    parser.add_argument(
        "--moments", nargs="+", choices=["anywhere", "file", *MOMENTS], default=["anywhere", "file", *MOMENTS]
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where runs are put, and those that differ stay")
    parser.add_argument("--json", type=Path, help="write rows and differences there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| method | workers | killed runs | identical | kills | of them in | aimed ones inside their moment |")
    print("| --- | ---: | ---: | ---: | ---: | --- | ---: |")
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for survivals in campaign(args.methods, args.workers, args.kills, args.moments, args.seed, folder):
            rows.append(row := summary(survivals))
            moments = ", ".join(f"{name} {count}" for name, count in row["moments"].items() if count)
            aimed = row["kills"] - row["moments"]["anywhere"]
            cells = [*(row[name] for name in ("method", "workers", "runs", "identical", "kills")), moments]
            print("|", *(f"{cell} |" for cell in cells), f"{row['inside']} of {aimed} |", flush=True)
    differences = [f"{row['method']}, {row['workers']} workers, {line}" for row in rows for line in row["differences"]]
    print("\n".join(differences))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2))
    sys.exit(bool(differences))


if __name__ == "__main__":
    main()
