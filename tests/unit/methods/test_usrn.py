"""USRN: its equation written out, what its two parts do, and its gate."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from des4.methods.ingredients.gate import classes_left
from des4.methods.ingredients.targets import soft_target
from des4.types import IGNORE

Make = Callable[..., Any]


def up(logits: Tensor) -> Tensor:
    return F.interpolate(logits, size=(33, 33), mode="bilinear", align_corners=True)


def entropy(probs: Tensor) -> Tensor:
    return -(probs * (probs + 1e-10).log()).sum(1) / math.log(probs.shape[1])


@pytest.fixture
def stepped(make_method: Make, make_batch: Make) -> Callable[..., Any]:
    """A method whose classes all have sub-classes, and whose networks are sharp."""

    def make(**settings: Any) -> Any:
        method = make_method("usrn", labels_alone=0.0, subclasses=8, **settings)
        for m in (1, 2):
            method.losses(make_batch(m, images=4))
            method.after_step()
        with torch.no_grad():
            for n, network in enumerate((method.student, method.sub)):
                network.head.weight.weight.normal_(std=0.7, generator=torch.Generator().manual_seed(n))
        return method

    return make


@pytest.mark.parametrize(("imbalance", "running", "t"), [(0.0, False, 0.4), (1.0, False, 0.4), (0.0, True, 0.2)])
def test_the_terms_are_those_of_the_equation(
    stepped: Make, make_batch: Make, imbalance: float, running: bool, t: float
) -> None:
    """At 1, adjusted and weighted by how frequent classes are, 16 : 8 : 4 : 1, and sub-classes, each a part of its."""
    supervision = {"logit_adjustment": imbalance, "class_weighting": imbalance}
    settings = {"threshold": t, "unlabeled_weight": 2.0, "subclass_weight": 3.0, "running_norms": running}
    batch, method = make_batch(), stepped(supervision=supervision, **settings)
    twin = copy.deepcopy(method)
    found = method.losses(batch)
    assert twin.subclasses.counts == (4, 2, 1, 1)
    share, sub_share = torch.tensor([16.0, 8, 4, 1]) / 29, torch.tensor([4.0, 4, 4, 4, 4, 4, 4, 1]) / 29
    heavy, sub_heavy = ((len(each) * each) ** -imbalance for each in (share, sub_share))  # of mean 1 over pixels
    lab, un = batch.labeled, batch.unlabeled
    (view,) = un.strong
    images = torch.cat([lab.image, un.weak, view.mixed])
    adjustment, sub_adjustment = (imbalance * each.log()[:, None, None] for each in (share, sub_share))
    out, sub = twin.student(images) + adjustment, twin.sub(images) + sub_adjustment
    seen, sub_seen = out[2:4].detach(), sub[2:4].detach()
    if running:  # statistics of the weak view are among the running ones by then
        seen = copy.deepcopy(twin.student).eval()(un.weak).detach() + adjustment
        sub_seen = copy.deepcopy(twin.sub).eval()(un.weak).detach() + sub_adjustment
    p, s = seen.softmax(1), sub_seen.softmax(1)
    assert s.shape[1] == 8
    surer = entropy(s) <= entropy(p)
    assert 0 < surer.float().mean() < 1
    parent = torch.tensor([c for c, count in enumerate(twin.subclasses.counts) for _ in range(count)])
    nearest = [round(y * 8 / 32) for y in range(33)]
    only = F.one_hot(parent[s.argmax(1)], 4).movedim(-1, 1) | ~surer[:, None]
    gated = up(seen).softmax(1) * only[:, :, nearest][..., nearest]
    q, y = gated.max(1)
    strong = F.cross_entropy(up(out[4:]), view.mix(y), heavy, reduction="none") * view.mix((q >= t) & un.valid)
    on_grid = [grid[..., ::4, ::4] for grid in (view.mix.box, un.valid)]
    sub_q, sub_y = s.max(1)
    sub_keep = (sub_q >= t) & on_grid[1]
    mixed = [torch.where(on_grid[0], each[view.mix.partner], each) for each in (sub_y, sub_keep)]
    sub_strong = F.cross_entropy(sub[4:], mixed[0], sub_heavy, reduction="none") * mixed[1]
    names = twin.subclasses.assign(twin.labeler.features(lab.image), lab.label[:, ::4, ::4])
    assert (names == IGNORE).equal(lab.label[:, ::4, ::4] == IGNORE)
    part = 81 / 33**2
    expected = {
        "labeled": F.cross_entropy(up(out[:2]), lab.label, heavy, ignore_index=IGNORE, reduction="sum")
        / lab.valid.sum(),
        "unlabeled": 2 * strong.sum() / view.mix(un.valid).sum(),
        "sub/labels": 3 * F.cross_entropy(sub[:2], names, sub_heavy, ignore_index=IGNORE, reduction="sum")
        / (lab.valid.sum() * part),
        "sub/pseudo-labels": 6 * sub_strong.sum() / (view.mix(un.valid).sum() * part),
    }  # fmt: skip
    assert all(term > 0 for term in expected.values())
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_first_labels_alone_then_all_begin_from_the_student(make_method: Make, make_batch: Make) -> None:
    method = make_method("usrn", labels_alone=0.1)  # 2 of 20 steps
    assert method.restarts == (2,) and method.rests
    assert method.subclasses.counts == (16, 8, 4, 1)
    for _ in range(2):
        assert list(method.losses(make_batch())) == ["labeled"]
        with torch.no_grad():
            for parameter in method.student.parameters():
                parameter.add_(1)
        method.after_step()
    for network in (method.labeler, method.sub):
        for part in ("encoder", "decoder"):
            copied, student = (each.get_submodule(part).state_dict() for each in (network, method.student))
            assert all(torch.equal(value, student[name]) for name, value in copied.items()), part
    assert len(method.losses(make_batch())) == 4
    labeler = copy.deepcopy(method.labeler.state_dict())
    with torch.no_grad():
        method.student.decoder.low[0].weight.add_(1)
    method.after_step()
    assert all(torch.equal(value, labeler[name]) for name, value in method.labeler.state_dict().items())
    assert make_method("usrn", labels_alone=0.0).restarts == ()


def test_the_gate_leaves_one_class_where_sub_classes_are_no_less_sure(stepped: Make) -> None:
    parent = stepped().subclasses.parent
    logits = torch.tensor([1.0, 0.0, 2.0, 0.0])[None, :, None, None].expand(2, 4, 9, 9)
    sure, unsure = torch.zeros(2, 8, 9, 9), torch.zeros(2, 8, 9, 9)
    sure[:, 7] = 20.0
    only = classes_left(logits, sure, parent)
    assert torch.equal(only[:, :, 4, 4], F.one_hot(parent[7], 4).bool().expand(2, 4))
    assert classes_left(logits, unsure, parent).all()


def test_a_gated_pixel_is_as_sure_as_adjusted_logits_are(make_method: Make, make_batch: Make) -> None:
    """What is left of a pixel keeps the probability that it has among all classes."""
    supervision = make_method("usrn", supervision={"logit_adjustment": 1.0}).supervision
    logits, un = torch.randn(2, 4, 9, 9, generator=torch.Generator().manual_seed(0)), make_batch().unlabeled
    third = torch.zeros(2, 4, 9, 9, dtype=torch.bool)
    third[:, 2] = True
    target = soft_target(logits, un).hardened(0.0, supervision, third)
    assert (target.label == 2).all()
    torch.testing.assert_close(target.confidence, up(logits + supervision.shift[:, None, None]).softmax(1)[:, 2])


def test_without_a_confident_pixel_only_labels_teach(stepped: Make, make_batch: Make) -> None:
    terms = stepped(threshold=1.0).losses(make_batch())
    assert terms["unlabeled"] == terms["sub/pseudo-labels"] == 0
    assert terms["labeled"] > 0 and terms["sub/labels"] > 0
