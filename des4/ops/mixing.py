"""CutMix: boxes drawn by the presets of the published protocols; `Mix` in `types` is the one way to apply them.

French et al., BMVC 2020 (CutMix for segmentation) and the codes named at each preset.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import torch

from des4.ops.resize import shrink_label
from des4.types import CutMixPreset, Mix

Box = tuple[int, int, int, int]
"""Top, left, bottom, right in pixels; bottom and right excluded."""


def join(mixes: Sequence[Mix]) -> Mix:
    """Put groups of samples, equal in size and each mixed within itself, one after the other."""
    group = mixes[0].group
    partner = torch.cat([boxes.partner + number * group for number, boxes in enumerate(mixes)])
    return Mix(partner, torch.cat([boxes.box for boxes in mixes]), group)


def part(boxes: Mix, start: int, stop: int) -> Mix:
    """Return the mix of the samples [start, stop), which are whole groups."""
    return Mix(boxes.partner[start:stop] - start, boxes.box[start:stop], boxes.group)


def on_features(mix: Mix, size: tuple[int, int]) -> Mix:
    """Return the mix of a grid of features (h, w): as each of its places lies on a pixel, see `on_grid`."""
    return Mix(mix.partner, shrink_label(mix.box, size), mix.group)


def draw_mix(preset: CutMixPreset, group: int, height: int, width: int, rng: random.Random) -> Mix:
    """Draw the boxes of one group of samples that are mixed with one another.

    preset: `none`: no box. `french`: one box of half the crop, always; partner = next sample (there: a second batch).
    `cps`: three boxes, each a third of 0.25-0.5 of the crop, overlaps toggle. `reco`: one box of half the crop, width
    U(W/2, W), with probability 0.5 for the whole group, partner = next sample (the protocol DeS4 follows).
    `unimatch`: one box of 0.02-0.4 of the crop, aspect 0.3-1/0.3, each sample with probability 0.5, partner = the
    reversed group. `augseg`: side √(1-λ), λ ~ Beta(4, 4), clipped at the border, partner = a random permutation.
    height, width: of the crop, in pixels. With one sample a group the partner is the sample itself: nothing is mixed.
    """
    box = torch.zeros(group, height, width, dtype=torch.bool)
    partner = torch.arange(group).roll(-1)
    if preset == "unimatch":
        partner = torch.arange(group).flip(0)
    elif preset == "augseg":
        partner = torch.tensor(rng.sample(range(group), group))
    if preset == "none" or (preset == "reco" and rng.random() >= 0.5):
        return Mix(partner, box, group)
    for sample in range(group):
        if preset == "unimatch" and rng.random() >= 0.5:
            continue
        for top, left, bottom, right in _DRAW[preset](height, width, rng):
            box[sample, top:bottom, left:right] ^= True
    return Mix(partner, box, group)


def _place(box_height: float, box_width: float, height: int, width: int, rng: random.Random) -> Box:
    """Put a box of this size somewhere inside the crop."""
    bh, bw = min(round(box_height), height), min(round(box_width), width)
    top, left = rng.randint(0, height - bh), rng.randint(0, width - bw)
    return top, left, top + bh, left + bw


def _french(height: int, width: int, rng: random.Random) -> list[Box]:
    fraction = 0.5 ** rng.random()
    return [_place(fraction * height, 0.5 / fraction * width, height, width, rng)]


def _cps(height: int, width: int, rng: random.Random) -> list[Box]:
    side, boxes = math.sqrt(1 / 3), []
    for _ in range(3):
        area = rng.uniform(0.25, 0.5)
        fraction = area ** rng.random()
        boxes.append(_place(side * fraction * height, side * area / fraction * width, height, width, rng))
    return boxes


def _reco(height: int, width: int, rng: random.Random) -> list[Box]:
    box_width = rng.uniform(width / 2, width)
    return [_place(0.5 * height * width / box_width, box_width, height, width, rng)]


def _unimatch(height: int, width: int, rng: random.Random) -> list[Box]:
    area = min(rng.uniform(0.02, 0.4) * height * width, min(height, width) ** 2)  # a square of it fits any crop
    while True:  # shape and corner are drawn until the box fits there: the larger, the squarer
        ratio = rng.uniform(0.3, 1 / 0.3)
        top, left = rng.randrange(height), rng.randrange(width)
        bottom, right = top + round(math.sqrt(area * ratio)), left + round(math.sqrt(area / ratio))
        if bottom <= height and right <= width:
            return [(top, left, bottom, right)]


def _augseg(height: int, width: int, rng: random.Random) -> list[Box]:
    side = math.sqrt(1 - rng.betavariate(4, 4))
    centre_y, centre_x = rng.randrange(height), rng.randrange(width)
    half_height, half_width = round(side * height) // 2, round(side * width) // 2
    return [
        (
            max(0, centre_y - half_height),
            max(0, centre_x - half_width),
            min(height, centre_y + half_height),
            min(width, centre_x + half_width),
        )
    ]


_DRAW: dict[CutMixPreset, Callable[[int, int, random.Random], list[Box]]] = {
    "french": _french,
    "cps": _cps,
    "reco": _reco,
    "unimatch": _unimatch,
    "augseg": _augseg,
}
