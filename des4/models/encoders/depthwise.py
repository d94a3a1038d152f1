"""Depthwise convolutions with dilation whose gradient does not take ten times their forward pass on a CPU.

oneDNN, which computes PyTorch's convolutions on a CPU, has no fast kernel for the gradient of a depthwise convolution
with dilation; such layers are what an output stride of 8 or 16 makes of EfficientNet's last stages. Here the gradient
of the input is the convolution of the gradient with the mirrored kernel, which is fast, and that of the weight is one
multiplication and sum a tap.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution of stride 1 that keeps the size; see `speed_up` for what it stands in for."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, D, h, w) to (B, D, h, w)."""
        if input.device.type != "cpu" or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return super().forward(input)
        weight = self.weight
        if torch.is_autocast_enabled("cpu"):  # the backward pass, where nothing is cast, then has both of one type too
            dtype = torch.get_autocast_dtype("cpu")
            input, weight = input.to(dtype), weight.to(dtype)
        return _Depthwise.apply(input, weight, self.dilation)  # type: ignore[no-any-return]


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, dilation: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.dilation = dilation
        return _convolve(input, weight, dilation)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (gradient,) = gradients
        input, weight = ctx.saved_tensors
        to_input = _convolve(gradient, weight.flip(2, 3), ctx.dilation) if ctx.needs_input_grad[0] else None
        to_weight = _weight_gradient(input, gradient, weight, ctx.dilation) if ctx.needs_input_grad[1] else None
        return to_input, to_weight, None


def _convolve(input: Tensor, weight: Tensor, dilation: tuple[int, int]) -> Tensor:
    padding = [step * (side // 2) for step, side in zip(dilation, weight.shape[2:], strict=True)]
    return F.conv2d(input, weight, padding=padding, dilation=dilation, groups=len(weight))


def _weight_gradient(input: Tensor, gradient: Tensor, weight: Tensor, dilation: tuple[int, int]) -> Tensor:
    """Sum over images and places of the gradient times the input that each tap of the kernel saw there."""
    (rows, columns), (down, right) = weight.shape[2:], dilation
    height, width = gradient.shape[2:]
    top, left = down * (rows // 2), right * (columns // 2)
    gradient = gradient.permute(0, 2, 3, 1)  # channels last, as these layers are laid out: sums run along memory
    seen = F.pad(input.permute(0, 2, 3, 1), (0, 0, left, left, top, top))
    taps = [
        (seen[:, down * row : down * row + height, right * column : right * column + width] * gradient).sum((0, 1, 2))
        for row in range(rows)
        for column in range(columns)
    ]
    return torch.stack(taps).view(rows, columns, -1).permute(2, 0, 1)[:, None]


def speed_up(network: nn.Module) -> None:
    """Let the dilated depthwise convolutions of a network have a fast gradient; names and weights stay as they are."""
    for module in network.modules():
        if type(module) is nn.Conv2d and _is_slow(module):
            module.__class__ = DepthwiseConv2d


def _is_slow(conv: nn.Conv2d) -> bool:
    """Whether `conv` is depthwise with dilation, keeps the size, and has nothing else to it."""
    depthwise = conv.groups == conv.in_channels == conv.out_channels
    keeps_size = (
        conv.stride == (1, 1)
        and conv.padding_mode == "zeros"
        and conv.padding
        == tuple(step * (side // 2) for step, side in zip(conv.dilation, conv.kernel_size, strict=True))
    )
    odd = all(side % 2 for side in conv.kernel_size)
    return depthwise and keeps_size and odd and conv.dilation != (1, 1) and conv.bias is None
