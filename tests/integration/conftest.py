"""A tiny run for the tests of the Python interface and of the command line."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

TINY: dict[str, Any] = {
    "method": "des4",
    "data": {"name": "scenes", "size": 48, "labeled": 4, "unlabeled": 4, "val": 3},
    "model": {
        "encoder": "test_efficientnet",
        "weights": "none",
        "channels": 16,
        "low_channels": 8,
        "embedding_dim": 12,
    },
    "train": {"steps": 4, "batch_size": 2, "workers": 0, "log_every": 2, "checkpoint_every": 2},
    "views": {"crop_size": 32},
}


@pytest.fixture(scope="session")
def tiny_settings() -> dict[str, Any]:
    """`tiny` for fixtures of a wider scope, which leave it as it is."""
    return copy.deepcopy(TINY)


@pytest.fixture
def tiny() -> dict[str, Any]:
    """Settings of a run that takes a second."""
    return copy.deepcopy(TINY)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run. Tests read it; those that write work on a copy."""
    import des4

    torch.set_flush_denormal(True)
    return des4.train(TINY, out=tmp_path_factory.mktemp("trained") / "run").dir


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder: 4 images of 40×32 pixels with masks of 3 classes, 2 without."""
    rng = np.random.default_rng(0)
    for side in ("images", "masks"):
        (tmp_path / "data" / side).mkdir(parents=True)
    for i in range(6):
        pixels = rng.integers(0, 256, (32, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / "images" / f"{i}.png")
        if i < 4:
            mask = rng.integers(0, 3, (32, 40), dtype=np.uint8)
            Image.fromarray(mask).save(tmp_path / "data" / "masks" / f"{i}.png")
    (tmp_path / "data" / "classes.txt").write_text("sky\nland\nsea\n")
    return tmp_path / "data"
