"""Who is labeled, who is unlabeled, and who is val.

In this order:
- val: the list; else the format's own; else the images with a mask under a sub-folder `val/`, `valid/` or
  `validation/`; else a drawn share of the labeled.
- labeled: the list; else the format's own; else every image with a mask that is neither val nor on the unlabeled
  list.
- unlabeled: the list; else every image (or every image the format says is for training) that is neither.
Where neither a list nor the format says who is trained on, images under sub-folders `test/`, `val/` and so on are not.
Lists come from the config, else from `labeled.txt`, `unlabeled.txt`, `val.txt` in the root (or `labelled.txt`, as some
spell it).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from des4.datasets.faults import stepping_over
from des4.datasets.files.catalogue import Catalogue, Mask
from des4.datasets.files.config import FilesConfig
from des4.datasets.files.finding import if_file
from des4.datasets.files.listed import ListedImages
from des4.datasets.lists import Entry, read_list, refuse_repeats
from des4.datasets.protocols import PROTOCOLS, find_lists
from des4.ops.tail import FEW_VAL
from des4.types import DataError

VAL_FOLDERS = frozenset({"val", "valid", "validation"})
TEST_FOLDERS = frozenset({"test", "testing"})
"""Names, in lower case, of sub-folders that hold the images of a split."""


@dataclass(frozen=True)
class Roles:
    """Ids by role. masks: of the labeled and val images, the only ones that are opened. hidden: masks that a list
    pairs with unlabeled images. notes, val_is_drawn: as of `FileDataset`.
    """

    labeled: tuple[str, ...]
    unlabeled: tuple[str, ...]
    val: tuple[str, ...]
    masks: dict[str, Mask]
    hidden: dict[str, Mask]
    notes: tuple[str, ...]
    val_is_drawn: bool


@dataclass(frozen=True)
class _Lists:
    """What lists say, None where there is none. masks: of the images on the labeled and the val list."""

    labeled: list[str] | None
    unlabeled: list[str] | None
    val: list[str] | None
    masks: dict[str, Mask]
    hidden: dict[str, Mask]


def find_roles(config: FilesConfig, catalogue: Catalogue, listed: ListedImages) -> Roles:
    """Say who is labeled, unlabeled and val. listed: the images, to which lists may add some. Raises DataError."""
    lists = _read_lists(config, listed)
    labeled, unlabeled, val, known = lists.labeled, lists.unlabeled, lists.val, lists.masks
    if not listed.images:
        raise DataError(f"{config.root}: {catalogue.no_images}")
    if labeled is None:
        _refuse_orphans(catalogue)
    usable = catalogue.labeled
    if usable is None:
        usable = [sample_id for sample_id in sorted(listed.images) if sample_id in catalogue.masks]
    if val is None:
        val = list(catalogue.val or (i for i in usable if split_of(i) == "val"))
    spared, notes = _spared(lists, val, listed.images, catalogue)
    if labeled is None:
        labeled = sorted(set(usable) - set(val) - set(unlabeled or ()) - spared)
        if not labeled and spared.intersection(usable):
            raise DataError(
                f"{config.root}: all images with masks are in val or test folders, which nothing is trained on; "
                "move some, or name them with data.labeled=LIST"
            )
        if not labeled:
            raise DataError(f"{config.root}: {catalogue.no_masks}")
    for sample_id in (*labeled, *val):
        if sample_id not in known:
            with stepping_over("missing-file"):
                known[sample_id] = _mask_of(sample_id, listed)
    labeled, val = ([sample_id for sample_id in ids if sample_id in known] for ids in (labeled, val))
    val_is_drawn = False
    if not val:
        with stepping_over("too-few-labeled"):
            labeled, val, note = _draw_val(labeled, config)
            val_is_drawn, notes = True, (*notes, note)
    if unlabeled is None:
        pool = listed.images if catalogue.unlabeled is None else catalogue.unlabeled
        unlabeled = sorted(set(pool) - set(labeled) - set(val) - spared)
    _refuse_val_images(config.root, "labeled", labeled, val)
    _refuse_val_images(config.root, "unlabeled", unlabeled, val)
    masks = {sample_id: known[sample_id] for sample_id in (*labeled, *val)}
    return Roles(tuple(labeled), tuple(unlabeled), tuple(val), masks, lists.hidden, notes, val_is_drawn)


def _spared(
    lists: _Lists, val: Sequence[str], images: Iterable[str], catalogue: Catalogue
) -> tuple[set[str], tuple[str, ...]]:
    """Return the images that their folders keep from training, those of `test/`, and of `val/` but for `val`; and
    notes of them.
    """
    if catalogue.labeled is not None or None not in (lists.labeled, lists.unlabeled):
        return set(), ()  # the format, or lists, say who is trained on
    listed = {*(lists.labeled or ()), *(lists.unlabeled or ()), *val}
    spared = {i: split for i in images if i not in listed and (split := split_of(i))}
    notes = tuple(
        f"left out: {count} images in {split} folders, for no list names them"
        for split, count in sorted(Counter(spared.values()).items())
    )
    return set(spared), notes


def _read_lists(config: FilesConfig, listed: ListedImages) -> _Lists:
    """Read the labeled, unlabeled and val list: the config's, else the protocol's, else the root's, else None."""
    masks: dict[str, Mask] = {}
    hidden: dict[str, Mask] = {}
    published = find_lists(PROTOCOLS[config.protocol], config.lists) if config.protocol and config.lists else {}

    def ids(name: str, given: Path | None) -> list[str] | None:
        own = (config.root / f"{spelling}.txt" for spelling in (name, name.replace("labeled", "labelled")))
        path = given or published.get(name) or next(filter(None, map(if_file, own)), None)
        if path is None:
            return None
        found: list[str] = []
        with stepping_over("unreadable-list"):
            entries: Iterable[Entry] = read_list(path, listed.is_whole)
            for entry in listed.in_own_names(entries) if path in published.values() else entries:
                with stepping_over("missing-file"):
                    sample_id, mask = listed.locate(path, entry)
                    if name != "unlabeled":
                        masks[sample_id] = _existing(mask, path, sample_id, config.root)
                    elif mask is not None:
                        hidden[sample_id] = mask
                    found.append(sample_id)
        with stepping_over("repeated-line"):
            refuse_repeats(path, found)
        return found

    labeled, unlabeled = ids("labeled", config.labeled), ids("unlabeled", config.unlabeled)
    return _Lists(labeled, unlabeled, ids("val", config.val), masks, hidden)


