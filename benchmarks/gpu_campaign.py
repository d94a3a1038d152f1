"""Many small trainings at once on one GPU that is lent for minutes: few masks, and learning curves.

python benchmarks/gpu_campaign.py pack DATA.tar --camvid FOLDER --camvid-lists FOLDER
                                  [--clothing FOLDER --clothing-lists FOLDER] [--quality N]
python benchmarks/gpu_campaign.py run DATA.tar [KEY=VALUE …] --out FOLDER [--minutes N] [--workers N] [--steps N]
                                 [--mps] [--stages NAME …] [--lists NAME …] [--seeds N …]

`pack` makes one file of images, masks and lists; images are recompressed as WebP, at their own size. `run` needs no
network. It unpacks, decodes every image once, and forks workers that share them; each worker keeps copies on the GPU,
crops them there, and takes one training after the other from a common list, the most valuable first: few masks at half
resolution, seed by seed, learning curves, and both at full resolution. A training ends with its scores; there are no
reports of single runs. None begins that is known to take longer than is left; when the minutes are over, what is still
running is stopped. Then tables and curves of all that is done are written, and what was not reached is named.
`benchmarks/gpu_checks.py` looks at the GPU itself.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import queue
import shutil
import signal
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from gpu.device import gpu_name, shared_kernels
from gpu.images import decoded
from gpu.packing import pack
from gpu.progress import Progress, write
from gpu.stages import STAGES, WHOLE, planned, stages
from gpu.workers import Shared, work

from des4.types import UserError

ROOM = 8 << 30
"""Bytes of a memory file system that hold data and runs while they last; with less, they go to the disk."""
LOOK, TELL, PATIENCE = 0.5, 20.0, 15.0
"""Seconds between two looks at the workers, between two lines on how far they are, and that one may take to stop."""


def play(shared: Shared, workers: int, out: Path, log: Path, ends: float) -> Progress:
    """Train with so many processes until all is done or the time is over. workers: 0 = in this process."""
    progress = Progress(shared.plan)
    if workers == 0:
        work(shared, None)
        while not shared.said.empty():
            progress.note(shared.said.get(), out)
        return progress
    context = multiprocessing.get_context("fork")  # what is imported and decoded is there at once, and only once
    processes = [context.Process(target=work, args=(shared, log / f"{n}.log")) for n in range(workers)]
    for process in processes:
        process.start()
    told = time.time()
    while any(process.is_alive() for process in processes) and time.time() < ends:
        _listen(shared, progress, out)
        if time.time() - told > TELL:
            told = time.time()
            print(f"{progress.line()}; {ends - told:.0f} s left", flush=True)
    _stop(processes, shared, progress, out)
    return progress


def _listen(shared: Shared, progress: Progress, out: Path) -> None:
    with contextlib.suppress(queue.Empty):
        progress.note(shared.said.get(timeout=LOOK), out)
        while True:
            progress.note(shared.said.get_nowait(), out)


def _stop(processes: Sequence[Any], shared: Shared, progress: Progress, out: Path) -> None:
    """Ask the workers to stop, wait, and end those that do not; hear all that they still had to say."""
    for process in processes:
        if process.is_alive():
            os.kill(process.pid, signal.SIGTERM)
    until = time.time() + PATIENCE
    while any(process.is_alive() for process in processes) and time.time() < until:
        _listen(shared, progress, out)
    for process in processes:
        if process.is_alive():
            process.kill()
    _listen(shared, progress, out)
    progress.state = {number: "stopped" if one == "running" else one for number, one in progress.state.items()}


def run(args: argparse.Namespace) -> None:
    """Unpack, train, report."""
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # else asking whether there is a GPU forbids to fork
    ends = time.time() + 60 * args.minutes - PATIENCE
    args.out.mkdir(parents=True, exist_ok=True)
    memory = Path("/dev/shm")  # noqa: S108  # a new folder in it, of this process alone
    has_room = memory.is_dir() and shutil.disk_usage(memory).free > ROOM
    place = Path(tempfile.mkdtemp(prefix="campaign-", dir=memory if has_room else None))
    torch.set_num_threads(1)  # a process that has started threads cannot be forked
    try:
        with tarfile.open(args.data) as tar:
            tar.extractall(place, filter="data")
        shared = Shared(
            planned(stages(args.stages), place, args),
            {name: decoded(place, name, os.cpu_count() or 1) for name in WHOLE if (place / name).is_dir()},
            ends,
            args.workers,
        )
        print(f"{len(shared.plan.entries)} trainings, {args.workers} at a time", flush=True)
        log = place / "log"
        log.mkdir()
        with shared_kernels(args.mps, place) as how:
            progress = play(shared, args.workers, args.out, log, ends)
        print(write(progress, args.out, f"{gpu_name()}, torch {torch.__version__}, {args.workers} processes; {how}."))
    finally:
        shutil.rmtree(place, ignore_errors=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="put data and lists into one file")
    packing.add_argument("data", type=Path, metavar="DATA.tar")
    for name in WHOLE:
        packing.add_argument(f"--{name}", type=Path, metavar="FOLDER")
        packing.add_argument(
            f"--{name}-lists", type=Path, metavar="FOLDER", help="with a folder for every draw, and val.txt"
        )
    packing.add_argument("--quality", type=int, default=90, help="of WebP")
    running = commands.add_parser("run", help="train")
    running.add_argument("data", type=Path, metavar="DATA.tar")
    running.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="of every training")
    running.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    running.add_argument("--lists", nargs="+", help="these alone")
    running.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    running.add_argument("--workers", type=int, default=16, help="processes; 0 = this one")
    running.add_argument("--steps", type=int, help="of every training, for a try")
    running.add_argument("--mps", action="store_true", help="start CUDA's multi-process service, if it is there")
    running.add_argument("--out", type=Path, required=True)
    running.add_argument("--minutes", type=float, default=8.0, help="after which it stops by itself")
    running.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    return parser.parse_args()


def main() -> None:
    """Do what is asked."""
    args = arguments()
    try:
        (pack if args.command == "pack" else run)(args)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
