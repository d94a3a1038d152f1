"""DeS4 with a committee: its two parts, what each network learns from, and the mean that the student learns."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from des4.methods import Method
from des4.methods.ingredients.classmix import class_mixed
from des4.methods.ingredients.targets import SoftTarget, averaged_target
from des4.models.training.ema import warm_momentum
from des4.types import IGNORE, Batch

Make = Callable[..., Any]
FIRST = 2
"""Steps of the first part: a tenth of the 20 that the fixtures' setting has."""


@pytest.fixture
def make(make_method: Make) -> Make:
    return lambda **settings: make_method("des4_committee", labels_alone=0.1, **settings)


def up(logits: Tensor) -> Tensor:
    return F.interpolate(logits, size=(33, 33), mode="bilinear", align_corners=True)


def learn(method: Method, batch: Batch) -> dict[str, Tensor]:
    """Take a step of plain gradient descent."""
    terms = method(batch)
    named = [p for p in method.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(torch.stack(list(terms.values())).sum(), named, allow_unused=True)
    with torch.no_grad():
        for parameter, gradient in zip(named, gradients, strict=True):
            if gradient is not None:
                parameter -= 0.05 * gradient
    method.after_step()
    return {name: term.detach() for name, term in terms.items()}


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items() if isinstance(tensor, Tensor)}


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], two[name]) for name in one)


def test_the_first_part_learns_from_labels_alone(make: Make, make_batch: Make) -> None:
    one, two = make(), make()
    for m in range(FIRST + 1):
        batch = make_batch(m)
        terms, changed = learn(one, batch), learn(two, replace(batch, unlabeled=make_batch(m + 10).unlabeled))
        assert ("student/unlabeled" in terms) == (m == FIRST)
        assert ("others/labeled" in terms) == (m < FIRST)
        assert same(terms, changed) == (m < FIRST)


@pytest.mark.parametrize("name", ["des4_committee"])  # whose views the batch then has
def test_each_of_the_others_learns_labels_in_its_own_colours(name: str, make: Make, make_batch: Make) -> None:
    method, batch = make(networks=4), make_batch()
    labeled = batch.labeled
    assert len(labeled.recoloured) == 2
    pairs = zip(copy.deepcopy(method.others), [*labeled.recoloured, labeled.image], strict=True)
    expected = sum(F.cross_entropy(up(other(image)), labeled.label, ignore_index=IGNORE) for other, image in pairs)
    torch.testing.assert_close(method.losses(batch)["others/labeled"], expected)
    starts = [next(network.decoder.parameters()) for network in (method.student, *method.others)]
    assert not any(torch.equal(one, two) for n, one in enumerate(starts) for two in starts[:n])


def test_the_committee_stays_after_the_first_part(make: Make, make_batch: Make) -> None:
    method = make()
    for m in range(FIRST):
        before, student = state(method.teacher), method.student
        learn(method, make_batch(m))
        momentum, name = warm_momentum(0.99, m), next(key for key in before if key.endswith("weight"))
        expected = momentum * before[name] + (1 - momentum) * student.state_dict()[name]
        torch.testing.assert_close(method.teacher.state_dict()[name], expected)
    committee, student = [method.teacher, method.others], state(method.student)
    before = [state(member) for member in committee]
    for m in range(FIRST, FIRST + 2):
        learn(method, make_batch(m))
    assert all(same(was, state(member)) for was, member in zip(before, committee, strict=True))
    assert not same(student, state(method.student))


