"""Pixels of each class in masks, image by image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from des4.types import DataError, Dataset


def class_pixels(dataset: Dataset, ids: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
    """Yield each id with the pixels of each class in its mask, ignored ones left out: (C,) int64.

    Raises DataError where a mask cannot be read, unless the data set skips such samples; then none is yielded of it.
    """
    for sample_id in ids:
        try:
            label = dataset.label(sample_id).flatten()
        except DataError:
            if not dataset.skip_broken:
                raise
            continue
        yield sample_id, torch.bincount(label, minlength=256)[: len(dataset.classes)]
