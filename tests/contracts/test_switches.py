"""Switches of any method: an auxiliary head, chosen pixels for prototypes, a decoder of the teacher's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from eager import eager, optimiser_of
from torch import Tensor

from des4.config import load_config
from des4.engine import OptimConfig, TrainStep, build_optimiser
from des4.engine.checkpoint import optimiser_state, restore_optimiser
from des4.engine.cost import step_cost
from des4.losses import reweighted_cross_entropy
from des4.methods import METHODS, Method
from des4.methods.bases import TeacherStudent
from des4.models import PrototypeClassifier, PrototypeFeed, compile_networks
from des4.models.training.ema import warm_momentum
from des4.ops.sampling import multi_entropy_sample
from des4.types import Batch, ConfigError, Labeled

Make = Callable[..., Any]

AUXILIARY = {"auxiliary_weight": 0.4}
TEACHERS = [name for name, cls in METHODS.items() if issubclass(cls, TeacherStudent)]
DECOUPLED = [name for name in TEACHERS if not METHODS[name].NOT_DECOUPLED]  # type: ignore[attr-defined]


def snapshot(method: Method) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in method.state_dict().items()}


def learn(method: Method, batch: Batch) -> dict[str, Tensor]:
    optimiser = optimiser_of(method)
    terms = method(batch)
    torch.stack(list(terms.values())).sum().backward()
    optimiser.step()
    optimiser.zero_grad()
    method.after_step()
    return {name: term.detach() for name, term in terms.items()}


# ── auxiliary heads ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_the_switch_there_is_no_head(make_method: Make) -> None:
    method = make_method("cps")
    assert len(method.auxiliary_heads) == 0
    assert not method.student.encoder.yields_side


@pytest.mark.parametrize("name", METHODS)
def test_an_auxiliary_head_is_a_part_of_the_loss_on_labels(name: str, make_method: Make, make_batch: Make) -> None:
    plain, method = make_method(name, **eager(name)), make_method(name, supervision=AUXILIARY, **eager(name))
    heads = method.auxiliary_heads
    assert list(heads) == list(method.learners)
    own = {key for key in snapshot(method) if key.startswith("auxiliary_heads.")}
    assert own == snapshot(method).keys() - snapshot(plain).keys()
    assert {f"auxiliary_heads.{key}" for key in heads} < method.networks().keys()
    batch, supervised, supervise = make_batch(), [], method.supervise

    def noted(logits: Tensor, labeled: Labeled, side: Tensor | None = None, *learner: str) -> Tensor:
        supervised.append((loss := supervise(logits, labeled, side, *learner)) * (side is not None))
        return loss

    method.supervise = noted
    before, found, stats = plain(batch), method(batch), method.stats()
    taught = {key for key in found if not torch.equal(found[key], before[key])}
    assert taught == {key for key in found if key.split("/")[-1] in ("labeled", "labels")} & taught
    share = sum(found[key].item() for key in taught) / sum(supervised).item()  # of what is supervised, in the loss
    gained = sum((found[key] - before[key]).item() for key in taught)
    added = sum(stats[f"{key}_auxiliary"].item() for key in heads)
    assert gained == pytest.approx(0.4 * share * added, rel=1e-4)
    parameters = {key: p for key, p in method.named_parameters() if key.startswith("auxiliary_heads.")}
    for term, value in ((term, value) for term, value in found.items() if value.requires_grad):
        gradients = torch.autograd.grad(value, list(parameters.values()), retain_graph=True, allow_unused=True)
        assert any(g is not None and g.any() for g in gradients) == (term in taught), term
    torch.stack(list(found.values())).sum().backward()
    assert [key for key, p in parameters.items() if p.grad is None or not p.grad.any()] == []
    for key, segmenter in method.predictors().items():  # heads are made last: all else starts as without them
        states = segmenter.state_dict(), plain.predictors()[key].state_dict()
        assert states[0].keys() == states[1].keys()
        trained = zip(*(state.items() for state in states), strict=True)
        assert all(torch.equal(one, two) for (_, one), (_, two) in trained)

    def said(batch: Batch) -> list[float]:
        method.losses(batch)
        return [method.stats()[f"{key}_auxiliary"].item() for key in heads]

    method.eval()
    both, rest = said(batch), batch.unlabeled
    strong = tuple(dataclasses.replace(view, image=view.image.flip(1)) for view in rest.strong)
    other = dataclasses.replace(rest, weak=rest.weak.flip(1), strong=strong)
    assert said(Batch(batch.labeled, other)) == pytest.approx(both, rel=1e-5)  # it reads labeled images alone
    darker = dataclasses.replace(
        batch.labeled, image=batch.labeled.image / 2, recoloured=tuple(v / 2 for v in batch.labeled.recoloured)
    )
    assert all(one != two for one, two in zip(said(Batch(darker, rest)), both, strict=True))


@pytest.mark.parametrize("encoder", ["test_efficientnet", "test_resnet", "test_vit"])
def test_its_gradient_ends_at_the_stage_before_last(encoder: str, make_method: Make, make_batch: Make) -> None:
    method = make_method("supervised", model={"encoder": encoder}, supervision=AUXILIARY)
    labeled = make_batch(size=49).labeled
    features, side = method.student.features_with_side(labeled.image)
    assert side.shape[:2] == (2, method.student.encoder.side_channels)
    method.supervise(method.student.head(features).detach(), labeled, side).backward()
    reached = {key for key, p in method.named_parameters() if p.grad is not None and p.grad.any()}
    parts = {key.split(".")[0 if key.startswith("aux") else 1] for key in reached}
    assert parts == {"encoder", "auxiliary_heads"}
    inside = {key for key, _ in method.named_parameters() if ".encoder." in key}
    assert reached & inside < inside  # the last stage learns nothing from it


def test_channels_are_dropped_by_the_keys_while_it_trains(make_method: Make, make_batch: Make) -> None:
    method, batch = make_method("supervised", supervision=AUXILIARY), make_batch()
    head, side = method.auxiliary_heads["student"], torch.rand(2, method.student.encoder.side_channels, 3, 3)
    first = head(side, batch.labeled.keys)
    assert torch.equal(head(side, batch.labeled.keys), first)
    assert not torch.equal(head(side, batch.labeled.keys + 1), first)
    head.eval()
    assert torch.equal(head(side, batch.labeled.keys), head(side, batch.labeled.keys + 1))


def test_it_is_counted_and_moves_at_the_rate_of_decoders(make_method: Make, make_batch: Make) -> None:
    batch = make_batch()
    plain, method = (make_method("supervised", supervision=supervision) for supervision in ({}, AUXILIARY))
    less, more = step_cost(plain, batch), step_cost(method, batch)
    assert less.flops.forward < more.flops.forward < 1.3 * less.flops.forward
    optimiser = build_optimiser(method, OptimConfig(lr=0.1, decoder_lr_multiplier=3), 2)
    rates = {name: group["lr"] for group in optimiser.param_groups for name in group["param_names"]}
    assert {round(rate, 6) for name, rate in rates.items() if "auxiliary" in name} == {0.3}


def test_it_reads_a_compiled_encoder(make_method: Make, make_batch: Make) -> None:
    method, batch = make_method("supervised", model={"encoder": "test_vit"}, supervision=AUXILIARY), make_batch(size=49)
    state = snapshot(method)
    terms = method(batch)
    method.load_state_dict(state)
    compile_networks(method.student, "eager")
    for name, term in method(batch).items():
        torch.testing.assert_close(term, terms[name])


# ── which pixels move prototypes ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["supervised", "cps", "mean_teacher", "ucc", "des4", "des4_committee"])
def test_which_pixels_are_chosen_decides_where_prototypes_go(name: str, make_method: Make, make_batch: Make) -> None:
    moved = []
    for sampling in ("all", "multi_entropy"):
        method = make_method(name, model={"head": "prototype"}, sampling=sampling, zones=3, **eager(name))
        method(make_batch())
        method.after_step()
        feeds = [module for module in method.modules() if isinstance(module, PrototypeFeed)]
        assert {(feed.sampling, feed.zones) for feed in feeds} == {(sampling, 3)}
        heads = [module for module in method.modules() if isinstance(module, PrototypeClassifier)]
        moved.append([head.prototypes for head in heads if head.seen.all()])
    assert len(moved[0]) == len(moved[1]) >= len(method.learners)
    assert not any(torch.allclose(one, two, atol=1e-6) for one, two in zip(*moved, strict=True))


@pytest.mark.parametrize("name", ["supervised", "cps", "mean_teacher"])
def test_a_linear_classifier_has_no_pixels_to_choose(name: str, make_method: Make) -> None:
    with pytest.raises(ConfigError, match=r"method\.sampling=quantity .* set model\.head=prototype"):
        make_method(name, sampling="quantity")


# ── a teacher's decoder of its own ───────────────────────────────────────────────────────────────────────────────────


def test_methods_that_decouple() -> None:
    assert DECOUPLED == ["mean_teacher", "cutmixseg", "augseg", "unimatch_v2", "vat", "ael"]


@pytest.mark.parametrize("head", ["linear", "prototype"])
@pytest.mark.parametrize("name", DECOUPLED)
def test_a_decoupled_decoder_learns_from_labels_alone(
    name: str, head: str, make_method: Make, make_batch: Make
) -> None:
    plain, method = (
        make_method(name, model={"head": head}, teacher_decoder=decoder, **eager(name))
        for decoder in ("ema", "decoupled")
    )
    assert snapshot(plain).keys() == snapshot(method).keys()
    first, before = plain(make_batch(1)), learn(method, make_batch(1))
    assert {key for key in before if key not in first} == {"teacher/labeled"}
    assert all(torch.equal(before[key], first[key]) for key in first)  # both begin as copies

    teacher, batch = method.teacher, make_batch()
    assert not any(module.training for module in teacher.modules())
    with torch.no_grad():
        maps = teacher.encode(batch.labeled.image)
    state = snapshot(method)
    teacher.decoder.train()
    expected = reweighted_cross_entropy(teacher.head(teacher.decoder(maps)), batch.labeled.label)
    teacher.decoder.eval()
    method.load_state_dict(state)
    terms = method(batch)
    torch.testing.assert_close(terms["teacher/labeled"], expected)
    named = dict(method.named_parameters())
    for p in named.values():
        p.requires_grad_(True)  # the frozen ones too: the cut must hold without it
    for term, value in method(batch).items():
        gradients = torch.autograd.grad(value, list(named.values()), retain_graph=True, allow_unused=True)
        reached = {".".join(key.split(".")[:2]) for key, g in zip(named, gradients, strict=True) if g is not None}
        own = {"teacher.decoder"} | ({"teacher.head"} if head == "linear" else set())
        if term == "teacher/labeled":
            assert reached == own
        else:
            assert not {part for part in reached if part.startswith("teacher")}, term


@pytest.mark.parametrize("name", DECOUPLED)
def test_the_encoder_of_a_decoupled_teacher_follows_and_the_rest_does_not(
    name: str, make_method: Make, make_batch: Make
) -> None:
    method = make_method(name, model={"head": "prototype"}, teacher_decoder="decoupled", **eager(name))
    learn(method, make_batch(1))
    method(make_batch())
    before, student = snapshot(method), snapshot(method)
    momentum = warm_momentum(method.momentum, method.step)
    method.after_step()  # without a step of the optimiser
    after = snapshot(method)
    for key in (key for key in before if key.startswith("teacher.")):
        part = key.split(".")[1]
        if part == "encoder":
            towards = student["student" + key.removeprefix("teacher")]
            average = before[key].lerp(towards, 1 - momentum) if towards.is_floating_point() else towards
            torch.testing.assert_close(after[key], average)
        elif part == "decoder":
            assert torch.equal(after[key], before[key])
    assert not torch.equal(after["teacher.head.prototypes"], before["teacher.head.prototypes"])
    assert not torch.allclose(after["teacher.head.prototypes"], after["student.head.prototypes"], atol=1e-4)


@pytest.mark.parametrize("name", [name for name in TEACHERS if name not in DECOUPLED])
def test_teachers_that_have_to_follow_say_why(name: str, make_method: Make) -> None:
    with pytest.raises(ConfigError, match=rf"^method\.teacher_decoder=decoupled: .*{name}.*; leave it at ema$"):
        make_method(name, teacher_decoder="decoupled")


def test_a_method_without_such_a_teacher_refuses_the_key() -> None:
    settings = {"method": "fixmatch", "data": "scenes", "train.steps": 1, "method.teacher_decoder": "decoupled"}
    with pytest.raises(ConfigError, match=r"^method\.teacher_decoder: not a setting of fixmatch$"):
        load_config(settings)


# ── all of them together ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", METHODS)
def test_with_all_switches_any_method_takes_steps_in_parts_and_resumes_to_the_bit(
    name: str, make_method: Make, make_batch: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**eager(name), "sampling": "multi_entropy"} | (
        {"teacher_decoder": "decoupled"} if name in DECOUPLED else {}
    )
    drawn = []

    def draw(*given: Any, **named: Any) -> Tensor:
        drawn.append(multi_entropy_sample(*given, **named))
        return drawn[-1]

    monkeypatch.setattr("des4.models.memory.prototype_feed.multi_entropy_sample", draw)

    def made(seed: int) -> tuple[Method, TrainStep]:
        method = make_method(name, seed=seed, model={"head": "prototype"}, supervision=AUXILIARY, **settings)
        method.setting = replace(method.setting, seed=0)
        optimiser = build_optimiser(method, OptimConfig(lr=1e-3), 4)
        return method, TrainStep(method, optimiser, torch.device("cpu"), parts=2)

    method, step = made(0)
    step(make_batch(0, images=4, group=2))
    moments, numbers = optimiser_state(step.optimiser)
    kept, moments = snapshot(method), {key: value.clone() for key, value in moments.items()}
    assert len(drawn) >= 2 * len(method.learners)
    assert all(0 < mask.sum() < mask.numel() for mask in drawn)
    terms = step(make_batch(1, images=4, group=2)).terms
    assert all(term.isfinite() for term in terms.values())

    resumed, again = made(7)
    resumed.load_state_dict(kept)
    restore_optimiser(again.optimiser, moments, numbers)
    again(make_batch(1, images=4, group=2))
    after = snapshot(method)
    assert [key for key, value in snapshot(resumed).items() if not torch.equal(value, after[key])] == []
