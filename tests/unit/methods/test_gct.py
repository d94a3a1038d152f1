"""GCT: its equations written out, and who learns from whom."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from des4.methods.ingredients.flaws import exchanged_flaws, true_flaws
from des4.types import IGNORE

Make = Callable[..., Any]


def up(logits: Tensor) -> Tensor:
    return F.interpolate(logits, size=(33, 33), mode="bilinear", align_corners=True)


@pytest.fixture
def method(make_method: Make) -> Any:
    """Networks that are sure of something, and a detector that finds flaws."""
    made = make_method("gct", ramp=0.0, consistency_weight=7.0, correction_weight=0.5)
    with torch.no_grad():
        made.student.head.weight.weight.mul_(100)
        made.peer.head.weight.weight.mul_(100)
        made.detector.layers[-1].weight.mul_(30)
        made.detector.layers[-1].bias.add_(0.5)
    return made


def test_the_terms_are_those_of_the_equations(method: Any, make_batch: Make) -> None:
    batch = make_batch()
    twin, lab, (view,) = copy.deepcopy(method), batch.labeled, batch.unlabeled.strong
    found = method.losses(batch)
    has_label = lab.label != IGNORE
    valid = torch.cat([has_label, view.mix(batch.unlabeled.valid)])
    images = torch.cat([lab.image, view.mixed])
    logits = [up(network(images)) for network in (twin.student, twin.peer)]
    probs = [each.softmax(1) * valid[:, None] for each in logits]
    flaws = [twin.detector(images * valid[:, None], each) for each in probs]
    mine, other = (exchanged_flaws(each, 0.6) for each in flaws)
    bad = (mine >= 0.6) & (other >= 0.6) & valid
    takes = (other < mine) & valid  # where the student learns from its peer
    assert bad.any()
    assert 0 < takes.sum() < valid.sum()
    known = torch.cat([each[:2] for each in probs])
    seen = torch.cat([each[:2] for each in flaws])  # norms of the detector see all images of one network
    truth = true_flaws(known, lab.label.repeat(2, 1, 1), has_label.repeat(2, 1, 1))
    gap = (probs[0] - probs[1]).square().mean(1)
    gives = (mine < other) & valid
    expected = {
        "student/labeled": F.cross_entropy(logits[0][:2], lab.label, ignore_index=IGNORE),
        "peer/labeled": F.cross_entropy(logits[1][:2], lab.label, ignore_index=IGNORE),
        "student/correction": 0.5 * (flaws[0].square() * bad)[valid].mean(),
        "peer/correction": 0.5 * (flaws[1].square() * bad)[valid].mean(),
        "student/consistency": 7 * (gap * takes)[valid].mean(),
        "peer/consistency": 7 * (gap * gives)[valid].mean(),
        "detector": 10 * (seen - truth).square()[has_label.repeat(2, 1, 1)].mean(),
    }
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(method.stats()["bad"], bad.sum() / valid.sum())


def test_each_term_moves_the_network_that_it_names(method: Any, make_batch: Make) -> None:
    named = dict(method.named_parameters())
    for term, value in method.losses(make_batch()).items():
        gradients = torch.autograd.grad(value, list(named.values()), retain_graph=True, allow_unused=True)
        moved = {key.split(".")[0] for key, gradient in zip(named, gradients, strict=True) if gradient is not None}
        assert moved == {term.split("/")[0]}, term


def test_the_consistency_rises(make_method: Make, make_batch: Make) -> None:
    terms = []
    for ramp in (0.0, 0.2):  # at step 2 of 4
        torch.manual_seed(0)
        rising = make_method("gct", ramp=ramp)
        with torch.no_grad():
            rising.detector.layers[-1].weight.mul_(30)
            rising.detector.layers[-1].bias.add_(0.5)
        rising.step = 2
        terms.append(rising.losses(make_batch()))
    assert terms[0]["student/consistency"] > 0
    assert (terms[1]["student/consistency"] / terms[0]["student/consistency"]).item() == pytest.approx(math.exp(-5 / 4))
    assert terms[1]["student/correction"] == terms[0]["student/correction"]


def test_equal_networks_have_nothing_to_teach_each_other(method: Any, make_batch: Make) -> None:
    method.peer.load_state_dict(method.student.state_dict())
    terms = method.losses(make_batch())
    assert terms["student/consistency"] == terms["peer/consistency"] == 0
    torch.testing.assert_close(terms["student/correction"], terms["peer/correction"])


def test_a_detector_that_finds_nothing_corrects_nothing(make_method: Make, make_batch: Make) -> None:
    method = make_method("gct")
    with torch.no_grad():
        method.detector.layers[-1].weight.zero_()
        method.detector.layers[-1].bias.zero_()
    terms = method.losses(make_batch())
    assert terms["student/correction"] == terms["peer/correction"] == 0
    assert terms["student/consistency"] == 0  # flaws are equal, so everyone keeps to its own
    assert terms["detector"] > 0
