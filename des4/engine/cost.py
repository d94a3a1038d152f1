"""What a step costs: its FLOPs and the memory it keeps. All is seen from outside a method.

FLOPs are those of matrix products, convolutions and attention, a multiply-add counting as two; what works pixel by
pixel (norms, losses, sampling, averages) is not counted. Forward and backward pass are counted operation by operation,
by torch's formulas but for one: the backward pass of a convolution takes as many as its forward pass for each of the
gradients that are wanted, of its input and of its weight, where torch counts too many if it is grouped. So a layer of
the student costs three times its forward pass, its first layer and one behind a cut twice, a teacher's without gradient
once, and one whose activations are computed again four times.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import conv_flop_count, flop_registry

from des4.engine.distributed import agree
from des4.engine.optim import CRITIC_MOMENTS
from des4.engine.parts import possible_parts, split
from des4.engine.settings import Precision, autocast
from des4.types import Batch

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from des4.methods.base import Method, Network


# ── parts of a run ───────────────────────────────────────────────────────────────────────────────────────────────────


class Part(NamedTuple):
    """Steps of a run that cost alike. first: the first of them, from 0. share: of all steps."""

    first: int
    share: float


def parts_of_run(method: Method) -> tuple[Part, ...]:
    """Return the parts that a method learns in."""
    total = method.setting.total_steps
    return tuple(Part(a, (b - a) / total) for a, b in itertools.pairwise((*method.part_starts, total)))


@contextmanager
def at_step(method: Method, step: int) -> Iterator[None]:
    """Inside, a method that is not to be trained any further takes the steps that come from `step` on."""
    before = method.step
    method.step = step
    try:
        yield
    finally:
        method.step = before


# ── operations and memory, counted ───────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of a step.

    plain: of forward passes that nobody differentiates. forward: of those that are differentiated. backward: of the
    backward pass, with what is computed again in it.
    """

    plain: int
    forward: int
    backward: int

    @property
    def total(self) -> int:
        """All of the step."""
        return self.plain + self.forward + self.backward


@dataclass(frozen=True)
class StepCost:
    """What was counted. kept_bytes: memory that autograd keeps for the backward pass, weights left out."""

    flops: Flops
    kept_bytes: int


def step_cost(method: Method, batch: Batch, precision: Precision = "fp32") -> StepCost:
    """Count what a step on `batch` costs, without computing it.

    Losses and backward pass are run on a copy, and the method stays as it is. The copy's tensors have shapes and no
    values, so any machine counts any network in seconds; those of a method that asks for values (`WAITS`) have some,
    and it is counted by computing.
    """
    device = batch.labeled.image.device
    shapes = FakeTensorMode(allow_non_fake_inputs=True) if not method.WAITS else nullcontext()
    copies: dict[int, Any] = {}
    if isinstance(shapes, FakeTensorMode):
        tensors = (*method.parameters(), *method.buffers())
        copies = {id(tensor): shapes.from_tensor(tensor) for tensor in tensors}
    copied: Method = copy.deepcopy(method, copies)
    counter = _FlopCounter()
    kept = _Kept(copied.parameters())
    with torch.compiler.set_stance("force_eager"), shapes, counter:
        with autocast(device, precision), torch.autograd.graph.saved_tensors_hooks(kept, lambda tensor: tensor):
            terms = copied(copied.prepared(batch))
        kept_bytes = kept.bytes()
        counter.backwards = True
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
    return StepCost(Flops(counter.plain, counter.forward, counter.backward), kept_bytes)


def run_cost(method: Method, batch: Batch, precision: Precision = "fp32") -> list[tuple[Part, StepCost]]:
    """Count what a step on `batch` costs in each part of a run; see `step_cost`."""
    found = []
    for part in parts_of_run(method):
        with at_step(method, part.first):
            found.append((part, step_cost(method, batch, precision)))
    return found


