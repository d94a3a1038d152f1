"""Gradient checkpointing: activations are dropped after the forward pass and computed again in the backward pass.

Chen et al., "Training deep nets with sublinear memory cost", 2016, arxiv.org/abs/1604.06174. What remains in memory is
the input of every block, and the inside of the one block whose gradient is being computed; the price is one more
forward pass.

A recomputed BatchNorm in training mode must not move its running statistics a second time. So the second pass runs on
copies of the block's buffers, and what it does to them is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from des4.models.training.blocks import blocks


def recompute_activations(module: nn.Module) -> None:
    """Let every block inside `module` recompute its activations in the backward pass.

    In place, by the blocks' classes alone, so parameters, hooks and names in the state dict stay as they are. Losses,
    gradients and buffers keep their bits. Without gradients nothing is recomputed.
    """
    for block in blocks(module):
        block.__class__ = _recomputed(type(block))  # type: ignore[arg-type]  # mypy takes a class for one of its objects


@cache
def _recomputed(block: type[nn.Module]) -> type[nn.Module]:
    """Return the class of blocks that recompute; the one of a block that does already is its own."""
    if issubclass(block, _Recomputed):
        return block
    return type(f"Recomputed{block.__name__}", (_Recomputed, block), {})


class _Recomputed(nn.Module):
    """Goes before a block's class, and takes over its forward pass."""

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """As the block's own."""
        if not torch.is_grad_enabled():
            return super().forward(*inputs, **named)
        if torch.compiler.is_compiling():  # the graph moves the buffers once, whatever it computes again in between
            return checkpoint(super().forward, *inputs, use_reentrant=False, **named)
        return checkpoint(super().forward, *inputs, use_reentrant=False, context_fn=self._contexts, **named)

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Surroundings of the first and of the second pass."""
        return nullcontext(), _second_pass(list(self.modules()), [module.training for module in self.modules()])


@contextmanager
def _second_pass(modules: list[nn.Module], modes: list[bool]) -> Iterator[None]:
    """Inside, modules are in the modes of their first pass, and their buffers are copies."""
    now = [module.training for module in modules]
    buffers = [(module, name, buffer) for module in modules for name, buffer in module.named_buffers(recurse=False)]
    _set_modes(modules, modes)
    for module, name, buffer in buffers:
        setattr(module, name, buffer.clone())
    try:
        yield
    finally:  # torch leaves by an exception as soon as it has what it needs
        _set_modes(modules, now)
        for module, name, buffer in buffers:
            setattr(module, name, buffer)


def _set_modes(modules: list[nn.Module], modes: list[bool]) -> None:
    for module, training in zip(modules, modes, strict=True):
        module.training = training
