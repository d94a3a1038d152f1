"""How every benchmark here measures: all variants in one process, in turn, medians, and their ratio."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch

from des4.engine.process import prepare_process


def prepare(threads: int) -> None:
    """Set up the process as a training does, with a fixed number of threads."""
    prepare_process()
    torch.set_num_threads(threads)
    torch.manual_seed(0)


def medians(variants: Mapping[str, Callable[[], object]], repeats: int, warmup: int = 2) -> dict[str, float]:
    """Run all variants in turn, `repeats` times after `warmup` rounds; return the median seconds of each.

    Taking turns lets a machine whose speed drifts slow all variants alike, so ratios of these medians hold.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(warmup + repeats):
        for name, run in variants.items():
            start = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def machine() -> str:
    """Name the machine in a line."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return f"{device}, {torch.get_num_threads()} thread(s), torch {torch.__version__}"