class _FlopCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the FLOPs of all that runs. backwards: whether the backward pass has begun."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.plain = self.forward = self.backward = 0
        self.backwards = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = FORMULAS.get(func._overloadpacket)
        if formula is not None:
            flops = int(formula(*args, **(kwargs or {}), out_val=out))
            if self.backwards:
                self.backward += flops
            elif torch.is_grad_enabled() and any(isinstance(arg, Tensor) and arg.requires_grad for arg in args):
                self.forward += flops
            else:
                self.plain += flops
        return out


def _convolution_backward_flops(grad: Tensor, image: Tensor, weight: Tensor, *settings: Any, **named: Any) -> int:
    transposed, wanted = settings[-4], settings[-1]  # of aten::convolution_backward
    forward: int = conv_flop_count(list(image.shape), list(weight.shape), list(grad.shape), transposed)
    return forward * int(sum(wanted[:2]))


FORMULAS = {**flop_registry, torch.ops.aten.convolution_backward: _convolution_backward_flops}
"""Operation → function of its arguments and its result, `out_val`, that returns its FLOPs."""


class _Kept:
    """Called with each tensor that autograd keeps; adds up their memory, each storage once, and none of a weight."""

    def __init__(self, weights: Iterable[Tensor]) -> None:
        self._weights = {weight.untyped_storage()._cdata for weight in weights}
        self._storages: dict[int, torch.UntypedStorage] = {}  # held, so that no address is used again

    def __call__(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._weights:
            self._storages[storage._cdata] = storage
        return tensor

    def bytes(self) -> int:
        return sum(storage.nbytes() for storage in self._storages.values())


@dataclass(frozen=True)
class Memory:
    """Bytes that a step holds at the same time. kept: for the backward pass of one micro-batch."""

    weights: int
    gradients: int
    optimiser: int
    kept: int

    @property
    def total(self) -> int:
        """All of them; what a single operation needs for a moment comes on top."""
        return self.weights + self.gradients + self.optimiser + self.kept


def memory(method: nn.Module, optimiser: Optimizer, kept_bytes: int) -> Memory:
    """Add up a training's memory. AdamW's moments are there from its first step on only."""
    state = [value for values in optimiser.state.values() for value in values.values() if isinstance(value, Tensor)]
    return Memory(
        weights=sum(tensor.nbytes for tensor in (*method.parameters(), *method.buffers())),
        gradients=sum(parameter.nbytes for parameter in method.parameters() if parameter.requires_grad),
        optimiser=sum(tensor.nbytes for tensor in state),
        kept=kept_bytes,
    )


def moments_to_come(method: Method, num_moments: int) -> int:
    """Return the bytes of the moments that a run's optimisers will keep: so many of each parameter, before a step."""
    return sum(
        _num_moments(network, num_moments) * parameter.nbytes
        for network in method.networks().values()
        for parameter in network.module.parameters()
        if parameter.requires_grad
    )


def _num_moments(network: Network, num_moments: int) -> int:
    return CRITIC_MOMENTS if network.role == "critic" else num_moments


ROOM = 1.25
"""Memory that a step may need, over what is counted: workspaces of single operations, and fragments."""


def fewest_parts(
    method: Method, batch: Batch, free: int | None, precision: Precision, num_moments: int, shards: int = 1
) -> int:
    """Return into how few micro-batches a step's batch can be split for every step to fit, counted and not tried out.

    method: before its parameters go into `shards`. free: bytes, before there is an optimiser; None = unknown, so
    nothing is split. num_moments: that the run's optimiser will keep of each parameter. The same on all processes. If
    nothing fits, the most parts.
    """
    held = 0  # gradients and moments
    for network in method.networks().values():
        moments = _num_moments(network, num_moments)
        held += (1 + moments) * sum(p.nbytes for p in network.module.parameters() if p.requires_grad) // shards
    for parts in possible_parts(batch):
        needed = ROOM * (held + max(cost.kept_bytes for _, cost in run_cost(method, split(batch, parts)[0], precision)))
        if not agree(free is not None and needed > free):
            break
    return parts
