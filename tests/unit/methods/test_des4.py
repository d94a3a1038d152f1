"""DeS4: which loss reaches what, its equations written out, and every ablation switch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from des4.losses import cross_entropy, reweighted_cross_entropy
from des4.methods.des4 import DeS4
from des4.models.training.ema import warm_momentum
from des4.types import IGNORE, Batch, ConfigError

Make = Callable[..., Any]

ABLATIONS: list[dict[str, Any]] = [
    {"decoupled": False},
    {"shared_head": False},
    {"decoupled": False, "shared_head": False},
    {"pixel_reweighting": False},
    *({"sampling": sampling} for sampling in ("quantity", "confidence", "all")),
    {"shared_head": False, "sampling": "all"},
    {"zones": 1, "alpha": 1.0},
    {"teacher_start": "fresh"},
    {"teacher_encoder_mode": "train"},
    {"teacher_encoder_buffers": "copy"},
    {"teacher_decoder_mode": "eval"},
    {"pseudo_label_mode": "train"},
    {"encoder_warm_start": False},
    {"threshold": 0.3},
    {"unlabeled_ramp_steps": 10},
    {"evaluated": "student"},
    {"model": {"prototype_start": "random"}},
    {"model": {"temperature": 1.0}},
    {"model": {"embedding": "none"}},
    {"model": {"embedding": "linear"}},
]


@pytest.fixture
def make(make_method: Make) -> Callable[..., DeS4]:
    return lambda **settings: make_method("des4", **settings)


def learn(method: DeS4, batch: Batch) -> dict[str, Tensor]:
    """One step of plain SGD."""
    terms = method(batch)
    trainable = [p for p in method.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(torch.stack(list(terms.values())).sum(), trainable)
    with torch.no_grad():
        for parameter, gradient in zip(trainable, gradients, strict=True):
            parameter -= 0.05 * gradient
    method.after_step()
    return {name: term.detach() for name, term in terms.items()}


def up(logits: Tensor) -> Tensor:
    return F.interpolate(logits, size=(33, 33), mode="bilinear", align_corners=True)


def statistics(module: nn.Module) -> list[Tensor]:
    return [b.clone() for name, b in module.named_buffers() if "running" in name]


def equal(one: list[Tensor], two: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


# ── gradients ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("shared_head", [True, False])
def test_each_loss_reaches_its_own_modules(make: Callable[..., DeS4], make_batch: Make, shared_head: bool) -> None:
    method = make(shared_head=shared_head)
    learn(method, make_batch(1))
    names, parameters = zip(*method.named_parameters(), strict=True)
    for p in parameters:
        p.requires_grad_(True)  # the frozen ones too: the cut must hold without `freeze`
    reached = {
        term: {
            ".".join(name.split(".")[:2])
            for name, gradient in zip(
                names, torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True), strict=True
            )
            if gradient is not None
        }
        for term, value in method.losses(make_batch()).items()
    }
    assert reached == {
        "student/labeled": {"student.encoder", "student.decoder"},
        "student/unlabeled": {"student.encoder", "student.decoder"},
        "teacher/labeled": {"teacher.decoder"},
    }
    assert not any(b.requires_grad for b in method.buffers())


# ── the equations, written out ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_the_terms_are_those_of_the_equations(make: Callable[..., DeS4], make_batch: Make, threshold: float) -> None:
    method, batch = make(labeled_weight=0.7, unlabeled_weight=2.0, threshold=threshold), make_batch()
    learn(method, make_batch(1))
    twin = copy.deepcopy(method)
    found = method.losses(batch)

    lab, un = batch.labeled, batch.unlabeled
    (strong,) = un.strong
    boxes = strong.mix
    teacher, student = twin.teacher, twin.student
    with torch.no_grad():
        confidence, pseudo = up(teacher.eval()(un.weak)).softmax(1).max(1)
        maps = teacher.encode(lab.image)
    keep = boxes((confidence >= threshold) & un.valid)
    valid = boxes(un.valid)
    assert 0 < keep.sum() <= valid.sum()
    assert threshold == 0 or keep.sum() < valid.sum()
    logits = up(student.train()(torch.cat([lab.image, strong.mixed])))
    teacher.decoder.train()
    logits_t = up(teacher.head(teacher.decoder(maps)))

    where = lab.label != IGNORE
    weight = (1 - logits_t.softmax(1).amax(1)).square() * where
    weight = weight / weight.sum((1, 2), keepdim=True)
    loss_t = F.cross_entropy(logits_t, lab.label, ignore_index=IGNORE, reduction="none")
    loss_u = F.cross_entropy(logits[2:], boxes(pseudo), reduction="none")
    expected = {
        "student/labeled": 0.7 * F.cross_entropy(logits[:2], lab.label, ignore_index=IGNORE),
        "student/unlabeled": 2.0 * (loss_u * keep).sum() / valid.sum(),
        "teacher/labeled": (weight * loss_t).sum((1, 2)).mean(),
    }
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


def test_losses_read_the_prototypes_as_they_were(make: Callable[..., DeS4], make_batch: Make) -> None:
    method = make()
    head, before = method.student.head, method.student.head.prototypes.clone()
    method.losses(make_batch())
    assert torch.equal(head.prototypes, before)
    method.after_step()
    assert not torch.equal(head.prototypes, before)
    torch.testing.assert_close(head.prototypes.norm(dim=1), torch.ones(4))


@pytest.mark.parametrize("shared_head", [True, False])
def test_prototypes_start_at_the_means_of_labeled_features(
    make: Callable[..., DeS4], make_batch: Make, shared_head: bool
) -> None:
    """Shared ones at those of the teacher's; else each network's at those of its own."""
    method, batch = make(sampling="all", shared_head=shared_head), make_batch()
    twin = copy.deepcopy(method)
    method.losses(batch)
    method.after_step()
    with torch.no_grad():
        maps = twin.teacher.eval().encode(batch.labeled.image)
        twin.teacher.decoder.train()
        taught = twin.teacher.decoder(maps)
        own = twin.student.features(torch.cat([batch.labeled.image, batch.unlabeled.strong[0].mixed]))[:2]
    label = batch.labeled.label[:, ::4, ::4]
    for network, features in ((method.teacher, taught), (method.student, taught if shared_head else own)):
        unit = F.normalize(features, dim=1).movedim(1, -1)
        for c in range(4):
            expected = F.normalize(unit[label == c].mean(0), dim=0)
            torch.testing.assert_close(network.head.prototypes[c], expected, atol=1e-5, rtol=1e-4)


# ── ablations ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("settings", ABLATIONS, ids=str)
def test_two_steps_are_finite(make: Callable[..., DeS4], make_batch: Make, settings: dict[str, Any]) -> None:
    method = make(**settings)
    for seed in range(2):
        assert all(term.isfinite() for term in learn(method, make_batch(seed)).values())
    assert all(value.isfinite().all() for value in method.state_dict().values())


def test_without_decoupling_the_whole_teacher_follows(make: Callable[..., DeS4], make_batch: Make) -> None:
    method = make(decoupled=False)
    assert not any(p.requires_grad for p in method.teacher.parameters())
    learn(method, make_batch(1))
    before = {key: value.clone() for key, value in method.teacher.state_dict().items()}
    terms = learn(method, make_batch())
    assert set(terms) == {"student/labeled", "student/unlabeled"}
    momentum, student = warm_momentum(0.99, 1), method.student.state_dict()
    for key, value in method.teacher.state_dict().items():
        if not key.startswith("head"):
            average = before[key].lerp(student[key], 1 - momentum) if value.is_floating_point() else student[key]
            assert torch.equal(value, average), key


def test_with_decoupling_the_teachers_decoder_goes_its_own_way(make: Callable[..., DeS4], make_batch: Make) -> None:
    method = make()
    learn(method, make_batch(1))  # the decoder is no copy of the student's any more
    before = [p.clone() for p in method.teacher.decoder.parameters()]
    assert not equal(before, list(method.student.decoder.parameters()))
    method.losses(make_batch())
    method.after_step()  # no optimiser step: nothing may move the decoder
    assert equal(before, list(method.teacher.decoder.parameters()))


def test_one_head_or_two(make: Callable[..., DeS4], make_batch: Make) -> None:
    shared, apart = make(), make(shared_head=False)
    assert shared.teacher.head is shared.student.head
    assert apart.teacher.head is not apart.student.head
    assert torch.equal(apart.teacher.head.prototypes, apart.student.head.prototypes)
    for method in (shared, apart):
        learn(method, make_batch())
        learn(method, make_batch(1))
    assert torch.equal(shared.teacher.head.prototypes, shared.student.head.prototypes)
    assert not torch.allclose(apart.teacher.head.prototypes, apart.student.head.prototypes, atol=1e-4)
    assert apart.student.head.seen.all()


def test_pixel_reweighting_is_the_only_difference_to_plain_cross_entropy(
    make: Callable[..., DeS4], make_batch: Make
) -> None:
    batch, label = make_batch(), make_batch().labeled.label
    for reweighted, loss in ((False, cross_entropy), (True, reweighted_cross_entropy)):
        method = make(pixel_reweighting=reweighted)
        twin = copy.deepcopy(method)
        found = method.losses(batch)["teacher/labeled"]
        maps = twin.teacher.eval().encode(batch.labeled.image)
        twin.teacher.decoder.train()
        torch.testing.assert_close(found, loss(twin.teacher.head(twin.teacher.decoder(maps)), label))


def test_samplings_move_the_prototypes_differently(make: Callable[..., DeS4], make_batch: Make) -> None:
    prototypes = []
    for sampling in ("multi_entropy", "quantity", "confidence", "all"):
        method = make(sampling=sampling)
        learn(method, make_batch())
        prototypes.append(method.teacher.head.prototypes)
    assert not any(torch.equal(one, two) for i, one in enumerate(prototypes) for two in prototypes[:i])


@pytest.mark.parametrize("start", ["copy", "fresh"])
def test_teacher_start(make: Callable[..., DeS4], start: str) -> None:
    method = make(teacher_start=start)
    assert equal(list(method.teacher.encoder.state_dict().values()), list(method.student.encoder.state_dict().values()))
    decoders = (list(segmenter.decoder.parameters()) for segmenter in (method.teacher, method.student))
    assert equal(*decoders) == (start == "copy")


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_teacher_encoder_mode(make: Callable[..., DeS4], make_batch: Make, mode: str) -> None:
    method = make(teacher_encoder_mode=mode)
    before = statistics(method.teacher.encoder)
    method.losses(make_batch())
    assert equal(before, statistics(method.teacher.encoder)) == (mode == "eval")


@pytest.mark.parametrize("loss_mode", ["train", "eval"])
@pytest.mark.parametrize("pseudo_mode", ["train", "eval"])
def test_teacher_decoder_modes(make: Callable[..., DeS4], make_batch: Make, loss_mode: str, pseudo_mode: str) -> None:
    method = make(teacher_decoder_mode=loss_mode, pseudo_label_mode=pseudo_mode)
    method.losses(make_batch())
    norm = next(m for m in method.teacher.decoder.modules() if isinstance(m, nn.BatchNorm2d))
    assert norm.num_batches_tracked == (loss_mode == "train") + (pseudo_mode == "train")


def test_teacher_encoder_buffers(make: Callable[..., DeS4], make_batch: Make) -> None:
    copied, averaged = make(teacher_encoder_buffers="copy"), make()
    for method in (copied, averaged):
        for seed in range(2):
            learn(method, make_batch(seed))
    assert equal(statistics(copied.teacher.encoder), statistics(copied.student.encoder))
    assert not equal(statistics(averaged.teacher.encoder), statistics(averaged.student.encoder))


@pytest.mark.parametrize("warm", [True, False])
def test_encoder_warm_start(make: Callable[..., DeS4], make_batch: Make, warm: bool) -> None:
    method = make(encoder_warm_start=warm)
    before = next(method.teacher.encoder.parameters()).clone()
    learn(method, make_batch())
    student, teacher = (next(s.encoder.parameters()) for s in (method.student, method.teacher))
    torch.testing.assert_close(teacher, student if warm else 0.99 * before + 0.01 * student)
    assert not torch.equal(teacher, before)


def test_a_threshold_of_one_keeps_no_pseudo_label(make: Callable[..., DeS4], make_batch: Make) -> None:
    terms = make(threshold=1.0).losses(make_batch())
    assert terms["student/unlabeled"] == 0
    assert terms["student/labeled"] > 0


def test_weights_scale_their_terms(make: Callable[..., DeS4], make_batch: Make) -> None:
    plain = make().losses(make_batch())
    scaled = make(labeled_weight=3.0, unlabeled_weight=0.75).losses(make_batch())
    factors = {name: (scaled[name] / plain[name]).item() for name in plain}
    assert factors == pytest.approx({"student/labeled": 3, "student/unlabeled": 0.5, "teacher/labeled": 1})


def test_the_ramp_raises_the_unlabeled_term_alone(make: Callable[..., DeS4], make_batch: Make) -> None:
    plain = make().losses(make_batch())
    for step, share in ((0, 0.0), (3, 0.75), (4, 1.0), (9, 1.0)):
        method = make(unlabeled_ramp_steps=4)
        method.step = step
        terms = method.losses(make_batch())
        assert terms["student/unlabeled"].item() == pytest.approx(share * plain["student/unlabeled"].item())
        assert all(torch.equal(terms[name], plain[name]) for name in ("student/labeled", "teacher/labeled"))


def test_a_random_start_moves_by_one_percent(make: Callable[..., DeS4], make_batch: Make) -> None:
    moved = {}
    for start in ("first_seen", "random"):
        method = make(model={"prototype_start": start})
        before = method.student.head.prototypes.clone()
        learn(method, make_batch())
        moved[start] = (method.student.head.prototypes - before).norm(dim=1).max()
    assert moved["random"] < 0.025 < moved["first_seen"]


def test_the_evaluated_model_comes_first(make: Callable[..., DeS4]) -> None:
    assert list(make(evaluated="student").predictors()) == ["student", "teacher"]


def test_stats_tell_confidence_and_spread(make: Callable[..., DeS4], make_batch: Make) -> None:
    method = make()
    learn(method, make_batch())
    stats = method.stats()
    assert 0.25 <= stats["confidence"] <= 1
    cosines = method.teacher.head.prototypes @ method.teacher.head.prototypes.T
    expected = (cosines.sum() - cosines.diagonal().sum()) / 12
    torch.testing.assert_close(stats["prototype_cosine"], expected)


def test_a_linear_classifier_is_refused(make: Callable[..., DeS4]) -> None:
    with pytest.raises(ConfigError, match=r"model\.head: des4 classifies by prototypes"):
        make(model={"head": "linear"})
