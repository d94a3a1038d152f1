"""CCT: its equation written out, what learns from what, its perturbations and its ramp."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from des4.methods.ingredients.adversary import against
from des4.methods.ingredients.perturb import drop_active, drop_channels, holes_in_objects, noisy
from des4.methods.ingredients.schedule import sigmoid_ramp
from des4.types import IGNORE, ConfigError

Make = Callable[..., Any]
KEYS = torch.randint(2**62, (500,), generator=torch.Generator().manual_seed(0))


def up(logits: Tensor) -> Tensor:
    return F.interpolate(logits, size=(33, 33), mode="bilinear", align_corners=True)


def test_the_terms_are_those_of_the_equation(make_method: Make, make_batch: Make) -> None:
    method, batch = make_method("cct", classifiers=1, background_class=0, consistency_weight=7.0), make_batch()
    with torch.no_grad():
        method.student.head.weight.weight.mul_(100)
    method.step = 1  # of 2 in which the weight rises
    student, lab, un = copy.deepcopy(method.student), batch.labeled, batch.unlabeled
    found = method.losses(batch)
    (view,) = un.strong
    features = student.features(torch.cat([lab.image, view.mixed]))
    clean = features[2:]
    valid = view.mix(un.valid)
    on_grid = valid[:, ::4, ::4]
    target = student.head(clean).softmax(1).detach()
    background = target.argmax(1, keepdim=True) == 0
    assert 0 < background.sum() < background.numel()
    perturbed = [
        drop_channels((clean,), un.keys, "drop0")[0],
        drop_active(clean, on_grid, un.keys, "active1"),
        noisy(clean, un.keys, "noise2"),
        against(method.auxiliary[3], clean, on_grid, un.keys, "adversarial3", 2.0),
        clean * ~background,
        clean * background,
        clean * ~holes_in_objects(~background[:, 0] & on_grid, un.keys, "cutout6")[:, None],
    ]
    gaps = [
        ((net(h).softmax(1) - target).square().mean(1) * on_grid).sum() / (valid.sum() * 81 / 33**2)
        for net, h in zip(method.auxiliary, perturbed, strict=True)
    ]
    expected = {
        "labeled": F.cross_entropy(up(student.head(features[:2])), lab.label, ignore_index=IGNORE),
        "consistency": 7 * math.exp(-5 / 4) * sum(gaps) / 7,
    }
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_the_main_classifier_learns_from_labels_alone_and_all_else_from_the_gap(
    make_method: Make, make_batch: Make
) -> None:
    method = make_method("cct")
    named = dict(method.named_parameters())
    gap = method.losses(make_batch())["consistency"]
    gradients = torch.autograd.grad(gap, list(named.values()), allow_unused=True)
    missing = {key for key, gradient in zip(named, gradients, strict=True) if gradient is None}
    assert missing == {"student.head.weight.weight", "student.head.weight.bias"}


def test_without_objects_there_are_four_kinds_and_a_background_has_to_exist(make_method: Make) -> None:
    assert make_method("cct").kinds[::2] == make_method("cct").kinds[1::2] == ("drop", "active", "noise", "adversarial")
    assert len(make_method("cct", background_class=3, classifiers=1).auxiliary) == 7
    with pytest.raises(ConfigError, match="4 classes"):
        make_method("cct", background_class=4)


def test_the_weight_rises_and_stays() -> None:
    assert [sigmoid_ramp(step, 10) for step in (0, 5, 10, 99)] == pytest.approx([math.exp(-5), math.exp(-1.25), 1, 1])
    assert sigmoid_ramp(0, 0) == 1


def test_the_most_active_places_are_dropped() -> None:
    features = torch.tensor([0.1, 0.65, 0.95, 1.0]).view(1, 1, 1, 4).expand(500, 3, 1, 4)
    valid = torch.ones(500, 1, 4, dtype=torch.bool)
    kept = (drop_active(features, valid, KEYS, "active") > 0)[:, 0, 0].float().mean(0)
    assert kept.tolist() == [1, 1, 0, 0]
    valid[..., 2:] = False  # of what is left 0.65 is the most
    kept = (drop_active(features, valid, KEYS, "active") > 0)[:, 0, 0].float().mean(0)
    assert kept.tolist() == [1, 0, 0, 0]
    between = torch.tensor([0.8, 1.0]).view(1, 1, 1, 2).expand(500, 3, 1, 2)  # kept where the share is above 0.8
    kept = drop_active(between, torch.ones(500, 1, 2, dtype=torch.bool), KEYS, "active")[:, 0, 0, 0] > 0
    assert kept.float().mean().item() == pytest.approx(0.5, abs=0.07)


def test_noise_multiplies_by_its_range() -> None:
    found = noisy(torch.full((500, 2, 3, 3), 2.0), KEYS, "noise") / 2
    assert 0.7 <= found.min() < 0.71
    assert 1.29 < found.max() <= 1.3
    assert found.mean().item() == pytest.approx(1, abs=0.01)
    assert not noisy(torch.zeros(2, 2, 3, 3), KEYS[:2], "noise").any()


def test_the_adversarial_change_of_a_place_by_hand() -> None:
    """Of two classes and one place, only w_1 - w_0 matters: the change is along it, to one side or the other."""
    classify = nn.Conv2d(2, 2, 1)
    with torch.no_grad():
        classify.weight.copy_(torch.tensor([[1.0, 2.0], [4.0, -2.0]])[:, :, None, None])  # w_1 - w_0 = (3, -4)
    features = torch.tensor([[0.3, 0.2], [0.1, -0.4]])[:, :, None, None].requires_grad_()
    valid = torch.ones(2, 1, 1, dtype=torch.bool)
    found = against(classify, features, valid, KEYS[:2], "x", 2.0)
    change = (found - features).detach().flatten(1)
    torch.testing.assert_close(change.abs(), torch.tensor([[1.2, 1.6]] * 2), rtol=1e-3, atol=0)
    assert (change[:, 0] * change[:, 1] < 0).all()
    (gradient,) = torch.autograd.grad(found.sum(), features)
    assert (gradient == 1).all() and classify.weight.grad is None  # the change is a constant, found on the side
    assert torch.equal(against(classify, features, ~valid, KEYS[:2], "x", 2.0), features)


def test_holes_lie_in_the_boxes_of_large_objects_anywhere() -> None:
    mask = torch.zeros(500, 12, 20, dtype=torch.bool)
    mask[:, 1:6, 2:12] = True  # a box of 5 × 10 places, of which a hole takes 2 × 4
    mask[:, 3, 4:12] = False  # an object need not be full
    mask[:, 7:12, 15:20] = True  # 5 × 5, touching the edge: 2 × 2
    mask[:, 0, 19] = True  # too small
    holes = holes_in_objects(mask, KEYS, "holes", area=0.01)
    first, second = holes[:, 1:6, 2:12], holes[:, 7:12, 15:20]
    assert (holes.sum((1, 2)) == 8 + 4).all() and (first.sum((1, 2)) == 8).all() and (second.sum((1, 2)) == 4).all()
    assert (first.any(2).sum(1) == 2).all() and (first.any(1).sum(1) == 4).all()
    tops, lefts = first.any(2).int().argmax(1), first.any(1).int().argmax(1)
    for starts, number in ((tops, 4), (lefts, 7)):
        shares = torch.bincount(starts, minlength=number) / 500
        assert shares.tolist() == pytest.approx([1 / number] * number, abs=0.06)
    assert torch.equal(holes_in_objects(mask[7:9], KEYS[7:9], "holes", area=0.01), holes[7:9])
    assert not holes_in_objects(~mask & mask, KEYS, "holes").any()


def test_holes_that_overlap_are_one() -> None:
    mask = torch.zeros(500, 9, 9, dtype=torch.bool)
    mask[:, 0] = mask[:, :, 0] = True
    mask[:, 2:, 2:] = True  # within the box of the first
    holes = holes_in_objects(mask, KEYS, "holes", share=0.6).sum((1, 2))
    assert (holes >= 25).all() and (holes < 25 + 16).any() and (holes <= 25 + 16).all()
