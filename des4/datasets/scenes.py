"""Painted landscapes with exact masks: the data set inside the package, so that everything runs without a download.

Every scene is a function of (seed, split, index): simple shapes drawn at three times its size, reduced, textured, lit.
It is built to be a small honest case of the problem. Pixels are long-tailed (meadow to boats: about 70 to 1). Colour
does not name the class: water mirrors the sky and the mountains; snow, rocks, clouds and foam are as white as sheep and
sails; hay and paths look like house walls; trees and meadows share their greens; season and time of day change every
colour. So a network needs texture, shape and place, which a few labeled scenes do not show in full.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from des4.datasets.scene_painter import CLASSES, Painter
from des4.types import Bands, Config, DataError


class ScenesConfig(Config):
    """How many scenes to draw. Configs of one seed share their scenes: the first `labeled` train scenes have masks."""

    name: Literal["scenes"] = "scenes"
    labeled: PositiveInt = 4
    """Labeled scenes."""
    unlabeled: NonNegativeInt = 396
    """Unlabeled scenes."""
    val: PositiveInt = 64
    """Validation scenes."""
    size: int = Field(default=160, ge=32, le=1024)
    """Side of a scene, in pixels."""
    seed: NonNegativeInt = 0
    """Of the painter, apart from the training seed."""


class Scenes:
    """The data set of a ScenesConfig. Ids are `train/00012` and `val/00003`. Scenes are drawn when asked for."""

    Config = ScenesConfig
    notes: tuple[str, ...] = ()
    skip_broken = False
    bands: Bands | None = None
    classes: tuple[str, ...] = CLASSES
    palette: tuple[tuple[int, int, int], ...] = (
        (135, 190, 235),
        (140, 125, 150),
        (165, 205, 95),
        (40, 110, 190),
        (35, 110, 60),
        (225, 130, 60),
        (220, 40, 60),
        (250, 235, 130),
    )

    def __init__(self, config: ScenesConfig) -> None:
        train = [f"train/{i:05}" for i in range(config.labeled + config.unlabeled)]
        self.labeled: Sequence[str] = tuple(train[: config.labeled])
        self.unlabeled: Sequence[str] = tuple(train[config.labeled :])
        self.held_out: Sequence[str] = ()
        self.val: Sequence[str] = tuple(f"val/{i:05}" for i in range(config.val))
        self._known = frozenset((*train, *self.val))
        self._config = config

    def image(self, sample_id: str) -> Tensor:
        """Draw an image, (3, size, size) uint8 RGB. Raises DataError for an unknown id."""
        return self._scene(sample_id)[0].clone()

    stored_image = image

    def label(self, sample_id: str) -> Tensor:
        """Draw the mask of any scene, (size, size) uint8. Raises DataError for an unknown id."""
        return self._scene(sample_id)[1].clone()

    def reveal(self) -> Sequence[str]:
        """Return the ids of all unlabeled scenes: each is drawn with its mask."""
        return self.unlabeled

    def hold_out(self, ids: Iterable[str]) -> None:
        """Take labeled scenes out of training; an unlabeled one is never labeled too."""
        self.held_out = tuple(sorted(ids))
        self.labeled = tuple(sample_id for sample_id in self.labeled if sample_id not in self.held_out)

    def check_labeled(self) -> None:
        """Do nothing: drawn masks fit their images."""

    def _scene(self, sample_id: str) -> tuple[Tensor, Tensor]:
        if sample_id not in self._known:
            raise DataError(f"The scenes have no '{sample_id}'; ids run from {self.labeled[0]} and {self.val[0]}")
        split, index = sample_id.split("/")
        return draw_scene(self._config.seed, split, int(index), self._config.size)


@lru_cache(maxsize=512)  # 50 MB at 160 pixels
def draw_scene(seed: int, split: str, index: int, size: int) -> tuple[Tensor, Tensor]:
    """Draw one scene: image (3, size, size) uint8 and label (size, size) uint8. Cached: not to be written to."""
    painter = Painter(np.random.default_rng((seed, ("train", "val").index(split), index)), size)
    image, label = painter.paint()
    return torch.from_numpy(image).permute(2, 0, 1).contiguous(), torch.from_numpy(label)
