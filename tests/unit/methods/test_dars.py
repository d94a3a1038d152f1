"""DARS: its equation written out, its rounds, and which pixels it keeps."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from des4.methods.ingredients.targets import SoftTarget
from des4.types import IGNORE

Make = Callable[..., Any]
SHARES = torch.tensor([8000, 4000, 2000, 500]) / 14500  # of the labeled pixels of these tests


def up(logits: Tensor) -> Tensor:
    return F.interpolate(logits, size=(33, 33), mode="bilinear", align_corners=True)


def test_rounds_follow_the_part_on_labels_alone_and_are_equally_long(make_method: Make) -> None:
    method = make_method("dars", labels_alone=0.2, ratios=(0.4, 0.5))  # of 20 steps
    assert [method.round(step) for step in (0, 3, 4, 11, 12, 19, 20)] == [0, 0, 1, 1, 2, 2, 2]
    assert [make_method("dars", labels_alone=0.0, ratios=(0.5,)).round(step) for step in (0, 19, 20)] == [1, 1, 1]


def test_the_labeler_is_what_the_student_was_when_the_round_began(make_method: Make, make_batch: Make) -> None:
    method = make_method("dars", labels_alone=0.1, ratios=(0.4, 0.5))  # rounds begin with steps 2 and 11
    optimiser = torch.optim.SGD(method.student.parameters(), lr=0.01)
    copied = []
    for step in range(13):
        terms = method(make_batch(step))
        assert (terms.get("unlabeled", 0) > 0) == (step > 2 and step != 11)  # a round has seen nothing at first
        torch.stack(list(terms.values())).sum().backward()
        optimiser.step()
        optimiser.zero_grad()
        method.after_step()
        pairs = zip(method.labeler.state_dict().values(), method.student.state_dict().values(), strict=True)
        if all(torch.equal(one, two) for one, two in pairs):
            copied.append(method.step)
    assert copied == [2, 11]


def test_the_terms_are_those_of_the_equation(make_method: Make, make_batch: Make) -> None:
    method, batch = make_method("dars", labels_alone=0.0, ratios=(0.1, 0.4), unlabeled_weight=0.7), make_batch()
    method.step = 12  # of the second round
    with torch.no_grad():
        method.labeler.head.weight.weight.mul_(30)
    method.losses(make_batch(1))
    method.after_step()
    student, lab, un = copy.deepcopy(method.student), batch.labeled, batch.unlabeled
    (view,) = un.strong
    with torch.no_grad():
        probs = (up(method.labeler(un.weak)).softmax(1) + up(method.labeler(un.weak.flip(-1))).softmax(1).flip(-1)) / 2
        target = method.aligned(un, 0.4)
    assert torch.equal(target.label, probs.argmax(1))
    assert 0 < target.keep.sum() < un.valid.sum()
    assert not target.keep[~un.valid].any()
    logits = up(student(torch.cat([lab.image, view.mixed])))
    loss = F.cross_entropy(logits[2:], view.mix(target.label), reduction="none") * view.mix(target.keep)
    expected = {
        "labeled": F.cross_entropy(logits[:2], lab.label, ignore_index=IGNORE),
        "unlabeled": 0.7 * loss.sum() / view.mix(un.valid).sum() / 0.4,
    }
    torch.testing.assert_close(method.losses(batch), expected, atol=1e-6, rtol=1e-5)


Say = Callable[..., tuple[list[float], Tensor, Tensor]]


@pytest.fixture
def say(make_method: Make, monkeypatch: pytest.MonkeyPatch) -> Say:
    """Let a labeler call these shares of 40,000 pixels the classes, with this confidence, and padding class 0.

    Returns the share of the pixels that is kept of each class, which are kept, and the labels.
    """

    def said(shares: list[float], confidence: Tensor) -> tuple[list[float], Tensor, Tensor]:
        label = torch.bucketize((torch.arange(40_000) + 0.5) / 40_000, torch.tensor(shares).cumsum(0))
        label, confidence = F.pad(label, (0, 10_000)), F.pad(confidence, (0, 10_000), value=1.0)
        others = ((1 - confidence) / 3)[:, None].expand(-1, 4)
        probs = others.scatter(1, label[:, None], confidence[:, None]).T.reshape(1, 4, 250, 200)
        valid = (torch.arange(50_000) < 40_000).view(1, 250, 200)
        monkeypatch.setattr("des4.methods.dars.averaged_target", lambda *_: SoftTarget(probs, valid))
        method, some = make_method("dars"), SimpleNamespace(keys=torch.tensor([7]))
        assert not method.aligned(some, 0.5).keep.any(), "the round has seen nothing yet"
        method.confidences.commit()
        kept = method.aligned(some, 0.5).keep.flatten()
        assert not kept[40_000:].any()
        return [int((kept & (label == c)).sum()) / 40_000 for c in range(4)], kept[:40_000], label[:40_000]

    return said


def test_kept_pixels_have_the_shares_of_the_labeled_ones(say: Say) -> None:
    """Also where all are equally confident; and of a class that the labeler finds too little of, all are kept."""
    for confidence in (torch.rand(40_000) * 0.7 + 0.3, torch.ones(40_000)):
        found, _, _ = say([0.4, 0.2, 0.39, 0.01], confidence)
        expected = torch.minimum(0.5 * SHARES, torch.tensor([0.4, 0.2, 0.39, 0.01]))
        assert found == pytest.approx(expected.tolist(), abs=0.006)


def test_the_most_confident_pixels_are_kept(say: Say) -> None:
    confidence = 0.3 + 0.7 * torch.rand(40_000, generator=torch.Generator().manual_seed(0))
    _, kept, label = say([0.4, 0.3, 0.2, 0.1], confidence)
    for c in range(4):
        mine = label == c
        lowest = confidence[mine & kept].min()
        assert (kept[mine & (confidence >= lowest)]).float().mean() > 0.99  # but for a few, so that the number is right
        assert lowest > confidence[mine].quantile(0.05)


def test_all_steps_of_a_round_count_alike_however_many(make_method: Make) -> None:
    memory, everywhere = make_method("dars").confidences, torch.ones(1, dtype=torch.bool)
    memory.steps.fill_(9999)  # that have seen nothing but class 0 at 0
    memory.shares.zero_()[0, 0] = 1
    memory.collect(torch.tensor([0.9]), everywhere, torch.tensor([2]))
    memory.commit()
    assert memory.shares[2].sum().item() == pytest.approx(1 / 10_000, rel=1e-3)


def test_while_labels_teach_alone_pseudo_labels_are_the_students(make_method: Make) -> None:
    method = make_method("dars")
    assert method.pseudo_labeler() == ("student", method.student)
    method.step = 4
    assert method.pseudo_labeler() == ("labeler", method.labeler)


def test_the_learning_rate_begins_anew_where_rounds_do(make_method: Make) -> None:
    """Of 20 steps 0.17 are 4 of labels alone, and the rest are two rounds of 8; without such a part, two of 10."""
    method = make_method("dars")
    assert method.restarts == (4, 12)
    assert [method.round(step) for step in (3, 4, 11, 12)] == [0, 1, 1, 2]
    assert make_method("dars", labels_alone=0.0).restarts == (10,)
