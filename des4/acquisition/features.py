"""One short vector for each image, taken from the very passes that segment it.

Behind a prototype classifier: the mean unit embedding of the pixels that the prototypes give to each class, times the
square root of the class's share, one class after the other. So two images are far apart if they hold other classes, or
if their classes look otherwise, and a small class is not drowned by a large one. Behind a linear classifier: the mean
of the encoder's deepest map, of length 1.

Longer vectors are brought to DIMENSIONS numbers by a fixed random projection, which keeps distances nearly as they are
(Johnson & Lindenstrauss 1984), so that 100,000 images take 51 MB.
"""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from des4.models import PrototypeClassifier, Segmenter

DIMENSIONS = 128


class FeatureTap:
    """Listens to a segmenter while images go through it; a context, at whose end it stops listening."""

    def __init__(self, segmenter: Segmenter) -> None:
        self._by_class = isinstance(segmenter.head, PrototypeClassifier)
        self._listened = segmenter.head if self._by_class else segmenter.encoder
        self._passes: list[tuple[Tensor, Tensor]] = []
        """Of each pass: sums of vectors (B, K, D), and of pixels (B, K); K is the classes, or 1."""
        self._ready: deque[NDArray[np.float32]] = deque()
        self._projection: Tensor | None = None

    def __enter__(self) -> FeatureTap:
        hear = self._hear_head if self._by_class else self._hear_encoder
        self._handle = self._listened.register_forward_hook(hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.remove()

    def take(self, *, tiles: bool) -> NDArray[np.float32]:
        """Return the vector of the next image that came out of the network, (DIMENSIONS,) or fewer.

        tiles: whether all passes since the last image were tiles of this one; else an image is a place in a batch.
        """
        if tiles:
            self._ready.clear()
            sums = torch.stack([one.sum(0) for one, _ in self._passes]).sum(0)
            pixels = torch.stack([one.sum(0) for _, one in self._passes]).sum(0)
            self._passes.clear()
            return self._vector(sums, pixels)
        if not self._ready:
            sums = torch.stack([one for one, _ in self._passes]).sum(0)
            pixels = torch.stack([one for _, one in self._passes]).sum(0)
            self._passes.clear()
            self._ready.extend(self._vector(*both) for both in zip(sums, pixels, strict=True))
        return self._ready.popleft()

    def forget(self) -> None:
        """Drop what was heard of an image that failed on its way."""
        self._passes.clear()

    def _hear_head(self, _: object, inputs: tuple[Tensor, ...], logits: Tensor) -> None:
        features = F.normalize(inputs[0].float(), dim=1).flatten(2)
        given = F.one_hot(logits.argmax(1).flatten(1), logits.shape[1]).float()  # (B, h·w, C)
        self._passes.append(((features @ given).mT, given.sum(1)))

    def _hear_encoder(self, _: object, inputs: tuple[Tensor, ...], maps: Any) -> None:
        deep = maps[-1].float().flatten(2)
        self._passes.append((deep.sum(2)[:, None], deep.new_full((len(deep), 1), deep.shape[2])))

    def _vector(self, sums: Tensor, pixels: Tensor) -> NDArray[np.float32]:
        """Put an image's sums (K, D) and pixels (K,) together."""
        means = sums / pixels.clamp_min(1)[:, None]
        if self._by_class:
            whole = (means * (pixels / pixels.sum()).sqrt()[:, None]).flatten()
        else:
            whole = F.normalize(means.flatten(), dim=0)
        short: NDArray[np.float32] = self._projected(whole).cpu().numpy().astype(np.float32)
        return short

    def _projected(self, whole: Tensor) -> Tensor:
        if len(whole) <= DIMENSIONS:
            return whole
        if self._projection is None:
            drawn = torch.randn(DIMENSIONS, len(whole), generator=torch.Generator().manual_seed(0))
            self._projection = (drawn / DIMENSIONS**0.5).to(whole.device)
        return self._projection @ whole
