"""From weights to label maps: one image in Python, or files and folders on disk."""

from __future__ import annotations

import csv
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from des4.build import load_weights
from des4.data.images import IMAGE_SUFFIXES, read_image
from des4.engine import choose_device, segment
from des4.engine.process import is_out_of_memory
from des4.report.pictures import overlay
from des4.types import DataError, RunError, UserError, WeightsError

SMALLEST_WINDOW = 65
"""Pixels; a window below it shows too little to segment it."""

Source = str | Path | Image.Image | NDArray[np.uint8]


class Predictor:
    """A trained network and what its output means.

    source: a weights file, or a run folder, whose last weights are taken. device: `auto`, `cpu` or `cuda`.
    Attributes: `classes`, names by index; `palette`, RGB by index; `eval`, how images are segmented.
    Raises WeightsError, or RunError for a run that has no weights yet.
    """

    def __init__(self, source: str | Path, device: Any = "auto") -> None:
        self.device = choose_device(device)
        segmenter, self.info = load_weights(weights_file(source))
        self.segmenter = segmenter.to(self.device)
        self.classes, self.palette, self.eval = self.info.classes, self.info.palette, self.info.eval

    def predict(self, image: Source) -> NDArray[np.uint8]:
        """Segment an image: (H, W) class indices. Files and PIL images are turned upright, as their EXIF data asks.

        image: a file, a PIL image or an (H, W, 3) uint8 RGB array. Raises DataError.
        """
        return self.segment(_pixels(image))[0]

    def segment(self, image: Tensor) -> tuple[NDArray[np.uint8], float]:
        """Segment (3, H, W) uint8; return class indices (H, W) and the mean of the largest probability over pixels.

        With less memory than that takes, `eval` is changed to windows, or to smaller ones, with a warning: near the
        borders of windows the network sees less, so some pixels may fall otherwise. Raises RunError if none fit.
        """
        while True:
            try:
                probs = segment(self.segmenter, image.to(self.device).float() / 255, self.eval)
                confidence, label = probs.max(0)
                return label.to(torch.uint8).cpu().numpy(), float(confidence.mean())
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            self._take_less_memory()  # not in the except clause, whose traceback holds the tensors

    def _take_less_memory(self) -> None:
        whole = self.eval.mode == "whole"
        window = self.eval.window if whole else self.eval.window // 2
        if window < SMALLEST_WINDOW:
            raise RunError(
                f"out of memory even with windows of {self.eval.window} pixels; free some, or use device=cpu"
            )
        self.eval = self.eval.model_copy(update={"mode": "sliding", "window": window, "stride": None})
        warnings.warn(f"out of memory: from now on images are segmented by windows of {window} pixels", stacklevel=4)


def weights_file(source: str | Path) -> Path:
    """Return a weights file as it is, and the last weights of a run folder. Raises WeightsError or RunError."""
    path = Path(source)
    if path.is_file():
        return path
    if not path.is_dir():
        raise WeightsError(f"{path}: no such run folder or weights file")
    if not (last := path / "weights" / "last.safetensors").is_file():
        raise RunError(f"{path}: has no weights/last.safetensors; is it a run folder, and has the run finished?")
    return last


