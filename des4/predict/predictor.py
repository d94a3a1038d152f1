"""A trained network and what its output means: from images of any kind and size to predictions."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

import des4
from des4.config import Overrides, given_settings, load_config
from des4.engine import EvalConfig, segment_batch
from des4.engine.inference import scaled_size
from des4.engine.process import is_out_of_memory
from des4.engine.tiles import Area, Tiling, segment_by_tiles
from des4.images.bands import type_of, without_gaps
from des4.images.pictures import MAX_PIXELS
from des4.images.windows import Decoded, Windows, decoded_bands, open_windows
from des4.ops.pixels import unit
from des4.predict.devices import one_device
from des4.predict.pieces import Piece, label_type
from des4.predict.prediction import Prediction
from des4.types import Bands, ConfigError, DataError, RunError
from des4.weights import load_weights, weights_file, weights_hash

SMALLEST_WINDOW = 65
"""Pixels; a window below it shows too little to segment it."""
TILE = 1024
"""Pixels; the side of a tile. Images of more than two tiles' pixels are cut."""
KEPT_PROBS = 2**28
"""Bytes; larger arrays of probabilities are kept only where they are asked for."""

T = TypeVar("T")
FITTED_FROM = 1.5
"""Images whose sides are all so many times as long as those of the training images, or as short, are resized."""
MOST_ENLARGED = 4.0
"""As `eval.resize` has it."""
RESIZE = "eval.resize"
AUTO = "auto"

Source = str | Path | Image.Image | NDArray[Any] | Tensor
NO_PROGRESS: Callable[[float], None] = lambda share: None  # noqa: E731


