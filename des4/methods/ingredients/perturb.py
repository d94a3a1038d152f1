"""Perturbations of features. What they draw follows from the keys of the samples."""

from __future__ import annotations

from torch import Tensor

from des4.ops.noise import bernoulli


def drop_channels(maps: tuple[Tensor, ...], keys: Tensor, name: str, p: float = 0.5) -> tuple[Tensor, ...]:
    """Set whole channels of an encoder's maps to 0, each with probability `p`; what stays is scaled by 1 / (1 - p).

    maps: (B, channels, h, w) each; every map has draws of its own. keys: (B,). name: of the draw. p: in [0, 1).
    """
    masks = (~bernoulli(keys, (each.shape[1],), f"{name}/{n}", p) for n, each in enumerate(maps))
    return tuple(
        each * (mask.to(each.dtype) / (1 - p))[:, :, None, None] for each, mask in zip(maps, masks, strict=True)
    )
