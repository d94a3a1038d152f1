"""Data: what a batch is made of. A new format is one file here and one line in DATASETS."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Union

import torch
from pydantic import Field
from torch import Tensor

from des4.data.files import FileDataset
from des4.data.folder import Folder, FolderConfig
from des4.data.lists import content_hash
from des4.data.loader import Loader
from des4.data.scenes import Scenes, ScenesConfig
from des4.data.views import ViewsConfig
from des4.types import Config, Dataset

FORMATS: dict[str, type[FileDataset]] = {"folder": Folder}
"""Name → data set in files. Each recognises the layout of its own root; the first that does is the one."""

DATASETS: dict[str, type[FileDataset] | type[Scenes]] = {**FORMATS, "scenes": Scenes}
"""Name → data set, built as `DATASETS[config.name](config)`."""

if TYPE_CHECKING:

    class DataConfig(Config):
        """What every data set's Config has."""

        name: str

else:
    DataConfig = Annotated[Union[tuple(cls.Config for cls in DATASETS.values())], Field(discriminator="name")]  # noqa: UP007
    """The `data` section of a config: `name` says which data set it describes."""


def recognise(root: Path) -> str:
    """Name the format of a data folder by its layout; `folder` where no format claims it."""
    return next((name for name, cls in FORMATS.items() if cls.recognises(root)), "folder")


def pixel_counts(dataset: Dataset, ids: Iterable[str]) -> Tensor:
    """Count the pixels of each class in the masks of `ids`, ignored ones left out: (C,) int64. Raises DataError."""
    num_classes = len(dataset.classes)
    counts = torch.zeros(num_classes, dtype=torch.int64)
    for sample_id in ids:
        counts += torch.bincount(dataset.label(sample_id).flatten(), minlength=256)[:num_classes]
    return counts


__all__ = [
    "DATASETS",
    "FORMATS",
    "DataConfig",
    "FileDataset",
    "Folder",
    "FolderConfig",
    "Loader",
    "Scenes",
    "ScenesConfig",
    "ViewsConfig",
    "content_hash",
    "pixel_counts",
    "recognise",
]
