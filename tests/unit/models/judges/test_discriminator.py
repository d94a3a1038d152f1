from __future__ import annotations

import pytest
import torch

from des4.models.judges.discriminator import Discriminator


@pytest.mark.parametrize("size", [(1, 1), (7, 20), (33, 33), (64, 40)])
def test_every_pixel_of_maps_of_any_size_is_judged(size: tuple[int, int]) -> None:
    assert Discriminator(3, width=4)(torch.rand(2, 3, *size)).shape == (2, *size)


def test_frozen_it_says_the_same_and_gradients_reach_the_maps_alone() -> None:
    net, maps = Discriminator(3, width=4), torch.rand(1, 3, 33, 33, requires_grad=True)
    plain, frozen = net(maps), net(maps, frozen=True)
    assert torch.equal(plain, frozen)
    frozen.sum().backward()  # type: ignore[no-untyped-call]
    assert maps.grad is not None
    assert maps.grad.any()
    assert all(parameter.grad is None for parameter in net.parameters())
    plain.sum().backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in net.parameters())


def test_what_is_negative_is_divided_by_five_between_layers() -> None:
    net = Discriminator(1, width=1)
    with torch.no_grad():
        for number, layer in enumerate(net.layers):
            layer.weight.zero_()
            layer.bias.zero_()
            layer.weight[0, 0, 2, 2] = 5 if number else -1  # of a map of one pixel, which lies here
    assert net(torch.ones(1, 1, 1, 1)).item() == pytest.approx(-1)  # after four times 5/5
