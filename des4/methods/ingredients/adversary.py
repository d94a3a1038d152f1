"""Small changes of images or features that move predictions most (virtual adversarial training, Miyato et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from des4.losses import divergence
from des4.ops.noise import uniform
from des4.ops.resize import upsample


def adversarial_change(
    predict: Callable[[Tensor], Tensor],
    image: Tensor,
    probs: Tensor,
    valid: Tensor,
    keys: Tensor,
    radius: Tensor,
    probe: float,
    name: str = "adversarial direction",
) -> Tensor:
    """Find the change of a given length that moves predictions furthest, by one step of the power iteration.

    predict: images to logits, of a network in eval mode. image: (B, bands, H, W). probs: (B, C, H, W), what it says of
    them. valid: (B, H, W) bool, pixels that count and may change. keys: (B,), and name, of the first direction. radius:
    (B,), length of the change of an image. probe: length of the first direction, as a share of that. Returns
    (B, bands, H, W), without gradient; float32, whatever autocast says, because a probe is small. Without a gradient an
    image stays.
    """
    with torch.enable_grad(), torch.autocast(image.device.type, enabled=False):
        start = (2 * uniform(keys, image.shape[1:], name) - 1) * valid[:, None]
        change = (start * (probe * radius / _length(start))[:, None, None, None]).requires_grad_()
        logits = upsample(predict(image + change), (image.shape[-2], image.shape[-1]))
        gap = divergence(logits, probs, valid, valid.new_ones((), dtype=torch.float32))
        (gradient,) = torch.autograd.grad(gap, change)
    gradient = (gradient * valid[:, None]).nan_to_num()
    return gradient * (radius / _length(gradient))[:, None, None, None]


def against(
    classify: Callable[[Tensor], Tensor], features: Tensor, valid: Tensor, keys: Tensor, name: str, radius: float
) -> Tensor:
    """Features (B, D, h, w), each image's changed by a length of `radius` as moves what a classifier says of it most.

    valid: (B, h, w) bool, places that change. keys: (B,), name: of the first direction. The change is a constant.
    """
    still = features.detach().float()
    with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
        probs = classify(still).softmax(1)
    lengths = still.new_full((len(still),), radius)
    return features + adversarial_change(classify, still, probs, valid, keys, lengths, 0.01, name).to(features.dtype)


def texture(image: Tensor, valid: Tensor) -> Tensor:
    """Length of an image's gradient by differences over two pixels, (B,): how much an image can change unseen.

    image: (B, 3, H, W). valid: (B, H, W) bool; differences from and to other pixels do not count.
    """
    squares = image.new_zeros(len(image))
    for axis in (-1, -2):
        length = image.shape[axis] - 2
        if length > 0:
            change = image.narrow(axis, 2, length) - image.narrow(axis, 0, length)
            counts = valid.narrow(axis, 2, length) & valid.narrow(axis, 0, length)
            squares = squares + (change.float().square().sum(1) * counts).sum((1, 2))
    return squares.sqrt()


def _length(change: Tensor) -> Tensor:
    """Length of each image's change, (B,), never 0."""
    length: Tensor = change.flatten(1).norm(dim=1)
    return length.clamp_min(1e-20)
