"""Several processes, one training: joining them, agreeing with them, averaging gradients. Only this file names DDP.

`torchrun` starts the processes and tells each its number by the environment; without it there is one process, and
nothing here costs anything. Losses are divided by what all processes hold (`engine/parts.py`), so that the average of
gradients which DistributedDataParallel takes is the gradient of the whole step.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from des4.engine.sharding import is_sharded
from des4.models import norm_statistics
from des4.ops.reduce import gather_over_ranks, is_distributed, num_ranks, this_rank
from des4.types import ConfigError, RunError, UserError

T = TypeVar("T")


@contextmanager
def joined() -> Iterator[None]:
    """Join the processes that torchrun has started; leave them at the end. Raises RunError if they cannot be reached.

    One group serves both kinds of tensors: gloo for those on the CPU, nccl for those on a GPU.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or is_distributed():
        yield
        return
    try:
        store, rank, count = next(rendezvous("env://"))
        # torchrun hands out one store however often it starts again, and old processes have left their addresses there
        store = PrefixStore(f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=count)
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise RunError(f"the processes of this training cannot join ({reason}); start them with torchrun") from error
    try:
        yield
    except RuntimeError as error:
        if not _lost_another(error):
            raise
        raise RunError("another process of this training has ended, so this one cannot go on; what that one says is "
                       "the cause") from error  # fmt: skip
    finally:
        dist.destroy_process_group()


def _lost_another(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or any(name in str(error).lower() for name in ("gloo", "nccl"))


def was_restarted() -> bool:
    """Whether a launcher has started this command again: torchrun after a failure, or SLURM after requeueing."""
    return any(int(os.environ.get(name) or 0) > 0 for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))


def may_be_restarted() -> bool:
    """Whether torchrun would start the command again after a failure."""
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS") or 0) > 0


def is_first_process() -> bool:
    """Whether this process speaks for all that torchrun has started, also before and after they are joined."""
    return int(os.environ.get("RANK") or 0) == 0


def own_gpu() -> torch.device:
    """Return the GPU of this process: one each, in the order that torchrun numbers them on a machine.

    Raises ConfigError if there are more processes than GPUs.
    """
    index, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if index >= count:
        raise ConfigError(f"there are {count} GPUs and process {index} needs one of its own; "
                          f"start torchrun with --nproc-per-node={count}")  # fmt: skip
    device = torch.device("cuda", index)
    torch.cuda.set_device(device)
    return device


def on_first(work: Callable[[], T]) -> T | None:
    """Let rank 0 do what only one process may; the others wait, and get None.

    Raises what it raises on rank 0, and the same UserError on the others.
    """
    result, error = None, None
    if this_rank() == 0:
        try:
            result = work()
        except UserError as caught:
            error = caught
    (failure, *_) = gather_over_ranks(str(error) if error else None)
    if error:
        raise error
    if failure:
        raise RunError(failure)
    return result


def agree(code: int) -> int:
    """Return the largest of the ranks' numbers, on every rank."""
    if not is_distributed():
        return code
    largest = torch.tensor(code)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest)


def average_gradients(method: nn.Module) -> nn.Module:
    """Wrap a method so that gradients are averaged over ranks as backward runs.

    Itself on one process, and in shards, where each process gets the average of its shares alone.
    """
    if not is_distributed() or is_sharded(method):
        return method
    # Buffers need no broadcast: norms are synchronised, or averaged once a step, and prototypes move alike everywhere.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)  # its successor begins with torch 2.15
        return DistributedDataParallel(
            method, broadcast_buffers=False, gradient_as_bucket_view=True, find_unused_parameters=method.rests
        )


def without_averaging(wrapped: nn.Module, skip: bool) -> AbstractContextManager[None]:
    """Inside, gradients stay this rank's own if `skip`: for all micro-batches of a step but the last.

    In shards they are averaged one by one, because a rank has no room for its own whole ones.
    """
    return wrapped.no_sync() if skip and isinstance(wrapped, DistributedDataParallel) else nullcontext()


@torch.no_grad()
def average_statistics(module: nn.Module) -> None:
    """Give all ranks the mean of their running statistics of norms, where those are not synchronised."""
    buffers = [b for b in norm_statistics(module) if b.is_floating_point()]
    if not is_distributed() or not buffers:
        return
    flat = torch.cat([b.flatten().double() for b in buffers])
    dist.all_reduce(flat)
    flat /= num_ranks()
    means = torch.split(flat, [b.numel() for b in buffers])
    for buffer, mean in zip(buffers, means, strict=True):
        buffer.copy_(mean.view_as(buffer))
