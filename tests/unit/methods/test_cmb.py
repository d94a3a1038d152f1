"""CMB: its equation written out, when its parts begin, what learns from what, and its average."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from des4.methods.ingredients.classmix import class_mixed
from des4.types import IGNORE, ConfigError

Make = Callable[..., Any]
EARLY = {"memory_threshold": 0.0, "warm_up": 0.0, "dim": 8, "queue": 32, "anchors": 100}


def up(logits: Tensor) -> Tensor:
    return F.interpolate(logits, size=(33, 33), mode="bilinear", align_corners=True)


@pytest.fixture
def trained(make_method: Make, make_batch: Make) -> Callable[..., Any]:
    """A method after three steps: its memory is filled, its teacher is not its student, and it is sure of something."""

    def make(**settings: Any) -> Any:
        method = make_method("cmb", **{**EARLY, **settings})
        optimiser = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.05)
        for m in (1, 2, 3):
            torch.stack(list(method(make_batch(m, views=2)).values())).sum().backward()
            optimiser.step()
            optimiser.zero_grad()
            method.after_step()
        with torch.no_grad():
            for segmenter in (method.student, method.teacher):
                segmenter.head.weight.weight.mul_(100)
        return method

    return make


def distance(net: Any, features: Tensor, labels: Tensor) -> Tensor:
    """L_c by its definition: for each image and class, over all pairs, one after the other."""
    memory, found = net.bank.queue, []
    pixels = net.prediction(net.student_projection(features)).movedim(1, -1)
    for image, label in zip(pixels, labels[:, ::4, ::4], strict=True):
        for c in range(4):
            mine, rows = image[label == c], memory.rows[c, : memory.filled[c]]
            if len(mine) and len(rows):
                gap = 1 - F.cosine_similarity(mine[:, None], rows[None], dim=-1)
                one = net.pixel_selector(mine.expand(4, -1, -1))[c]
                two = net.memory_selector(rows.expand(4, -1, -1))[c]
                gap = gap * (len(one) * one / one.sum())[:, None] * (len(two) * two / two.sum())
                found.append(gap.mean() / 4)
    return torch.stack(found).sum() / len(pixels)


def test_the_terms_are_those_of_the_equation(trained: Make, make_batch: Make) -> None:
    method, batch = trained(background_class=1), make_batch(7, views=2, cutmix="none")
    twin = copy.deepcopy(method)
    found = method.losses(batch)
    lab, un = batch.labeled, batch.unlabeled
    with torch.no_grad():
        confidence = up(twin.teacher(un.weak)).softmax(1).amax(1)
    assert 0.3 < confidence.mean() < 0.95
    target = twin.pseudo_labels(twin.teacher(un.weak), un)
    pasted, other = (
        [class_mixed(view, target.mixed(view), 4, un.keys, f"mix{n}", 0.75, ground) for n, view in enumerate(un.strong)]
        for ground in (1, None)
    )
    assert any(not torch.equal(image, view.mixed) for (image, _), view in zip(pasted, un.strong, strict=True))
    assert any(not torch.equal(one, two) for (one, _), (two, _) in zip(pasted, other, strict=True))
    features = twin.student.features(torch.cat([lab.image, *(image for image, _ in pasted)]))
    cross, entropy, contrast = [], [], []
    for each, (_, mixed) in zip(features[2:].split(2), pasted, strict=True):
        logits = up(twin.student.head(each))
        weight = mixed.confidence**6 * un.valid
        cross.append((weight * F.cross_entropy(logits, mixed.label, reduction="none")).sum() / un.valid.sum())
        h = -(logits.softmax(1) * logits.log_softmax(1)).sum(1) / math.log(4)
        entropy.append(h[un.valid].mean())
        contrast.append(distance(twin, each, mixed.label.masked_fill(~un.valid, IGNORE)))
    known = up(twin.student.head(features[:2]))
    expected = {
        "labeled": F.cross_entropy(known, lab.label, ignore_index=IGNORE),
        "unlabeled": sum(cross) / 2,
        "entropy": 0.01 * sum(entropy) / 2,
        "labeled_contrast": 0.1 * distance(twin, features[:2], lab.label),
        "unlabeled_contrast": 0.1 * sum(contrast) / 2,
    }
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert found["labeled_contrast"] > 1e-3 and found["unlabeled_contrast"] > 1e-3


def test_the_weight_rises_then_contrast_and_pasting_begin_and_the_memory_is_filled_from_the_half_on(
    make_method: Make, make_batch: Make
) -> None:
    settings = {**EARLY, "warm_up": 0.2, "classmix": 1.0}
    method, batch = make_method("cmb", **settings), make_batch(views=2, cutmix="none")
    filled, cross, contrast, entropy = [], [], [], []
    for step in range(6):  # of 20, in 4 of which w rises; weights stay
        method.step = step
        terms = method.losses(batch)
        filled.append(bool(method.bank.queue.filled.any()))
        cross.append(terms["unlabeled"].item())
        entropy.append(terms["entropy"].item())
        contrast.append(terms["labeled_contrast"].item() > 0 and terms["unlabeled_contrast"].item() > 0)
        method.bank.queue.commit()
    assert filled == [False, False, False, True, True, True]
    assert contrast == [False] * 4 + [True] * 2
    assert [each == entropy[0] for each in entropy] == [True] * 4 + [False] * 2  # views change with what is pasted
    assert [each / cross[3] for each in cross[:3]] == pytest.approx(
        [math.exp(-5 * (1 - t / 4) ** 2 + 5 / 16) for t in range(3)], rel=0.02
    )


def test_the_average_gets_slower_as_the_training_goes_on(make_method: Make) -> None:
    method, seen = make_method("cmb"), []
    for step in (0, 5, 10, 20):
        method.step = step
        seen.append(method.momentum)
    assert seen == pytest.approx([0.995, 1 - 0.005 * (1 + 0.5**0.5) / 2, 0.9975, 1])


def test_teacher_and_projection_follow_at_the_momentum_of_the_step(make_method: Make) -> None:
    method = make_method("cmb", momentum=0.5, dim=8)
    method.step = 10  # half-way from 0.5 to 1; a warm start would still allow 0.909
    pairs = (method.teacher, method.student), (method.teacher_projection, method.student_projection)
    before = [[p.clone() for p in teacher.parameters()] for teacher, _ in pairs]
    with torch.no_grad():
        for parameter in (*method.student.parameters(), *method.student_projection.parameters()):
            parameter.add_(1)
    method.after_step()
    for old, (teacher, student) in zip(before, pairs, strict=True):
        for was, now, towards in zip(old, teacher.parameters(), student.parameters(), strict=True):
            torch.testing.assert_close(now, 0.75 * was + 0.25 * towards.detach())


def test_only_the_teacher_is_no_learner_and_selectors_learn_from_the_contrast_alone(
    trained: Make, make_batch: Make
) -> None:
    method, named = trained(), {}
    terms = method.losses(make_batch(views=2))
    for key, parameter in method.named_parameters():
        named.setdefault(key.split(".")[0], []).append(parameter)
    for term, value in terms.items():
        moved = set()
        for key, parameters in named.items():
            learners = [p for p in parameters if p.requires_grad]
            if learners:
                gradients = torch.autograd.grad(value, learners, retain_graph=True, allow_unused=True)
                moved |= {key} if any(g is not None and g.any() for g in gradients) else set()
        compared = {"student_projection", "prediction", "pixel_selector", "memory_selector"}
        assert moved == ({"student"} | compared if "contrast" in term else {"student"}), term


def test_pixels_that_are_as_remembered_have_no_distance(trained: Make, make_batch: Make) -> None:
    """A consistency that is always 0, or never, would fail here or above."""
    method = trained()
    method.prediction = nn.Identity()
    with torch.no_grad():
        method.student_projection[2].weight.zero_()  # every pixel is projected to the same vector
        method.student_projection[2].bias.copy_(torch.randn(8))
    memory, batch = method.bank.queue, make_batch(views=2)
    memory.rows.copy_(3 * method.student_projection[2].bias.detach().expand_as(memory.rows))
    memory.filled.fill_(5)
    assert method.losses(batch)["labeled_contrast"].item() == pytest.approx(0, abs=1e-6)
    memory.rows.neg_()
    present = [len(set(label[::4, ::4].unique().tolist()) - {IGNORE}) for label in batch.labeled.label]
    assert method.losses(batch)["labeled_contrast"].item() == pytest.approx(0.1 * 2 * sum(present) / 2 / 4)


def test_the_memory_takes_of_the_teachers_projections_those_that_its_own_selector_prefers(
    trained: Make, make_batch: Make
) -> None:
    method, batch = trained(pushed=2), make_batch(7, views=2)
    lab, memory = batch.labeled, method.bank.queue
    memory.filled.zero_()
    memory.place.zero_()
    with torch.no_grad():
        features = method.teacher.features(lab.image)
        said, rows = method.teacher.head(features).argmax(1), method.teacher_projection(features).movedim(1, -1)
    method.losses(batch)
    memory.commit()
    counts = []
    for c in range(4):
        expected = []
        for n in lab.keys.argsort():
            mine = rows[n][(said[n] == c) & (lab.label[n, ::4, ::4] == c)]
            worth = method.memory_selector(mine.expand(4, -1, -1))[c]
            expected += [mine[i] for i in worth.argsort(descending=True)[:2]]
        counts.append(len(expected))
        assert memory.filled[c] == len(expected)
        if expected:
            torch.testing.assert_close(memory.rows[c, : len(expected)], torch.stack(expected))
    assert max(counts) == 4


def test_a_background_has_to_exist(make_method: Make) -> None:
    assert make_method("cmb", background_class=3)
    with pytest.raises(ConfigError, match="background_class=4: there are 4 classes"):
        make_method("cmb", background_class=4)


def test_the_student_is_the_headline(make_method: Make) -> None:
    assert list(make_method("cmb").predictors()) == ["student", "teacher"]
