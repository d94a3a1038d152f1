"""What a run may change when it goes on, and whether what it was trained on and has trained so far still fits.

Some settings change no number that is trained, and are taken over as they come. Some decide what the state of a run
means, and never change. All others change the run from here on, which the user has to ask for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from des4.config import RunConfig
from des4.datasets import content_hash
from des4.engine import Checkpoints
from des4.opening import MEASURED, Known
from des4.runlog import RunFolder
from des4.training import Training
from des4.types import Bands, Dataset, RunError

HARMLESS = frozenset({
    "train.workers", "train.log_every", "train.checkpoint_every", "train.max_skipped_steps",
    "train.deterministic", "train.start_from",
    "train.stop_after",  # says when to stop, and so whether a run that has stopped early goes on
    "train.log_to",
    "train.shard",  # sums of gradients are rounded otherwise, as with another number of processes
    "train.device",  # the numbers of another kind of device are rounded otherwise, and a run that moves needs it
    "data.cache", "data.cache_dir",
    "guard.drift_factor", "guard.truth_images",
})  # fmt: skip
"""Settings that change no trained number."""

PLACES = frozenset({"data.root", "data.labeled", "data.unlabeled", "data.val", "data.lists", "data.shards"})
"""Where the data lie. They change nothing if the lists found there are the ones the run began with."""

FIXED = ("method.name", "model.", "optim.name", "train.seed", "train.oracle", "data.bands", "data.value_range")
"""Settings, and beginnings of their names, without which the state of a run, or its name, means nothing."""


def check_settings(run: RunFolder, changed: Sequence[str], force: bool) -> None:
    """Refuse changes that can never be made, and those that are not forced.

    changed: lines such as `train.steps: 100 -> 200`. Raises RunError, which lists them.
    """
    if fixed := [line for line in changed if line.startswith(FIXED)]:
        raise RunError(f"{run.path} cannot go on with another method, network, seed or oracle; train into a new "
                       f"folder, or keep: {'; '.join(fixed)}")  # fmt: skip
    harmless = HARMLESS | PLACES if run.data() else HARMLESS
    _refuse_unless(force, run, [line for line in changed if line.partition(":")[0] not in harmless])


def check_data(run: RunFolder, dataset: Dataset, force: bool) -> list[str]:
    """Compare classes and lists with those the run began with; return what has changed, in lines.

    Raises RunError if classes have, or if lists have and it is not forced.
    """
    before, now = run.data(), describe(dataset)
    if not before:  # it was stopped before it noted them
        return []
    if before["classes"] != now["classes"]:
        raise RunError(f"{run.path} was trained on the classes {', '.join(before['classes'])}; its data now have "
                       f"{', '.join(now['classes'])}: train into a new folder, or bring those back")  # fmt: skip
    changed = [
        f"list of {name} images: {before[name]['images']} -> {now[name]['images']}, of other ids"
        for name in sorted(now.keys() - {"classes", "bands"})
        if before[name] != now[name]
    ]
    _refuse_unless(force, run, changed)
    return changed


def check_checkpoints(run: RunFolder, own: RunConfig) -> None:
    """See that a run that had got far has a checkpoint: without one it would start again. Raises RunError.

    own: the settings it was trained with.
    """
    if Checkpoints(run.checkpoints).steps():
        return
    rows = run.metrics()
    reached = max((row["step"] for row in rows), default=0)
    validated = any(key.startswith("val/") for row in rows for key in row)  # after a checkpoint, always
    if (run.path / "results.json").exists() or validated or reached > own.train.checkpoint_every:
        raise RunError(f"{run.path} had come to step {reached}, but {run.checkpoints} holds no checkpoint; "
                       "put them back, or start again with --overwrite")  # fmt: skip


def check_state(run: RunFolder, training: Training) -> None:
    """Refuse a training with other settings that the newest checkpoint does not fit. Raises RunError."""
    checkpoint = Checkpoints(run.checkpoints).load(lambda damage: None)  # the trainer will load it again, and say so
    if checkpoint is None:
        return
    if checkpoint.step > training.schedule.steps:
        raise RunError(f"{run.path} is at step {checkpoint.step}, beyond {training.schedule.steps} steps; "
                       "raise train.steps")  # fmt: skip
    saved = {name: tuple(tensor.shape) for name, tensor in checkpoint.tensors.items() if name.startswith("method/")}
    built = {f"method/{name}": tuple(tensor.shape) for name, tensor in training.method.state_dict().items()}
    trained = {name for group in training.optimiser.param_groups for name in group["param_names"]}
    moments = {name.split("/")[1] for name in checkpoint.tensors if name.startswith("optimiser/")}
    if differing := {n for n in saved.keys() | built.keys() if saved.get(n) != built.get(n)} | (moments - trained):
        raise RunError(f"{run.path} trains another network than these settings ({min(differing)} differs); "
                       "keep them, or train into a new folder")  # fmt: skip


def describe(dataset: Dataset) -> dict[str, Any]:
    """Return what a run is trained on: its class names, of each list the length and the hash, and bands, if any."""
    lists = {"labeled": dataset.labeled, "unlabeled": dataset.unlabeled, "val": dataset.val}
    described = {name: {"images": len(ids), "hash": content_hash(ids)} for name, ids in lists.items()}
    bands = {"bands": dataset.bands.model_dump(mode="json")} if dataset.bands else {}
    return {"classes": list(dataset.classes), **described, **bands}


def bands_of(run: RunFolder) -> Known:
    """Return what the images of a run are made of, as it has noted; if it has not yet, that is to be measured."""
    data = run.data()
    if not data:
        return MEASURED
    return Bands.model_validate(data["bands"]) if data.get("bands") else None


def _refuse_unless(force: bool, run: RunFolder, changed: Sequence[str]) -> None:
    if changed and not force:
        raise RunError(f"{run.path} cannot be continued with other settings unless --force says so; "
                       f"train into a new folder, or keep: {'; '.join(changed)}")  # fmt: skip
