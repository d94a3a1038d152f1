"""One optimiser step: from a batch to moved weights, prototypes and averages. Nothing in it waits for the device.

What is not finite is skipped without asking the host: a flag on the device tells the fused optimiser to leave weights
and moments alone, puts the statistics of norms back to what they were, and tells memories to remember nothing. Averages
take their step, towards weights and statistics that did not move.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from des4.engine.distributed import average_gradients, average_statistics, without_averaging
from des4.engine.parts import parts_from, split
from des4.engine.process import is_out_of_memory
from des4.engine.settings import Precision, autocast
from des4.engine.sharding import grad_scaler, is_sharded, take_gradients, total_norm
from des4.models import Memory, norm_statistics
from des4.ops.reduce import num_ranks, sum_over_ranks
from des4.types import Batch, ConfigError, RunError

if TYPE_CHECKING:
    from des4.methods.base import Method


ONE_PIXEL = (
    "BatchNorm knows no spread of one value: of a single image with such a crop a map of one pixel is left; raise "
    "views.crop_size or train.batch_size"
)


class Outcome(NamedTuple):
    """What a step was, on the device, not yet waited for.

    terms: the loss terms of this process. norm: of the gradient, over all processes. skipped: 1 if the step was not
    finite, in its loss, its gradient or a statistic of a norm, and moved nothing; else 0.
    """

    terms: dict[str, Tensor]
    norm: Tensor
    skipped: Tensor


class TrainStep:
    """Takes optimiser steps with a method.

    optimiser: a fused one, of the method's parameters. clip: largest gradient norm; None = no clipping. parts: that a
    batch is split into; more of them when memory runs out. sync_norm: the method's norms take their statistics from
    all processes, so that these are alike without averaging. on_smaller: told of a new number of parts, and why.
    """

    def __init__(
        self,
        method: Method,
        optimiser: Optimizer,
        device: torch.device,
        *,
        precision: Precision = "fp32",
        clip: float | None = None,
        parts: int = 1,
        sync_norm: bool = True,
        on_smaller: Callable[[int, str], object] = lambda parts, reason: None,
    ) -> None:
        self.method, self.optimiser, self.device = method, optimiser, device
        self.precision, self.clip, self.parts = precision, clip, parts
        self.sync_norm, self.on_smaller = sync_norm, on_smaller
        self.sharded = is_sharded(method)
        self.scaler = grad_scaler(device, precision == "fp16", self.sharded)
        self.own = {
            name: parameter
            for group in optimiser.param_groups
            for name, parameter in zip(group["param_names"], group["params"], strict=True)
        }
        self._parameters = dict(method.named_parameters())
        self._wrapped = average_gradients(method)
        statistics = norm_statistics(method)
        self._statistics = _Undo(statistics)
        self._running = [tensor for tensor in statistics if tensor.is_floating_point()]
        self._memories = [module for module in method.modules() if isinstance(module, Memory)]

    def __call__(self, batch: Batch) -> Outcome:
        """Take a step. Raises RunError if memory runs out however small the micro-batches, ConfigError if norms see one
        value alone.
        """
        self._statistics.remember()
        batch = self.method.prepared(batch)
        self.parts = parts_from(batch, self.parts)  # a run that goes on on other processes has other shares
        while True:
            try:
                terms = self.gradients(batch)
                break
            except ValueError as error:  # torch's, of a norm
                if "more than 1 value per channel" not in str(error):
                    raise
                raise ConfigError(ONE_PIXEL) from None
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error).partition("\n")[0]
            self._make_parts_smaller(batch, reason)  # not in the except clause, whose traceback holds the tensors
        return self._move(terms)

    def gradients(self, batch: Batch) -> dict[str, Tensor]:
        """Leave the gradient of a prepared batch, summed over micro-batches, in the parameters; return the terms."""
        sums: dict[str, Tensor] = {}
        for number, part in enumerate(split(batch, self.parts), 1):
            with without_averaging(self._wrapped, number < self.parts):
                with autocast(self.device, self.precision):
                    terms: dict[str, Tensor] = self._wrapped(part)  # the method's losses
                terms = {name: term.float() / self.parts for name, term in terms.items()}
                self.scaler.scale(torch.stack(list(terms.values())).sum()).backward()  # type: ignore[no-untyped-call]
            sums = {name: sums.get(name, 0) + term.detach() for name, term in terms.items()}
        return sums

    def _move(self, terms: dict[str, Tensor]) -> Outcome:
        """Move weights by their gradients, and what follows them, unless something is not finite."""
        take_gradients(self._parameters, self.own)
        self.scaler.unscale_(self.optimiser)
        norm = total_norm([p.grad for p in self.own.values() if p.grad is not None], self.sharded)
        loss = torch.stack(list(terms.values())).sum()
        (bad,) = sum_over_ranks((~torch.isfinite(loss + norm + self._largest_statistic())).float())
        skipped = bad.clamp_max(1)
        if self.clip is not None:
            nn.utils.clip_grads_with_norm_(self.own.values(), self.clip, norm)
        self.optimiser.found_inf = skipped  # type: ignore[attr-defined]  # how fused optimisers are told
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.scaler.update()
        self._statistics.undo(skipped)
        if not self.sync_norm:
            average_statistics(self.method)
        self._tell_memories(skipped)
        self.method.after_step()
        self._tell_memories(None)
        return Outcome(terms, norm, skipped)

    def _tell_memories(self, skipped: Tensor | None) -> None:
        for memory in self._memories:
            memory.skipped = skipped

    def _largest_statistic(self) -> Tensor | float:
        """Return a number that is finite if all statistics of norms are.

        A pass without gradients moves them as well, and a loss need not tell: labels of no confidence count nowhere.
        """
        return torch.stack(torch._foreach_norm(self._running, math.inf)).amax() if self._running else 0.0

    def _make_parts_smaller(self, batch: Batch, reason: str) -> None:
        """Undo what the failed attempt did, and split further. Raises RunError if that cannot be, or not here."""
        images = len(batch.labeled.image)
        parts = parts_from(batch, self.parts + 1)
        if parts <= self.parts:
            remedy = "lower views.crop_size, or train a smaller model.encoder"
            if images // self.parts > 2:  # whose images are mixed in one ring
                remedy = f"take an even train.batch_size, which can be; or {remedy}"
            raise RunError(f"out of memory with parts of {images // self.parts} labeled images, which cannot be split "
                           f"further ({reason}); {remedy}")  # fmt: skip
        self.parts = parts
        self.on_smaller(parts, reason)
        if num_ranks() > 1:  # the others wait for this one's gradients and cannot take the step again
            raise RunError(f"out of memory ({reason}); continued, the run splits each batch into {parts} parts")
        self.optimiser.zero_grad()
        self._statistics.undo(torch.ones((), device=self.device))
        self.method.discard()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


class _Undo:
    """Tensors as they were, to be put back by a number on the device.

    They are seen as integers: as floats, what is not finite would survive a multiplication with 0.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        integers = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
        self._now: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            kind = integers[tensor.element_size()]
            self._now.setdefault(kind, []).append(tensor.detach().view(kind))
        self._before = {kind: [one.clone() for one in now] for kind, now in self._now.items()}

    def remember(self) -> None:
        """Take the tensors as they are."""
        for kind, now in self._now.items():
            torch._foreach_copy_(self._before[kind], now)

    @torch.no_grad()
    def undo(self, undo: Tensor) -> None:
        """Put all of them back if `undo`, a scalar, is 1; leave them as they are if it is 0. Once a `remember`."""
        for kind, now in self._now.items():
            back = undo.to(kind)
            torch._foreach_mul_(self._before[kind], back)
            torch._foreach_mul_(now, 1 - back)
            torch._foreach_add_(now, self._before[kind])