def predict_folder(
    predictor: Predictor,
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    overwrite: bool = False,
    progress: Callable[[Sequence[tuple[Path, Path]]], Iterable[tuple[Path, Path]]] = iter,
) -> list[str]:
    """Segment image files and folders of them into a new folder, and return what went wrong, a line a file.

    Written are `masks/….png` (class indices with the palette, at the image's size), `overlays/….jpg`, and
    `predictions.csv`: file, mean confidence in [0, 1], share of the pixels of each class. The tree below a folder is
    kept; with several paths each folder's name comes before its tree. A file that cannot be read is skipped.
    overwrite: replace an earlier prediction in `out`. progress: walks over the images, and may show how far it is.
    Raises DataError or RunError before anything is written.
    """
    out = Path(out)
    images = _collect([Path(path) for path in paths])
    _prepare(out, [Path(path) for path in paths], overwrite)
    failures = []
    with (out / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow([*_COLUMNS, *(f"share/{name}" for name in predictor.classes)])
        for source, place in progress(images):
            try:
                image = read_image(source)
            except UserError as error:
                failures.append(str(error))
                continue
            label, confidence = predictor.segment(image)
            _write_mask(out / "masks" / place.with_suffix(".png"), label, predictor.palette)
            picture = overlay(image.permute(1, 2, 0).numpy(), label, predictor.palette)
            _save(out / "overlays" / place.with_suffix(".jpg"), Image.fromarray(picture), quality=90)
            share = np.bincount(label.ravel(), minlength=len(predictor.classes)) / label.size
            table.writerow([source, f"{confidence:.4f}", *(f"{value:.6f}" for value in share)])
    return failures


_COLUMNS = ("file", "confidence")


def _pixels(image: Source) -> Tensor:
    """Return an image of any accepted kind as (3, H, W) uint8 RGB."""
    if isinstance(image, str | Path):
        return read_image(Path(image))
    if isinstance(image, Image.Image):
        image = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        given = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise DataError(f"an image is a file, a PIL image or an (H, W, 3) uint8 RGB array, not {given}")
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)


def _collect(paths: Sequence[Path]) -> list[tuple[Path, Path]]:
    """List (file, relative path of its results) for all images of the given files and folders."""
    found: list[tuple[Path, Path]] = []
    for path in paths:
        if path.is_file():
            found.append((path, Path(path.name)))
        elif path.is_dir():
            inside = Path(path.resolve().name) if len(paths) > 1 else Path()
            # Path.rglob would not enter linked sub-folders
            files = (Path(place, name) for place, _, names in os.walk(path, followlinks=True) for name in names)
            images = sorted(file for file in files if file.suffix.lower() in IMAGE_SUFFIXES)
            found += [(image, inside / image.relative_to(path)) for image in images]
        else:
            raise DataError(f"{path}: no such file or folder")
    if not found:
        raise DataError(f"{', '.join(map(str, paths))}: no image there; known are {', '.join(sorted(IMAGE_SUFFIXES))}")
    claimed: dict[Path, Path] = {}
    for source, place in found:
        if (other := claimed.setdefault(place.with_suffix(""), source)) is not source:
            target = place.with_suffix(".png")
            raise DataError(f"{source} and {other} would both become masks/{target}; predict them into two folders")
    return found


def _prepare(out: Path, paths: Sequence[Path], overwrite: bool) -> None:
    """Make an empty output folder. An existing one is emptied only if we filled it and `overwrite` says so."""
    for path in paths:
        if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
            raise RunError(f"{out} lies inside the input folder {path}; choose an output folder outside it")
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file; choose another output folder")
    if out.is_dir() and any(out.iterdir()):
        if not overwrite:
            raise RunError(f"{out} is not empty; replace a prediction with --overwrite, or choose another folder")
        table = out / "predictions.csv"
        ours = table.is_file() and table.read_text(encoding="utf-8", errors="replace").startswith(",".join(_COLUMNS))
        if not ours:
            raise RunError(f"{out} holds something other than a prediction, so --overwrite leaves it alone")
        for folder in (out / "masks", out / "overlays"):
            if folder.is_dir() and not folder.is_symlink():
                shutil.rmtree(folder)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{out}: the output folder cannot be made: {error.strerror}") from None


def _write_mask(path: Path, label: NDArray[np.uint8], palette: Sequence[tuple[int, int, int]]) -> None:
    mask = Image.fromarray(label)
    mask.putpalette([value for colour in palette for value in colour])
    _save(path, mask)


def _save(path: Path, image: Image.Image, **options: Any) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, **options)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from None
