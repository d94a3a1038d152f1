"""The blocks of a network: the pieces it can be taken in, one after the other."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the members of all sequences inside `module`; a sequence of single layers is one block itself."""
    if not isinstance(module, nn.Sequential):
        for child in module.children():
            yield from blocks(child)
    elif any(_is_layer(member) for member in module):
        yield module
    else:
        for member in module:
            yield from blocks(member) if isinstance(member, nn.Sequential) else (member,)


def _is_layer(module: nn.Module) -> bool:
    """Whether it computes by itself: timm's norms carry their activation as a child."""
    return isinstance(module, _BatchNorm) or next(module.children(), None) is None
