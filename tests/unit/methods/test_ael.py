"""AEL: its equation written out, what is pasted, and its limiting cases."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from des4.methods.ingredients.pasting import object_boxes
from des4.methods.ingredients.targets import soft_target
from des4.ops.noise import uniform
from des4.types import IGNORE, ConfigError, Labeled

Make = Callable[..., Any]


def up(logits: Tensor) -> Tensor:
    return F.interpolate(logits, size=(33, 33), mode="bilinear", align_corners=True)


@pytest.fixture
def batch(make_batch: Make) -> Any:
    """A batch whose donors are its own labeled images, the other way round."""
    made = make_batch()
    lab = made.labeled
    donor = replace(lab, image=lab.image.flip(0), label=lab.label.flip(0))
    return replace(made, labeled=replace(lab, donor=donor))


def confident(method: Any, *values: float) -> Any:
    """The method with these v, a sharp teacher unlike its student, and a random crop of each class, with padding.

    Padding is also in the midst of crops, so that boxes about objects hold some.
    """
    method.confidence.values.copy_(torch.tensor(values))
    with torch.no_grad():
        method.teacher.head.weight.weight.normal_(std=1, generator=torch.Generator().manual_seed(0))
        method.student.head.weight.weight.normal_(std=1, generator=torch.Generator().manual_seed(1))
    method.crops.images.uniform_(generator=torch.Generator().manual_seed(2))
    method.crops.valid[:, :, :26] = True
    method.crops.valid[:, 19:27, 14:19] = False
    return method


def test_the_terms_are_those_of_the_equation(make_method: Make, batch: Any) -> None:
    settings = {"threshold": 0.5, "consistency_weight": 3.0, "paste": 1.0, "pasted_classes": 2}
    method = confident(make_method("ael", **settings, object_area=0.1, image_area=1.0), 0.9, 0.1, 0.5, 0.2)
    twin = copy.deepcopy(method)
    found = method.losses(batch)
    lab, un = twin.pasted(batch.labeled), batch.unlabeled
    assert not torch.equal(lab.label, batch.labeled.label)
    (view,) = un.strong
    v = twin.confidence.values
    noise = uniform(un.keys, (1,), "found class")[:, 0]
    wanted = ((1 - v).softmax(0).cumsum(0) <= noise[:, None]).sum(1)
    donors, shown = twin.crops.images[wanted].float(), twin.crops.valid[wanted]
    with torch.no_grad():
        logits = twin.teacher(torch.cat([lab.image, un.weak, donors]))
        probs = up(logits).softmax(1)
        confidence, label = probs.max(1)
    said, where = label[4:, ::4, ::4], shown[:, ::4, ::4]
    boxes, other = (object_boxes(said, each, wanted, 0.1, un.keys) for each in (where, torch.ones_like(where)))
    assert boxes.any() and not torch.equal(boxes, other)

    def mixed(tensor: Tensor, donor: Tensor) -> Tensor:
        """Each image with its donor's box, or mixed as the view is where there is no box."""
        rows = []
        for n in range(2):
            box = F.interpolate(boxes[n, None, None].float(), (33, 33), mode="nearest-exact")[0, 0] > 0
            rows.append(torch.where(box, donor[n], tensor[n]) if boxes[n].any() else view.mix(tensor)[n])
        return torch.stack(rows)

    out = up(twin.student(torch.cat([lab.image, mixed(view.image, donors)])))

    def consistency(z: Tensor, label: Tensor, q: Tensor, valid: Tensor, keys: Tensor, name: str) -> Tensor:
        chance = ((1 - v) / (1 - v).max())[z.argmax(1)]
        weight = q.square() * (uniform(keys, (33, 33), name) < chance) * valid
        loss = F.cross_entropy(z, label, reduction="none") * (q >= 0.5)
        assert ((q < 0.5) & valid).any()
        return torch.stack([(w * x).sum() / w.sum() for w, x in zip(weight, loss, strict=True)]).mean()

    q, y = mixed(confidence[2:4], confidence[4:]), mixed(label[2:4], label[4:])
    valid = mixed(un.valid, shown)
    expected = {
        "labeled": F.cross_entropy(out[:2], lab.label, ignore_index=IGNORE),
        "labeled_consistency": 3 * consistency(
            out[:2], label[:2], confidence[:2], lab.label != IGNORE, lab.keys, "labelled pixels"),
        "unlabeled_consistency": 3 * consistency(out[2:], y, q, valid, un.keys, "unlabelled pixels"),
    }  # fmt: skip
    assert all(term > 0 for term in expected.values())
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_a_student_that_agrees_pays_nothing_and_one_that_does_not_pays(make_method: Make, make_batch: Make) -> None:
    method, batch = make_method("ael", threshold=0.0), make_batch()
    target = soft_target(torch.randn(2, 4, 9, 9), batch.unlabeled).hardened(0.0, method.supervision)
    sure = 50.0 * F.one_hot(target.label, 4).movedim(-1, 1).float()
    for logits, low, high in ((sure, 0, 1e-6), (-sure, 10, 60)):
        assert low <= method.equalised(target, logits, batch.unlabeled.keys, "pixels").cross_entropy(logits) <= high


