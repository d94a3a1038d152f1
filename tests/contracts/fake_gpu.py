"""A GPU that is not there: its tensors have a shape, a type and a device, and no values.

torch's FakeTensorMode simulates them. An operation between tensors of two devices fails there as on a real GPU, and so
does everything that asks for a value, or for a size that depends on values. Tensors of the host are real here; what
goes between the two memories is noted. Autocast and the loss scaler take their way for CUDA, which need no driver.

What torch cannot do without a driver is replaced:
- its backward engine: the graph is walked here, by the same formulas, node after node;
- pinned memory: a tensor is remembered as pinned, and stays where it is;
- a generator of random numbers: nobody makes one, but the device that it is asked for on is looked at;
- fused optimisers have no form without values: their tensors are looked at, and nothing is run.
"""

from __future__ import annotations

from typing import Any, Self

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from des4.methods import Method

GPU = torch.device("cuda", 0)


class FakeGpu(TorchDispatchMode):
    """Inside, `device="cuda"` works on any machine.

    crossings: names of the operations between the host's memory and the GPU's for which one of them would have to wait.
    convolved: types of the images that convolutions were given.
    """

    def __init__(self) -> None:
        super().__init__()
        self.crossings: list[str] = []
        self.convolved: set[torch.dtype] = set()
        self._shapes = FakeTensorMode(allow_non_fake_inputs=True)
        self._pinned: dict[int, Tensor] = {}  # held, so that no address is used again

    def __enter__(self) -> Self:
        self._shapes.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._shapes.__exit__(*error)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, function.overloadpacket.__name__
        if function.namespace == "prim":  # what a tensor is asked for, such as its device
            return function(*args, **kwargs)
        if name == "is_pinned":
            return id(args[0]) in self._pinned
        if name == "_pin_memory":
            with unset_fake_temporarily():
                copy: Tensor = args[0].clone()
            return self._pinned.setdefault(id(copy), copy)
        inputs = tree_leaves((args, kwargs))
        if not any(isinstance(value, Tensor | torch.device) and _device(value).type == "cuda" for value in inputs):
            with unset_fake_temporarily():
                return function(*args, **kwargs)
        if name == "convolution":
            self.convolved.add(args[0].dtype)
        result = None if name.startswith("_fused_") else function(*args, **kwargs)
        hosts = [t for t in (*inputs, result) if isinstance(t, Tensor) and _device(t).type == "cpu"]
        if not self._is_free(name, hosts, kwargs):
            self.crossings.append(name)
        return result

    def _is_free(self, name: str, hosts: list[Tensor], kwargs: dict[str, Any]) -> bool:
        """Whether nobody waits: numbers on the host go along with a kernel, pinned memory is copied by itself."""
        if name in ("_to_copy", "copy_"):
            given = kwargs.get("non_blocking", False)
            return all(given and id(tensor) in self._pinned for tensor in hosts)
        return all(tensor.ndim == 0 for tensor in hosts)


def _device(value: Tensor | torch.device) -> torch.device:
    if isinstance(value, FakeTensor):
        return value.fake_device
    return value.device if isinstance(value, Tensor) else value


def replace_what_needs_a_driver(patch: pytest.MonkeyPatch) -> None:
    """Replace it, as said above."""

    def generator(method: Method, device: torch.device, part: int = 0) -> None:
        assert device == GPU

    patch.setattr(Method, "generator", generator)
    patch.setattr(Tensor, "backward", walk_back)
    patch.setattr(torch.autograd, "grad", gradient_of)
    patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    patch.setattr(torch.cuda, "is_bf16_supported", lambda *args, **kwargs: True)


# ── the backward pass ────────────────────────────────────────────────────────────────────────────────────────────────


def walk_back(loss: Tensor) -> None:
    """Do what `loss.backward()` does."""
    waiting: dict[Any, list[Tensor | None]] = {loss.grad_fn: [torch.ones_like(loss)]}
    for node in _in_order(loss.grad_fn):
        gradients = node(*waiting.pop(node))
        for (follower, place), gradient in zip(node.next_functions, _as_tuple(gradients), strict=False):
            if follower is None:
                continue
            wanted = follower._input_metadata
            places = waiting.setdefault(follower, [None] * len(wanted))
            if gradient is not None:
                # what was broadcast, or cast, comes back as it was; formulas leave that to whoever calls them
                gradient = gradient.sum_to_size(wanted[place].shape).to(wanted[place].dtype)
                before = places[place]
                places[place] = gradient if before is None else before + gradient


def gradient_of(loss: Tensor, leaf: Tensor) -> tuple[Tensor]:
    """Do what `torch.autograd.grad(loss, leaf)` does, where nothing else in the graph is a leaf."""
    walk_back(loss)
    assert leaf.grad is not None
    return (leaf.grad,)


def _in_order(last: Any) -> list[Any]:
    """Return the graph's nodes, each before those that it gives gradients to."""
    ordered, seen, stack = [], set(), [(last, False)]
    while stack:
        node, is_done = stack.pop()
        if is_done:
            ordered.append(node)
        elif node not in seen:
            seen.add(node)
            followers = [(follower, False) for follower, _ in node.next_functions if follower is not None]
            stack += [(node, True), *followers]
    return ordered[::-1]


def _as_tuple(gradients: Any) -> tuple[Tensor | None, ...]:
    return gradients if isinstance(gradients, tuple) else (gradients,)
