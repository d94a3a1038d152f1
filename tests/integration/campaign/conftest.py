"""A small campaign, and runs of it that need no training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from des4.campaign import Planned
from des4.config import dump
from des4.opening import lists_now
from des4.runlog import RunFolder


@pytest.fixture
def file(tiny: dict[str, Any], tmp_path: Path) -> Path:
    """A campaign of two methods and two lists; the second method has one of the lists alone."""
    del tiny["method"]
    content = {
        "out": str(tmp_path / "out"),
        "settings": tiny,
        "methods": {"plain": {"method": "supervised"}, "ours": {"method": "des4", "lists": ["few"]}},
        "lists": {"few": {"data.labeled": 2}, "all": {"data.labeled": 4}},
        "seeds": [0],
        "reference": "plain",
        "full": "all",
    }
    path = tmp_path / "campaign.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


@pytest.fixture
def in_files(file: Path, folder: Path, tmp_path: Path) -> Path:
    """The campaign with one list of data in files, and two seeds."""
    for name, numbers in (("labeled", "01"), ("unlabeled", "45"), ("val", "3")):
        (tmp_path / f"{name}.txt").write_text("\n".join(numbers))
    lists = {f"data.{name}": str(tmp_path / f"{name}.txt") for name in ("labeled", "unlabeled", "val")}
    content = {**yaml.safe_load(file.read_text()), "lists": {"few": lists}, "seeds": [0, 1], "full": None}
    content["settings"]["data"] = str(folder)
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


@pytest.fixture
def finish() -> Callable[..., None]:
    """Return what writes the folder of a finished run."""

    def write(run: Planned, settings: dict[str, Any] | None = None, **data: Any) -> None:
        """settings: its config, else what was planned. data: laid over its lists."""
        folder = RunFolder.create(run.folder)
        folder.write_config(dump(run.config) if settings is None else settings)
        folder.write_env({})
        iou = {"sky": 0.5}
        scores = {"miou": 0.5, "tail_miou": 0.5, "iou": iou, "tail_classes": [], "pixel_share": {"sky": 1.0}}
        steps = {"steps": 4, "step": 4, "seed": run.seed, "evaluated": "student"}
        folder.write_results({**scores, **steps, "seconds": 1.0, "data": {**lists_now(run.config), **data}})

    return write