class Predictor:
    """A trained network and what its output means.

    source: where `weights_file` finds weights: a weights file, a run folder, or a checkpoint of one. device: `auto`,
    `cpu`, `cuda`, or `cuda:1`, the second GPU.
    Attributes: `path`, of the weights or the checkpoint; `classes`, names by index; `palette`, RGB by index; `eval`,
    how images are segmented; `fitted`, whether photos of another resolution are brought to that of the training images
    (`factor_of`); `tile`, the side of the tiles into which an image of more than 2·tile² pixels is cut; `batch`, images
    of one size, or tiles, that go through the network at a time; `on_retry`, which is called where what ran out of
    memory is begun anew.
    Raises WeightsError, RunError for a run that has no weights yet, or ConfigError for a device that is not there.
    """

    def __init__(self, source: str | Path, device: str = "auto") -> None:
        self.device, self.path = one_device(device), weights_file(source)
        segmenter, self.info = load_weights(self.path)
        self.segmenter = segmenter.to(self.device)
        self.classes, self.palette, self.eval = self.info.classes, self.info.palette, self.info.eval
        self.fitted = True
        self.tile = TILE
        self.batch = usual_batch(self.device)
        self.on_retry: Callable[[], None] = lambda: None

    def about(self) -> dict[str, Any]:
        """Return what decides what is predicted, in plain values: the weights, by hash too, and how images are cut."""
        return {
            "des4": des4.__version__,
            "weights": str(self.path),
            "sha256": weights_hash(self.path),
            "classes": list(self.classes),
            "eval": self.eval.model_dump(mode="json"),
            "fitted": self.fitted,
            "tile": self.tile,
        }

    def configure(self, overrides: Overrides) -> None:
        """Change how images are segmented, by settings such as `["eval.mirror=true"]`. Raises ConfigError.

        `eval.resize=NUMBER` holds for all images; `eval.resize=auto` goes back to what `factor_of` says.
        """
        if other := [key for key in given_settings({}, overrides) if not key.startswith("eval.")]:
            raise ConfigError(f"{', '.join(other)}: a prediction reads eval.* alone")
        base = {"method": "supervised", "data": "scenes", "eval": self.eval.model_dump(mode="json")}
        self.eval = load_config(base, self.take_auto(overrides)).eval

    def take_auto(self, overrides: Overrides) -> Overrides:
        """Set `fitted` as settings ask; return them with a number in the place of `eval.resize=auto`.

        Raises ConfigError.
        """
        given = given_settings({}, overrides)
        if RESIZE not in given:
            return overrides
        if isinstance(given[RESIZE], str) and given[RESIZE] != AUTO:
            raise ConfigError(f"{RESIZE}: must be a number or {AUTO}, not '{given[RESIZE]}'")
        self.fitted = given[RESIZE] == AUTO
        return {**given, RESIZE: self.info.eval.resize} if self.fitted else overrides

    def predict(self, image: Source) -> NDArray[Any]:
        """Segment an image: (H, W) class indices. Files and PIL images are turned upright, as their EXIF data asks.

        image: a file, a PIL image, an (H, W, 3) uint8 RGB array, or a (3, H, W) tensor, uint8 or float in [0, 1]. Of a
        network of bands: a file, or an (H, W, bands) array or (bands, H, W) tensor of the values that files hold.
        Raises DataError.
        """
        return self._collect(windows_of(image, bands=self.info.bands), keep=False).labels

    @overload
    def segment(self, images: Source, probs: bool | None = None) -> Prediction: ...
    @overload
    def segment(self, images: list[Source] | tuple[Source, ...], probs: bool | None = None) -> list[Prediction]: ...
    def segment(self, images: Any, probs: bool | None = None) -> Prediction | list[Prediction]:
        """Segment an image, or each of a list: labels, probabilities, entropy, and pictures of them.

        images: as of `predict`; a list, or a tensor (B, bands, H, W), gives a list.
        probs: whether probabilities (C, H, W) and entropy are kept; None = where they take up to 256 MiB.
        Raises DataError.
        """
        if isinstance(images, list | tuple) or (isinstance(images, Tensor) and images.ndim == 4):
            return list(self.stream(images, probs))
        return self._collect(windows_of(images, bands=self.info.bands), probs)

    def segment_opened(self, image: Windows, probs: bool | None = None) -> Prediction:
        """Segment an image that is open already, as `segment` does. Raises DataError."""
        return self._collect(image, probs)

    def stream(self, images: Iterable[Source], probs: bool | None = None) -> Iterator[Prediction]:
        """Segment images one after the other, as `segment` does: never more than `batch` of them are in memory."""
        sources = (windows_of(image, str(number), self.info.bands) for number, image in enumerate(images))
        for image, pieces in self.pieces(sources):
            yield self._put_together(image, pieces, probs)

    def pieces(
        self, images: Iterable[Windows], progress: Callable[[float], None] = NO_PROGRESS
    ) -> Iterator[tuple[Windows, Iterable[Piece]]]:
        """Segment images in order: each comes with its pieces, from top to bottom, which have to be read at once.

        Neighbours of one size go through the network together, up to `batch` of them. progress: called with the part
        of a file that has been done since. Raises what reading a file raises, when its pieces are read.
        """
        group: list[Windows] = []
        for image in images:
            if group and (len(group) >= self.batch or self.is_cut(image) or not self._alike(image, group[0])):
                yield from self._together(group, progress)
                group = []
            if self.is_cut(image):
                yield image, self._by_tiles(image, progress)
            else:
                group.append(image)
        if group:
            yield from self._together(group, progress)

    def factor_of(self, image: Windows) -> float:
        """Return the factor by which an image is resized before the network sees it.

        It is `eval.resize`; times another factor if `fitted` and if all sides of the image are more than `FITTED_FROM`
        times as long as those of the training images, or as short. That factor brings the side that differs less to
        its length there, so a panorama is not shrunk for its width. What lies on a map, is made of bands, or is larger
        than photos are, is left: there, another size means another area, not another resolution.
        """
        return self.eval.resize if self._is_kept(image) else self._fitting(image)

    def note_on_resize(self) -> str | None:
        """Say, in one sentence, how all images are resized; None if they are not."""
        if self.eval.resize == 1:
            return None
        usual = ", as when the run was scored" if self.eval.resize == self.info.eval.resize else ""
        return (
            f"{RESIZE}={self.eval.resize:g}{usual}: the network sees images at {self.eval.resize:g} times their size; "
            "masks have the size of the images"
        )

    def notes_on(self, image: Windows) -> dict[str, str]:
        """Say, in a sentence each, what is to be known of an image, by kind: that it is `fitted`; that its `size` is
        another than that of the training images, and it is not; that something of its `place` on a map is lost.
        """
        notes = {"place": f"{image.name}: {image.located.lost}"} if image.located.lost else {}
        known, fitting = self.info.image_size, self._fitting(image)
        if not self.fitted or known is None or fitting == self.eval.resize:
            return notes
        (height, width), (their_height, their_width) = image.size, known
        sizes = (
            f"{image.name}: {width}×{height} pixels, and the network was trained on images of about "
            f"{their_width}×{their_height}"
        )
        if self._is_kept(image):
            notes["size"] = (
                f"{sizes}; if it shows things larger or smaller than those did, {RESIZE}={fitting:.2g} brings them to "
                "their size"
            )
        else:
            seen_height, seen_width = scaled_size(image.size, fitting)
            notes["fitted"] = (
                f"{sizes}: so it sees this one at {seen_width}×{seen_height}, and others accordingly; "
                f"{RESIZE}={self.info.eval.resize:g} turns this off"
            )
        return notes

    def is_cut(self, image: Windows) -> bool:
        """Whether an image is segmented by tiles."""
        most = math.prod(image.size) * max(1.0, self.factor_of(image)) ** 2
        return image.streamed or most > 2 * self.tile**2

    def _is_kept(self, image: Windows) -> bool:
        large = math.prod(image.size) > MAX_PIXELS
        return not self.fitted or large or image.bands is not None or image.located.on_a_map

    def _fitting(self, image: Windows) -> float:
        """Return the factor that brings an image to the size of the training images, as the network saw them."""
        known, span = self.info.image_size, self.info.image_pixels
        pixels = math.prod(image.size)
        if known is None or (span is not None and span[0] <= pixels <= span[1]):
            return self.eval.resize
        short, long = (theirs / side for theirs, side in zip(sorted(known), sorted(image.size), strict=True))
        factor = max(short, long) if max(short, long) < 1 else max(1.0, min(short, long))
        if 1 / FITTED_FROM <= factor <= FITTED_FROM:
            return self.eval.resize
        return min(self.info.eval.resize * factor, MOST_ENLARGED)

    def _eval_of(self, image: Windows) -> EvalConfig:
        return self.eval.model_copy(update={"resize": self.factor_of(image)})

    def _alike(self, image: Windows, other: Windows) -> bool:
        return image.size == other.size and self.factor_of(image) == self.factor_of(other)

    def _together(
        self, images: Sequence[Windows], progress: Callable[[float], None]
    ) -> Iterator[tuple[Windows, Iterable[Piece]]]:
        pixels = np.stack([image.read(0, 0, *image.size) for image in images])
        rows, columns = (slice(0, side) for side in images[0].size)
        segmented = self._with_less_memory(lambda: self._probs(pixels, self._eval_of(images[0])))
        for image, probs in zip(images, segmented, strict=True):
            yield image, [Piece.of(Area(rows, columns, probs))]
            progress(image.share)

    def _probs(self, pixels: NDArray[Any], config: EvalConfig) -> Tensor:
        """Probabilities (B, C, H, W) of images (B, H, W, bands)."""
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        return segment_batch(self.segmenter, unit(images.to(self.device)), config)

    def _by_tiles(self, image: Windows, progress: Callable[[float], None]) -> Iterator[Piece]:
        """Yield the pieces of an image that is cut. What runs out of memory does so with its first tile."""

        def begin() -> tuple[Area, Iterator[Area]]:
            config = self._eval_of(image)
            tiling = Tiling.of(config, self.tile)
            share = image.share / tiling.count(scaled_size(image.size, config.resize))
            areas = segment_by_tiles(
                self.segmenter, image.read, image.size, config, tiling,
                device=self.device, batch=self.batch, progress=lambda: progress(share),
            )  # fmt: skip
            return next(areas), areas

        first, others = self._with_less_memory(begin)
        yield Piece.of(first)
        yield from map(Piece.of, others)

    def _with_less_memory(self, compute: Callable[[], T]) -> T:
        """Call `compute`; without the memory for it, once more by windows, and by smaller ones.

        `eval` is changed to windows then, with a warning: near the borders of windows the network sees less, so some
        pixels may fall otherwise. Raises RunError if none fit.
        """
        while True:
            try:
                return compute()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            self._take_less_memory()  # not in the except clause, whose traceback holds the tensors
            self.on_retry()

    def _take_less_memory(self) -> None:
        whole = self.eval.mode == "whole"
        window = self.eval.window if whole else self.eval.window // 2
        if window < SMALLEST_WINDOW:
            raise RunError(
                f"out of memory even with windows of {self.eval.window} pixels; free some, or use device=cpu"
            )
        self.eval = self.eval.model_copy(update={"mode": "sliding", "window": window, "stride": None})
        warnings.warn(f"out of memory: from now on images are segmented by windows of {window} pixels", stacklevel=4)

    def _collect(self, image: Windows, keep: bool | None) -> Prediction:
        ((_, pieces),) = self.pieces([image])
        return self._put_together(image, pieces, keep)

    def _put_together(self, image: Windows, pieces: Iterable[Piece], keep: bool | None) -> Prediction:
        shape = (len(self.classes), *image.size)
        if keep is None:
            keep = 4 * math.prod(shape) <= KEPT_PROBS
        labels = np.empty(image.size, label_type(len(self.classes)))
        probs, entropy = (np.empty(shape, np.float32), np.empty(image.size, np.float32)) if keep else (None, None)
        confidence, total = 0.0, 0.0
        for piece in pieces:
            labels[piece.rows, piece.columns] = piece.labels
            confidence += piece.confidence
            total += float(piece.entropy.sum(dtype=np.float64))
            if probs is not None and entropy is not None:
                probs[:, piece.rows, piece.columns] = piece.probs.cpu().numpy()
                entropy[piece.rows, piece.columns] = piece.entropy
        means = confidence / labels.size, total / labels.size
        return Prediction(labels, *means, self.classes, self.palette, image.name, image, probs, entropy)