def _refuse_val_images(root: Path, side: str, ids: Iterable[str], val: Iterable[str]) -> None:
    """Raise DataError if an image of a training list is a val image as well."""
    both = sorted(set(ids) & set(val))
    for sample_id in both:
        with stepping_over("in-val-too"):
            raise DataError(
                f"{root}: '{sample_id}' is both {side} and val ({len(both)} such images); "
                "a score on training images says nothing: take them off one list"
            )


def _mask_of(sample_id: str, listed: ListedImages) -> Mask:
    """Return the mask of an image that the format itself names for training or val."""
    for what, found in (("image", listed.images), ("mask", listed.catalogue.masks)):
        if sample_id not in found:
            raise DataError(f"{listed.root}: '{sample_id}' has no {what}, though the data set lists it; restore it")
    return listed.catalogue.masks[sample_id]


def _draw_val(labeled: list[str], config: FilesConfig) -> tuple[list[str], list[str], str]:
    """Draw the val images from the labeled ones; return those that stay, the val images, and a note of it."""
    if len(labeled) < 2:
        raise DataError(f"{config.root}: one labeled image cannot serve training and validation; add a val list")
    share = config.val_fraction or share_for_val(len(labeled))
    count = min(len(labeled) - 1, max(1, round(share * len(labeled))))
    val = set(random.Random(f"val/{config.val_seed}").sample(sorted(labeled), count))
    note = f"val: {count} of the {len(labeled)} labeled images, drawn with val_seed={config.val_seed}"
    return [sample_id for sample_id in labeled if sample_id not in val], sorted(val), note


def share_for_val(num_masks: int) -> float:
    """Return the share of the images with masks that is drawn for validation: FEW_VAL of them, but 10 to 30 %."""
    return round(min(0.3, max(0.1, FEW_VAL / num_masks)), 2)


def split_of(sample_id: str) -> Literal["val", "test"] | None:
    """Name the split whose folder an image lies in; None: it may be trained on."""
    folders = {part.lower() for part in PurePosixPath(sample_id).parts[:-1]}
    if folders & TEST_FOLDERS:
        return "test"
    return "val" if folders & VAL_FOLDERS else None


def _existing(mask: Mask | None, path: Path, sample_id: str, root: Path) -> Mask:
    """Return the mask of an image that the list at `path` names. Raises DataError if there is none."""
    if mask is None or not mask.path.is_file():
        raise DataError(
            f"{path}: '{sample_id}' has no mask {mask.path if mask else f'in {root}'}; "
            "add the mask, move the line to the unlabeled list, or write an `image mask` pair"
        )
    return mask


def _refuse_orphans(catalogue: Catalogue) -> None:
    """Without a labeled list, names alone say who is labeled; then a mask that no image claims is a mistake."""
    orphans = sorted(set(catalogue.masks) - set(catalogue.images))
    for sample_id in orphans:
        with stepping_over("orphan-mask"):
            raise DataError(
                f"{catalogue.masks[sample_id].path}: no image belongs to the mask '{sample_id}' "
                f"({len(orphans)} such masks); image and mask must have the same stem"
            )
