"""The GPU itself: its name, and kernels of several processes on it at once."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def gpu_name() -> str:
    """Name the GPU without touching it: a process that has talked to it cannot be forked."""
    if (tool := shutil.which("nvidia-smi")) is None:
        return "no GPU"
    asked = [tool, "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() or "no GPU"  # noqa: S603


@contextmanager
def shared_kernels(wanted: bool, place: Path) -> Iterator[str]:
    """Let the kernels of several processes run side by side, by CUDA's multi-process service; say what came of it."""
    control = shutil.which("nvidia-cuda-mps-control", path=f"{os.environ['PATH']}:/usr/local/nvidia/bin")
    if not wanted or control is None:
        yield "processes take turns on the GPU" + (" (no nvidia-cuda-mps-control here)" if wanted else "")
        return
    names = {"CUDA_MPS_PIPE_DIRECTORY": place / "mps", "CUDA_MPS_LOG_DIRECTORY": place / "mps-log"}
    for name, folder in names.items():
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[name] = str(folder)
    try:
        subprocess.run([control, "-d"], check=True, timeout=30)  # noqa: S603
        probe = "import torch; print(float(torch.ones(9, device='cuda').sum()))"
        subprocess.run([sys.executable, "-c", probe], check=True, timeout=60, stdout=subprocess.DEVNULL)  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        _quit(control)
        for name in names:
            del os.environ[name]
        yield f"processes take turns on the GPU (the multi-process service did not start: {error})"
        return
    try:
        yield "kernels of all processes run side by side (multi-process service)"
    finally:
        _quit(control)


def _quit(control: str) -> None:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        subprocess.run([control], input=b"quit\n", timeout=30, check=False, stdout=subprocess.DEVNULL)  # noqa: S603
