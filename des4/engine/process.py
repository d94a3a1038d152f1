"""The process that a command runs in: arithmetic, kernels, free memory, and how further processes are started."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

try:
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # names of mallopt(3)


def prepare_process() -> None:
    """Round denormal floats to zero, and keep freed memory for the next step.

    Denormals of a fresh network make a CPU run up to ten times slower. glibc hands every large block back to the
    kernel when it is freed, and each step pays for mapping it again; elsewhere the allocator is left as it is.
    """
    torch.set_flush_denormal(True)
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)


@contextmanager
def deterministic_kernels(device: torch.device, wanted: bool) -> Iterator[None]:
    """Inside, a GPU takes kernels that give the same bits each time, where torch has one; it warns where it has none.

    A CPU needs none: with the same number of threads its sums have one order.
    """
    if not wanted or device.type == "cpu":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it, docs.nvidia.com/cuda/cublas
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # nobody reads it
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]


def start_module(name: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a module of ours as a process of its own, which is spoken to by lines through its input and output.

    It finds what this process finds. Ctrl-C does not reach it: whoever started it ends it.
    """
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-P", "-m", name, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)},
        start_new_session=True,
    )


def memory_of_machine(
    meminfo: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")
) -> tuple[int, int] | None:
    """Return all memory and what is free of it, in bytes, as the container allows; None where Linux does not say."""
    if not meminfo.is_file():
        return None
    lines = dict(re.findall(r"(\w+):\s+(\d+) kB", meminfo.read_text(encoding="ascii")))
    whole, free = int(lines["MemTotal"]) * 1024, int(lines["MemAvailable"]) * 1024
    limit, current = group / "memory.max", group / "memory.current"
    if limit.is_file() and current.is_file() and (most := limit.read_text(encoding="ascii").strip()).isdigit():
        used = int(current.read_text(encoding="ascii")) - _cached_files(group / "memory.stat")
        whole, free = min(whole, int(most)), min(free, int(most) - used)
    return whole, free


def _cached_files(stat: Path) -> int:
    """Return the bytes of files that a container keeps and would give up first: they count as used there."""
    lines = stat.read_text(encoding="ascii").splitlines() if stat.is_file() else []
    return sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that this process can still take on a device; None where the system does not say.

    Of a machine's memory, the processes that torchrun has started there have equal shares.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    seen = memory_of_machine()
    return seen[1] // int(os.environ.get("LOCAL_WORLD_SIZE") or 1) if seen else None


def peak_memory(device: torch.device) -> dict[str, int | None]:
    """Return the most memory that was taken so far, in bytes: `device`, of a GPU by this process; `process`, of the
    machine by this process, since it began. None where the system does not say.
    """
    on_gpu = int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else None
    if resource is None:
        return {"device": on_gpu, "process": None}
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2) there and elsewhere
    return {"device": on_gpu, "process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}


def wait_for(device: torch.device) -> None:
    """Wait until a device has done what it was given; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory has run out, on a GPU or on the machine."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)
