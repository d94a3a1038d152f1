"""CorrMatch: its equation written out, its threshold, and its limiting cases."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from des4.methods.ingredients.perturb import drop_channels
from des4.methods.ingredients.propagation import propagated, regions
from des4.methods.ingredients.targets import hard_target
from des4.ops.noise import uniform
from des4.types import IGNORE

Make = Callable[..., Any]


def up(logits: Tensor) -> Tensor:
    return F.interpolate(logits, size=(33, 33), mode="bilinear", align_corners=True)


@pytest.mark.parametrize(("running", "t"), [(False, 0.35), (True, 0.26)])
def test_the_terms_are_those_of_the_equation(running: bool, t: float, make_method: Make, make_batch: Make) -> None:
    weights = {"strong_weight": 0.2, "divergence_weight": 0.3, "feature_weight": 0.5, "correlation_weight": 0.7}
    method, batch = make_method("corrmatch", threshold=t, regions=64, running_norms=running, **weights), make_batch()
    with torch.no_grad():
        method.student.head.weight.weight.normal_(std=0.5, generator=torch.Generator().manual_seed(0))
    twin = copy.deepcopy(method)
    found = method.losses(batch)
    lab, un = batch.labeled, batch.unlabeled
    (view,) = un.strong
    net, correlation = twin.student, twin.correlation
    low, deep = net.encode(torch.cat([lab.image, un.weak]))
    dropped = drop_channels((low[2:], deep[2:]), un.keys, "feature", 0.5)
    out = net.head(net.decoder((torch.cat([low, dropped[0]]), torch.cat([deep, dropped[1]]))))
    strong_low, strong_deep = net.encode(view.mixed)
    strong = net.head(net.decoder((strong_low, strong_deep)))
    size = deep.shape[-2:]

    def carry(z: Tensor, shares: Tensor) -> Tensor:
        small = F.interpolate(z.detach(), size=size, mode="bilinear", align_corners=True)
        return up(torch.einsum("bci,bij->bcj", small.flatten(2), shares).unflatten(2, size))

    clean = correlation(deep, torch.cat([lab.valid, un.valid]), torch.cat([lab.keys, un.keys]))
    by_clean = carry(out[:4], clean)
    by_strong = carry(strong, correlation(strong_deep, view.mix(un.valid), un.keys))
    labels = copy.deepcopy(net).eval()(un.weak).detach() if running else out[2:4].detach()
    p = up(labels).softmax(1)
    q, y = p.max(1)
    sure = (q >= t) & un.valid
    assert 0 < sure.sum() < un.valid.sum()
    places = (uniform(un.keys, (64,), "regions") * clean.shape[1]).long()
    target = hard_target(labels, un, t, twin.supervision).mixed(view)
    spread = propagated(target, regions(clean[2:], places, un.valid, size, (9, 9)), torch.tensor(t), 4, ~view.mix.box)
    assert (spread.keep & ~target.keep).any()

    def mean(z: Tensor, label: Tensor, keep: Tensor, valid: Tensor) -> Tensor:
        return (F.cross_entropy(z, label, reduction="none") * keep).sum() / valid.sum()

    valid = view.mix(un.valid)
    kl = F.kl_div(up(strong).log_softmax(1), view.mix(p), reduction="none").sum(1)
    expected = {
        "labeled": F.cross_entropy(up(out[:2]), lab.label, ignore_index=IGNORE) / 4,
        "labeled_correlation": F.cross_entropy(by_clean[:2], lab.label, ignore_index=IGNORE) / 4,
        "strong": 0.1 * mean(up(strong), spread.label, spread.keep, valid),
        "divergence": 0.15 * (kl * view.mix(sure)).sum() / valid.sum(),
        "feature": 0.25 * mean(up(out[4:]), y, sure, un.valid),
        "unlabeled_correlation": 0.175
        * (mean(by_strong, spread.label, spread.keep, valid) + mean(by_clean[2:], y, sure, un.valid)),
    }
    assert all(term > 0 for term in expected.values())
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_the_threshold_is_the_moved_one(make_method: Make, make_batch: Make) -> None:
    method, batch = make_method("corrmatch", threshold=0.2, threshold_momentum=0.0), make_batch()
    assert all(term > 0 for term in method.losses(batch).values())
    assert method.threshold == 0.2 or abs(method.threshold - 0.2) < 1e-6
    method.after_step()
    moved = method.threshold
    assert 0.25 < moved < 1  # the mean of the largest confidences of the classes that are predicted
    with torch.no_grad():
        method.level.value.fill_(1.01)
    terms = method.losses(batch)
    assert [name for name, term in terms.items() if term == 0] == [
        "strong", "divergence", "feature", "unlabeled_correlation"
    ]  # fmt: skip
    assert terms["labeled"] > 0 and terms["labeled_correlation"] > 0


def test_the_threshold_follows_all_confidences_those_below_it_too(make_method: Make, make_batch: Make) -> None:
    method, batch = make_method("corrmatch", threshold=0.8, threshold_momentum=0.0), make_batch()
    with torch.no_grad():
        method.student.head.weight.weight.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
    un = batch.unlabeled
    method.eval().losses(batch)  # so that an image is seen alike in any company
    method.after_step()
    q, y = up(method.student(un.weak)).softmax(1).max(1)
    largest = torch.stack([q[un.valid & (y == c)].max() for c in y[un.valid].unique()])
    assert (largest < 0.8).any()
    assert abs(method.threshold - largest.mean().item()) < 1e-5


def test_what_is_carried_teaches_the_encoder_and_not_the_classifier(make_method: Make, make_batch: Make) -> None:
    method = make_method("corrmatch", threshold=0.0)
    term = method.losses(make_batch())["labeled_correlation"]
    named = dict(method.named_parameters())
    gradients = torch.autograd.grad(term, list(named.values()), allow_unused=True)
    moved = {key for key, each in zip(named, gradients, strict=True) if each is not None and each.any()}
    assert {"student", "correlation"} == {key.split(".")[0] for key in moved}
    assert not any(key.startswith(("student.head", "student.decoder")) for key in moved)
