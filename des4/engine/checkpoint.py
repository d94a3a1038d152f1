"""Checkpoints that survive a crash: written aside, synced, renamed; verified by hash when read. No pickle anywhere."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

from des4.types import RunError

_PAYLOAD = ("state.safetensors", "meta.json")


@dataclass(frozen=True)
class Checkpoint:
    """A state as it was saved: tensors by name, and what JSON can hold."""

    step: int
    tensors: dict[str, Tensor]
    meta: dict[str, Any]


class Checkpoints:
    """The newest `keep` states of a run, in `folder/step-N/`."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def save(self, step: int, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Path:
        """Save a state, then delete older ones beyond `keep`. Raises RunError; what was there is then untouched."""
        target, partial = self.folder / f"step-{step}", self.folder / ".partial"
        try:
            if partial.exists():  # left by a save that was killed
                shutil.rmtree(partial)
            partial.mkdir(parents=True)
            # clones: safetensors refuses tensors that share memory, as the shared prototypes do
            clones = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
            save_file(clones, partial / "state.safetensors")
            (partial / "meta.json").write_text(json.dumps({"step": step, **meta}), encoding="utf-8")
            manifest = {name: _sha256(partial / name) for name in _PAYLOAD}
            (partial / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
            for path in (*partial.iterdir(), partial):
                _sync(path)
            if target.exists():  # a damaged one, or the same state again
                target.rename(partial / "replaced")
            partial.rename(target)
            shutil.rmtree(target / "replaced", ignore_errors=True)
            _sync(self.folder)
        except BaseException as error:
            shutil.rmtree(partial, ignore_errors=True)
            if isinstance(error, OSError | RuntimeError):
                raise RunError(f"checkpoint {target} cannot be written ({error}); free some disk space") from error
            raise
        newer = [other for other in self.steps() if other > step]  # left by a run that was resumed before them
        for stale in newer + [other for other in self.steps() if other <= step][: -self.keep]:
            shutil.rmtree(self.folder / f"step-{stale}")
        return target

    def steps(self) -> list[int]:
        """Return the steps saved, oldest first."""
        found = (re.fullmatch(r"step-(\d+)", path.name) for path in self.folder.glob("step-*"))
        return sorted(int(match[1]) for match in found if match)

    def load(self, say: Callable[[str], object]) -> Checkpoint | None:
        """Load the newest sound state; None if there is none to load.

        say: told of every damaged one that was passed over. Raises RunError if all are damaged.
        """
        steps = self.steps()
        for step in reversed(steps):
            folder = self.folder / f"step-{step}"
            if (damage := _damage(folder)) is None:
                meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
                return Checkpoint(step, load_file(folder / "state.safetensors"), meta)
            say(f"checkpoint {folder} is damaged ({damage}); the one before it is used")
        if steps:
            raise RunError(f"every checkpoint in {self.folder} is damaged; start again with --overwrite")
        return None


def optimiser_state(optimiser: Optimizer) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Flatten an optimiser's state to `<parameter>/<key>` → tensor, and → number for what is none.

    Rates and weight decay are settings, not state: they come from the config.
    """
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, float] = {}
    for group in optimiser.param_groups:
        for name, parameter in zip(group["param_names"], group["params"], strict=True):
            for key, value in optimiser.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"{name}/{key}"] = value
                elif value is not None:
                    numbers[f"{name}/{key}"] = value
    return tensors, numbers


def restore_optimiser(optimiser: Optimizer, tensors: Mapping[str, Tensor], numbers: Mapping[str, float]) -> None:
    """Undo `optimiser_state`. Raises RunError if the state names a parameter the optimiser does not train."""
    packed = optimiser.state_dict()
    names = [name for group in optimiser.param_groups for name in group["param_names"]]
    index = {name: number for number, name in enumerate(names)}
    state: dict[int, dict[str, Tensor | float]] = {}
    values: dict[str, Tensor | float] = {**tensors, **numbers}
    for path, value in values.items():
        name, _, key = path.rpartition("/")
        if name not in index:
            raise RunError(f"the checkpoint trains {name}, this run does not; resume with the config it was saved with")
        state.setdefault(index[name], {})[key] = value
    optimiser.load_state_dict({"state": state, "param_groups": packed["param_groups"]})


def rng_state(device: torch.device) -> dict[str, Tensor]:
    """Return the states of torch's generators, uint8 tensors by device type."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_rng(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Undo `rng_state`. A run that moves to another kind of device keeps that device's generator as it is."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def _damage(folder: Path) -> str | None:
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        for name in _PAYLOAD:
            if manifest[name] != _sha256(folder / name):
                return f"the hash of {name} differs from the manifest"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
