"""Images in memory: decoded once for all workers, and copied to the GPU once by each."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from des4.config import load_config
from des4.data_tools.importing import prepared
from des4.datasets import open_files
from des4.datasets.files import FilesConfig
from des4.runlog import write_atomically
from des4.types import Dataset
from gpu.packing import ids_of


class Resident:
    """A data set whose images and masks are decoded already. device: where they are wanted; each is copied once.

    Everything else is asked of the data set itself.
    """

    def __init__(self, decoded: Mapping[str, tuple[Tensor, Tensor]], device: torch.device) -> None:
        self.device = device
        self._decoded = decoded
        self._copies: dict[str, tuple[Tensor, Tensor]] = {}
        self._dataset: Dataset | None = None

    def of(self, dataset: Dataset) -> Resident:
        """Stand for a data set with these images; copies are shared by all that do."""
        other = Resident(self._decoded, self.device)
        other._copies, other._dataset = self._copies, dataset
        return other

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

    def image(self, sample_id: str) -> Tensor:
        return self._pair(sample_id)[0]

    def label(self, sample_id: str) -> Tensor:
        return self._pair(sample_id)[1]

    def _pair(self, sample_id: str) -> tuple[Tensor, Tensor]:
        if self.device.type == "cpu":
            return self._decoded[sample_id]
        if (pair := self._copies.get(sample_id)) is None:
            image, label = self._decoded[sample_id]
            pair = self._copies[sample_id] = image.to(self.device), label.to(self.device)
        return pair


def decoded(place: Path, name: str, threads: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Decode all images with masks of a packed data set; id → image (3, H, W) and label (H, W), bytes."""
    ids = sorted({line for path in (place / "lists" / name).rglob("*.txt") for line in ids_of(path)})
    data = {"root": str(place / name)}
    for kind, part in (("labeled", ids[:-1]), ("val", ids[-1:])):  # so that every mask is opened; nothing is trained
        data[kind] = str(place / f"{name}-{kind}.txt")
        write_atomically(Path(data[kind]), "\n".join(part) + "\n")
    config = load_config({"method": "supervised", "data": data})
    assert isinstance(config.data, FilesConfig)
    dataset = open_files(prepared(config.data))
    with ThreadPoolExecutor(threads) as pool:
        pairs = pool.map(lambda one: (dataset.image(one), dataset.label(one)), ids)
        return dict(zip(ids, pairs, strict=True))
