"""Mean teacher: its equation written out, and how averaged prototypes classify."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from eager import optimiser_of
from torch import Tensor

from des4.types import IGNORE

Make = Callable[..., Any]


def up(logits: Tensor) -> Tensor:
    return F.interpolate(logits, size=(33, 33), mode="bilinear", align_corners=True)


def test_the_terms_are_those_of_the_equation(make_sure: Make, make_batch: Make) -> None:
    method, batch = make_sure("mean_teacher"), make_batch()
    twin = copy.deepcopy(method)
    found = method.losses(batch)
    lab, un = batch.labeled, batch.unlabeled
    (strong,) = un.strong
    with torch.no_grad():
        target = up(twin.teacher.eval()(torch.cat([lab.image, un.weak]))).softmax(1)
    on_images, mixed = target[:2], strong.mix(target[2:])
    logits = up(twin.student.train()(torch.cat([lab.image, strong.mixed])))
    gap = (logits.softmax(1) - torch.cat([on_images, mixed])).square().mean(1)
    where = torch.cat([lab.label != IGNORE, strong.mix(un.valid)])
    expected = {
        "labeled": F.cross_entropy(logits[:2], lab.label, ignore_index=IGNORE),
        "consistency": 100 * gap[where].mean(),
    }
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["mean_teacher", "cutmixseg"])
def test_an_averaged_teacher_classifies_by_directions(name: str, make_method: Make, make_batch: Make) -> None:
    method = make_method(name, model={"head": "prototype"})
    optimiser = optimiser_of(method)
    for m in range(3):
        torch.stack(list(method.losses(make_batch(m)).values())).sum().backward()
        optimiser.step()
        optimiser.zero_grad()
        method.after_step()
    head = method.teacher.head
    head.prototypes.mul_(0.5)  # what averaging does to the length of vectors that disagree
    best = head(F.normalize(head.prototypes, dim=1)).diagonal() * head.temperature
    torch.testing.assert_close(best, torch.ones(4))


@pytest.mark.parametrize("name", ["mean_teacher", "cutmixseg", "unimatch_v2", "augseg", "vat", "ael", "rc2l", "u2pl"])
def test_late_in_a_training_the_average_moves_by_its_momentum(name: str, make_method: Make) -> None:
    method = make_method(name, momentum=0.9)
    method.step = 5000
    with torch.no_grad():
        for network, value in ((method.teacher, 0.0), (method.student, 1.0)):
            for parameter in network.parameters():
                parameter.fill_(value)
    method.after_step()
    for parameter in method.teacher.parameters():
        torch.testing.assert_close(parameter, torch.full_like(parameter, 0.1))


def test_the_teacher_is_the_headline(make_method: Make) -> None:
    assert list(make_method("mean_teacher").predictors()) == ["teacher", "student"]
