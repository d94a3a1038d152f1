"""From settings to a dataset: opened, checked, its bands known, labeled images held out, true masks revealed."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import filterfalse
from typing import Any, Literal

from des4.config import RunConfig
from des4.data_tools.checks.check import refuse_errors, warnings_by_kind
from des4.data_tools.checks.inspection import Role
from des4.data_tools.importing import prepared
from des4.datasets import DATASETS, FileDataset, content_hash
from des4.datasets.faults import collecting
from des4.datasets.files import FilesConfig
from des4.engine.distributed import on_first
from des4.images.bands import Chosen
from des4.ops.reduce import gather_over_ranks
from des4.types import Bands, ConfigError, DataError, Dataset

MEASURED: Literal["measured"] = "measured"
"""What images are made of is seen from them; else it is known already."""

Known = Bands | None | Literal["measured"]


def dataset(config: RunConfig, roles: Sequence[Role] = ("labeled", "val"), bands: Known = MEASURED) -> Dataset:
    """Build the data set and check its samples of some roles. Raises DataError at what `des4 data check` calls one.

    bands: what a network was trained on.
    """
    return checked_dataset(config, roles, bands)[0]


@dataclass(frozen=True)
class Seen:
    """What the check of a data set leaves behind. counts: labeled pixels of each class. warnings: a line a kind."""

    counts: list[int]
    warnings: tuple[str, ...]


def checked_dataset(config: RunConfig, roles: Sequence[Role], bands: Known) -> tuple[Dataset, Seen | None]:
    """Build the data set, let the first process check it, and say what it found; None for data not in files."""
    data = unchecked_dataset(config, bands, hold_out="labeled" in roles)
    if not isinstance(data, FileDataset) or not isinstance(config.data, FilesConfig):
        return data, None
    done = on_first(lambda: refuse_errors(data, config.data, roles))
    _share_bands(data)
    counts = [count.pixels["labeled"] for count in done.classes] if done else None
    return data, Seen(gather_over_ranks(counts)[0] or [], warnings_by_kind(done) if done else ())


def opened_dataset(config: RunConfig, bands: Known) -> Dataset:
    """Build the data set and look at its files' headers. Raises DataError."""
    data = unchecked_dataset(config, bands, hold_out=True)
    data.check_labeled()
    if isinstance(data, FileDataset):
        _share_bands(data)
    return data


def unchecked_dataset(config: RunConfig, bands: Known, hold_out: bool) -> Dataset:
    """Build the data set. hold_out: keep labeled images from training, if the config says so. Raises DataError."""
    given: Any = prepared(config.data) if isinstance(config.data, FilesConfig) else config.data
    cls: Any = DATASETS[given.name]
    data: Dataset = cls(given)
    if given is not config.data:
        data.notes = (
            f"imported: {given.root} holds what was read of it, and import.json there what was lost",
            *data.notes,
        )
    if isinstance(data, FileDataset) and bands != MEASURED:
        data.read_as(bands)
    elif bands is not None and bands != MEASURED:
        raise DataError(f"{config.data.name}: are pictures in RGB, and the network was trained on {Chosen.of(bands)}")
    if hold_out and config.guard.held_out:
        _hold_out(data, config.guard.held_out)
    return data


def _share_bands(data: FileDataset) -> None:
    """Let the first process measure what the images are made of, where that is not known, and tell the others."""
    found = on_first(lambda: data.bands.model_dump() if data.bands else None)
    shared = gather_over_ranks(found)[0]
    data.read_as(Bands.model_validate(shared) if shared else None)


def _hold_out(data: Dataset, wanted: float) -> None:
    """Keep a number or a share of the labeled images from training. Raises DataError."""
    _take_held_out(data, wanted)
    count = len(data.held_out) + len(data.labeled)
    _readable(data, data.held_out)
    data.notes += (
        f"held out: {len(data.held_out)} of the {count} labeled images, which are scored and not learnt from",
    )


def _take_held_out(data: Dataset, wanted: float) -> None:
    """Take the images that are held out off the lists of training. Raises DataError.

    They are drawn without regard to the seed of the training, so that several seeds share them.
    """
    ids = sorted(data.labeled)
    count = max(1, round(wanted * len(ids))) if wanted < 1 else int(wanted)
    if count >= len(ids):
        raise DataError(
            f"guard.held_out={wanted:g} leaves none of the {len(ids)} labeled images to learn from; hold out fewer"
        )
    data.hold_out(random.Random("held out").sample(ids, count))


def truth_images(config: RunConfig, data: Dataset, num_unlabeled: int) -> tuple[str, ...]:
    """Open the masks of unlabeled images to those who ask for them; return the images to measure pseudo-labels on.

    These are evenly spaced in the list, and none is labeled too. Raises ConfigError or DataError where there are no
    masks, or an oracle lacks some.
    """
    wanted = config.guard.truth_images
    if config.train.oracle and not num_unlabeled:
        raise ConfigError(
            f"train.oracle: method={config.method.name} reads no unlabeled image, so there is nothing to tell it; to "
            "train with all masks, name all images in data.labeled"
        )
    if not config.train.oracle and not wanted:
        return ()
    known = data.reveal()
    if config.train.oracle and len(known) < len(data.unlabeled):
        there = set(known)
        first = next(sample_id for sample_id in data.unlabeled if sample_id not in there)
        raise DataError(
            f"train.oracle: {len(data.unlabeled) - len(known)} of the {len(data.unlabeled)} unlabeled images have "
            f"no mask, the first is '{first}'; add the masks, or name in data.unlabeled the images that have one"
        )
    known = [*filterfalse(frozenset(data.labeled).__contains__, known)]
    if wanted and not known:
        raise DataError(f"guard.truth_images={wanted}: no image that is unlabeled alone has a mask; leave it out")
    count = min(wanted, len(known))
    return _readable(data, (known[number * len(known) // count] for number in range(count)))


def _readable(data: Dataset, ids: Iterable[str]) -> tuple[str, ...]:
    """Read images and masks that no check of the lists sees, so that none stops a run on its way. Raises DataError."""
    found = tuple(ids)
    for sample_id in found:
        data.image(sample_id), data.label(sample_id)
    return found


def lists_now(config: RunConfig) -> dict[str, Any]:
    """Return what results.json would say of the lists of a run that began now: `labeled`, `labeled_hash`, and so on.

    No image and no mask is opened. Raises DataError where data or lists cannot be found, or have faults.
    """
    if isinstance(config.data, FilesConfig):
        config = config.model_copy(update={"data": config.data.model_copy(update={"cache": 0.0})})  # it makes a folder
    with collecting() as faults:  # classes that nobody names are then not counted, which would open all masks
        data = unchecked_dataset(config, MEASURED, hold_out=False)
    if faults:
        raise faults[0].error
    if config.guard.held_out:
        _take_held_out(data, config.guard.held_out)
    return list_facts(data)


def list_facts(data: Dataset) -> dict[str, Any]:
    """Return how many images each list has, and its hash."""
    lists = {"labeled": data.labeled, "unlabeled": data.unlabeled, "val": data.val}
    return {
        **{name: len(ids) for name, ids in lists.items()},
        **{f"{name}_hash": content_hash(ids) for name, ids in lists.items()},
    }
