"""What the engine's step promises of every method: no waiting, nothing not finite, and the same loss in parts."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from eager import eager
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from des4.engine import OptimConfig, TrainStep, build_optimiser
from des4.engine.checkpoint import optimiser_state, restore_optimiser
from des4.engine.parts import parts_from, possible_parts, split
from des4.methods import METHODS, Method
from des4.models import Memory, PrototypeClassifier, norm_statistics
from des4.types import IGNORE, Batch, RunError

CPU = torch.device("cpu")
NAMES = list(METHODS)
OPTIMISERS = {"sgd": OptimConfig(lr=0.003, clip=1.0), "adamw": OptimConfig(name="adamw", lr=1e-4)}

Make = Callable[..., Any]


def step_of(method: Method, optim: str = "sgd", **options: Any) -> TrainStep:
    return TrainStep(method, build_optimiser(method, OPTIMISERS[optim], 4), CPU, clip=OPTIMISERS[optim].clip, **options)


def state_of(step: TrainStep) -> dict[str, Tensor]:
    """Everything that a checkpoint would hold."""
    moments = step.optimiser.state_dict()["state"]
    tensors = {f"{i}/{key}": value for i, state in moments.items() for key, value in state.items()}
    return {name: value.clone() for name, value in {**step.method.state_dict(), **tensors}.items()}


def differing(one: dict[str, Tensor], two: dict[str, Tensor]) -> list[str]:
    assert one.keys() == two.keys()
    return [name for name in one if not torch.equal(one[name], two[name])]


# ── waiting ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Waits(TorchDispatchMode):
    """Counts the operations whose result, or its size, the host would have to wait for on a GPU."""

    NAMES = ("_local_scalar_dense", "item", "nonzero", "masked_select", "equal", "unique", "bincount", "is_nonzero")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        masked = name in ("index", "index_put_", "index_put") and any(
            isinstance(i, Tensor) and i.dtype == torch.bool for i in args[1]
        )
        if masked or name.lstrip("_") in [n.lstrip("_") for n in self.NAMES] or name.startswith("unique"):
            self.seen.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("precision", "optim"),
    [("fp32", "sgd"), ("fp32", "adamw"), ("fp16", "sgd"), ("bf16", "sgd")],  # both in fp16: test_fake_gpu.py
)
@pytest.mark.parametrize("name", NAMES)
def test_a_step_waits_for_nothing_unless_its_method_says_so(
    name: str, precision: Any, optim: str, make_method: Make, make_batch: Make
) -> None:
    step = step_of(make_method(name, **eager(name)), optim, precision=precision, parts=2)
    batch = make_batch(images=4, group=2)
    step(batch)
    with Waits() as waits:
        step(batch)
    assert bool(waits.seen) == METHODS[name].WAITS, waits.seen


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", NAMES)
def test_every_trained_weight_gets_its_gradient(name: str, precision: Any, make_method: Make, make_batch: Make) -> None:
    """Also where a pass without gradients has used it before in the same step."""
    step = step_of(make_method(name, **eager(name)), precision=precision)
    step.gradients(make_batch(images=4, group=2))
    assert [name for name, parameter in step.own.items() if parameter.grad is None] == []


def test_waiting_is_noticed() -> None:
    """So the test above can fail."""
    with Waits() as waits:
        values = torch.arange(3.0)
        assert values[values > 1].sum().item() == 2
        assert bool(values.any())
    assert len(waits.seen) == 3


# ── what is not finite ───────────────────────────────────────────────────────────────────────────────────────────────


def poisoned(batch: Batch, view: str, value: float) -> Batch:
    """The batch with one bad row in one of its images; a bad pixel alone could be pasted over."""

    def poison(image: Tensor) -> Tensor:
        image = image.clone()
        image[0, :, 16] = value
        return image

    if view == "labeled":
        return dataclasses.replace(batch, labeled=dataclasses.replace(batch.labeled, image=poison(batch.labeled.image)))
    assert batch.unlabeled
    if view == "weak":
        unlabeled = dataclasses.replace(batch.unlabeled, weak=poison(batch.unlabeled.weak))
    else:
        first, *rest = batch.unlabeled.strong
        strong = (dataclasses.replace(first, image=poison(first.image)), *rest)
        unlabeled = dataclasses.replace(batch.unlabeled, strong=strong)
    return dataclasses.replace(batch, unlabeled=unlabeled)


@pytest.mark.parametrize("optim", OPTIMISERS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("view", ["labeled", "weak", "strong"])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_finite_reaches_nothing(
    name: str, view: str, value: float, optim: str, make_method: Make, make_batch: Make
) -> None:
    method = make_method(name, **eager(name))
    step = step_of(method, optim)
    step(make_batch(1))
    method.step += max((0, *method.restarts))  # to the part that reads every view
    before = state_of(step)
    batch = poisoned(make_batch(), view, value)
    outcome = step(batch)
    after = state_of(step)
    assert [key for key, tensor in after.items() if not tensor.isfinite().all()] == []
    read = view == "labeled" or METHODS[name].VIEWS.reads_unlabeled
    # pseudo-labels of a bad view have no confidence; a step without them is as good as any
    assert outcome.skipped == read or view == "weak"
    if outcome.skipped:
        averages = tuple(f"{frozen}." for frozen in method.FROZEN)  # they follow what stayed
        moved = [key for key in differing(before, after) if key != "_extra_state"]
        assert [key for key in moved if not averages or not key.startswith(averages)] == []
    assert step(make_batch(2)).skipped == 0
    assert differing(after, state_of(step))


@pytest.mark.parametrize("head", ["linear", "prototype"])
@pytest.mark.parametrize("name", NAMES)
def test_a_step_moves_no_buffer_that_nobody_answers_for(
    name: str, head: str, make_method: Make, make_batch: Make
) -> None:
    """What could have to be put back are statistics of norms and memories; averages follow these."""
    if (name, head) == ("des4", "linear"):
        return
    method = make_method(name, model={"head": head}, **eager(name))
    step = step_of(method)
    before = {key: buffer.clone() for key, buffer in method.named_buffers()}
    step(make_batch())
    moved = [key for key, buffer in method.named_buffers() if not torch.equal(before[key], buffer)]
    assert moved
    for key in moved:
        owner = method.get_submodule(key.rpartition(".")[0])
        statistic = any(buffer is method.get_buffer(key) for buffer in norm_statistics(method))
        average = key.startswith(tuple(f"{frozen}." for frozen in method.FROZEN)) if method.FROZEN else False
        assert statistic or average or isinstance(owner, Memory | PrototypeClassifier), key


def test_a_step_copies_statistics_of_norms_alone(make_method: Make) -> None:
    method = make_method("fixmatch", model={"head": "prototype"})
    method.feed.register_buffer("queue", torch.zeros(1_000_000))
    copied = sum(one.nbytes for tensors in step_of(method)._statistics._before.values() for one in tensors)
    assert copied == sum(buffer.nbytes for buffer in norm_statistics(method)) < 100_000


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_statistics_that_no_loss_tells_of_are_noticed(value: float, make_method: Make, make_batch: Make) -> None:
    """A teacher in train mode sees a bad weak view; its labels have no confidence, and the loss is finite."""
    method = make_method("des4", pseudo_label_mode="train")
    step = step_of(method)
    step(make_batch(1))
    outcome = step(poisoned(make_batch(), "weak", value))
    assert all(term.isfinite() for term in outcome.terms.values())
    assert outcome.skipped == 1
    assert all(tensor.isfinite().all() for tensor in state_of(step).values())


@pytest.mark.parametrize("name", NAMES)
def test_a_bad_gradient_alone_is_noticed(name: str, make_method: Make, make_batch: Make) -> None:
    method = make_method(name, **eager(name))
    step = step_of(method)
    parameter = next(p for p in method.parameters() if p.requires_grad)
    handle = parameter.register_hook(lambda gradient: gradient * torch.inf)
    before = parameter.clone()
    assert step(make_batch()).skipped == 1
    assert torch.equal(before, parameter)
    handle.remove()
    assert step(make_batch()).skipped == 0


# ── resuming ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("optim", OPTIMISERS)
def test_moments_lie_in_memory_as_the_weights_do(optim: str, make_method: Make, make_batch: Make) -> None:
    """Fused optimisers go through memory; a file gives tensors in one layout, networks are channels last."""
    whole, halves = (step_of(make_method("supervised"), optim) for _ in range(2))
    for m in range(2):
        whole(make_batch(m))
        halves(make_batch(m))
    tensors, numbers = optimiser_state(halves.optimiser)
    stored = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    assert any(stored[name].stride() != tensor.stride() for name, tensor in tensors.items())
    resumed = step_of(halves.method, optim)
    restore_optimiser(resumed.optimiser, stored, numbers)
    for m in range(2, 4):
        whole(make_batch(m))
        resumed(make_batch(m))
    assert differing(state_of(whole), state_of(resumed)) == []


# ── parts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("supervision", [{}, {"logit_adjustment": 1.0, "class_weighting": 0.5, "focal_gamma": 2.0}])
@pytest.mark.parametrize("name", NAMES)
def test_the_loss_in_parts_is_that_of_the_whole(
    name: str, supervision: dict[str, float], parts: int, make_method: Make, make_batch: Make
) -> None:
    """In eval mode, as BatchNorm would see other batches; with labels and padding spread unevenly over the parts."""
    method = make_method(name, supervision=supervision, **eager(name)).eval()
    batch = make_batch(images=8, group=2)
    batch.labeled.label[:3, 10:] = IGNORE
    batch.unlabeled.valid[5:, :20] = False
    found, gradients = [], []
    for pieces in ([batch], split(batch, 1), split(batch, parts)):
        method.zero_grad()
        sums: dict[str, Tensor] = {}
        for piece in pieces:
            terms = {key: term / len(pieces) for key, term in method(piece).items()}
            torch.stack(list(terms.values())).sum().backward()
            sums = {key: sums.get(key, 0) + term.detach() for key, term in terms.items()}
        method.discard()
        found.append(sums)
        gradients.append({key: p.grad.clone() for key, p in method.named_parameters() if p.grad is not None})
    for terms, gradient in zip(found[1:], gradients[1:], strict=True):
        torch.testing.assert_close(terms, found[0], atol=1e-6, rtol=1e-5)
        largest = max(each.abs().max().item() for each in gradients[0].values())
        torch.testing.assert_close(gradient, gradients[0], atol=1e-6 * max(1.0, largest), rtol=1e-4)


@pytest.mark.parametrize("parts", [2, 4])
def test_a_step_in_parts_leaves_the_gradient_of_the_whole(parts: int, make_method: Make, make_batch: Make) -> None:
    """The weights would not tell: a factor before a gradient is nothing to a clipped one, nor to AdamW."""
    batch, found = make_batch(images=8, group=2), []
    for number in (1, parts):
        step = step_of(make_method("mean_teacher").eval(), parts=number)
        terms = step.gradients(batch)
        found.append((terms, {name: parameter.grad for name, parameter in step.own.items()}))
    (terms, gradient), (whole_terms, whole_gradient) = found[1], found[0]
    torch.testing.assert_close(terms, whole_terms, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(gradient, whole_gradient, atol=1e-5, rtol=1e-4)


def test_a_cut_goes_between_groups(make_batch: Make) -> None:
    batch = make_batch(images=8, group=2)
    assert possible_parts(batch) == [1, 2, 4]
    assert possible_parts(make_batch(images=6)) == [1]
    labeled_alone = Batch(make_batch(images=6).labeled)
    assert possible_parts(labeled_alone) == [1, 2, 3, 6]
    assert [parts_from(labeled_alone, fewest) for fewest in (1, 4, 6, 7)] == [1, 6, 6, 6]
    assert split(labeled_alone, 2)[1].unlabeled is None
    pieces = split(batch, 4)
    assert all(piece.unlabeled.strong[0].mix.partner.tolist() == [1, 0] for piece in pieces)
    assert torch.equal(torch.cat([p.unlabeled.strong[0].mix.box for p in pieces]), batch.unlabeled.strong[0].mix.box)
    for samples in ("labeled", "unlabeled"):
        assert torch.equal(torch.cat([getattr(p, samples).keys for p in pieces]), getattr(batch, samples).keys)


def test_pixels_are_counted_as_they_are_mixed(make_batch: Make) -> None:
    batch = make_batch(images=4, group=2, views=2)
    batch.unlabeled.valid[:2, :20] = False
    one, two = split(batch, 2)
    un = batch.unlabeled
    assert one.labeled.pixels == two.labeled.pixels == batch.labeled.valid.sum() / 2
    assert one.unlabeled.pixels == two.unlabeled.pixels == un.valid.sum() / 2
    counts = [view.mix(un.valid).sum() / 2 for view in un.strong]
    assert counts[0] != counts[1]
    for part in (one, two):
        assert [view.pixels for view in part.unlabeled.strong] == counts


def test_parts_without_any_pixel_give_0(make_method: Make, make_batch: Make) -> None:
    batch = make_batch(images=4, group=2)
    batch.labeled.label[:] = IGNORE
    batch.unlabeled.valid[:] = False
    method = make_method("mean_teacher")
    terms = [method(piece) for piece in split(batch, 2)]
    assert all(value == 0 for term in terms for value in term.values())


# ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] . DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_without_memory_a_step_is_taken_in_smaller_parts(
    name: str, error: Exception, make_method: Make, make_batch: Make
) -> None:
    """The failure comes late, when statistics have moved and prototypes have collected."""

    def fail(module: nn.Module, args: tuple[Batch], result: Any) -> None:
        if len(args[0].labeled.image) > 2:
            raise error

    method, twin = (make_method(name, **eager(name)) for _ in range(2))
    method.register_forward_hook(fail)
    said: list[tuple[int, str]] = []
    step = step_of(method, on_smaller=lambda parts, reason: said.append((parts, reason)))
    parted = step_of(twin, parts=2)
    for m in range(3):
        batch = make_batch(m, images=4, group=2)
        step(copy.deepcopy(batch))
        parted(batch)
    assert differing(state_of(step), state_of(parted)) == []
    assert [parts for parts, _ in said] == [2]
    assert step.parts == 2


def test_a_teachers_decoder_that_ran_out_of_memory_labels_as_before(make_method: Make, make_batch: Make) -> None:
    """It failed in train mode, in which it learns."""
    method, twin = (make_method("cutmixseg", teacher_decoder="decoupled", threshold=0.0) for _ in range(2))

    def fail(module: nn.Module, args: Any, output: Tensor) -> None:
        if module.training and len(output) > 2:
            raise MemoryError

    method.teacher.decoder.register_forward_hook(fail)
    step, parted = step_of(method), step_of(twin, parts=2)
    for m in range(2):
        batch = make_batch(m, images=4, group=2)
        step(copy.deepcopy(batch))
        parted(batch)
    assert step.parts == 2 and differing(state_of(step), state_of(parted)) == []


def test_figures_of_a_part_that_is_over_are_no_longer_logged(make_method: Make, make_batch: Make) -> None:
    method = make_method("des4_committee", labels_alone=0.05, supervision={"auxiliary_weight": 0.4})
    step = step_of(method)
    step(make_batch())
    assert {"student_auxiliary", "other0_auxiliary"} <= method.stats().keys()
    step(make_batch(1))
    assert "student_auxiliary" in method.stats() and "other0_auxiliary" not in method.stats()


def test_a_share_that_cannot_be_cut_so_often_is_cut_as_often_as_it_can_be(make_method: Make, make_batch: Make) -> None:
    """As on two processes, after one that had to cut a step into four: each has half of the batch."""
    (four, two), batch = (make_method("fixmatch") for _ in range(2)), make_batch(images=4, group=2)
    step = step_of(four, parts=4)
    step(copy.deepcopy(batch))
    assert step.parts == 2
    step_of(two, parts=2)(batch)
    torch.testing.assert_close(four.state_dict(), two.state_dict(), rtol=0, atol=0)


def test_an_odd_batch_without_memory_is_told_to_be_even(make_method: Make, make_batch: Make) -> None:
    method = make_method("fixmatch")
    method.register_forward_hook(lambda *_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(RunError, match=r"parts of 3 labeled images.*; take an even train\.batch_size, which"):
        step_of(method)(make_batch(images=3, group=3))


def test_other_errors_pass(make_method: Make, make_batch: Make) -> None:
    method = make_method("supervised")
    method.register_forward_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        step_of(method)(make_batch())
