"""Data: what a batch is made of. A new format is one file here and one line in DATASETS."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from des4.data.folder import Folder, FolderConfig
from des4.data.lists import content_hash
from des4.data.loader import Loader
from des4.data.scenes import Scenes, ScenesConfig
from des4.data.views import ViewsConfig
from des4.types import Dataset

DataConfig = Annotated[FolderConfig | ScenesConfig, Field(discriminator="name")]
"""The `data` section of a config: `name` says which data set it describes."""

DATASETS: dict[str, type[Folder] | type[Scenes]] = {"folder": Folder, "scenes": Scenes}
"""Name → data set, built as `DATASETS[config.name](config)`."""


def pixel_counts(dataset: Dataset, ids: Iterable[str]) -> Tensor:
    """Count the pixels of each class in the masks of `ids`, ignored ones left out: (C,) int64. Raises DataError."""
    num_classes = len(dataset.classes)
    counts = torch.zeros(num_classes, dtype=torch.int64)
    for sample_id in ids:
        counts += torch.bincount(dataset.label(sample_id).flatten(), minlength=256)[:num_classes]
    return counts


__all__ = [
    "DATASETS",
    "DataConfig",
    "Folder",
    "FolderConfig",
    "Loader",
    "Scenes",
    "ScenesConfig",
    "ViewsConfig",
    "content_hash",
    "pixel_counts",
]
