"""U2PL: its equation written out, what it remembers, and its limiting cases."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from des4.ops.entropy import doubt
from des4.types import IGNORE

Make = Callable[..., Any]
SMALL = {"dim": 8, "queue": 64, "pushed": 8, "anchors": 8, "negatives": 8}


def up(logits: Tensor) -> Tensor:
    return F.interpolate(logits, size=(33, 33), mode="bilinear", align_corners=True)


def small(labels: Tensor) -> Tensor:
    """The pixels on which the features of a 9 × 9 grid lie."""
    return labels[..., ::4, ::4]


@pytest.fixture
def trained(make_method: Make, make_batch: Make) -> Callable[..., Any]:
    """A method after two steps: its teacher differs from the student, and its memories hold something."""

    def make(**settings: Any) -> Any:
        method = make_method("u2pl", **{**SMALL, "anchor_threshold": 0.0, **settings})
        optimiser = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.05)
        for m in (1, 2):
            torch.stack(list(method(make_batch(m)).values())).sum().backward()
            optimiser.step()
            optimiser.zero_grad()
            method.after_step()
        return method

    return make


def calibrated(method: Any, batch: Any) -> Any:
    """The method once it has seen nothing but the doubts of this batch."""
    with torch.no_grad():
        probs = up(method.teacher(batch.unlabeled.weak)).softmax(1)
    method.entropies.reset()
    method.entropies.collect(doubt(probs), batch.unlabeled.valid)
    method.entropies.commit()
    return method


def test_the_terms_are_those_of_the_equation(trained: Make, make_batch: Make) -> None:
    batch = make_batch()
    method = calibrated(trained(anchor_threshold=0.26), batch)
    twin = copy.deepcopy(method)
    found = method.losses(batch)
    lab, un, alpha = batch.labeled, batch.unlabeled, 0.2 * (1 - 2 / 20)
    (view,) = un.strong
    with torch.no_grad():
        seen = twin.teacher.features(torch.cat([lab.image, un.weak]))
        coarse = twin.teacher.head(seen).softmax(1)
        probs = up(twin.teacher.head(seen)).softmax(1)[2:]
    confidence, label = probs.max(1)
    unsure = doubt(probs)
    low, high = twin.entropies.quantile(alpha), twin.entropies.quantile(1 - alpha)
    reliable, sure = (1 - unsure >= 1 - high) & un.valid, (unsure <= low) & un.valid
    assert 0 < sure.sum() < reliable.sum() < un.valid.sum()

    features = twin.student.features(torch.cat([lab.image, view.mixed]))
    logits = up(twin.student.head(features))
    loss = F.cross_entropy(logits[2:], view.mix(label), reduction="none")
    unlabeled = (loss * view.mix(reliable)).sum() / view.mix(un.valid).sum()
    own = coarse[:2].gather(1, small(lab.label).masked_fill(small(lab.label) == IGNORE, 0)[:, None])[:, 0]
    anchors = torch.cat([
        small(lab.label).masked_fill(own <= 0.26, IGNORE),
        small(view.mix(label.masked_fill(~(sure & (confidence > 0.26)), IGNORE))),
    ])  # fmt: skip
    assert ((anchors != IGNORE).flatten(1).sum(1) > 0).any()
    contrast = twin.contrast.loss(twin.student_projection(features), anchors, torch.cat([lab.keys, un.keys]))
    assert contrast > 0
    expected = {
        "labeled": F.cross_entropy(logits[:2], lab.label, ignore_index=IGNORE),
        "unlabeled": unlabeled / (1 - alpha) ** 2,
        "contrast": 0.25 * contrast,
    }
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_each_term_moves_the_student_and_the_contrast_its_projection_too(trained: Make, make_batch: Make) -> None:
    batch = make_batch()
    method = calibrated(trained(), batch)
    nets = {name: list(network.module.parameters()) for name, network in method.networks().items()}
    moved = {}
    for term, value in method.losses(batch).items():
        value.backward(retain_graph=True)
        moved[term] = {name for name, net in nets.items() if any(p.grad is not None and p.grad.any() for p in net)}
        method.zero_grad()
    projected = {"student", "student_projection"}
    assert moved == {"labeled": {"student"}, "unlabeled": {"student"}, "contrast": projected}


def test_negatives_are_what_pixels_could_be_taken_for(trained: Make, make_batch: Make) -> None:
    """Of four classes: on labeled pixels the first three but their own, on unreliable ones the last.

    Whoever is no anchor, here everybody, is remembered all the same.
    """
    batch = make_batch()
    method = calibrated(trained(anchor_threshold=1.0), batch)
    lab, un, alpha = batch.labeled, batch.unlabeled, 0.2 * (1 - 2 / 20)
    seen: list[tuple[Tensor, ...]] = []
    method.contrast.collect = lambda *arguments: seen.append(arguments)
    method.losses(batch)
    ((features, labels, negative, keys),) = seen
    assert features.shape == (4, 8, 9, 9)
    assert torch.equal(keys, torch.cat([lab.keys, un.keys]))
    with torch.no_grad():
        maps = method.teacher.features(torch.cat([lab.image, un.weak]))
        torch.testing.assert_close(features, method.teacher_projection(maps))
        coarse = method.teacher.head(maps)
    probs, last = up(coarse[2:]).softmax(1), coarse.argmin(1)
    unsure, low, high = doubt(probs), method.entropies.quantile(alpha), method.entropies.quantile(1 - alpha)
    label = small(lab.label)
    assert torch.equal(labels[:2], label)
    assert torch.equal(labels[2:], small(probs.argmax(1).masked_fill(~((unsure <= low) & un.valid), IGNORE)))
    assert (labels[2:] != IGNORE).any()
    for c in range(4):
        expected = (last[:2] != c) & (label != c) & (label != IGNORE)
        assert torch.equal(negative[:2, c], expected)
        assert not negative[2:, c][last[2:] != c].any()
    assert negative[2:].any()
    assert torch.equal(negative[2:].any(1), small((unsure >= high) & un.valid))
    assert not (negative[2:].any(1) & (labels[2:] != IGNORE)).any()  # no pixel is both sure and unsure


@pytest.mark.parametrize("classes", [2, 3])
def test_of_fewer_than_four_classes_the_last_is_a_negative_of_unreliable_pixels(
    trained: Make, make_batch: Make, classes: int
) -> None:
    method, batch = trained(), make_batch()
    label = batch.labeled.label
    few = replace(batch.labeled, label=torch.where(label == IGNORE, label, label % classes))
    seen: list[tuple[Tensor, ...]] = []
    method.contrast.collect = lambda *arguments: seen.append(arguments)
    probs, nobody, all_pixels = torch.rand(4, classes, 9, 9), label.new_full((2, 33, 33), IGNORE), label >= 0
    method._remember(replace(batch, labeled=few), torch.rand(4, 16, 9, 9), probs, nobody, all_pixels)
    ((_, _, negative, _),) = seen
    last = F.one_hot(probs.argmin(1), classes).movedim(-1, 1).bool()
    assert torch.equal(negative[2:], last[2:] & small(batch.unlabeled.valid)[:, None])
    wrong = F.one_hot(small(few.label).clamp_max(classes - 1), classes).movedim(-1, 1) == 0
    assert torch.equal(negative[:2], ~last[:2] & wrong & (small(label) != IGNORE)[:, None])


def test_of_many_classes_unreliable_pixels_are_negatives_of_those_of_ranks_4_to_20(
    trained: Make, make_batch: Make
) -> None:
    method, batch = trained(), make_batch()
    seen: list[tuple[Tensor, ...]] = []
    method.contrast.collect = lambda *arguments: seen.append(arguments)
    probs = torch.linspace(1, 0, 24)[:, None, None].expand(4, 24, 9, 9)  # the likelier, the lower its number
    nobody, all_pixels = batch.labeled.label.new_full((2, 33, 33), IGNORE), batch.unlabeled.valid | True
    method._remember(batch, torch.rand(4, 16, 9, 9), probs, nobody, all_pixels)
    ((_, _, negative, _),) = seen
    classes, of_1, unreliable = torch.arange(24), small(batch.labeled.label) == 1, small(batch.unlabeled.valid)
    assert of_1.any()
    assert (negative[:2].movedim(1, -1)[of_1] == torch.isin(classes, torch.tensor([0, 2]))).all()
    assert (negative[2:].movedim(1, -1)[unreliable] == ((classes >= 3) & (classes < 20))).all()


def test_without_unreliable_pixels_all_labels_count_and_none_is_surest(trained: Make, make_batch: Make) -> None:
    method, batch = trained(unreliable=0.0), make_batch()
    terms = method.losses(batch)
    (view,) = batch.unlabeled.strong
    twin = copy.deepcopy(method)
    assert method.stats()["reliable"] == 1
    with torch.no_grad():
        label = up(method.teacher(batch.unlabeled.weak)).argmax(1)
    logits = up(twin.student(torch.cat([batch.labeled.image, view.mixed])))[2:]
    expected = F.cross_entropy(logits, view.mix(label), reduction="none")[view.mix(batch.unlabeled.valid)].mean()
    torch.testing.assert_close(terms["unlabeled"], expected)


def test_the_share_of_unreliable_pixels_falls_to_nothing(make_method: Make) -> None:
    method, seen = make_method("u2pl", **SMALL), []
    for step in (0, 10, 20, 30):
        method.step = step
        seen.append(method.alpha)
    assert seen == pytest.approx([0.2, 0.1, 0, 0])


def test_nobody_is_an_anchor_of_whom_the_teacher_is_not_sure(trained: Make, make_batch: Make) -> None:
    method = trained(anchor_threshold=1.0)
    assert method.losses(make_batch())["contrast"] == 0
    assert method.stats()["anchors"] == 0
    assert trained().losses(make_batch())["contrast"] > 0


def test_the_projection_of_the_teacher_is_the_average_of_the_students(trained: Make) -> None:
    method = trained()
    before = copy.deepcopy(method)
    with torch.no_grad():
        for parameter in method.student_projection.parameters():
            parameter.add_(1)
    method.after_step()
    momentum = min(1 - 1 / 3, 0.99)
    for name, moved in method.teacher_projection.named_parameters():
        old, new = before.teacher_projection.get_parameter(name), method.student_projection.get_parameter(name)
        torch.testing.assert_close(moved.detach(), momentum * old + (1 - momentum) * new)


def test_while_labels_teach_alone_the_teacher_is_the_student(make_method: Make, make_batch: Make) -> None:
    method = make_method("u2pl", **SMALL, labels_alone=0.06)  # 2 of 20 steps
    optimiser = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.05)
    for m in range(4):
        terms = method(make_batch(m))
        assert terms.keys() == ({"labeled"} if m < 2 else {"labeled", "unlabeled", "contrast"})
        torch.stack(list(terms.values())).sum().backward()
        optimiser.step()
        optimiser.zero_grad()
        method.after_step()
        alike = [
            torch.equal(a, b) for a, b in zip(method.teacher.parameters(), method.student.parameters(), strict=True)
        ]
        assert all(alike) == (m < 3)  # the first step of the second part copies as well: the average starts warm
    assert method.rests


def test_the_projections_of_both_are_normed_and_the_teachers_by_what_it_has_seen(make_method: Make) -> None:
    method = make_method("u2pl", **SMALL).train()
    norms = [m for m in method.student_projection.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == 2 and all(norm.training for norm in norms)
    assert not any(module.training for module in method.teacher_projection.modules())
