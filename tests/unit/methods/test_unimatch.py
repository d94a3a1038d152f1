"""UniMatch: its equation written out, and its limiting cases."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from des4.methods import METHODS
from des4.ops.noise import bernoulli
from des4.types import IGNORE

Make = Callable[..., Any]


@pytest.fixture
def sure(make_method: Make) -> Callable[..., Any]:
    """A network that is sure of some pixels."""

    def make(**settings: Any) -> Any:
        method = make_method("unimatch", **settings)
        with torch.no_grad():
            method.student.head.weight.weight.mul_(100)
        return method

    return make


@pytest.fixture
def batch(make_batch: Make) -> Any:
    return make_batch(views=METHODS["unimatch"].VIEWS.strong)


def up(logits: Tensor) -> Tensor:
    return F.interpolate(logits, size=(33, 33), mode="bilinear", align_corners=True)


@pytest.mark.parametrize("running", [False, True])
def test_the_terms_are_those_of_the_equation(running: bool, sure: Make, batch: Any) -> None:
    method = sure(threshold=0.5, strong_weight=0.3, feature_weight=0.4, drop=0.25, running_norms=running)
    twin = copy.deepcopy(method).student
    found = method.losses(batch)
    lab, un = batch.labeled, batch.unlabeled

    maps = twin.encode(torch.cat([lab.image, un.weak]))
    keep = [~bernoulli(un.keys, (each.shape[1],), f"feature/{n}", 0.25) for n, each in enumerate(maps)]
    dropped = [each[2:] * mask[:, :, None, None] / 0.75 for each, mask in zip(maps, keep, strict=True)]
    logits = twin.head(twin.decoder(tuple(torch.cat(pair) for pair in zip(maps, dropped, strict=True))))
    known, weak, perturbed = (up(part) for part in logits.split(2))
    if running:
        weak = up(copy.deepcopy(twin).eval()(un.weak)).detach()
    confidence, label = weak.softmax(1).max(1)
    strong = up(twin(torch.cat([view.mixed for view in un.strong]))).split(2)

    def consistency(logits: Tensor, mix: Callable[[Tensor], Tensor]) -> Tensor:
        valid = mix(un.valid)
        kept = mix((confidence >= 0.5) & un.valid)
        assert 0 < kept.sum() < valid.sum()
        return (F.cross_entropy(logits, mix(label), reduction="none") * kept).sum() / valid.sum()

    expected = {
        "labeled": 0.5 * F.cross_entropy(known, lab.label, ignore_index=IGNORE),
        "feature": 0.5 * 0.4 * consistency(perturbed, lambda tensor: tensor),
        "strong1": 0.5 * 0.3 * consistency(strong[0], un.strong[0].mix),
        "strong2": 0.5 * 0.3 * consistency(strong[1], un.strong[1].mix),
    }
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_the_defaults_are_the_published_weights(sure: Make, batch: Any) -> None:
    plain, ones = (
        sure(threshold=0.0).losses(batch),
        sure(threshold=0.0, strong_weight=1, feature_weight=1).losses(batch),
    )
    shares = {name: (plain[name] / ones[name]).item() for name in plain}
    assert shares == pytest.approx({"labeled": 1, "feature": 0.5, "strong1": 0.25, "strong2": 0.25})
    assert METHODS["unimatch"].Config().threshold == 0.95  # type: ignore[attr-defined]


def test_equal_views_have_equal_terms_and_different_ones_do_not(sure: Make, batch: Any) -> None:
    apart = sure(threshold=0.0).losses(batch)
    assert apart["strong1"] != apart["strong2"]
    un = batch.unlabeled
    alike = replace(batch, unlabeled=replace(un, strong=(un.strong[0],) * 2))
    terms = sure(threshold=0.0).losses(alike)
    torch.testing.assert_close(terms["strong1"], terms["strong2"])


def test_without_dropping_the_perturbed_view_is_the_weak_one(sure: Make, batch: Any) -> None:
    """Then its loss is the mean of -log confidence: lower than with dropped channels, and not 0."""
    method = sure(threshold=0.0, drop=0.0).eval()
    with torch.no_grad():
        terms = method.losses(batch)
        confidence = up(method.student(batch.unlabeled.weak)).softmax(1).amax(1)
    expected = 0.25 * -confidence.log()[batch.unlabeled.valid].mean()
    torch.testing.assert_close(terms["feature"], expected)
    assert 0 < terms["feature"] < sure(threshold=0.0).eval().losses(batch)["feature"]


def test_a_threshold_of_one_leaves_the_labels_alone(sure: Make, batch: Any) -> None:
    terms = sure(threshold=1.0).losses(batch)
    assert terms["labeled"] > 0
    assert terms["feature"] == terms["strong1"] == terms["strong2"] == 0


def test_the_same_sample_drops_the_same_channels_and_another_key_others(sure: Make, batch: Any) -> None:
    method = sure(threshold=0.0).eval()
    first = method.losses(batch)
    torch.manual_seed(9)
    assert torch.equal(method.losses(batch)["feature"], first["feature"])
    other = replace(batch, unlabeled=replace(batch.unlabeled, keys=batch.unlabeled.keys + 1))
    changed = method.losses(other)
    assert [name for name in first if not torch.equal(first[name], changed[name])] == ["feature"]


def test_no_gradient_reaches_the_labels_of_the_weak_view(sure: Make, batch: Any) -> None:
    """In eval mode and from the strong views alone, the weak image gets none."""
    method = sure(threshold=0.0).eval()
    weak = batch.unlabeled.weak.clone().requires_grad_()
    terms = method.losses(replace(batch, unlabeled=replace(batch.unlabeled, weak=weak)))
    (none,) = torch.autograd.grad(terms["strong1"] + terms["strong2"], weak, retain_graph=True, allow_unused=True)
    assert none is None
    (some,) = torch.autograd.grad(terms["feature"], weak)
    assert some.any()
