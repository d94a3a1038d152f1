"""For each class an unlabeled image in which it was found, to paste from (the bank of AEL, Hu et al., 2021)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from des4.models.memory.base import Memory
from des4.ops.reduce import join_over_ranks
from des4.ops.resize import on_grid
from des4.types import Unlabeled

_FIRST = torch.iinfo(torch.int64).min


class ClassCrops(Memory):
    """The newest crop with each class. Images are kept in half precision, which is finer than bytes.

    crop: bands, height and width; a batch of another size is brought to it by the nearest pixel. images: (C, *crop)
    float16, 0 on padding. valid: (C, H, W) bool, nowhere where there is none yet. truth: (C, H, W) uint8, of an oracle.
    """

    images: Tensor
    valid: Tensor
    truth: Tensor

    def __init__(self, num_classes: int, crop: tuple[int, int, int]) -> None:
        super().__init__()
        self.size = crop[1:]
        self.register_buffer("images", torch.zeros(num_classes, *crop, dtype=torch.float16))
        self.register_buffer("valid", torch.zeros(num_classes, *self.size, dtype=torch.bool))
        self.register_buffer("truth", torch.zeros(num_classes, *self.size, dtype=torch.uint8))

    def draw(self, classes: Tensor, like: Unlabeled) -> Unlabeled:
        """Take the crops of some classes (B,), in the form of a batch without strong views."""
        size = like.valid.shape[-2], like.valid.shape[-1]
        images, valid, truth = on_grid(size, self.images[classes], self.valid[classes], self.truth[classes])
        known = None if like.truth is None else truth.long()
        return replace(like, weak=images.float(), strong=(), valid=valid, truth=known)

    @torch.no_grad()
    def collect(self, unlabeled: Unlabeled, label: Tensor, area: float) -> None:
        """Remember weak views in which classes are found: `label`, (B, H, W), says so on a share `area` of the crop."""
        valid, finite = unlabeled.valid, unlabeled.weak.isfinite().all(3).all(2).all(1)
        pixels = torch.zeros(len(label), len(self.valid), device=label.device)
        pixels.scatter_add_(1, label.flatten(1), valid.flatten(1).float())
        found = (pixels > 0) & (pixels >= area * valid[0].numel()) & finite[:, None]
        images = torch.where(valid[:, None], unlabeled.weak, 0)
        truth = torch.zeros_like(label) if unlabeled.truth is None else unlabeled.truth
        kept = on_grid(self.size, images, valid, truth)
        self._hold(kept[0].half(), kept[1], kept[2].to(torch.uint8), found, unlabeled.keys)

    @torch.no_grad()
    def commit(self) -> None:
        """Keep of each class, of what was collected on all processes, the crop with the largest key."""
        held = self._take()
        if not held:
            return
        *kept, found, keys = (join_over_ranks(torch.cat(tensors)) for tensors in zip(*held, strict=True))
        found = self.unless_skipped(found)
        place, new = torch.where(found, keys[:, None], _FIRST).argmax(0), found.any(0)
        for buffer, tensor in zip((self.images, self.valid, self.truth), kept, strict=True):
            where = new.view(-1, *(1,) * (buffer.ndim - 1))
            buffer.copy_(torch.where(where, tensor[place], buffer))