def test_weights_sum_to_one_and_leave_out_pixels_that_are_not_drawn(make_method: Make, make_batch: Make) -> None:
    method, batch = make_method("ael", threshold=0.0), make_batch()
    method.confidence.values.copy_(torch.tensor([1.0, 0.5, 0.5, 0.75]))  # of 0 no pixel is drawn, of 3 every other
    target = soft_target(torch.randn(2, 4, 9, 9), batch.unlabeled).hardened(0.0, method.supervision)
    for said, share in ((0, 0.0), (1, 1.0), (3, 0.5)):
        logits = F.one_hot(torch.full((2, 33, 33), said), 4).movedim(-1, 1).float()
        weight = method.equalised(target, logits, batch.unlabeled.keys, "pixels").weight
        counted = (weight > 0)[target.valid].float().mean().item()
        assert counted == pytest.approx(share, abs=0.05)
        assert weight.sum((1, 2)).tolist() == pytest.approx([float(share > 0)] * 2, abs=1e-4)


def test_classes_that_are_never_pasted_are_not_and_the_others_by_their_confidence(
    make_method: Make, batch: Any
) -> None:
    always = make_method("ael", paste=1.0, never_pasted=(0, 2), pasted_classes=3)
    always.confidence.values.copy_(torch.tensor([0.0, 1.0, 0.0, 0.0]))
    lab, found = batch.labeled, always.pasted(batch.labeled)
    changed = (found.image != lab.image).any(1)
    assert changed.any() and set(lab.donor.label[changed].tolist()) <= {1, 3}
    assert torch.equal(found.label[changed], lab.donor.label[changed])
    never = make_method("ael", paste=0.0)
    assert torch.equal(never.pasted(lab).image, lab.image)
    with pytest.raises(ConfigError, match="4 classes"):
        make_method("ael", never_pasted=(4,))
    with pytest.raises(ConfigError, match="not all"):
        make_method("ael", never_pasted=(0, 1, 2, 3))


def test_pasted_classes_are_drawn_by_the_root_of_their_doubt_and_independently(make_method: Make) -> None:
    """Of 1 - v = 1, 1/4, 1/4 and 1/4: in proportion to e, √e, √e and √e; without the root as e to e^(1/4)."""
    keys = torch.randint(2**62, (4000,), generator=torch.Generator().manual_seed(0))
    label = torch.tensor([[0, 1], [2, 3]]).expand(4000, 2, 2)
    donor = Labeled(torch.ones(4000, 3, 2, 2), label, keys)
    lab = Labeled(torch.zeros(4000, 3, 2, 2), torch.zeros_like(label), keys, donor=donor)
    root = math.exp(0.5)
    p, q = root / (root + 3), 1 / (root + 3)  # 0.355 and 0.215
    for count, share in ((1, 0.5), (3, 1.0)):
        method = make_method("ael", paste=share, pasted_classes=count)
        method.confidence.values.copy_(torch.tensor([0.0, 0.75, 0.75, 0.75]))
        given = method.pasted(lab).image[:, 0].mean(0).flatten().tolist()
        assert given == pytest.approx([share * (1 - (1 - each) ** count) for each in (p, q, q, q)], abs=0.02)


def test_the_class_whose_crop_is_taken_is_drawn_by_its_doubt_itself(make_method: Make, batch: Any) -> None:
    method, seen = confident(make_method("ael"), 0.0, 0.96, 0.96, 0.96), []
    keys = torch.arange(1000)
    noise = uniform(keys, (1,), "found class")[:, 0]
    # the first class has e / (e + 3 e^0.04) = 0.465 of the draws; by roots it would have 0.426
    keys, draw = keys[(noise > 0.43) & (noise < 0.46)][:2], method.crops.draw
    method.crops.draw = lambda wanted, like: seen.append(wanted) or draw(wanted, like)
    method.losses(replace(batch, unlabeled=replace(batch.unlabeled, keys=keys)))
    assert seen[0].tolist() == [0, 0]


def test_a_step_remembers_what_it_saw(make_method: Make, batch: Any) -> None:
    """How sure the student was of pasted labels, and the weak views that the teacher found enough of a class in."""
    settings = {"threshold": 0.0, "image_area": 0.5, "object_area": 1.0, "paste": 1.0}
    method = confident(make_method("ael", **settings).eval(), 0.9, 0.1, 0.5, 0.2)
    twin, un = copy.deepcopy(method), batch.unlabeled
    method.losses(batch)
    assert torch.equal(method.crops.images, twin.crops.images)
    assert torch.equal(method.confidence.values, twin.confidence.values)
    method.after_step()
    lab, label = twin.pasted(batch.labeled), up(twin.teacher(un.weak)).argmax(1)
    assert not torch.equal(lab.label, batch.labeled.label)
    probs, known = twin.student(lab.image).softmax(1), lab.label[:, ::4, ::4]
    remembered = 0
    for c in range(4):
        torch.testing.assert_close(method.confidence.values[c], probs[:, c][known == c].mean())
        found = [n for n in range(2) if ((label[n] == c) & un.valid[n]).sum() >= 0.5 * 33 * 33]
        images, valid = twin.crops.images[c], twin.crops.valid[c]
        if found:
            n = max(found, key=lambda n: int(un.keys[n]))
            images, valid = torch.where(un.valid[n], un.weak[n], 0).half(), un.valid[n]
        assert torch.equal(method.crops.images[c], images) and torch.equal(method.crops.valid[c], valid)
        remembered += bool(found)
    assert 0 < remembered < 4
