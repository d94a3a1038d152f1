"""What an image's values mean: bytes, of which v stands for v / 255, or float32 in [0, 1].

Stored values of bands become the latter by `scaled`; people are shown either by `picture`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from des4.types import Bands


def unit(image: Tensor) -> Tensor:
    """Return an image, of any shape, as float32 in [0, 1]."""
    return image.float() / 255 if image.dtype == torch.uint8 else image


def scaled(values: Tensor, ranges: Sequence[tuple[float, float]]) -> Tensor:
    """Scale stored values (…, bands) of any type: (low, high) of each band to [0, 1], float32.

    What is outside is clipped. What is no number, as where there are no data, becomes 0.
    """
    return scaled_by(values.to(torch.float32), *torch.tensor(ranges, device=values.device).unbind(1))


def scaled_by(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Scale float32 values (…, bands), as `scaled` does, by tensors (bands)."""
    return (values - low).div_(high - low).clamp_(0, 1).nan_to_num_(0.0)


def as_image(values: Tensor, bands: Bands) -> Tensor:
    """Make stored values (…, bands) an image: bytes stay as they are, others become float32 in [0, 1], see `scaled`.

    What is no number becomes 0 in bytes, too; for it stored bytes come as floats.
    """
    if not bands.are_bytes:
        return scaled(values, bands.ranges)
    return values if values.dtype == torch.uint8 else values.nan_to_num(0.0).byte()


SHOWN_SPREAD = 2.5
"""Standard deviations on either side of the mean that a picture shows, from black to white."""


def picture(image: NDArray[Any], bands: Bands | None) -> NDArray[np.uint8]:
    """Return what people are shown of an image: (H, W, bands) to (H, W, 3) uint8.

    8-bit RGB as it is. Of bands the first three are red, green and blue; the first alone is grey where there are fewer.
    Values that were scaled are spread about their band's mean, since a few bright pixels leave the others dark.
    """
    if bands is None:
        return image
    kept = [0, 1, 2] if image.shape[2] >= 3 else [0, 0, 0]
    shown = image[..., kept]
    if shown.dtype == np.uint8:
        return shown
    mean, std = np.array(bands.mean, np.float32)[kept], np.array(bands.std, np.float32)[kept]
    low, high = np.maximum(mean - SHOWN_SPREAD * std, 0), np.minimum(mean + SHOWN_SPREAD * std, 1)
    grey: NDArray[np.uint8] = (
        np.clip((shown - low) / np.maximum(high - low, 1e-6) * 255, 0, 255).round().astype(np.uint8)
    )
    return grey
