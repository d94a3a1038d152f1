"""Kills trainings, resumes them, and compares what they end with to a training nobody disturbed.

python benchmarks/kills.py [--methods NAME …] [--workers N …] [--processes N] [--kills N] [--moments NAME …] [--seed N]
                           [--minutes N] [--folder DIR] [--json FILE]

A tiny network learns 12 steps of the embedded scenes, with a checkpoint every 2 and a validation every 4. Every run
is a process of its own, forked from this one, which has imported everything and started no thread. It is killed at a
moment drawn from `--moments`, resumed, killed once more with a chance of a third, and so on until it has written its
results; then checkpoints and weights are compared byte by byte, metrics.jsonl and results.json without their times.

`anywhere` is uniform over the run, by SIGKILL from outside; `file` by SIGKILL as the process begins any operation on a
file of the run. The other moments are aimed at: the process itself sets an alarm when it enters them, for a time
uniform over how long they last, and the kernel ends it then, between any two instructions and as little prepared. A
third of the killed processes leave orphaned workers behind for the next one to meet.

With `--processes 2` a run is trained by two (gloo), told of each other as torchrun would. One of them, drawn at random,
is killed, and with a chance of a third the other too, within a hundredth of a second. One that survives has to end
by itself, with one line; while they were not joined yet, it is ended by SIGTERM after a second, as torchrun would do
at once. Then the same command is started again, as by `torchrun --max-restarts`.

Exit code 1 if a run ended otherwise than undisturbed. For systems that can fork.
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
import socket
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

import des4.training
from des4 import api
from des4.engine import Checkpoints, Evaluator, Recorder
from des4.methods import METHODS
from des4.models import PrototypeFeed
from des4.runlog import RunFolder

SETTINGS: dict[str, Any] = {
    "data": {"name": "scenes", "size": 40, "labeled": 4, "unlabeled": 6, "val": 3},
    "model": {"encoder": "test_efficientnet", "weights": "none", "channels": 8, "low_channels": 4, "embedding_dim": 8},
    "train": {"steps": 12, "batch_size": 2, "log_every": 2, "checkpoint_every": 2, "eval_every": 4, "device": "cpu"},
    "views": {"crop_size": 32},
}
PROTOTYPES = ("supervised", "cutmixseg")
"""Methods that are given the prototype head, so that commits are met in all kinds of methods; des4 has it anyway."""
EAGER: dict[str, dict[str, float]] = {"cmb": {"memory_threshold": 0.0}}
"""Settings of methods whose memory would stay empty in so short a run."""
MOMENTS: dict[str, Callable[[str], tuple[Any, str]]] = {
    "save": lambda method: (Checkpoints, "save"),
    "validation": lambda method: (Evaluator, "__call__"),
    "after_step": lambda method: (METHODS[method], "after_step"),
    "commit": lambda method: (PrototypeFeed, "commit"),
    "weights": lambda method: (des4.training, "save_weights"),
    "log": lambda method: (RunFolder, "log"),
}
"""Moment → the function during which it is, of the runs of a method."""
OPERATIONS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.scandir", "shutil.rmtree"}
"""Audit events of operations on files."""
MOST_KILLS = 4
"""Of one run."""
HELP, PATIENCE, DEADLINE = 1.0, 30.0, 300.0
"""Seconds after a kill until survivors that may need it get a SIGTERM, and all a SIGKILL; and that a run may take."""
LAST_WORDS = ("RunError: another process of this training has ended", "RunError: the processes of this training cannot")
"""What a surviving process may end with."""


@dataclass(frozen=True)
class Training:
    """What is trained, and by how many processes, each with its own workers."""

    method: str
    workers: int
    processes: int


@dataclass(frozen=True)
class Kill:
    """When to kill: `seconds` after the start, or after the `occurrence`-th entry of a moment; 0 is the first.

    rank: of the process. others: seconds until the other processes are killed too; None = they are not.
    """

    moment: str
    seconds: float = 0.0
    occurrence: int = 0
    rank: int = 0
    others: float | None = None


@dataclass
class Undisturbed:
    """A run that nobody killed. spans: of each process, moment → seconds of each time it was in it."""

    path: Path
    seconds: float
    spans: list[dict[str, list[float]]]


@dataclass
class Survival:
    """One run that was killed. inside: aimed kills that came while the process was in the moment.

    survivors: processes that were not killed while another was. helped: those of them that needed a SIGTERM.
    """

    training: Training
    kills: list[str] = field(default_factory=list)
    inside: int = 0
    survivors: int = 0
    helped: int = 0
    differences: list[str] = field(default_factory=list)


# ── one run in processes of its own ──────────────────────────────────────────────────────────────────────────────────


def settings(training: Training) -> dict[str, Any]:
    """Return the settings of the tiny run."""
    head = {"head": "prototype"} if training.method in PROTOTYPES else {}
    train = {"workers": training.workers, "batch_size": SETTINGS["train"]["batch_size"] * training.processes}
    return {
        **SETTINGS,
        "method": {"name": training.method, **EAGER.get(training.method, {})},
        "model": {**SETTINGS["model"], **head},
        "train": {**SETTINGS["train"], **train},
    }


@dataclass
class Process:
    """A process of a run. said_before: bytes of its log that are older. status: as of os.waitpid; None = it runs.

    helped: by a SIGTERM. hung: it had to be killed because nothing else ended it.
    """

    number: int
    log: Path
    said_before: int
    status: int | None = None
    helped: bool = False
    hung: bool = False

    def look(self) -> None:
        """Notice if it has ended."""
        if self.status is None:
            ended, status = os.waitpid(self.number, os.WNOHANG)
            self.status = status if ended else None

    def signal(self, number: int) -> None:
        """Send it a signal if it still runs."""
        if self.status is None:
            os.kill(self.number, number)

    @property
    def was_killed(self) -> bool:
        """Whether a SIGKILL ended it, or its alarm."""
        assert self.status is not None
        return os.WIFSIGNALED(self.status) and os.WTERMSIG(self.status) in (signal.SIGKILL, signal.SIGALRM)

    @property
    def words(self) -> str:
        """What it has said."""
        return self.log.read_bytes()[self.said_before :].decode(errors="replace")


def start(
    training: Training, run: Path, watch: Callable[[int], None], restarts: int, kill: Kill | None
) -> list[Process]:
    """Train or resume `run` in new processes until it has written its results, and wait for their end.

    watch: called in each process, with its rank, before it begins. restarts: how often the run was started before.
    kill: the one that is to come; given in seconds, it is done here.
    """
    port = _free_port()
    processes = []
    for rank in range(training.processes):
        log = run.with_suffix(f".{rank}.log")
        said_before = log.stat().st_size if log.exists() else 0
        child = os.fork()
        if child == 0:
            _train(training, run, rank, port, restarts, watch, log)
        processes.append(Process(child, log, said_before))
    _wait(processes, kill)
    if not any(process.was_killed for process in processes) and any(process.status for process in processes):
        words = "\n".join(process.words[-2000:] for process in processes)
        raise SystemExit(f"{run} failed:\n{words}")
    return processes


def _wait(processes: list[Process], kill: Kill | None) -> None:
    """Wait for the end of all; kill and help as is due."""
    began, killed = time.monotonic(), None
    while any(process.status is None for process in processes):
        time.sleep(0.001)
        for process in processes:
            process.look()
        now = time.monotonic()
        if now - began > DEADLINE:
            for process in processes:
                process.signal(signal.SIGKILL)
            raise SystemExit(f"{processes[0].log}: no end after {DEADLINE:.0f} s")
        if kill is None:
            continue
        victim = processes[kill.rank]
        if kill.moment == "anywhere" and now - began >= kill.seconds:
            victim.signal(signal.SIGKILL)
        if victim.status is not None and victim.was_killed:
            killed = now if killed is None else killed
            _end_survivors(processes, kill, now - killed)


def _end_survivors(processes: list[Process], kill: Kill, seconds: float) -> None:
    """Do to survivors what is due so many seconds after the kill."""
    may_wait_for_others = kill.moment in ("anywhere", "file")  # and for minutes, if they have not joined yet
    for process in processes:
        if process.status is not None:
            continue
        if kill.others is not None and seconds >= kill.others:
            process.signal(signal.SIGKILL)
        elif seconds >= PATIENCE:
            process.hung = True
            process.signal(signal.SIGKILL)
        elif seconds >= HELP and may_wait_for_others and not process.helped:
            process.helped = True
            process.signal(signal.SIGTERM)


def _train(
    training: Training, run: Path, rank: int, port: int, restarts: int, watch: Callable[[int], None], log: Path
) -> NoReturn:
    """Be a new process."""
    code = 1
    try:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        watch(rank)
        _around(Recorder, "finish", leave=lambda: os._exit(0))  # pictures and report cost more than the steps
        if training.processes > 1:
            _tell_as_torchrun_does(training, rank, port, restarts)
            api.train(settings(training), out=run)
        elif (run / "config.yaml").exists():
            api.resume(run)
        else:
            api.train(settings(training), out=run, overwrite=True)
    except BaseException as error:  # nothing may go on in a copy of this program
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(code)


def _tell_as_torchrun_does(training: Training, rank: int, port: int, restarts: int) -> None:
    names = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": training.processes,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "TORCHELASTIC_RESTART_COUNT": restarts,
        "TORCHELASTIC_MAX_RESTARTS": 2 * MOST_KILLS,
        "GLOO_SOCKET_IFNAME": "lo",
    }
    os.environ.update({name: str(value) for name, value in names.items()})


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


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


def run_undisturbed(method: str, processes: int, folder: Path) -> Undisturbed:
    """Train to the end without workers, and note how long each moment lasts."""
    run = folder / f"{method}-undisturbed"
    times = [folder / f"{method}-times-{rank}.txt" for rank in range(processes)]

    def watch(rank: int) -> None:
        output = os.open(times[rank], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        _before_operations(run, lambda: os.write(output, b"file 0\n"))
        for moment, place in MOMENTS.items():
            entered: list[float] = []

            def leave(moment: str = moment, entered: list[float] = entered) -> None:
                os.write(output, f"{moment} {time.perf_counter() - entered.pop()}\n".encode())

            _around(*place(method), enter=lambda entered=entered: entered.append(time.perf_counter()), leave=leave)

    began = time.perf_counter()
    start(Training(method, 0, processes), run, watch, 0, None)
    seconds = time.perf_counter() - began
    spans: list[dict[str, list[float]]] = [{} for _ in times]
    for path, found in zip(times, spans, strict=True):
        for line in path.read_text().splitlines():
            moment, span = line.split()
            found.setdefault(moment, []).append(float(span))
    return Undisturbed(run, seconds, spans)


# ── killing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def survive(
    undisturbed: Undisturbed, training: Training, moments: list[str], run: Path, rng: random.Random
) -> Survival:
    """Train a run that is killed at least once, at one of `moments` first."""
    survival, left = Survival(training), []
    try:
        while True:
            enough = survival.kills and (rng.random() > 1 / 3 or len(survival.kills) == MOST_KILLS)
            kill = None if enough else _draw(undisturbed, moments, rng)
            processes, inside = _start_and_kill(kill, training, run, len(survival.kills))
            if not any(process.was_killed for process in processes):
                if survival.kills:
                    break
                for path in (run, *run.parent.glob(f"{run.name}.*")):  # it ended before its kill: another try
                    _remove(path)
                continue
            assert kill is not None
            survival.kills.append(kill.moment)
            survival.inside += inside
            survival.survivors += sum(not process.was_killed for process in processes)
            survival.helped += sum(process.helped for process in processes)
            survival.differences += [*_torn(run), *_bad_ends(processes)]
            left.append(processes)
            if rng.random() > 1 / 3:
                _end_sessions(left.pop())
    finally:
        for processes in left:
            _end_sessions(processes)
    survival.differences += compare(undisturbed.path, run)
    return survival


def _draw(undisturbed: Undisturbed, moments: list[str], rng: random.Random) -> Kill:
    rank, others = 0, None
    if len(undisturbed.spans) > 1:
        rank = rng.randrange(len(undisturbed.spans))
        others = rng.uniform(0, 0.01) if rng.random() < 1 / 3 else None
    spans = undisturbed.spans[rank]
    moment = rng.choice([m for m in moments if m == "anywhere" or m in spans])
    if moment == "anywhere":
        return Kill(moment, rng.uniform(0, undisturbed.seconds), 0, rank, others)
    occurrence = rng.randrange(len(spans[moment]))
    return Kill(moment, rng.uniform(0, spans[moment][occurrence]), occurrence, rank, others)


def _bad_ends(processes: list[Process]) -> Iterator[str]:
    """Name the processes that survived others, and did not end as they should."""
    for process in processes:
        if process.hung:
            yield f"a survivor did not end within {PATIENCE:.0f} s"
        if process.was_killed or process.status == 0 or process.helped:
            continue
        *said, last = process.words.splitlines() or [""]
        if not last.startswith(LAST_WORDS) or any("Traceback" in line for line in said):
            yield f"a survivor ended with status {process.status} and: {last[:200]}"


def _kill_before_operation(number: int, run: Path) -> None:
    """Have this process kill itself before its operation of this number on a file of the run."""
    left = itertools.count(number, -1)

    def act() -> None:
        if next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    _before_operations(run, act)


def _start_and_kill(kill: Kill | None, training: Training, run: Path, restarts: int) -> tuple[list[Process], bool]:
    """Start a run's processes; return them, ended, and whether one was killed inside the moment."""
    if kill is None or kill.moment == "anywhere":
        return start(training, run, lambda rank: None, restarts, kill), False
    if kill.moment == "file":

        def watch(rank: int) -> None:
            if rank == kill.rank:
                _kill_before_operation(kill.occurrence, run)

        processes = start(training, run, watch, restarts, kill)
        return processes, processes[kill.rank].was_killed
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

    def aim(rank: int) -> None:
        if rank == kill.rank:
            _around(*MOMENTS[kill.moment](training.method), enter=enter, leave=leave)

    processes = start(training, run, aim, restarts, kill)
    os.close(outside)
    os.set_blocking(inside, False)  # orphaned workers hold the other end
    with suppress(BlockingIOError), os.fdopen(inside, "rb", buffering=0) as pipe:
        return processes, pipe.read(2) == b"<"
    return processes, False


