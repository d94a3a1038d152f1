"""Checkpoints that survive a crash: written aside, synced, renamed; verified by hash when read. No pickle anywhere."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor
from torch.optim import Optimizer

from des4.runlog import sync, unwritable
from des4.types import RunError

_STATE, _META, _MANIFEST = "state.safetensors", "meta.json", "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """A state as it was saved: tensors by name, and what JSON can hold."""

    step: int
    tensors: dict[str, Tensor]
    meta: dict[str, Any]


class Checkpoints:
    """The newest `keep` states of a run, in `folder/step-N/`. Of several processes one saves; all may load."""

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
            _write(partial, tensors, {"step": step, **meta})
            if target.exists():  # a damaged one, or the same state again
                target.rename(partial / "replaced")
            partial.rename(target)
            sync(self.folder)
        except BaseException as error:
            shutil.rmtree(partial, ignore_errors=True)
            if isinstance(error, OSError | RuntimeError | SafetensorError):
                raise unwritable(target, error) from error
            raise
        self._delete_stale(step)
        return target

    def _delete_stale(self, step: int) -> None:
        """Delete what the state of `step` replaces. What cannot be deleted now is tried again at the next save."""
        shutil.rmtree(self.folder / f"step-{step}" / "replaced", ignore_errors=True)
        for newer in (other for other in self.steps() if other > step):  # left by a run that was resumed before them
            shutil.rmtree(self.folder / f"step-{newer}", ignore_errors=True)
        self.delete_old(step)

    def delete_old(self, step: int) -> None:
        """Delete all but the newest `keep` of the states up to that of `step`, as a save does that nothing kills."""
        for old in [other for other in self.steps() if other <= step][: -self.keep]:
            shutil.rmtree(self.folder / f"step-{old}", ignore_errors=True)

    def steps(self) -> list[int]:
        """Return the steps saved, oldest first."""
        found = (re.fullmatch(r"step-(\d+)", path.name) for path in self.folder.glob("step-*"))
        return sorted(int(match[1]) for match in found if match)

    def newest(self) -> Path | None:
        """Return the folder of the newest state, sound or not; None if there is none."""
        steps = self.steps()
        return self.folder / f"step-{steps[-1]}" if steps else None

    def load(self, say: Callable[[str], object]) -> Checkpoint | None:
        """Load the newest sound state; None if there is none to load.

        say: told of every damaged one that was passed over, and of the one used in its place.
        Raises RunError if all are damaged.
        """
        steps = self.steps()
        for place in reversed(range(len(steps))):
            folder = self.folder / f"step-{steps[place]}"
            try:
                return _read(folder, steps[place])
            except _Damaged as damage:
                instead = f"step-{steps[place - 1]} is taken in its place" if place else "there is none before it"
                say(f"checkpoint {folder} is damaged ({damage}); {instead}")
        if steps:
            raise RunError(f"every checkpoint in {self.folder} is damaged; start again with --overwrite")
        return None


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder is a state that `Checkpoints` saved."""
    return bool(re.fullmatch(r"step-\d+", folder.name)) and (folder / _MANIFEST).is_file()


def read_meta(folder: Path) -> dict[str, Any]:
    """Read what a state holds beside its tensors. Raises RunError if it is damaged."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_bytes())
        meta = json.loads(_verified(folder / _META, manifest[_META]))
    except (_Damaged, OSError, ValueError, KeyError, TypeError) as error:
        raise _unusable(folder, error) from error
    return dict(meta)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read one state. Raises RunError if it is damaged."""
    try:
        return _read(folder, int(folder.name.removeprefix("step-")))
    except _Damaged as damage:
        raise _unusable(folder, damage) from damage


def _unusable(folder: Path, reason: Exception) -> RunError:
    others = [other for other in Checkpoints(folder.parent).steps() if folder.name != f"step-{other}"]
    instead = f"give {folder.parent / f'step-{others[-1]}'} in its place" if others else "there is no other"
    return RunError(f"{folder} is damaged ({reason}); {instead}")


def state_file(folder: Path) -> Path:
    """Return the file of a state that holds its tensors."""
    return folder / _STATE


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
    parameters = {
        name: parameter
        for group in optimiser.param_groups
        for name, parameter in zip(group["param_names"], group["params"], strict=True)
    }
    for path, value in {**tensors, **numbers}.items():
        name, _, key = path.rpartition("/")
        if name not in parameters:
            raise RunError(f"the checkpoint trains {name}, this run does not; resume with the config it was saved with")
        parameter = parameters[name]
        if isinstance(value, Tensor):
            # Fused optimisers go through memory: moments have to lie there as the parameter does, channels last or not.
            like = parameter if value.shape == parameter.shape else value
            value = torch.empty_like(like, dtype=value.dtype, device=parameter.device).copy_(value)
        optimiser.state[parameter][key] = value


class _Damaged(Exception):  # noqa: N818  # it is no error while there is another checkpoint
    """What is wrong with a checkpoint."""


def _write(folder: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Fill a new folder, and wait until it is on the disk."""
    # clones: safetensors refuses tensors that share memory, as the shared prototypes do
    clones = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    save_file(clones, folder / _STATE)
    (folder / _META).write_text(json.dumps(meta), encoding="utf-8")
    manifest = {}
    for name in (_STATE, _META):
        with (folder / name).open("rb") as file:
            manifest[name] = hashlib.file_digest(file, "sha256").hexdigest()
    (folder / _MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    for name in (_STATE, _META, _MANIFEST):
        sync(folder / name)
    sync(folder)


def _read(folder: Path, step: int) -> Checkpoint:
    """Read a checkpoint; each file once, so that what is loaded is what was hashed. Raises _Damaged."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_bytes())
        state, meta = (_verified(folder / name, manifest[name]) for name in (_STATE, _META))
        checkpoint = Checkpoint(step, load(state), json.loads(meta))
        if checkpoint.meta["step"] != step:
            raise _Damaged(f"it is of step {checkpoint.meta['step']}")
    except OSError as error:
        raise _Damaged(f"{Path(error.filename or folder).name}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise _Damaged(f"{type(error).__name__}: {error}") from error
    return checkpoint


def _verified(path: Path, expected: str) -> bytes:
    """Return the content of a file. Raises _Damaged if it is not the one the manifest was made for."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != expected:
        raise _Damaged(f"the hash of {path.name} differs from the manifest")
    return content
