"""Data sets: who is labeled, and what an image's pixels are. A new format is one file here and one line in FORMATS."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Union

import torch
from pydantic import Field
from torch import Tensor

from des4.data.class_pixels import class_pixels
from des4.datasets.camvid import Camvid, CamvidConfig
from des4.datasets.cityscapes import Cityscapes, CityscapesConfig
from des4.datasets.coco import Coco, CocoConfig
from des4.datasets.cvat import Cvat, CvatConfig
from des4.datasets.files import FileDataset, FilesConfig
from des4.datasets.folder import Folder, FolderConfig
from des4.datasets.label_studio import LabelStudio, LabelStudioConfig
from des4.datasets.labelme import Labelme, LabelmeConfig
from des4.datasets.lists import content_hash
from des4.datasets.protocols import recognise_lists
from des4.datasets.scenes import Scenes, ScenesConfig
from des4.datasets.voc import Voc, VocConfig
from des4.types import Config, Dataset

FORMATS: dict[str, type[FileDataset]] = {
    "voc": Voc,
    "cityscapes": Cityscapes,
    "camvid": Camvid,
    "cvat": Cvat,
    "coco": Coco,
    "label_studio": LabelStudio,
    "labelme": Labelme,
    "folder": Folder,
}
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
    """Name the format of a data folder by its layout; `folder` where no format claims it, or nobody can look."""
    try:
        return next((name for name, cls in FORMATS.items() if cls.recognises(root)), "folder")
    except OSError:  # no right to look, or a name too long to be one
        return "folder"


def open_files(config: FilesConfig) -> FileDataset:
    """Open the data set that a config describes. Raises DataError."""
    reader: Any = next(cls for cls in FORMATS.values() if cls.Config is type(config))
    dataset: FileDataset = reader(config)
    return dataset


def pixel_counts(dataset: Dataset, ids: Iterable[str]) -> Tensor:
    """Count the pixels of each class in the masks of `ids`, ignored ones left out: (C,) int64.

    Raises DataError where a mask cannot be read, unless the data set skips such samples.
    """
    none = torch.zeros(len(dataset.classes), dtype=torch.int64)
    return sum((counts for _, counts in class_pixels(dataset, ids)), start=none)


__all__ = [
    "DATASETS",
    "FORMATS",
    "Camvid",
    "CamvidConfig",
    "Cityscapes",
    "CityscapesConfig",
    "Coco",
    "CocoConfig",
    "Cvat",
    "CvatConfig",
    "DataConfig",
    "FileDataset",
    "Folder",
    "FolderConfig",
    "LabelStudio",
    "LabelStudioConfig",
    "Labelme",
    "LabelmeConfig",
    "Scenes",
    "ScenesConfig",
    "Voc",
    "VocConfig",
    "content_hash",
    "open_files",
    "pixel_counts",
    "recognise",
    "recognise_lists",
]
