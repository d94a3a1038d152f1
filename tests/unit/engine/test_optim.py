import copy
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


def test_restarts_make_several_schedules_of_one():
    parts = PolySchedule(31, power=1, warmup_steps=2, restarts=(10, 25))
    alone = [PolySchedule(length, power=1, warmup_steps=2) for length in (10, 15, 6)]
    assert [parts.factor(step) for step in range(31)] == [
        part.factor(step) for part in alone for step in range(part.steps)
    ]
    assert parts.factor(9) < parts.factor(11) and parts.factor(31) == 0


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_where_the_schedule_begins_anew_so_do_the_moments(name):
    def last_move(restarts, gradients):
        method = TwoNetworks()
        optimiser = build_optimiser(method, OptimConfig(name=name, lr=0.1, weight_decay=0), 8)
        poly = PolySchedule(9, power=0, restarts=restarts)
        for step, gradient in enumerate(gradients):
            before = [parameter.detach().clone() for parameter in method.parameters()]
            for parameter in method.parameters():
                parameter.grad = torch.full_like(parameter, gradient) if parameter.requires_grad else None
            poly.apply(optimiser, step)
            optimiser.step()
        moved = [(now - was).flatten() for now, was in zip(method.parameters(), before, strict=True)]
        return torch.cat(moved).detach()

    small = [0.01, 0.01, 0.01]
    first = last_move((), [1.0])
    torch.testing.assert_close(last_move((3,), [*small, 1.0]), first, rtol=1e-3, atol=1e-6)
    assert not torch.allclose(last_move((), [*small, 1.0]), first, rtol=1e-2)


def test_the_schedule_depends_on_the_step_alone():
    optimiser = build_optimiser(TwoNetworks(), OptimConfig(lr=0.5, decoder_lr_multiplier=4), 8)
    poly = PolySchedule(10, power=1)
    for step in (9, 2, 5):
        poly.apply(optimiser, step)
    assert [group["lr"] for group in optimiser.param_groups] == [0.25, 1.0]


# ── critics ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def judged():
    """A network and a critic of it, in two optimisers that are one."""
    method = nn.ModuleDict({"network": nn.Linear(2, 1, bias=False), "critic": nn.Linear(2, 1, bias=False)})
    method.networks = lambda: {
        "network": Network(method["network"], "trained"), "critic": Network(method["critic"], "critic", 0.25)
    }  # fmt: skip
    return method, build_optimiser(method, OptimConfig(lr=0.5, decoder_lr_multiplier=1, momentum=0, weight_decay=0), 8)


def take_step(method, optimiser, skipped=0.0):
    for network in method.values():
        network.weight.grad = torch.tensor([[2.0, -3.0]])
    optimiser.found_inf = torch.tensor(skipped)
    before = {name: network.weight.detach().clone() for name, network in method.items()}
    optimiser.step()
    return {name: (network.weight - before[name]).tolist()[0] for name, network in method.items()}


def test_a_critic_learns_by_an_adam_of_its_own_rate():
    method, optimiser = judged()
    assert [(group["param_names"], group["lr"]) for group in optimiser.param_groups] == [
        (["network.weight"], 0.5),
        (["critic.weight"], 0.25),
    ]
    moved = take_step(method, optimiser)
    assert moved["network"] == pytest.approx([-1, 1.5])  # SGD: rate times gradient
    assert moved["critic"] == pytest.approx([-0.25, 0.25])  # Adam: its first step is the rate, whatever the gradient
    PolySchedule(2, power=1).apply(optimiser, 1)
    moved = take_step(method, optimiser)
    assert moved["network"] == pytest.approx([-0.5, 0.75])
    assert moved["critic"] == pytest.approx([-0.125, 0.125])
    optimiser.zero_grad()
    assert all(network.weight.grad is None for network in method.values())


def test_a_critics_adam_forgets_squares_by_a_hundredth():
    method, optimiser = judged()
    take_step(method, optimiser)
    method["critic"].weight.grad = torch.zeros(1, 2)
    before = method["critic"].weight.detach().clone()
    optimiser.step()
    # of a gradient and then none: 0.09 / (1 - 0.9²) of it on average, 0.0099 / (1 - 0.99²) of its square
    moved = 0.25 * (0.09 / 0.19) / math.sqrt(0.0099 / 0.0199)
    assert (method["critic"].weight - before).tolist()[0] == pytest.approx([-moved, moved])


def test_a_step_that_is_skipped_moves_neither_weights_nor_moments_of_either():
    method, optimiser = judged()
    take_step(method, optimiser)
    before = {key: value.clone() for key, value in optimiser.state[method["critic"].weight].items()}
    moved = take_step(method, optimiser, skipped=1.0)
    assert moved == {"network": [0, 0], "critic": [0, 0]}
    assert all(torch.equal(value, before[key]) for key, value in optimiser.state[method["critic"].weight].items())
    assert before["step"] == 1


def test_a_state_that_is_loaded_reaches_both():
    (method, first), (other, second) = judged(), judged()
    take_step(method, first)
    other.load_state_dict(method.state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert take_step(method, first) == take_step(other, second)
    second.param_groups[1]["lr"] = 0.0
    assert take_step(other, second)["critic"] == [0, 0]


def test_without_critics_there_is_one_optimiser():
    assert type(build_optimiser(TwoNetworks(), OptimConfig(), 8)) is torch.optim.SGD
