"""The optimiser and its learning-rate schedule.

A method's networks say by their role what moves them: the run's optimiser, or an Adam of a critic's own. Several
optimisers are one to all others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import Field
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from des4.engine.sharding import own_share
from des4.types import Config, ConfigError

if TYPE_CHECKING:
    from des4.methods.base import Method, Network


CRITIC_MOMENTS = 2
"""How many numbers Adam keeps of each that it trains."""


class OptimConfig(Config):
    """Settings of the optimiser; the defaults are those of the paper on VOC."""

    name: Literal["sgd", "adamw"] = "sgd"
    """Stochastic gradient descent with momentum, or AdamW."""
    lr: float = Field(1e-3, gt=0)
    """Learning rate of encoders at the start."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of SGD; AdamW does not read it."""
    weight_decay: float = Field(1e-4, ge=0)
    """Weight decay of all parameters; see `decay_norms`."""
    decoder_lr_multiplier: float = Field(10.0, gt=0)
    """All but the encoders learn at `lr` times this; a critic has a rate of its own."""
    power: float = Field(0.9, ge=0)
    """Power of the poly schedule: the rate at step t of T is lr · (1 − t/T)^power."""
    warmup_steps: int = Field(0, ge=0)
    """Steps in which the rate rises linearly to the schedule's, in each part of methods that learn in parts."""
    reference_batch: int | None = Field(None, ge=1)
    """The `train.batch_size` that `lr` was chosen for. If given, the rate is scaled to the batch of the run: linearly
    (`sgd`), or by the square root (`adamw`). `null`: `lr` is used as it is."""
    clip: float | None = Field(None, gt=0)
    """Largest norm of the gradient over all parameters; `null`: no clipping."""
    decay_norms: bool = True
    """`false` exempts 1-D parameters (norms and biases) from weight decay; the paper's protocol decays all."""

    @property
    def num_moments(self) -> int:
        """How many numbers the optimiser keeps of each that it trains."""
        return 2 if self.name == "adamw" else int(self.momentum > 0)


def scaled_lr(config: OptimConfig, batch_size: int) -> float:
    """Scale the learning rate to the batch size: linearly for SGD, by the square root for AdamW.

    The factor is batch_size / reference_batch, both counted in labeled images of one step, over all micro-batches.
    Linear: Goyal et al., 2017, https://arxiv.org/abs/1706.02677. Square root: Malladi et al., NeurIPS 2022,
    https://arxiv.org/abs/2205.10287.
    """
    if config.reference_batch is None:
        return config.lr
    factor = batch_size / config.reference_batch
    return config.lr * (factor if config.name == "sgd" else math.sqrt(factor))


def build_optimiser(method: Method, config: OptimConfig, batch_size: int) -> Optimizer:
    """Build the fused optimiser of the method's networks: of all parameters of theirs that want a gradient.

    Of trained networks, those of encoders form one group, all others another; each is split again where norms and
    biases do not decay. A critic has an optimiser of its own beside that one. Of parameters in shards it moves this
    process's shares. Raises ConfigError if nothing can be trained.
    """
    critics = [_of_critic(name, network) for name, network in method.networks().items() if network.role == "critic"]
    optimiser = _of_trained(method, config, batch_size)
    return Together(optimiser, *critics) if critics else optimiser


class Together(Optimizer):
    """Several fused optimisers of different parameters as one, with the groups and the states of all.

    Groups and state are the members' own, so that a rate or a moment that is set here is theirs.
    """

    def __init__(self, *members: Optimizer) -> None:
        super().__init__([group for member in members for group in member.param_groups], {})
        for member in members:
            self.state.update(member.state)
        self.members = members
        self._share()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over another state, as `load_state_dict` does, and give the members their part of it."""
        super().__setstate__(state)
        self._share()

    def _share(self) -> None:
        start = 0
        for member in self.members:
            stop = start + len(member.param_groups)
            member.param_groups, start = self.param_groups[start:stop], stop
            member.state = self.state  # each reads that of its own parameters

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take a step of each, or of none if the step was not finite."""
        for member in self.members:
            member.found_inf = getattr(self, "found_inf", None)  # type: ignore[attr-defined]
            member.step()


def _of_critic(name: str, critic: Network) -> Optimizer:
    """Build a critic's optimiser, whose averages are those that discriminators of segmentations are published with."""
    wanted = [(f"{name}.{key}", own_share(p)) for key, p in critic.module.named_parameters() if p.requires_grad]
    assert critic.lr is not None  # noqa: S101  # what a critic is declared with
    return Adam(wanted, lr=critic.lr, betas=(0.9, 0.99), fused=True)


def _of_trained(method: Method, config: OptimConfig, batch_size: int) -> Optimizer:
    """Build the run's optimiser."""
    lr = scaled_lr(config, batch_size)
    trained = [network for network in method.networks().values() if network.role == "trained"]
    in_networks = {id(parameter) for network in trained for parameter in network.module.parameters()}
    in_encoders = {id(p) for network in trained if network.encoder is not None for p in network.encoder.parameters()}
    groups: dict[tuple[bool, bool], list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in method.named_parameters():
        if parameter.requires_grad and id(parameter) in in_networks:
            decays = config.decay_norms or parameter.ndim > 1
            groups.setdefault((id(parameter) in in_encoders, decays), []).append((name, own_share(parameter)))
    if not groups:
        raise ConfigError("the method has no parameter to train; choose another with method=NAME")
    options: list[dict[str, Any]] = [
        {
            "params": named,
            "lr": lr * (1 if encoder else config.decoder_lr_multiplier),
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (encoder, decays), named in sorted(groups.items(), key=lambda item: item[0], reverse=True)
    ]
    if config.name == "adamw":
        return AdamW(options, lr=lr, fused=True)
    sgd = SGD(options, lr=lr, momentum=config.momentum, fused=True)
    if config.momentum:
        # What SGD itself begins with, but fused kernels need it of all parameters at once, and leave it unset in a
        # first step that is skipped.
        for group in sgd.param_groups:
            for parameter in group["params"]:
                sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return sgd


@dataclass(frozen=True)
class PolySchedule:
    """Poly decay: at step t of T the rate is lr · (1 − t/T)^power, times (t+1)/warmup_steps while that is below 1.

    restarts: steps at which it begins anew, with t = 0, and T is the length of the part from there to the next. So do
    the optimiser's moments: gradients of a new part may be far larger, and by the old ones' second moments Adam's first
    steps would be several times as long as the rate says. A function of the step alone: nothing is to be saved.
    """

    steps: int
    power: float = 0.9
    warmup_steps: int = 0
    restarts: tuple[int, ...] = ()

    def factor(self, step: int) -> float:
        """Return the factor of step `step`, counted from 0."""
        first = max((0, *(start for start in self.restarts if start <= step)))
        last = min((self.steps, *(start for start in self.restarts if start > step)))
        step, steps = step - first, max(1, last - first)
        warmup = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        return warmup * math.pow(max(0.0, 1 - step / steps), self.power)

    def apply(self, optimiser: Optimizer, step: int) -> None:
        """Set the rates of all groups for step `step`; a group's rate at the start is kept as its `initial_lr`.

        Where the schedule begins anew, moments and the count of steps that goes with them become 0.
        """
        if step in self.restarts:
            for state in optimiser.state.values():
                for value in state.values():
                    value.zero_()
        for group in optimiser.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * self.factor(step)
