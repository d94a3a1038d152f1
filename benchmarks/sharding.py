"""Memory and time of a DeS4 training on several processes, with its parameters in shards over that of whole ones.

python benchmarks/sharding.py [--encoder NAME] [--processes N …] [--crop N] [--batch N] [--steps N] [--optim NAME]

Processes of this machine, on the CPU, by gloo; memory is what the process of rank 0 holds more after its steps than
before its networks were built. Shards cost messages, which a CPU and its loopback say little about: the ratio of times
is that of this machine.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from step import NUM_CLASSES, make_batch, make_method

from des4.engine import OptimConfig, TrainStep, build_optimiser
from des4.engine.sharding import shard_weights
from des4.models import ModelConfig


def held() -> int:
    """Return the bytes of memory that this process has in use. Linux with glibc only."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what was freed goes back
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def train(rank: int, processes: int, shard: bool, store: str, args: argparse.Namespace, answers: Any) -> None:
    """Be one process of a training; the first answers with bytes held and seconds of a step."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=processes)
    batch = make_batch(args.batch, args.crop)
    before = held()
    method = make_method("des4", ModelConfig(encoder=args.encoder, weights="none"), torch.ones(NUM_CLASSES)).train()
    if shard:
        shard_weights(method)
    take_step = TrainStep(
        method, build_optimiser(method, OptimConfig(name=args.optim, lr=1e-4), args.batch), torch.device("cpu")
    )
    seconds = []
    for _ in range(args.steps):
        started = time.perf_counter()
        take_step(batch)
        seconds.append(time.perf_counter() - started)
    if rank == 0:
        answers.put((held() - before, statistics.median(seconds)))
    dist.barrier()
    dist.destroy_process_group()


def measure(processes: int, shard: bool, args: argparse.Namespace) -> tuple[int, float]:
    """Run a training of its own processes."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        crew = [
            context.Process(target=train, args=(r, processes, shard, store, args, answers)) for r in range(processes)
        ]
        for one in crew:
            one.start()
        answer: tuple[int, float] = answers.get()
        for one in crew:
            one.join()
    return answer


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--encoder", default="vit_base_patch16_224")
    parser.add_argument("--processes", nargs="+", type=int, default=[2, 4])
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--batch", type=int, default=1, help="pairs of a labeled and an unlabeled image, each process")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--optim", choices=["sgd", "adamw"], default="adamw")
    args = parser.parse_args()
    for processes in args.processes:
        (whole, whole_seconds), (shards, shards_seconds) = (measure(processes, shard, args) for shard in (False, True))
        print(
            f"{processes} processes: {whole / 2**30:.2f} GiB whole, {shards / 2**30:.2f} GiB in shards, "
            f"ratio {shards / whole:.2f}; time of a step in shards / whole {shards_seconds / whole_seconds:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
