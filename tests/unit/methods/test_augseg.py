"""AugSeg: its equation written out, and its limiting cases."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from des4.methods.ingredients.injection import injection_boxes
from des4.types import IGNORE

Make = Callable[..., Any]


def up(logits: Tensor) -> Tensor:
    return F.interpolate(logits, size=(33, 33), mode="bilinear", align_corners=True)


@pytest.fixture
def sure(make_method: Make) -> Callable[..., Any]:
    """A teacher that is sure of some pixels."""

    def make(**settings: Any) -> Any:
        method = make_method("augseg", **settings)
        with torch.no_grad():
            method.teacher.head.weight.weight.mul_(100)
        return method

    return make


@pytest.mark.parametrize("injection", [True, False])
def test_the_terms_are_those_of_the_equation(injection: bool, sure: Make, make_batch: Make) -> None:
    method, batch = sure(threshold=0.5, injection=injection, unlabeled_weight=0.7), make_batch()
    student = copy.deepcopy(method.student)
    lab, un = batch.labeled, batch.unlabeled
    (view,) = un.strong
    with torch.no_grad():
        probs = up(method.teacher(un.weak)).softmax(1)
    confidence, label = probs.max(1)
    entropy = -(probs * (probs + 1e-10).log()).sum(1) / math.log(4)
    r = torch.stack([(confidence * (1 - entropy))[n][un.valid[n]].mean() for n in range(2)])
    torch.testing.assert_close(method.sureness(method_target(method, un)), r)
    box = injection_boxes(un.keys, 1 - r, 33, 33) & injection
    assert box.any() == injection
    sure_enough = un.valid & (confidence >= 0.5)
    other, filled = view.mix.partner, view.mix.box  # an image keeps its own pixels outside the box, as they are
    image = torch.where(filled[:, None], torch.where(box[:, None], lab.image, view.image)[other], view.image)
    pasted = torch.where(filled, torch.where(box, lab.label, label)[other], label)
    counts = torch.where(filled, torch.where(box, lab.label != IGNORE, sure_enough)[other], sure_enough)
    logits = up(student(torch.cat([lab.image, image])))
    loss = F.cross_entropy(logits[2:], pasted, ignore_index=IGNORE, reduction="none")
    expected = {
        "labeled": F.cross_entropy(logits[:2], lab.label, ignore_index=IGNORE),
        "unlabeled": 0.7 * (loss * counts).sum() / view.mix(un.valid).sum(),
    }
    torch.testing.assert_close(method.losses(batch), expected, atol=1e-6, rtol=1e-5)


def method_target(method: Any, unlabeled: Any) -> Any:
    from des4.methods.ingredients.targets import soft_target

    with torch.no_grad():
        return soft_target(method.teacher(unlabeled.weak), unlabeled)


def test_a_teacher_that_is_sure_of_everything_gets_no_labeled_boxes(make_method: Make, make_batch: Make) -> None:
    method, batch = make_method("augseg"), make_batch()
    with torch.no_grad():
        method.teacher.head.weight.weight.zero_()
        method.teacher.head.weight.bias.copy_(torch.tensor([0.0, 100.0, 0.0, 0.0]))
    other = replace(batch, labeled=replace(batch.labeled, label=batch.labeled.label.roll(1, 0)))
    terms, others = copy.deepcopy(method).losses(batch), method.losses(other)
    assert method.stats()["sureness"] == 1
    assert torch.equal(terms["unlabeled"], others["unlabeled"])  # no label has come in
    assert terms["unlabeled"] > 0


def test_one_that_is_sure_of_nothing_leaves_the_labels_of_boxes(make_method: Make, make_batch: Make) -> None:
    method, batch = make_method("augseg"), make_batch()
    with torch.no_grad():
        method.teacher.head.weight.weight.zero_()
    plain = copy.deepcopy(method).losses(batch)
    assert method.losses(batch)["unlabeled"] > 0
    assert method.stats()["sureness"].item() == pytest.approx(0, abs=1e-6)
    nothing = replace(batch, labeled=replace(batch.labeled, label=torch.full_like(batch.labeled.label, IGNORE)))
    assert method.losses(nothing)["unlabeled"] == 0
    assert make_method("augseg", injection=False, threshold=1.0).losses(batch)["unlabeled"] == 0
    assert plain["labeled"] > 0
