"""The result of segmenting one image, in memory."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from des4.images.windows import Windows, show
from des4.predict.png import PngWriter
from des4.report import pictures
from des4.types import DataError, RunError

OVERLAY_PIXELS = 16_000_000
"""Larger pictures are drawn smaller: every second pixel, every third, …"""
LONGEST_SIDE = 65_000
"""Pixels; a JPEG ends at 65,535."""
SHOWN_SIDE = 1024
"""Pixels of the longer side, at most, of what a notebook shows."""

Kind = Literal["labels", "overlay", "entropy", "probs"]


@dataclass(frozen=True, eq=False)
class Prediction:
    """A segmented image. As an array it is its labels: `np.asarray(prediction)`.

    labels: (H, W) class indices, uint8, or uint16 above 255 classes. confidence: the mean of the pixels' largest
    probabilities. mean_entropy: over the pixels, in nats. name: of the file, or a number.
    """

    labels: NDArray[Any]
    confidence: float
    mean_entropy: float
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    name: str
    _image: Windows = field(repr=False)
    _probs: NDArray[np.float32] | None = field(repr=False, default=None)
    _entropy: NDArray[np.float32] | None = field(repr=False, default=None)

    @property
    def probs(self) -> NDArray[np.float32]:
        """(C, H, W) class probabilities. Raises DataError where they were not kept, as for a large image."""
        return self._kept(self._probs, "probabilities")

    @property
    def has_entropy(self) -> bool:
        """Whether entropies were kept."""
        return self._entropy is not None

    @property
    def entropy(self) -> NDArray[np.float32]:
        """(H, W) entropy of each pixel in nats, in [0, log C]. Raises DataError where it was not kept."""
        return self._kept(self._entropy, "entropies")

    def _kept(self, values: NDArray[np.float32] | None, what: str) -> NDArray[np.float32]:
        if values is None:
            height, width = self.labels.shape
            raise DataError(f"{self.name}: the {what} of {width}×{height} pixels were not kept; "
                            "ask for them with probs=True")  # fmt: skip
        return values

    @property
    def shares(self) -> dict[str, float]:
        """The share of the pixels of each class, by name."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.classes))
        return dict(zip(self.classes, (counts / self.labels.size).tolist(), strict=True))

    def overlay(self, alpha: float = 0.5) -> Image.Image:
        """The image under the colours of the classes; `alpha` in [0, 1] is their part. A large image is reduced."""
        picture, labels = self.reduced(OVERLAY_PIXELS)
        return Image.fromarray(pictures.overlay(picture, labels, self.palette, alpha))

    def save(self, path: str | Path, what: Kind = "labels") -> Path:
        """Write a file, and return its path; an earlier one is replaced.

        what: `labels` = index PNG with the palette, 16 bits above 255 classes; `overlay` = a picture, in the format of
        the name; `entropy` = grey PNG, 255 being log C; `probs` = (C, H, W) float16, .npy. Raises RunError.
        """
        path = Path(path)
        needed = {"labels": (".png",), "entropy": (".png",), "probs": (".npy",)}.get(what, (".png", ".jpg", ".jpeg"))
        if path.suffix.lower() not in needed:
            raise RunError(f"{path}: {what} are written as {' or '.join(needed)}; choose such a name")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if what == "overlay":
                self.overlay().save(path, quality=90)
            elif what == "probs":
                np.save(path, self.probs.astype(np.float16))
            elif what == "entropy":
                _write_png(path, grey_of_entropy(self.entropy, len(self.classes)), None)
            else:
                _write_png(path, self.labels, self.palette)
        except OSError as error:
            raise RunError(f"{path}: cannot be written ({error.strerror or error})") from None
        return path

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.labels, dtype=dtype, copy=copy)

    def _repr_png_(self) -> bytes:
        """What a notebook shows: the image, its classes, and their names."""
        picture, labels = self.reduced(SHOWN_SIDE**2)
        buffer = io.BytesIO()
        pictures.grid([[picture, labels]], ["image", "prediction"], self.palette, self.classes, buffer)
        return buffer.getvalue()

    def reduced(self, pixels: int) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        """Return the image and its labels with at most so many pixels."""
        step = reduction(self._image.size, pixels)
        height, width = self._image.size
        rows = [show(self._image, top, 0, 1, width)[:, ::step] for top in range(0, height, step)]
        return np.concatenate(rows), self.labels[::step, ::step]


def reduction(size: tuple[int, int], pixels: int) -> int:
    """Return the smallest step between pixels that leaves at most so many of an image."""
    step = 1
    while -(-size[0] // step) * -(-size[1] // step) > pixels or max(size) > step * LONGEST_SIDE:
        step += 1
    return step


def grey_of_entropy(entropy: NDArray[np.float32], num_classes: int) -> NDArray[np.uint8]:
    """Turn nats into 0 … 255, which is log C, the most there can be."""
    most = np.log(max(num_classes, 2))
    grey: NDArray[np.uint8] = np.clip(entropy * (255 / most), 0, 255).round().astype(np.uint8)
    return grey


def png_of_labels(
    path: Path, size: tuple[int, int], num_classes: int, palette: Sequence[tuple[int, int, int]]
) -> PngWriter:
    """Begin an index PNG: 8 bits with the palette, or 16 bits above 255 classes."""
    return PngWriter(path, size, 8, palette) if num_classes <= 255 else PngWriter(path, size, 16)


def _write_png(path: Path, pixels: NDArray[Any], palette: Sequence[tuple[int, int, int]] | None) -> None:
    bits = 8 * pixels.dtype.itemsize
    writer = PngWriter(path, (pixels.shape[0], pixels.shape[1]), bits, palette if bits == 8 else None)
    writer.write(pixels)
    writer.close()
