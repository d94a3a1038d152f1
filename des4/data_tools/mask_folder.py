"""The masks of a data set in any format, written as PNGs of class indices: what was drawn in an annotation tool."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from des4.data_tools.new_folder import new_folder, refuse_place
from des4.datasets.files import FileDataset
from des4.types import IGNORE, DataError

Walk = Callable[[Sequence[str]], Iterable[str]]


def write_masks(dataset: FileDataset, out: Path, classes: Sequence[str] | None = None, walk: Walk = iter) -> int:
    """Write the mask of each labeled and val image as `out/ID.png`, and return how many there are.

    out: a new or empty folder outside of the data. classes: names in the order in which they are numbered; None: as the
    data set has them. Raises DataError if one of its classes is not among them, a mask cannot be read, or the folder
    cannot be written; then there is none.
    """
    refuse_place(out, dataset)
    wanted = list(classes or dataset.classes)
    if missing := [name for name in dataset.classes if name not in wanted]:
        raise DataError(
            f"{dataset.root}: has the class {missing[0]}, which is none of {', '.join(wanted)}; if it is only what "
            "lies under no region, say data.background=ignore"
        )
    table = np.full(256, IGNORE, np.uint8)
    table[: len(dataset.classes)] = [wanted.index(name) for name in dataset.classes]
    ids = sorted({*dataset.labeled, *dataset.val})
    with new_folder(out) as partial:
        for name in walk(ids):
            path = partial / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(table[dataset.label(name).numpy()]).save(path)
    return len(ids)
