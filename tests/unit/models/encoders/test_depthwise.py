from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from des4.models import ModelConfig, build_segmenter
from des4.models.encoders.depthwise import DepthwiseConv2d, speed_up


def depthwise(channels: int, kernel: tuple[int, int], dilation: tuple[int, int], **options: object) -> nn.Conv2d:
    padding = tuple(d * (k // 2) for d, k in zip(dilation, kernel, strict=True))
    settings = {"padding": padding, "dilation": dilation, "groups": channels, "bias": False, **options}
    return nn.Conv2d(channels, channels, kernel, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(("kernel", "dilation"), [((3, 3), (2, 2)), ((5, 5), (4, 4)), ((3, 5), (1, 3))])
def test_its_gradient_is_that_of_the_plain_convolution(kernel: tuple[int, int], dilation: tuple[int, int]) -> None:
    torch.manual_seed(0)
    conv = depthwise(6, kernel, dilation).double()
    layers = nn.Sequential(conv)
    speed_up(layers)
    assert isinstance(layers[0], DepthwiseConv2d)
    image = torch.randn(2, 6, 7, 9, dtype=torch.double, requires_grad=True)
    weight = conv.weight.detach().clone().requires_grad_()
    plain = F.conv2d(image, weight, padding=conv.padding, dilation=dilation, groups=6)
    assert torch.equal(layers(image), plain)
    ours = torch.autograd.grad(layers(image).sin().sum(), (image, conv.weight))
    theirs = torch.autograd.grad(plain.sin().sum(), (image, weight))
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-10, atol=1e-10)


def test_its_gradient_in_half_precision_is_that_of_the_plain_convolution() -> None:
    torch.manual_seed(0)
    conv = depthwise(4, (3, 3), (2, 2))
    layers = nn.Sequential(conv)
    speed_up(layers)
    image = torch.randn(1, 4, 6, 6, requires_grad=True)
    gradients = []
    for convolve in (layers, lambda x: F.conv2d(x, conv.weight, padding=2, dilation=2, groups=4)):
        with torch.autocast("cpu", torch.bfloat16):
            out = convolve(image)
        assert out.dtype == torch.bfloat16
        gradients.append(torch.autograd.grad(out.float().sin().sum(), (image, conv.weight)))
    for mine, reference in zip(*gradients, strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, reference, rtol=0.02, atol=0.02)


def test_a_frozen_weight_or_input_gets_no_gradient() -> None:
    layers = nn.Sequential(depthwise(4, (3, 3), (2, 2)))
    speed_up(layers)
    layers.requires_grad_(False)
    image = torch.randn(1, 4, 5, 5, requires_grad=True)
    layers(image).sum().backward()
    assert image.grad is not None and layers[0].weight.grad is None


@pytest.mark.parametrize(
    "conv",
    [
        depthwise(4, (3, 3), (1, 1)),
        depthwise(4, (3, 3), (2, 2), stride=2),
        depthwise(4, (3, 3), (2, 2), groups=2),
        depthwise(4, (3, 3), (2, 2), bias=True),
        depthwise(4, (3, 3), (2, 2), padding=0),
        depthwise(4, (3, 3), (2, 2), padding_mode="reflect"),
        depthwise(4, (4, 4), (2, 2)),
    ],
    ids=["no dilation", "stride", "groups", "bias", "other padding", "padding mode", "even kernel"],
)
def test_other_convolutions_stay_what_they_are(conv: nn.Conv2d) -> None:
    layers = nn.Sequential(conv)
    speed_up(layers)
    assert type(layers[0]) is nn.Conv2d


def test_the_encoder_at_stride_16_has_such_layers_under_their_old_names() -> None:
    config = ModelConfig(weights="none", channels=8, low_channels=8, output_stride=16)
    network = build_segmenter(config, 3, "linear")
    names = [name for name, module in network.named_modules() if isinstance(module, DepthwiseConv2d)]
    assert names and all(f"{name}.weight" in network.state_dict() for name in names)
