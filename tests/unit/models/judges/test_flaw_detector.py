from __future__ import annotations

import pytest
import torch

from des4.models.judges.flaw_detector import FlawDetector, HalfNorm


def test_layers_widen_from_64_channels_to_512() -> None:
    assert [layer.out_channels for layer in FlawDetector(3).layers] == [64, 128, 128, 256, 256, 512, 512, 1]
    assert [layer.out_channels for layer in FlawDetector(3, width=8).layers] == [8, 16, 16, 32, 32, 64, 64, 1]


@pytest.mark.parametrize("size", [(1, 1), (7, 20), (33, 33)])
def test_every_pixel_of_images_of_any_size_is_judged(size: tuple[int, int]) -> None:
    net = FlawDetector(3, width=8).eval()
    assert net(torch.rand(2, 3, *size), torch.rand(2, 3, *size)).shape == (2, *size)


def test_frozen_it_says_the_same_and_gradients_reach_the_probabilities_alone() -> None:
    net, image, probs = FlawDetector(3, width=8), torch.rand(2, 3, 33, 33), torch.rand(2, 3, 33, 33, requires_grad=True)
    plain, frozen = net(image, probs), net(image, probs, frozen=True)
    assert torch.equal(plain, frozen)
    frozen.sum().backward()  # type: ignore[no-untyped-call]
    assert probs.grad is not None
    assert probs.grad.any()
    assert all(parameter.grad is None for parameter in net.parameters())
    plain.square().sum().backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_one_half_is_normed_over_the_batch_and_the_other_in_each_image() -> None:
    maps = 3 + 2 * torch.randn(4, 6, 8, 8) * torch.arange(1, 5).view(4, 1, 1, 1)
    out = HalfNorm(6)(maps)
    torch.testing.assert_close(out[:, :3].mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(out[:, :3].var((0, 2, 3), unbiased=False), torch.ones(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(out[:, 3:].mean((2, 3)), torch.zeros(4, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(out[:, 3:].var((2, 3), unbiased=False), torch.ones(4, 3), atol=1e-3, rtol=0)


def test_what_is_negative_is_divided_by_five_between_layers() -> None:
    net = FlawDetector(1, bands=1, width=2).eval()
    with torch.no_grad():
        for number, layer in enumerate(net.layers):
            layer.weight.zero_()
            middle = layer.kernel_size[0] // 2  # where a map of one pixel lies
            layer.weight[0, 0, middle, middle] = 5 if number else -1
        net.layers[-1].bias.zero_()
    one = torch.ones(1, 1, 1, 1)
    assert net(one, one).item() == pytest.approx(-1, abs=1e-3)  # after seven times 5/5
