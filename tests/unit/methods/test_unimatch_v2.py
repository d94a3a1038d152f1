"""UniMatch V2: its equation written out, and its limiting cases."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from des4.methods.ingredients.perturb import share_channels
from des4.ops.noise import bernoulli
from des4.types import IGNORE

Make = Callable[..., Any]
KEYS = torch.randint(2**62, (2000,), generator=torch.Generator().manual_seed(0))


def up(logits: Tensor) -> Tensor:
    return F.interpolate(logits, size=(33, 33), mode="bilinear", align_corners=True)


@pytest.fixture
def sure(make_method: Make) -> Callable[..., Any]:
    """A teacher that is sure of some pixels."""

    def make(**settings: Any) -> Any:
        method = make_method("unimatch_v2", **settings)
        with torch.no_grad():
            method.teacher.head.weight.weight.mul_(100)
        return method

    return make


@pytest.fixture
def batch(make_batch: Make) -> Any:
    return make_batch(views=2)


def test_the_terms_are_those_of_the_equation(sure: Make, batch: Any) -> None:
    method = sure(threshold=0.5, strong_weight=0.3, whole=0.4)
    student, lab, un = copy.deepcopy(method.student), batch.labeled, batch.unlabeled
    found = method.losses(batch)
    with torch.no_grad():
        confidence, label = up(method.teacher(un.weak)).softmax(1).max(1)
    maps = student.encode(torch.cat([lab.image, *(view.mixed for view in un.strong)]))
    left = bernoulli(un.keys, (), "shared channels/whole", 0.4)
    seen = []
    for each in maps:
        mask = bernoulli(un.keys, (each.shape[1],), f"shared channels/{each.shape[1]}").float()
        gains = [torch.where(left[:, None], 1.0, 2 * part)[:, :, None, None] for part in (mask, 1 - mask)]
        seen.append(torch.cat([each[:2], each[2:4] * gains[0], each[4:] * gains[1]]))
    logits = up(student.head(student.decoder(tuple(seen))))

    def consistency(logits: Tensor, mix: Callable[[Tensor], Tensor]) -> Tensor:
        kept, valid = mix((confidence >= 0.5) & un.valid), mix(un.valid)
        assert 0 < kept.sum() < valid.sum()
        return (F.cross_entropy(logits, mix(label), reduction="none") * kept).sum() / valid.sum()

    expected = {
        "labeled": 0.5 * F.cross_entropy(logits[:2], lab.label, ignore_index=IGNORE),
        "strong1": 0.5 * 0.3 * consistency(logits[2:4], un.strong[0].mix),
        "strong2": 0.5 * 0.3 * consistency(logits[4:], un.strong[1].mix),
    }
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_a_channel_is_of_one_view_or_of_the_other_or_of_both_in_an_image_that_stays_whole() -> None:
    ones = (torch.ones(2000, 6, 1, 1), torch.ones(2000, 4, 2, 2))
    first, second = share_channels((ones, ones), KEYS, "shared", 0.3)
    for one, two in zip(first, second, strict=True):
        assert torch.equal(one + two, torch.full_like(one, 2))
        whole = (one == 1).flatten(1).all(1)
        assert whole.float().mean().item() == pytest.approx(0.3, abs=0.03)
        assert set(one[~whole].unique().tolist()) == {0, 2}
        assert one[~whole].mean().item() == pytest.approx(1, abs=0.05)
    assert torch.equal((first[0] == 1).flatten(1).all(1), (first[1] == 1).flatten(1).all(1))  # one draw for all maps


def test_maps_of_as_many_channels_lose_the_same_ones() -> None:
    """As those of a vision transformer, of which one mask is drawn in the published code."""
    ones = (torch.ones(50, 6, 1, 1), torch.ones(50, 6, 1, 1), torch.ones(50, 4, 1, 1))
    (like, alike, _), _ = share_channels((ones, ones), KEYS[:50], "shared", 0.3)
    assert torch.equal(like, alike)
    assert len(like.unique()) == 3


def test_whole_images_with_equal_views_have_equal_terms(sure: Make, batch: Any) -> None:
    un = batch.unlabeled
    alike = replace(batch, unlabeled=replace(un, strong=(un.strong[0],) * 2))
    terms = sure(threshold=0.0, whole=1.0).losses(alike)
    torch.testing.assert_close(terms["strong1"], terms["strong2"])
    shared = sure(threshold=0.0, whole=0.0).losses(alike)
    assert shared["strong1"] != shared["strong2"]


def test_a_threshold_of_one_leaves_the_labels_alone(sure: Make, batch: Any) -> None:
    terms = sure(threshold=1.0).losses(batch)
    assert terms["labeled"] > 0
    assert terms["strong1"] == terms["strong2"] == 0
