"""VAT: its equation written out, and the change of the image that it learns from."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from des4.methods.ingredients.adversary import adversarial_change, texture
from des4.types import IGNORE

Make = Callable[..., Any]
KEYS = torch.tensor([3, -9])


def up(logits: Tensor) -> Tensor:
    return F.interpolate(logits, size=(33, 33), mode="bilinear", align_corners=True)


def kl(target: Tensor, logits: Tensor) -> Tensor:
    return F.kl_div(logits.log_softmax(1), target, reduction="none").sum(1)


@pytest.fixture
def taught(make_method: Make, make_batch: Make) -> Callable[..., Any]:
    """A method whose teacher is sure of some pixels, and another network than the student."""

    def make(**settings: Any) -> Any:
        method = make_method("vat", **settings)
        with torch.no_grad():
            method.teacher.head.weight.weight.mul_(100)
        return method

    return make


def test_the_terms_are_those_of_the_equation(taught: Make, make_batch: Make) -> None:
    method, batch = taught(threshold=0.5, consistency_weight=0.3), make_batch()
    student, lab, un = copy.deepcopy(method.student), batch.labeled, batch.unlabeled
    (view,) = un.strong
    with torch.no_grad():
        probs = up(method.teacher(un.weak)).softmax(1)
    change = adversarial_change(
        method.teacher, un.weak, probs, un.valid, un.keys, 0.5 * texture(un.weak, un.valid), 0.01
    )
    logits = up(student(torch.cat([lab.image, view.mixed + view.mix(change)])))
    valid, mixed = view.mix(un.valid), view.mix(probs)
    sure = (mixed.amax(1) >= 0.5)[valid].float().mean()
    assert 0 < sure < 1
    expected = {
        "labeled": F.cross_entropy(logits[:2], lab.label, ignore_index=IGNORE),
        "consistency": 0.3 * sure * kl(mixed, logits[2:])[valid].mean(),
    }
    torch.testing.assert_close(method.losses(batch), expected, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(method.stats()["sure"], sure)


def test_the_change_is_against_what_the_teacher_says_and_not_what_is_made_of_it(
    taught: Make, make_batch: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """True labels, or shares that a user aligns, are learnt on the same changed images."""
    method, batch, changes = taught(), make_batch(), []

    def watched(*args: Any) -> Tensor:
        changes.append(adversarial_change(*args))
        return changes[-1]

    monkeypatch.setattr("des4.methods.vat.adversarial_change", watched)
    plain = method.losses(batch)
    oracle = replace(batch.unlabeled, truth=torch.zeros_like(batch.unlabeled.valid).long())
    other = method.losses(replace(batch, unlabeled=oracle))
    assert torch.equal(*changes) and not torch.equal(plain["consistency"], other["consistency"])


def test_the_change_moves_the_prediction_further_than_any_other_of_its_length(taught: Make, make_batch: Make) -> None:
    method, un = taught(), make_batch().unlabeled
    with torch.no_grad():
        probs = up(method.teacher(un.weak)).softmax(1)
    radius = torch.tensor([0.5, 1.0])
    change = adversarial_change(method.teacher, un.weak, probs, un.valid, un.keys, radius, 0.01)
    torch.testing.assert_close(change.flatten(1).norm(dim=1), radius)
    assert not change[(~un.valid)[:, None].expand_as(change)].any()

    def moved(by: Tensor) -> Tensor:
        with torch.no_grad():
            return (kl(probs, up(method.teacher(un.weak + by))) * un.valid).mean((1, 2))

    for seed in range(4):
        other = torch.randn(change.shape, generator=torch.Generator().manual_seed(seed)) * un.valid[:, None]
        other = other * (radius / other.flatten(1).norm(dim=1))[:, None, None, None]
        assert (moved(change) > 2 * moved(other)).all()


def test_the_direction_of_a_network_that_sees_one_channel_is_that_channel() -> None:
    """Logits (3 · red, 0): whatever the first noise, only red matters, and the change has its length."""

    def predict(image: Tensor) -> Tensor:
        return torch.stack([3 * image[:, 0], torch.zeros_like(image[:, 0])], 1)

    image, valid = torch.rand(2, 3, 1, 1), torch.ones(2, 1, 1, dtype=torch.bool)
    probs = predict(image).softmax(1)
    change = adversarial_change(predict, image, probs, valid, KEYS, torch.tensor([0.1, 0.2]), 0.01)
    assert change[:, 0].abs().flatten().tolist() == pytest.approx([0.1, 0.2])
    assert not change[:, 1:].any()


def test_a_prediction_that_never_changes_leaves_the_image_as_it_is() -> None:
    image, valid = torch.rand(2, 3, 4, 4), torch.ones(2, 4, 4, dtype=torch.bool)
    probs = torch.full((2, 3, 4, 4), 1 / 3)
    change = adversarial_change(lambda x: 0 * x, image, probs, valid, KEYS, torch.ones(2), 0.01)
    assert not change.any()


def test_texture_counts_differences_between_valid_pixels_two_apart() -> None:
    image = torch.zeros(1, 3, 3, 4)
    image[0, 0] = torch.tensor([[0.0, 1.0, 3.0, 0.0], [0.0, 0.0, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0]])
    valid = torch.ones(1, 3, 4, dtype=torch.bool)
    # along rows: 3, -1, then 0, 0, then -2, 0; along columns: 2, -1, -3, 0
    assert texture(image, valid).item() == pytest.approx((9 + 1 + 4 + 4 + 1 + 9) ** 0.5)
    valid[0, 0, 2] = False
    assert texture(image, valid).item() == pytest.approx((1 + 4 + 4 + 1) ** 0.5)
    assert texture(torch.rand(2, 3, 2, 1), torch.ones(2, 2, 1, dtype=torch.bool)).tolist() == [0, 0]


def test_no_gradient_is_left_in_any_weight_by_the_search(taught: Make, make_batch: Make) -> None:
    method = taught()
    method.losses(make_batch())
    assert all(parameter.grad is None for parameter in method.parameters())