def _end_sessions(processes: list[Process]) -> None:
    """End the workers that processes have left."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.number, signal.SIGKILL)


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.unlink(missing_ok=True)


def _torn(run: Path) -> Iterator[str]:
    """Name what a kill has torn besides the end of metrics.jsonl."""
    with suppress(FileNotFoundError):
        *lines, _ = (run / "metrics.jsonl").read_text(encoding="utf-8").split("\n")
        for line in lines:
            try:
                json.loads(line)
            except ValueError:
                yield f"metrics.jsonl torn: {line[:40]}"


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
    trainings: list[Training], kills: int, moments: list[str], seed: int, folder: Path, minutes: float | None
) -> Iterator[list[Survival]]:
    """Kill `kills` runs of each training, or fewer in less time; yield those of a training together."""
    rng, undisturbed = random.Random(seed), {}
    share = minutes and 60 * minutes / len(trainings)
    for training in trainings:
        began, method = time.monotonic(), training.method
        if method not in undisturbed:
            undisturbed[method] = run_undisturbed(method, training.processes, folder)
        survivals: list[Survival] = []
        while len(survivals) < kills and not (share and survivals and time.monotonic() - began > share):
            run = folder / f"{method}-{training.workers}-{len(survivals)}"
            survivals.append(survive(undisturbed[method], training, moments, run, rng))
            if not survivals[-1].differences:
                _remove(run)
        yield survivals


def summary(survivals: list[Survival]) -> dict[str, Any]:
    """Return the figures of runs of one method with one number of workers."""
    kills, training = [moment for s in survivals for moment in s.kills], survivals[0].training
    return {
        "method": training.method,
        "workers": training.workers,
        "processes": training.processes,
        "runs": len(survivals),
        "identical": sum(not s.differences for s in survivals),
        "kills": len(kills),
        "moments": {moment: kills.count(moment) for moment in ("anywhere", "file", *MOMENTS)},
        "inside": sum(s.inside for s in survivals),
        "survivors": sum(s.survivors for s in survivals),
        "helped": sum(s.helped for s in survivals),
        "differences": [f"killed in {', '.join(s.kills)}: {line}" for s in survivals for line in s.differences],
    }


def main() -> None:
    """Kill, compare and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 2, 4])
    parser.add_argument("--processes", type=int, default=1, help="that train a run together")
    parser.add_argument("--kills", type=int, default=50, help="runs killed, of each method and number of workers")
    parser.add_argument("--minutes", type=float, help="for the whole campaign; the runs that fit, at least one each")
    parser.add_argument(
        "--moments", nargs="+", choices=["anywhere", "file", *MOMENTS], default=["anywhere", "file", *MOMENTS]
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where runs are put, and those that differ stay")
    parser.add_argument("--json", type=Path, help="write rows and differences there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| method | workers | killed runs | identical | kills | of them in | aimed ones inside | survivors |")
    print("| --- | ---: | ---: | ---: | ---: | --- | ---: | --- |")
    rows = []
    trainings = [Training(method, count, args.processes) for method in args.methods for count in args.workers]
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for survivals in campaign(trainings, args.kills, args.moments, args.seed, folder, args.minutes):
            rows.append(row := summary(survivals))
            moments = ", ".join(f"{name} {count}" for name, count in row["moments"].items() if count)
            aimed = row["kills"] - row["moments"]["anywhere"]
            cells = [*(row[name] for name in ("method", "workers", "runs", "identical", "kills")), moments]
            cells += [f"{row['inside']} of {aimed}", f"{row['survivors']}, {row['helped']} helped"]
            print("|", *(f"{cell} |" for cell in cells), flush=True)
    differences = [f"{row['method']}, {row['workers']} workers, {line}" for row in rows for line in row["differences"]]
    print("\n".join(differences))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2))
    sys.exit(bool(differences))


if __name__ == "__main__":
    main()
