import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from des4.engine.optim import OptimConfig, PolySchedule, build_optimiser, scaled_lr
from des4.methods.base import Method, Network
from des4.models import Segmenter
from des4.types import ConfigError


class TwoNetworks(nn.Module):
    """A student, a teacher whose decoder alone is trained, its average, and a projection."""

    def __init__(self):
        super().__init__()
        self.student, self.teacher, self.average = (Segmenter(block(), block(), nn.Identity()) for _ in range(3))
        self.projection = nn.ModuleDict({"encoder": block()})  # by name alone
        self.teacher.encoder.requires_grad_(False)
        self.average.requires_grad_(False)

    networks = Method.networks


def block():
    made = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))
    made.mean = made.std = (0.5, 0.5, 0.5)
    return made


def bare(module):
    """A method that is one network without an encoder."""
    method = nn.ModuleDict({"network": module})
    method.networks = lambda: {"network": Network(module, "trained")}
    return method


def names(group):
    return {name.rpartition(".")[0].rpartition(".")[0] for name in group["param_names"]}


def test_encoders_use_the_rate_and_all_else_a_multiple_of_it():
    optimiser = build_optimiser(TwoNetworks(), OptimConfig(lr=0.5, decoder_lr_multiplier=4, weight_decay=0.1), 8)
    encoder, rest = optimiser.param_groups
    assert (encoder["lr"], rest["lr"]) == (0.5, 2.0)
    assert names(encoder) == {"student.encoder"}  # the frozen encoder of the teacher is in no group
    assert names(rest) == {"student.decoder", "projection.encoder", "teacher.decoder"}
    assert {group["weight_decay"] for group in optimiser.param_groups} == {0.1}
    assert optimiser.defaults["momentum"] == 0.9


def test_norms_and_biases_can_be_exempt_from_decay():
    optimiser = build_optimiser(TwoNetworks(), OptimConfig(decay_norms=False, weight_decay=0.1), 8)
    assert [(len(g["params"]), g["weight_decay"]) for g in optimiser.param_groups] == [
        (1, 0.1),
        (3, 0),
        (3, 0.1),
        (9, 0),
    ]
    for group in optimiser.param_groups:
        assert all((p.ndim > 1) == (group["weight_decay"] > 0) for p in group["params"])


def test_adamw_is_built_by_name():
    assert isinstance(build_optimiser(TwoNetworks(), OptimConfig(name="adamw"), 8), torch.optim.AdamW)
    with pytest.raises(ValidationError):
        OptimConfig(name="lion")


def test_an_averaged_network_is_in_no_group_even_if_it_wants_a_gradient():
    method = TwoNetworks()
    method.networks = lambda: {
        "student": Network(method.student, "trained"), "teacher": Network(method.teacher, "averaged")
    }  # fmt: skip
    trained = {name for group in build_optimiser(method, OptimConfig(), 8).param_groups for name in names(group)}
    assert trained == {"student.encoder", "student.decoder"}


def test_nothing_to_train_is_an_error():
    with pytest.raises(ConfigError, match="no parameter"):
        build_optimiser(bare(nn.Conv2d(1, 1, 1).requires_grad_(False)), OptimConfig(), 8)


def test_the_rate_is_scaled_to_the_batch_only_when_a_reference_is_given():
    assert scaled_lr(OptimConfig(lr=0.1), 4) == 0.1
    assert scaled_lr(OptimConfig(lr=0.1, reference_batch=16), 4) == 0.025
    assert scaled_lr(OptimConfig(name="adamw", lr=0.1, reference_batch=16), 4) == 0.05


def test_poly_values():
    poly = PolySchedule(100)
    assert poly.factor(0) == 1
    assert poly.factor(50) == pytest.approx(math.pow(0.5, 0.9))
    assert 0 < poly.factor(99) < 0.02
    assert poly.factor(100) == 0
    assert PolySchedule(100, power=0).factor(99) == 1
    warm = PolySchedule(100, power=1, warmup_steps=4)
    assert [warm.factor(step) for step in (0, 3, 4)] == [0.25, 0.97, 0.96]


def test_a_restart_makes_two_schedules_of_one():
    parts = PolySchedule(25, power=1, warmup_steps=2, restart=0.4)
    first, second = PolySchedule(10, power=1, warmup_steps=2), PolySchedule(15, power=1, warmup_steps=2)
    assert [parts.factor(step) for step in range(25)] == [
        *(first.factor(step) for step in range(10)), *(second.factor(step) for step in range(15))
    ]  # fmt: skip
    assert parts.factor(9) < parts.factor(11) and parts.factor(25) == 0


def test_the_schedule_depends_on_the_step_alone():
    optimiser = build_optimiser(TwoNetworks(), OptimConfig(lr=0.5, decoder_lr_multiplier=4), 8)
    poly = PolySchedule(10, power=1)
    for step in (9, 2, 5):
        poly.apply(optimiser, step)
    assert [group["lr"] for group in optimiser.param_groups] == [0.25, 1.0]
