"""Connected regions, against a search from place to place."""

from __future__ import annotations

import torch
from torch import Tensor

from des4.ops.components import connected


def searched(mask: Tensor) -> Tensor:
    height, width = mask.shape
    found, left = torch.full(mask.shape, -1), {(y, x) for y in range(height) for x in range(width) if mask[y, x]}
    while left:
        front = [left.pop()]
        members = []
        while front:
            y, x = front.pop()
            members.append((y, x))
            for near in [(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]:
                if near in left:
                    left.remove(near)
                    front.append(near)
        for y, x in members:
            found[y, x] = max(y * width + x for y, x in members)
    return found


def test_regions_are_those_that_a_search_finds() -> None:
    generator = torch.Generator().manual_seed(0)
    for density in (0.2, 0.35, 0.5):
        masks = torch.rand(3, 14, 11, generator=generator) < density
        assert torch.equal(connected(masks), torch.stack([searched(mask) for mask in masks]))


def test_a_winding_path_is_one_region() -> None:
    path = torch.zeros(21, 21, dtype=torch.bool)
    path[::2] = True
    path[1::4, -1] = path[3::4, 0] = True
    for turned in (path, path.flip(0), path.flip(1), path.T, path.flip(0).T):
        assert torch.equal(connected(turned[None])[0], searched(turned))
        assert len(connected(turned[None]).unique()) == 2


def test_without_a_place_there_is_no_region() -> None:
    assert connected(torch.zeros(2, 3, 4, dtype=torch.bool)).eq(-1).all()
    assert connected(torch.ones(1, 3, 4, dtype=torch.bool)).eq(11).all()
