"""Weights, gradients and moments in shards, one for each process, by torch's FSDP2. Only this file names it.

A process keeps its share of every parameter, along the first dimension. The whole of a block is gathered while the
block runs, in the forward and in the backward pass, and forgotten again. What is saved is whole, so that a run goes on
with any number of processes, in shards or not.

The optimiser holds shares as plain parameters over the same memory, so that its fused kernels, the clipping and the
skipping of steps that are not finite work as with one process. On one process nothing here does anything.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler
from torch.distributed.tensor import DTensor, distribute_tensor

from des4.models import blocks
from des4.ops.reduce import num_ranks, own_part, sum_over_ranks, this_rank

if TYPE_CHECKING:
    from des4.methods.base import Method


def shard_weights(method: Method) -> None:
    """Leave each process its share of a method's parameters; before the optimiser is built.

    Gathered together are a block of an encoder, the rest of that encoder, a decoder, a classifier, any other network.
    """
    device = next(method.parameters()).device
    mesh = init_device_mesh(device.type, (num_ranks(),))
    networks = method.networks().values()
    parts = [part for one in networks for part in (*(blocks(one.encoder) if one.encoder else ()), *one.parts)]
    # It warns of views that are written into: maps of a transformer are views, and decoders only read them.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view", UserWarning)
    method.to(memory_format=torch.contiguous_format)  # FSDP2 takes no other layout
    for part in (*dict.fromkeys(parts), method):
        fully_shard(part, mesh=mesh)
    # Else the first module to run would be taken for the whole: a network, where a run goes on with an evaluation.
    fully_shard.state(method)._lazy_init()  # type: ignore[attr-defined]


def is_sharded(method: nn.Module) -> bool:
    """Whether the method's parameters are in shards."""
    return isinstance(method, FSDPModule)


@contextmanager
def whole_weights(method: nn.Module) -> Iterator[None]:
    """Inside, the networks can be run without the other processes, which may have more images or fewer."""
    sharded = [module for module in method.modules() if isinstance(module, FSDPModule)]
    for module in sharded:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in sharded:
            module.set_reshard_after_forward(module is not method, recurse=False)
            module.reshard()


# ── the step ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def own_share(parameter: nn.Parameter) -> nn.Parameter:
    """Return what this process's optimiser moves of a parameter: the same memory; all of it if it is not in shards."""
    if not isinstance(parameter, DTensor):
        return parameter
    return nn.Parameter(own_part(parameter.detach()))


@torch.no_grad()
def take_gradients(parameters: Mapping[str, nn.Parameter], own: Mapping[str, nn.Parameter]) -> None:
    """Move the gradients of parameters in shards to this process's shares of them."""
    for name, share in own.items():
        parameter = parameters[name]
        if share is not parameter and parameter.grad is not None:
            share.grad, parameter.grad = own_part(parameter.grad), None


def total_norm(gradients: list[Tensor], sharded: bool) -> Tensor:
    """Return the norm of all gradients together; of shares, over all processes."""
    norm = nn.utils.get_total_norm(gradients)
    if not sharded:
        return norm
    (squares,) = sum_over_ranks(norm.double().square())
    return squares.sqrt().to(norm.dtype)


def grad_scaler(device: torch.device, enabled: bool, sharded: bool) -> torch.amp.GradScaler:
    """Return a scaler of the loss; with shards, one by which all processes take notice of what overflows in one."""
    return (ShardedGradScaler if sharded else torch.amp.GradScaler)(device.type, enabled=enabled)


# ── states ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def gather_whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors as they are, but whole: those in shards on the CPU of the first process, and there alone."""
    whole = {}
    for name in sorted(tensors):  # every process in the same order; that of what was loaded may be another
        tensor = tensors[name]
        if not isinstance(tensor, DTensor):
            whole[name] = tensor
            continue
        gathered = tensor.full_tensor()
        if this_rank() == 0:
            whole[name] = gathered.cpu()
    return whole


def spread(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `gather_whole`, on all processes: tensors of the same name as one in shards are brought into the same."""
    return {name: _in_shards(tensor, like.get(name)) for name, tensor in tensors.items()}


def moments_in_shards(moments: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return an optimiser's moments, `<parameter>/<key>` → share, as tensors in shards, where their parameter is."""
    found = {}
    for path, moment in moments.items():
        parameter = parameters[path.rpartition("/")[0]]
        if isinstance(parameter, DTensor) and moment.shape == own_part(parameter).shape:
            moment = DTensor.from_local(moment, parameter.device_mesh, parameter.placements, run_check=False,
                                        shape=parameter.shape, stride=parameter.stride())  # fmt: skip
        found[path] = moment
    return found


def own_moments(moments: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return this process's shares of whole moments, `<parameter>/<key>` → tensor."""
    return {
        path: own_part(_in_shards(moment, parameters.get(path.rpartition("/")[0]))) for path, moment in moments.items()
    }


def _in_shards(tensor: Tensor, like: Tensor | None) -> Tensor:
    if not isinstance(like, DTensor) or tensor.ndim != like.ndim:
        return tensor
    # each process has read the whole, so nothing has to be sent
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
