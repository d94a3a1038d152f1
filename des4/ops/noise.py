"""Random draws that are functions of a sample's key and a name, so that nobody owns a generator.

Element i of a draw is a hash of (key, name, i): the same wherever the sample is computed, in any micro-batch, on any
process and device, and in a resumed run. The hash is the output function of SplitMix64 (Steele, Lea & Flood, OOPSLA
2014, https://doi.org/10.1145/2660193.2660195), in 64-bit integers that wrap around, applied to a counter and again.

keys: (B,) int64, of `Labeled` or `Unlabeled`. name: says which draw it is; two draws of one sample need two names.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor


def sample_key(*parts: int | str) -> int:
    """Return the 64-bit key, signed, of what a sample is told by, such as (seed, epoch, id)."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def uniform(keys: Tensor, shape: Sequence[int], name: str) -> Tensor:
    """Draw from [0, 1) for each sample: (B, *shape) float32, multiples of 2^-24."""
    count = math.prod(shape)
    start = _mixed(keys ^ sample_key(name))
    drawn = torch.empty(len(keys), count, device=keys.device)
    block = _BLOCK if keys.device.type == "cpu" else max(1, count)
    for first in range(0, count, block):
        here = drawn[:, first : first + block]
        counter = torch.arange(first + 1, first + 1 + here.shape[1], device=keys.device) * _GAMMA
        bits = _mixed(start[:, None] + counter)
        here.copy_(bits.bitwise_right_shift_(40).bitwise_and_((1 << 24) - 1)).mul_(2**-24)
    return drawn.view(len(keys), *shape)


def bernoulli(keys: Tensor, shape: Sequence[int], name: str, p: float = 0.5) -> Tensor:
    """Draw True with probability `p` for each sample: (B, *shape) bool."""
    return uniform(keys, shape, name) < p


def _signed(number: int) -> int:
    """Return the signed 64-bit integer of the same bits."""
    return number - (1 << 64) if number >> 63 else number


_GAMMA = _signed(0x9E3779B97F4A7C15)
_FACTORS = ((30, _signed(0xBF58476D1CE4E5B9)), (27, _signed(0x94D049BB133111EB)))


_BLOCK = 1 << 15
"""Numbers of a sample that are drawn at a time on a CPU, so that they stay in its cache: the same numbers, sooner."""


def _mixed(numbers: Tensor) -> Tensor:
    """Hash each 64-bit integer of a fresh tensor, one to one and in place."""
    for shift, factor in _FACTORS:
        numbers.bitwise_xor_(_shifted(numbers, shift)).mul_(factor)
    return numbers.bitwise_xor_(_shifted(numbers, 31))


def _shifted(numbers: Tensor, shift: int) -> Tensor:
    """Shift right and fill with zeros; torch fills with the sign."""
    return (numbers >> shift).bitwise_and_((1 << (64 - shift)) - 1)