@pytest.mark.parametrize(
    ("scales", "mirror", "classmix", "sharpening"), [((1.0,), False, 0.0, 1.0), ((1.0, 0.5), True, 1.0, 0.5)]
)
def test_the_student_learns_the_mean_of_the_committee(
    make: Make, make_batch: Make, scales: tuple[float, ...], mirror: bool, classmix: float, sharpening: float
) -> None:
    method = make(pseudo_label_scales=scales, pseudo_label_mirror=mirror, classmix=classmix, sharpening=sharpening)
    batch = make_batch()
    method.step = FIRST
    labeled, unlabeled = batch.both
    (view,) = unlabeled.strong
    found = []
    for network in copy.deepcopy([method.teacher, *method.others]):
        for scale in scales:
            image = unlabeled.weak
            if scale != 1:
                image = F.interpolate(image, size=round(33 * scale), mode="bilinear", antialias=True)
            found.append(up(network.eval()(image)).softmax(1))
            if mirror:
                found.append(up(network(image.flip(3))).softmax(1).flip(3))
    mean = torch.stack(found).mean(0) ** (1 / sharpening)
    image, mean = view.mixed, view.mix(mean / mean.sum(1, keepdim=True))
    if classmix:
        target = SoftTarget(mean, view.mix(unlabeled.valid))
        keys, rare = unlabeled.keys, torch.tensor([False, False, True, True])  # by conftest's counts
        mixed, target = class_mixed(view, target, mean.shape[1], keys, "mix", classmix, first=rare)
        assert not torch.equal(mixed, image) and not torch.equal(target.probs, mean)
        image, mean = mixed, target.probs
    logits = up(copy.deepcopy(method.student)(torch.cat([labeled.image, image])))
    loss = -(mean * logits[len(labeled.image) :].log_softmax(1)).sum(1)[view.mix(unlabeled.valid)].mean()
    terms = method.losses(batch)
    torch.testing.assert_close(terms["student/unlabeled"], 1.5 * loss, rtol=1e-4, atol=1e-5)
    assert not any(module.training for module in method.others.modules())


def test_the_mean_that_teaches_is_what_pseudo_labels_are_measured_on(make: Make, make_batch: Make) -> None:
    method, batch = make(), make_batch()
    assert method.pseudo_labeler() == ("teacher", method.teacher)
    method.step = FIRST
    name, ensemble = method.pseudo_labeler()
    assert name == "committee"
    taught = averaged_target([method.teacher, *method.others.eval()], batch.unlabeled, (1.0,), mirror=False)
    torch.testing.assert_close(ensemble.eval()(batch.unlabeled.weak).softmax(1), taught.probs)
    assert {id(p) for p in ensemble.parameters()} < {id(p) for p in method.parameters()}


def test_a_committee_of_one_is_the_students_average(make: Make, make_batch: Make) -> None:
    method = make(networks=1)
    assert set(learn(method, make_batch())) == {"student/labeled"}
    assert not method.rests
    assert list(method.networks()) == ["student", "teacher"]


def test_networks_of_a_list_learn_at_the_rates_of_networks(make: Make) -> None:
    networks = make().networks()
    assert list(networks) == ["student", "teacher", "others.0", "others.1"]
    assert [network.role for network in networks.values()] == ["trained", "averaged", "trained", "trained"]
    assert all(network.encoder is not None for network in networks.values())


@pytest.mark.parametrize("head", ["linear", "prototype"])
def test_a_run_resumed_in_either_part_is_the_uninterrupted_one(make: Make, make_batch: Make, head: str) -> None:
    whole = make(model={"head": head})
    curve = [learn(whole, make_batch(m)) for m in range(2 * FIRST)]
    for stop in (1, FIRST, FIRST + 1):
        first, second = make(model={"head": head}), make(model={"head": head}, seed=7)
        for m in range(stop):
            learn(first, make_batch(m))
        second.setting = first.setting
        second.load_state_dict(first.state_dict())
        assert all(same(learn(second, make_batch(m)), curve[m]) for m in range(stop, 2 * FIRST))
        assert same(state(second), state(whole))


@pytest.mark.parametrize(("step", "learner"), [(0, "student"), (0, "other0"), (FIRST, "student")])
def test_auxiliary_heads_learn_the_labels_in_both_parts(make: Make, make_batch: Make, step: int, learner: str) -> None:
    """The networks are alike with such heads and without; of the others there is one."""
    plain, method = make(networks=2), make(networks=2, supervision={"auxiliary_weight": 0.4})
    plain.step = method.step = step
    term = "student/labeled" if learner == "student" else "others/labeled"
    more = method.losses(make_batch())[term] - plain.losses(make_batch())[term]
    torch.testing.assert_close(more, 0.4 * method.stats()[f"{learner}_auxiliary"])


@pytest.mark.parametrize(
    ("share", "first"),
    [
        pytest.param(0.1, FIRST, id="exactly"),
        pytest.param(0.14, 3, id="2.8 steps, rounded"),
        pytest.param(0.01, 1, id="a step at least"),
        pytest.param(0.99, 19, id="one is left to the second part"),
    ],
)
def test_the_learning_rate_begins_anew_with_the_second_part(make_method: Make, share: float, first: int) -> None:
    assert make_method("des4_committee", labels_alone=share, networks=1).restarts == (first,)


def test_the_student_is_the_headline(make_method: Make) -> None:
    assert list(make_method("des4_committee").predictors()) == ["student", "teacher"]
