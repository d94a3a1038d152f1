"""BatchNorm over the batch of all processes, on CPUs (gloo) and GPUs (nccl) alike.

torch's own SyncBatchNorm refuses CPU tensors. Here the local passes over the data are the kernels that torch's plain
BatchNorm runs on either device, and between them lie two small exchanges: of means and variances on the way forward, of
two sums on the way back. So there is one code path, and tensors of low precision have statistics in float32.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from des4.ops.reduce import num_ranks
from des4.types import ConfigError


def synchronise_norms(module: nn.Module) -> None:
    """Let every BatchNorm inside `module` take its training statistics over all processes of the default group.

    In place, by the class of the norms alone: parameters, buffers, hooks and names in the state dict stay as they are.
    In eval mode, and where no group of several processes is there, a norm does what it did before. All processes must
    run the same layers in the same order; their numbers of images may differ. Raises ConfigError, with nothing changed,
    for a kind of BatchNorm that is not known here.
    """
    norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm)]
    unknown = next((type(norm) for norm in norms if type(norm) not in (*_SYNCHRONISED, *_SYNCHRONISED.values())), None)
    if unknown:
        raise ConfigError(
            f"model.encoder: has a {unknown.__name__}, whose statistics cannot be taken over all processes; "
            "choose another encoder, or train.sync_norm=false"
        )
    for norm in norms:
        norm.__class__ = _SYNCHRONISED.get(type(norm), type(norm))


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm whose training statistics are those of all processes."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape and type; B may differ between processes, and be 0."""
        return _normalise(self, x) if self.training and num_ranks() > 1 else super().forward(x)


class SynchronisedBatchNormAct2d(BatchNormAct2d):  # type: ignore[misc]  # timm's annotations are not read
    """The same with timm's drop and activation behind it."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape and type; B may differ between processes, and be 0."""
        if self.training and num_ranks() > 1:
            return self.act(self.drop(_normalise(self, x)))  # type: ignore[no-any-return]
        return super().forward(x)  # type: ignore[no-any-return]


_SYNCHRONISED: dict[type[_BatchNorm], type[_BatchNorm]] = {
    nn.BatchNorm2d: SynchronisedBatchNorm2d,
    BatchNormAct2d: SynchronisedBatchNormAct2d,
}


def _normalise(norm: _BatchNorm, x: Tensor) -> Tensor:
    mean, var, count = _statistics(x.detach())
    if norm.track_running_stats:
        _track(norm, mean, var, count)
    weight, bias = (norm.weight, norm.bias) if norm.affine else (torch.ones_like(mean), torch.zeros_like(mean))
    y: Tensor = _Normalise.apply(x, weight, bias, mean, var, count, norm.eps)
    return y


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance (C,) and number of values () of each channel, over all processes, in float32 or better.

    var = Σ_i n_i (var_i + (mean_i - mean)²) / N: no difference of large squares, so nothing cancels. Each process adds
    the same rows in the same order, so all hold the same bits.
    """
    channels = x.shape[1]
    row = torch.zeros(2 * channels + 1, device=x.device, dtype=torch.promote_types(x.dtype, torch.float32))
    if x.numel():
        # The kernel answers in the type of the running buffers it is given; at momentum 0 it leaves them alone.
        mean, var = torch.batch_norm_update_stats(x, row[:channels], row[:channels], 0.0)
        row = torch.cat([mean, var, row.new_full((1,), x.numel() // channels)])
    rows = [torch.empty_like(row) for _ in range(num_ranks())]
    dist.all_gather(rows, row)
    table = torch.stack(rows)
    means, variances, counts = table[:, :channels], table[:, channels:-1], table[:, -1:]
    count = counts.sum()
    mean = (counts * means).sum(0) / count
    var = (counts * (variances + (means - mean).square())).sum(0) / count
    return mean, var, count


@torch.no_grad()
def _track(norm: _BatchNorm, mean: Tensor, var: Tensor, count: Tensor) -> None:
    """Move the running statistics as torch does: by the unbiased variance; without a momentum, to the plain average."""
    assert norm.running_mean is not None  # noqa: S101 - they are tracked
    assert norm.running_var is not None  # noqa: S101
    assert norm.num_batches_tracked is not None  # noqa: S101
    norm.num_batches_tracked.add_(1)
    weight = 1 / norm.num_batches_tracked if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean, weight)
    norm.running_var.lerp_(var * count / (count - 1).clamp_min(1), weight)


class _Normalise(torch.autograd.Function):
    """y = weight · x̂ + bias with x̂ = (x - mean) / √(var + eps), where mean and var are functions of all processes' x.

    With sums over the N values of a channel on all processes:
    ∂x = weight / √(var + eps) · (∂y - Σ∂y / N - x̂ · Σ(∂y · x̂) / N). The gradients of weight and bias are
    this process's share, Σ(∂y · x̂) and Σ∂y over its own values, as for every other parameter.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, count: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, var, count)
        ctx.eps = eps
        return F.batch_norm(x, mean, var, weight, bias, training=False, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, var, count = ctx.saved_tensors
        grad_x, slope, offset = None, torch.zeros_like(mean), torch.zeros_like(mean)
        if x.numel():
            _, slope, offset = torch.ops.aten.native_batch_norm_backward(
                grad, x, weight, mean, var, None, None, False, ctx.eps, [False, True, True]
            )
        if ctx.needs_input_grad[0]:
            sums = torch.cat([slope, offset])
            dist.all_reduce(sums)
            scale = weight * (var + ctx.eps).rsqrt()
            along, constant = (-scale * sums.view(2, -1) / count).unbind()
            shared = F.batch_norm(x, mean, var, along, constant, training=False, eps=ctx.eps)  # x̂ · along + constant
            grad_x = torch.addcmul(shared, grad, scale[:, None, None]).to(x.dtype)
        return grad_x, slope, offset, None, None, None, None
