"""The gradient of dilated depthwise convolutions on a CPU, ours against PyTorch's: of one layer and of a network.

python benchmarks/depthwise.py [--encoder NAME] [--crop N] [--images N] [--repeats N] [--threads N]
"""

from __future__ import annotations

import argparse
import copy
from functools import partial

import torch
from timing import machine, medians, prepare
from torch import Tensor, nn

from des4.models import ModelConfig, build_segmenter
from des4.models.encoders.depthwise import DepthwiseConv2d


def as_pytorch_has_it(network: nn.Module) -> nn.Module:
    """A copy of a network whose depthwise convolutions are PyTorch's."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, DepthwiseConv2d):
            module.__class__ = nn.Conv2d
    return network


def pass_through(network: nn.Module, image: Tensor) -> None:
    """Forward and backward."""
    network(image).square().mean().backward()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="tf_efficientnet_lite0")
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    prepare(args.threads)
    config = ModelConfig(encoder=args.encoder, weights="none", channels=64, low_channels=24)
    network = build_segmenter(config, 11, "linear").train()
    layers = [module for module in network.modules() if isinstance(module, DepthwiseConv2d)]
    if not layers:
        print(f"{args.encoder} has no dilated depthwise convolution")
        return
    widest = max(layers, key=lambda layer: layer.weight.numel())
    side = args.crop // config.output_stride
    maps = torch.randn(args.images, widest.in_channels, side, side).contiguous(memory_format=torch.channels_last)
    image = torch.rand(args.images, 3, args.crop, args.crop).contiguous(memory_format=torch.channels_last)
    print(f"{machine()}; {args.encoder}, {len(layers)} such layers, {args.images} images of {args.crop}²")
    for name, module, value in (
        ("widest layer", nn.Sequential(widest), maps.requires_grad_()),
        ("network", network, image),
    ):
        run = {
            "ours": partial(pass_through, module, value),
            "plain": partial(pass_through, as_pytorch_has_it(module), value),
        }
        seconds = medians(run, args.repeats)
        ours, plain = 1e3 * seconds["ours"], 1e3 * seconds["plain"]
        print(f"{name:13} {ours:8.1f} ms, as PyTorch has it {plain:8.1f} ms: {ours / plain:.2f}")


if __name__ == "__main__":
    main()
