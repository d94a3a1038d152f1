"""The folder that people share: weights, settings, class names and a model card; and nothing else of a run.

    model.safetensors   config.json   classes.txt   README.md   samples.png where asked for

No path of the machine and no name of a file that the network was trained on gets into it.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import des4
from des4.config import PATH_KEYS
from des4.export.card import model_card
from des4.hub import WEIGHTS
from des4.models import Segmenter
from des4.runlog import RunFolder, write_json
from des4.types import RunError
from des4.weights import WeightsInfo, run_of, save_weights

SAMPLES = "samples.png"
"""The picture of validation images."""
_KEPT_BACK = ("data", "out")
"""Sections of a run's settings that tell of the machine it ran on."""


def write_folder(
    folder: Path,
    weights: Path,
    segmenter: Segmenter,
    info: WeightsInfo,
    *,
    address: str | None = None,
    licence: str | None = None,
    samples: bool = False,
) -> None:
    """Write the files of a network into an empty folder.

    weights: the file or checkpoint that the network is from. address: where the folder is going to be on the hub.
    licence: by its short name there, as `apache-2.0`. samples: with the run's picture of validation images, their
    masks and predictions. Raises RunError where there is none.
    """
    shared = info.model_copy(update={"model": info.model.model_copy(update={"weights": _last(info.model.weights)})})
    if weights.is_dir() or shared != info:  # a checkpoint holds the whole training; a header may name a path
        save_weights(folder / WEIGHTS, segmenter.state_dict(), shared)
    else:
        shutil.copyfile(weights, folder / WEIGHTS)
    run = run_of(weights)
    about = shared.model_dump(mode="json", exclude={"version"})
    settings = _without_places(RunFolder.open(run).config()) if run else None
    write_json(folder / "config.json", {"des4": des4.__version__, **about, "training": settings})
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in info.classes), encoding="utf-8")
    if samples:
        picture = run / "plots" / SAMPLES if run else None
        if picture is None or not picture.is_file():
            raise RunError(f"{run or weights}: has no plots/{SAMPLES}; leave --samples out")
        shutil.copyfile(picture, folder / SAMPLES)
    card = model_card(weights, shared, address=address, licence=licence, samples=samples)
    (folder / "README.md").write_text(card, encoding="utf-8")


def _without_places(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return settings without sections about data, and without every value that is a path or looks like one."""
    kept: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if name in _KEPT_BACK or name in PATH_KEYS:
            continue
        if isinstance(value, Mapping):
            kept[key] = _without_places(value, f"{name}.")
        elif name == "model.weights":
            kept[key] = _last(str(value))
        elif not (isinstance(value, str) and re.search(r"[/\\]", value)):
            kept[key] = value
    return kept


def _last(path: str) -> str:
    """Return the last part of a path; a word is its own."""
    return re.split(r"[/\\]", path)[-1]
