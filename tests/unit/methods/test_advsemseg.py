"""AdvSemSeg: its equations written out, what learns from what, its limiting cases, and the critic's own optimiser."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from des4.engine import OptimConfig, TrainStep, build_optimiser
from des4.engine.checkpoint import optimiser_state, restore_optimiser
from des4.types import IGNORE

Make = Callable[..., Any]
CPU = torch.device("cpu")


def up(logits: Tensor) -> Tensor:
    return F.interpolate(logits, size=(33, 33), mode="bilinear", align_corners=True)


def say(method: Any, logit: float) -> None:
    """Let the discriminator give every pixel this logit."""
    with torch.no_grad():
        method.discriminator.layers[-1].weight.zero_()
        method.discriminator.layers[-1].bias.fill_(logit)


def test_the_terms_are_those_of_the_equations(make_method: Make, make_batch: Make) -> None:
    method, batch = make_method("advsemseg", threshold=0.5, semi_start=0.0), make_batch()
    student = copy.deepcopy(method.student)
    lab, (view,) = batch.labeled, batch.unlabeled.strong
    logits = up(student(torch.cat([lab.image, view.mixed])))
    known, unknown = logits.split(2)
    has_label, valid = lab.label != IGNORE, view.mix(batch.unlabeled.valid)

    def judge(maps: Tensor) -> Tensor:
        for number, layer in enumerate(method.discriminator.layers):
            maps = layer(F.leaky_relu(maps, 0.2) if number else maps)
        return up(maps)[:, 0]

    def cross_entropy(logits: Tensor, answer: float, where: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits[where], torch.full_like(logits[where], answer))

    fakes = logits.softmax(1) * torch.cat([has_label, valid])[:, None]
    masks = torch.stack([(lab.label == c).float() for c in range(4)], 1)
    with torch.no_grad():
        method.discriminator.layers[-1].bias.sub_(judge(fakes)[2:][valid].median())  # so that it is of two minds
    on_known, on_unknown = judge(fakes).split(2)
    believed = valid & (on_unknown.sigmoid() >= 0.5)
    assert 0 < believed.sum() < valid.sum()
    expected = {
        "labeled": F.cross_entropy(known, lab.label, ignore_index=IGNORE),
        "adversarial": 0.01 * cross_entropy(on_known, 1, has_label) + 0.001 * cross_entropy(on_unknown, 1, valid),
        "semi": 0.1 * F.cross_entropy(unknown, unknown.argmax(1), reduction="none")[believed].mean(),
        "discriminator": 0.5 * cross_entropy(judge(fakes), 0, torch.cat([has_label, valid]))
        + 0.5 * cross_entropy(judge(masks), 1, has_label),
    }
    torch.testing.assert_close(method.losses(batch), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(method.stats()["believed"], believed.sum() / valid.sum())


def test_the_discriminator_learns_from_its_own_term_alone_and_the_student_from_the_others(
    make_method: Make, make_batch: Make
) -> None:
    method = make_method("advsemseg", threshold=0.0, semi_start=0.0)
    named = dict(method.named_parameters())
    for term, value in method.losses(make_batch()).items():
        gradients = torch.autograd.grad(value, list(named.values()), retain_graph=True, allow_unused=True)
        moved = {key.split(".")[0] for key, gradient in zip(named, gradients, strict=True) if gradient is not None}
        assert moved == {"discriminator" if term == "discriminator" else "student"}, term


def test_labels_count_from_a_share_of_the_training_on(make_method: Make, make_batch: Make) -> None:
    method, seen = make_method("advsemseg", threshold=0.0), []
    for step in (0, 4, 5, 19):  # of 20
        method.step = step
        seen.append(method.losses(make_batch())["semi"].item() > 0)
    assert seen == [False, False, True, True]


@pytest.mark.parametrize(("logit", "counts"), [(-3.0, False), (math.log(0.2 / 0.8) + 1e-4, True), (3.0, True)])
def test_labels_count_where_the_discriminator_believes_them(
    logit: float, counts: bool, make_method: Make, make_batch: Make
) -> None:
    method, batch = make_method("advsemseg", semi_start=0.0), make_batch()
    say(method, logit)
    terms = method.losses(batch)
    assert (terms["semi"] > 0) == counts == bool(method.stats()["believed"])
    softplus = math.log1p(math.exp(-logit))
    assert terms["adversarial"].item() == pytest.approx(0.011 * softplus, rel=1e-5)
    assert terms["discriminator"].item() == pytest.approx(0.5 * (2 * softplus + logit), rel=1e-5)


def test_what_is_given_is_weighed(make_method: Make, make_batch: Make) -> None:
    settings = {"threshold": 0.0, "semi_start": 0.0}
    plain = make_method("advsemseg", **settings).losses(make_batch())
    none = make_method(
        "advsemseg", adversarial_weight=0, unlabeled_adversarial_weight=0, semi_weight=0, **settings
    ).losses(make_batch())
    assert none["adversarial"] == none["semi"] == 0
    assert torch.equal(none["labeled"], plain["labeled"])
    assert torch.equal(none["discriminator"], plain["discriminator"])


# ── the engine's side ────────────────────────────────────────────────────────────────────────────────────────────────


def step_of(method: Any, name: str = "sgd") -> TrainStep:
    return TrainStep(method, build_optimiser(method, OptimConfig(name=name, lr=0.003), 2), CPU)


def test_the_discriminator_has_an_adam_of_its_own(make_method: Make, make_batch: Make) -> None:
    """Whose first step moves each weight by its rate, whatever the gradient."""
    method = make_method("advsemseg", discriminator_lr=0.01)
    step, before = step_of(method), copy.deepcopy(method)
    step(make_batch())
    moved = torch.cat([(a - b).abs().flatten() for a, b in zip(
        method.discriminator.parameters(), before.discriminator.parameters(), strict=True)])  # fmt: skip
    assert moved.median().item() == pytest.approx(0.01, rel=1e-2)
    names = [group["param_names"] for group in step.optimiser.param_groups]
    assert sorted(name for group in names for name in group) == sorted(dict(method.named_parameters()))
    assert names[-1] == [name for name, _ in method.named_parameters() if name.startswith("discriminator")]


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_resumed_run_is_the_uninterrupted_one_moments_included(
    name: str, make_method: Make, make_batch: Make
) -> None:
    settings = {"threshold": 0.0, "semi_start": 0.0}
    method, other = (make_method("advsemseg", **settings) for _ in range(2))
    whole, first = step_of(method, name), step_of(other, name)
    for m in range(2):
        whole(make_batch(m))
        first(make_batch(m))
    resumed = make_method("advsemseg", seed=7, **settings)
    resumed.load_state_dict(copy.deepcopy(other.state_dict()))
    second = step_of(resumed, name)
    restore_optimiser(second.optimiser, *copy.deepcopy(optimiser_state(first.optimiser)))
    for m in range(2, 4):
        one, two = whole(make_batch(m)), second(make_batch(m))
        assert all(torch.equal(one.terms[term], two.terms[term]) for term in one.terms)
    assert all(torch.equal(value, resumed.state_dict()[key]) for key, value in method.state_dict().items())
    moments = optimiser_state(whole.optimiser)[0]
    assert {"discriminator.layers.0.weight/exp_avg", "discriminator.layers.0.weight/exp_avg_sq"} < moments.keys()