def usual_batch(device: torch.device) -> int:
    """Return how many images of one size go through the network at a time where nobody says."""
    return 8 if device.type == "cuda" else 1


def windows_of(image: Source, name: str = "image", bands: Bands | None = None) -> Windows:
    """Return an image of any accepted kind as one that can be read by windows. Raises DataError.

    bands: what the network was trained on; None: 8-bit RGB.
    """
    if isinstance(image, str | Path):
        return open_windows(Path(image), bands)
    if bands is not None:
        return _of_bands(image, name, bands)
    if isinstance(image, Image.Image):
        if image.mode.startswith(("I", "F")):
            raise DataError(f"a PIL image of mode {image.mode} holds more than 8 bits, which RGB would cut off; scale "
                            "it to 8 bits as those images were that the network was trained on")  # fmt: skip
        image = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    elif isinstance(image, Tensor):
        image = _array(image)
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        given = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise DataError(f"an image is a file, a PIL image, a (3, H, W) tensor or an (H, W, 3) uint8 RGB array, "
                        f"not {given}")  # fmt: skip
    return Decoded(np.ascontiguousarray(image), name)


def _of_bands(image: Image.Image | NDArray[Any] | Tensor, name: str, bands: Bands) -> Windows:
    """Take an array of stored values as what a file of them would be. Raises DataError."""
    values = image.detach().cpu().movedim(0, -1).numpy() if isinstance(image, Tensor) and image.ndim == 3 else image
    count = len(bands.numbers)
    if not isinstance(values, np.ndarray) or values.ndim != 3 or values.shape[2] != count:
        given = type(image).__name__ if isinstance(image, Image.Image) else f"{image.dtype} {tuple(image.shape)}"
        raise DataError(f"an image for this network is a file, an (H, W, {count}) array or a ({count}, H, W) tensor, "
                        f"not {given}")  # fmt: skip
    if type_of(values.dtype) != bands.type:
        raise DataError(f"an image for this network holds {bands.type} values, as the files that it was trained on, "
                        f"not {values.dtype}")  # fmt: skip
    return decoded_bands(np.ascontiguousarray(without_gaps(values, None)), name, bands)


def _array(image: Tensor) -> NDArray[np.uint8]:
    """Turn a tensor (3, H, W), uint8 or float in [0, 1], into an array (H, W, 3) uint8. Raises DataError."""
    if image.ndim != 3 or image.shape[0] != 3:
        raise DataError(f"a tensor of an image has the shape (3, H, W), not {tuple(image.shape)}")
    if image.is_floating_point():
        if not (image.min() >= 0 and image.max() <= 1):  # as it also is where one is not a number
            raise DataError(
                "a float tensor of an image holds values in [0, 1]; divide it by 255, or do not normalise it"
            )
        image = (image * 255).round()
    elif image.dtype != torch.uint8:
        raise DataError(f"a tensor of an image is uint8, or float in [0, 1], not {image.dtype}")
    return image.detach().to("cpu", torch.uint8).permute(1, 2, 0).numpy()
