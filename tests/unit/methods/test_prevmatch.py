"""PrevMatch: its equation written out over UniMatch's terms, and which states teach."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from des4.methods import METHODS
from des4.methods.ingredients.targets import Target

Make = Callable[..., Any]


def up(logits: Tensor) -> Tensor:
    return F.interpolate(logits, size=(33, 33), mode="bilinear", align_corners=True)


@pytest.fixture
def batch(make_batch: Make) -> Any:
    return make_batch(views=METHODS["prevmatch"].VIEWS.strong)


def shifted(method: Any, step: int) -> Any:
    """The method at a step, with states that see each another class everywhere."""
    method.step, method.kept = step, step // method.period
    with torch.no_grad():
        for number, state in enumerate(method.states):
            state.head.weight.weight.zero_()
            state.head.weight.bias.copy_(10 * F.one_hot(torch.tensor(number % 4), 4))
    return method


def test_without_states_it_is_unimatch(make_method: Make, batch: Any) -> None:
    found = make_method("prevmatch", threshold=0.0, every=0.5).losses(batch)
    plain = make_method("unimatch", threshold=0.0).losses(batch)
    assert found.pop("previous") == 0
    torch.testing.assert_close(found, plain)


def test_the_terms_are_those_of_the_equation(make_method: Make, batch: Any) -> None:
    method = shifted(make_method("prevmatch", threshold=0.0, previous_threshold=0.0, every=0.05, asked_states=1), 8)
    rng = random.Random("0/8/states")
    count = rng.randint(1, 1)
    (asked,) = rng.sample(range(8), count)
    twin, v = copy.deepcopy(method), 0.8  # step 8 of 20
    found = method.losses(batch)
    seen = twin.predicted(batch)
    label = torch.full((2, 33, 33), asked % 4)
    un = batch.unlabeled

    def consistency(logits: Tensor, mix: Callable[[Tensor], Tensor], label: Tensor) -> Tensor:
        return F.cross_entropy(up(logits), mix(label), reduction="none")[mix(un.valid)].mean()

    own = up(seen.weak).argmax(1)
    one, two = un.strong
    of_states = (
        0.5 * consistency(seen.perturbed, lambda x: x, label)
        + 0.25 * consistency(seen.strong[0], one.mix, label)
        + 0.25 * consistency(seen.strong[1], two.mix, label)
    )
    torch.testing.assert_close(found["previous"], v * of_states / (2 + v))
    torch.testing.assert_close(found["strong2"], 0.25 * consistency(seen.strong[1], two.mix, own) / (2 + v))
    torch.testing.assert_close(found["labeled"], twin.supervise(seen.labeled, batch.labeled) / (2 + v))


def test_labels_are_of_the_weighted_mean_of_the_states_logits(make_method: Make, batch: Any) -> None:
    method = make_method("prevmatch", threshold=0.0, previous_threshold=0.8, every=0.05)
    logits = torch.tensor([[6.0, 0, 0, 0], [0, 2, 0, 0], [0, 0, 3, 0], [3, 4, 0, 0]] * 2)
    with torch.no_grad():
        for state, each in zip(method.states, logits, strict=True):
            state.head.weight.weight.zero_()
            state.head.weight.bias.copy_(each)
    seen = []
    for step in range(8, 20):
        method.step, method.kept = step, 8
        rng = random.Random(f"0/{step}/states")
        count = rng.randint(1, 3)
        asked = rng.sample(range(8), count)
        weights = torch.tensor([rng.expovariate(1) for _ in asked])
        mean = (weights / weights.sum()) @ logits[asked]
        target = method.previous_labels(batch.unlabeled)
        assert target.label.eq(mean.argmax()).all()
        torch.testing.assert_close(target.confidence, mean.softmax(0).amax().expand(2, 33, 33))
        assert torch.equal(target.keep, batch.unlabeled.valid & (mean.softmax(0).amax() >= 0.8))
        seen.append((count, bool(target.keep.any())))
    assert {count for count, _ in seen} == {1, 2, 3} and {kept for _, kept in seen} == {True, False}


def test_a_training_of_another_length_asks_only_states_that_were_kept(make_method: Make, batch: Any) -> None:
    short, long = (
        make_method("prevmatch", every=0.5, kept_states=3),
        make_method("prevmatch", every=0.05, kept_states=3),
    )
    for _ in range(10):
        short.after_step()
    assert (short.step, short.kept) == (10, 1)
    long.load_state_dict(short.state_dict())
    asked: list[int] = []
    for number, state in enumerate(long.states):
        state.register_forward_hook(lambda *_, number=number: asked.append(number))
    assert long.previous_labels(batch.unlabeled) is not None and set(asked) == {0}
    with torch.no_grad():
        nn.init.constant_(long.student.head.weight.bias, 7)
    long.after_step()
    assert [state.head.weight.bias[0].item() == 7 for state in long.states] == [False, True, False], "the next is free"


def test_an_image_weighs_as_it_is_once_it_is_mixed(make_method: Make, batch: Any) -> None:
    """An image of labels that are sure and one of labels that are not, and their boxes."""
    method, un = shifted(make_method("prevmatch", previous_by_image=True, every=0.05), 8), batch.unlabeled
    confidence = torch.tensor([0.9, 0.3])[:, None, None].expand(2, 33, 33)
    target = Target(torch.zeros(2, 33, 33).long(), confidence, un.valid, un.valid, method.supervision)
    seen = method.predicted(batch)
    found = method.consistencies(target, seen, un, by_image=True)
    for name, logits, mix in (
        ("feature", seen.perturbed, lambda x: x),
        ("strong1", seen.strong[0], un.strong[0].mix),
        ("strong2", seen.strong[1], un.strong[1].mix),
    ):
        valid = mix(un.valid)
        weight = torch.stack([each[where].mean() for each, where in zip(mix(confidence), valid, strict=True)])
        loss = F.cross_entropy(up(logits), torch.zeros(2, 33, 33).long(), reduction="none") * valid
        expected = (loss.sum((1, 2)) * weight).sum() / valid.sum()
        torch.testing.assert_close(found[name], (0.5 if name == "feature" else 0.25) * expected)


def test_labels_of_states_weigh_as_their_mean_confidence_in_the_mixed_image(make_method: Make, batch: Any) -> None:
    settings = {"previous_threshold": 0.0, "every": 0.05, "asked_states": 1}
    found, plain = (
        shifted(make_method("prevmatch", previous_by_image=by_image, **settings), 8).losses(batch)["previous"].item()
        for by_image in (True, False)
    )
    sure = math.e**10 / (math.e**10 + 3)  # a state's logits are 10 and three times 0, in every pixel
    assert found == pytest.approx(sure * plain, rel=1e-5)


def test_states_are_kept_at_even_distances_the_newest_ones(make_method: Make) -> None:
    method = make_method("prevmatch", every=0.1, kept_states=3)  # every second step of 20
    held: list[list[float]] = []
    for step in range(9):
        with torch.no_grad():
            nn.init.constant_(method.student.head.weight.bias, step)
        method.after_step()
        held.append([state.head.weight.bias[0].item() for state in method.states])
    assert held[0] == [0, 0, 0]
    assert held[1] == [1, 0, 0]
    assert held[3] == [1, 3, 0]
    assert held[5] == [1, 3, 5]
    assert held[7] == held[8] == [7, 3, 5]


def test_only_states_that_are_there_are_asked_and_never_more_than_some(make_method: Make, batch: Any) -> None:
    method = make_method("prevmatch", every=0.05, previous_threshold=0.0)
    asked: list[int] = []
    for number, state in enumerate(method.states):
        state.register_forward_hook(lambda *_, number=number: asked.append(number))
    counts = set()
    for step in range(20):
        method.step = method.kept = step
        asked.clear()
        target = method.previous_labels(batch.unlabeled)
        assert (target is None) == (step == 0)
        assert all(number < min(step, 8) for number in asked)
        assert len(set(asked)) == len(asked) <= 3
        counts.add(len(asked))
        first = list(asked)
        asked.clear()
        method.previous_labels(batch.unlabeled)
        assert asked == first  # a function of (seed, step), whatever part of the step it is
    assert counts == {0, 1, 2, 3}


def test_the_weight_of_earlier_states_rises_and_falls(make_method: Make) -> None:
    method, seen = make_method("prevmatch"), []
    for step in (0, 5, 10, 15, 20):
        method.step = step
        seen.append(method.previous_weight)
    assert seen == pytest.approx([0, 0.5, 1, 0.5, 0])


def test_a_threshold_of_one_lets_no_state_teach(make_method: Make, batch: Any) -> None:
    method = make_method("prevmatch", threshold=0.0, previous_threshold=1.0, every=0.05)
    method.step = method.kept = 8
    assert method.losses(batch)["previous"] == 0
