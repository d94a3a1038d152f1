"""CPS: its equation written out, and its limiting cases."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from des4.types import IGNORE

Make = Callable[..., Any]


def up(logits: Tensor) -> Tensor:
    return F.interpolate(logits, size=(33, 33), mode="bilinear", align_corners=True)


@pytest.mark.parametrize("running", [False, True])
def test_the_terms_are_those_of_the_equation(running: bool, make_method: Make, make_batch: Make) -> None:
    method, batch = make_method("cps", unlabeled_weight=1.5, running_norms=running), make_batch()
    student, peer = copy.deepcopy(method.student), copy.deepcopy(method.peer)
    found = method.losses(batch)
    lab, un = batch.labeled, batch.unlabeled
    (view,) = un.strong
    with torch.no_grad():
        labels = [view.mix(up(network.train(not running)(un.weak)).argmax(1)) for network in (student, peer)]
    assert (labels[0] != labels[1]).any()
    valid = view.mix(un.valid)
    expected = {}
    for name, network, other in (("student", student, labels[1]), ("peer", peer, labels[0])):
        logits = up(network.train()(torch.cat([lab.image, view.mixed])))
        expected[f"{name}/labeled"] = F.cross_entropy(logits[:2], lab.label, ignore_index=IGNORE)
        expected[f"{name}/unlabeled"] = 1.5 * F.cross_entropy(logits[2:], other, reduction="none")[valid].mean()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    agreement = (labels[0] == labels[1])[valid].float().mean()
    torch.testing.assert_close(method.stats()["agreement"], agreement)


def test_the_networks_differ_from_the_start_and_each_gets_its_own_gradient(make_method: Make, make_batch: Make) -> None:
    method = make_method("cps")
    pairs = zip(method.student.decoder.parameters(), method.peer.decoder.parameters(), strict=True)
    assert any(not torch.equal(one, two) for one, two in pairs)
    for term, value in method.losses(make_batch()).items():
        named = dict(method.named_parameters())
        gradients = torch.autograd.grad(value, list(named.values()), retain_graph=True, allow_unused=True)
        moved = {name.split(".")[0] for name, gradient in zip(named, gradients, strict=True) if gradient is not None}
        assert moved == {term.split("/")[0]}, term


def test_equal_networks_train_themselves(make_method: Make, make_batch: Make) -> None:
    method = make_method("cps")
    method.peer.load_state_dict(method.student.state_dict())
    terms = method.losses(make_batch())
    assert method.stats()["agreement"] == 1
    for kind in ("labeled", "unlabeled"):
        assert torch.equal(terms[f"student/{kind}"], terms[f"peer/{kind}"])


def test_each_learns_the_others_labels_and_not_its_own(make_method: Make, make_batch: Make) -> None:
    """A peer that sees class 2 everywhere teaches the student just that, and learns what the student sees."""
    method, batch = make_method("cps"), make_batch()
    with torch.no_grad():
        method.peer.head.weight.weight.zero_()
        method.peer.head.weight.bias.copy_(torch.tensor([0.0, 0.0, 5.0, 0.0]))
    twin = copy.deepcopy(method.student)
    (view,) = batch.unlabeled.strong
    terms = method.losses(batch)
    with torch.no_grad():
        twin(batch.unlabeled.weak)  # whose statistics move first
        logits = up(twin(torch.cat([batch.labeled.image, view.mixed])))[2:]
    expected = -logits.log_softmax(1)[:, 2][view.mix(batch.unlabeled.valid)].mean()
    torch.testing.assert_close(terms["student/unlabeled"], expected)


@pytest.mark.parametrize("weight", [0.0, 5.0])
def test_the_weight_scales_the_cross_terms(weight: float, make_method: Make, make_batch: Make) -> None:
    plain = make_method("cps").losses(make_batch())
    scaled = make_method("cps", unlabeled_weight=weight).losses(make_batch())
    for name in ("student", "peer"):
        assert torch.equal(scaled[f"{name}/labeled"], plain[f"{name}/labeled"])
        torch.testing.assert_close(scaled[f"{name}/unlabeled"], weight * plain[f"{name}/unlabeled"])
