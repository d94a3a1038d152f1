"""What a prediction is computed on, by name: one device, or several."""

from __future__ import annotations

import re

import torch

from des4.engine import choose_device
from des4.types import ConfigError


def one_device(name: str) -> torch.device:
    """Return the device of a name: `auto`, `cpu`, `cuda`, or `cuda:1`, the second GPU. Raises ConfigError."""
    if name in ("auto", "cpu"):
        return choose_device("auto" if name == "auto" else "cpu")
    found = re.fullmatch(r"cuda(?::(\d+))?", name)
    if found is None:
        raise ConfigError(f"device {name}: give auto, cpu or cuda; cuda:1 is the second GPU")
    count = _count_of_gpus(name)
    if found[1] is None:
        return choose_device("cuda")
    if int(found[1]) >= count:
        raise ConfigError(f"device {name}: PyTorch sees {_gpus(count)}")
    return torch.device("cuda", int(found[1]))


def several_devices(names: str) -> list[torch.device]:
    """Return the devices of `0,1` (GPUs by number), of `cpu,cpu`, or of `all`, which is every GPU.

    A device named twice gets two processes. Raises ConfigError, also for a lone number, which could mean a GPU or how
    many of them.
    """
    if names == "all":
        return [torch.device("cuda", number) for number in range(_count_of_gpus("all"))]
    given = [name.strip() for name in names.split(",")]
    if len(given) == 1 and given[0].isdecimal():
        number = int(given[0])
        raise ConfigError(f"devices {names}: for GPU number {number} alone give --device cuda:{number}; "
                          f"several are named, as {','.join(map(str, range(max(number, 2))))}, or all")  # fmt: skip
    return [one_device(f"cuda:{name}" if name.isdecimal() else name) for name in given]


def _count_of_gpus(name: str) -> int:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        raise ConfigError(f"device {name}: PyTorch sees no GPU here; give cpu")
    return count


def _gpus(count: int) -> str:
    return "one GPU, cuda:0" if count == 1 else f"{count} GPUs, cuda:0 to cuda:{count - 1}"
