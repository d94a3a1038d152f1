"""What env.json keeps of the machine and the software that a run was trained on."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import des4


def environment(device: torch.device) -> dict[str, Any]:
    """Return what env.json keeps: versions, machine, source revision and command."""
    return {
        "des4": des4.__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "torchvision", "timm", "numpy", "pillow", "simplejpeg")},
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "commit": _commit(),
        "command": shlex.join(sys.argv),
    }


def _commit() -> str | None:
    """Return the commit of the checkout this package runs from, `-dirty` if files have changed; None without one."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None
