"""What runs on a GPU stays there and waits for nothing, shown without one (see `fake_gpu.py`).

Not shown: what kernels compute, and that there is one; memory that runs out; several processes; torch.compile and
recomputed activations; random numbers; what an evaluation counts, whose sizes depend on values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
import torch
from fake_gpu import GPU, FakeGpu, replace_what_needs_a_driver, walk_back
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorDeviceMismatchError,
)

from des4.data.loader import Loader
from des4.data.views import ViewsConfig
from des4.datasets.scenes import Scenes, ScenesConfig
from des4.engine import EvalConfig, OptimConfig, TrainStep, build_optimiser, segment
from des4.engine.cost import step_cost
from des4.engine.settings import DTYPES
from des4.engine.window import Window
from des4.methods import METHODS
from des4.types import Batch, ViewSpec

NAMES = list(METHODS)
OPTIMISERS = {
    "sgd": OptimConfig(lr=0.003, clip=1.0),
    "adamw": OptimConfig(name="adamw", lr=1e-4, clip=1.0, decay_norms=False),
}
Make = Callable[..., Any]


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """A GPU to enter."""
    replace_what_needs_a_driver(monkeypatch)
    return FakeGpu()


def on_gpu(value: Any) -> Any:
    """A batch, or what it consists of, with its tensors on the GPU."""
    if isinstance(value, Tensor):
        return value.to(GPU)
    if isinstance(value, tuple):
        return tuple(on_gpu(item) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: on_gpu(getattr(value, field.name)) for field in fields(value)})
    return value


def step_of(method: Any, optim: str, **options: Any) -> TrainStep:
    config = OPTIMISERS[optim]
    return TrainStep(method, build_optimiser(method, config, 4), GPU, clip=config.clip, **options)


# ── a step ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow), "fp16"])
@pytest.mark.parametrize("name", NAMES)
def test_a_step_stays_on_its_device(
    name: str, precision: Any, make_method: Make, make_batch: Make, fake_gpu: FakeGpu
) -> None:
    """With either optimiser, in one part and in two, the first step and another; and what the log adds up after it."""
    with fake_gpu:
        method, batch, window = make_method(name).to(GPU), on_gpu(make_batch(images=4, group=2)), Window()
        for parts, optim in enumerate(OPTIMISERS, 1):
            step = step_of(method, optim, precision=precision, parts=parts)
            fake_gpu.crossings.clear()
            outcome = step(batch)
            window.add(outcome, images=8, seconds=1.0)
            method.stats()
            assert fake_gpu.crossings == []
    assert {value.device for value in (*outcome.terms.values(), outcome.norm, outcome.skipped)} == {GPU}
    assert DTYPES[precision] in fake_gpu.convolved
    assert step.scaler.is_enabled() == (precision == "fp16")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *(("des4", {"sampling": sampling}) for sampling in ("quantity", "confidence", "all")),
        ("des4", {"decoupled": False, "shared_head": False, "unlabeled_ramp_steps": 10}),
        ("supervised", {"model": {"head": "prototype"}}),
        ("cutmixseg", {"model": {"head": "prototype", "prototype_start": "random"}}),
        ("des4", {"model": {"encoder": "test_vit"}}),
        ("fixmatch", {"supervision": {"logit_adjustment": 1.0, "class_weighting": 0.5, "focal_gamma": 2.0}}),
        ("supervised", {"supervision": {"class_weighting": 0.5, "ohem_threshold": 0.7}}),
        (
            "cps",
            {"model": {"head": "prototype"}, "sampling": "multi_entropy", "supervision": {"auxiliary_weight": 0.4}},
        ),
        ("mean_teacher", {"teacher_decoder": "decoupled", "supervision": {"auxiliary_weight": 0.4}}),
        ("cct", {"background_class": 0}),
    ],
)
def test_so_does_one_with_other_settings(
    name: str, settings: dict[str, Any], make_method: Make, make_batch: Make, fake_gpu: FakeGpu
) -> None:
    with fake_gpu:
        method, batch = make_method(name, **settings).to(GPU), on_gpu(make_batch(images=4, group=2))
        step = step_of(method, "sgd", precision="bf16")
        fake_gpu.crossings.clear()
        step(batch)
        assert fake_gpu.crossings == []


def test_a_dinov3_encoder_alone_waits_in_each_pass(make_method: Make, make_batch: Make, fake_gpu: FakeGpu) -> None:
    """timm makes the positions of its tokens on the host and sends them; a step of DeS4 has two passes."""
    with fake_gpu:
        method = make_method("des4", model={"encoder": "vit_tiny_patch16_dinov3_qkvb"}).to(GPU)
        step, batch = step_of(method, "sgd"), on_gpu(make_batch())
        fake_gpu.crossings.clear()
        step(batch)
        assert fake_gpu.crossings == ["_to_copy"] * 2


@pytest.mark.parametrize("name", NAMES)
def test_the_backward_pass_is_that_of_torch(name: str, make_method: Make, make_batch: Make) -> None:
    gradients = []
    for backward in (Tensor.backward, walk_back):
        method = make_method(name)
        backward(torch.stack(list(method(make_batch()).values())).sum())
        gradients.append({key: p.grad for key, p in method.named_parameters() if p.grad is not None})
    assert gradients[0]
    torch.testing.assert_close(gradients[1], gradients[0])


# ── what else runs on the device ─────────────────────────────────────────────────────────────────────────────────────


class OnGpu:
    """Scenes that lie on the GPU."""

    def __init__(self, scenes: Scenes) -> None:
        self._scenes = scenes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scenes, name)

    def image(self, sample_id: str) -> Tensor:
        return self._scenes.image(sample_id).to(GPU)

    def label(self, sample_id: str) -> Tensor:
        return self._scenes.label(sample_id).to(GPU)


@pytest.mark.parametrize(
    ("photometric", "resident"),
    [*((name, False) for name in ("none", "french", "unimatch", "augseg", "pseudoseg")), ("none", True)],
)
def test_views_are_made_on_the_device(photometric: Any, resident: bool, fake_gpu: FakeGpu) -> None:
    """Also of images that lie there, which are cropped there."""
    scenes: Any = Scenes(ScenesConfig(size=48, labeled=4, unlabeled=8, val=2))
    loader = Loader(
        OnGpu(scenes) if resident else scenes,
        ViewsConfig(crop_size=40, photometric=photometric),
        ViewSpec(strong=2, cutmix="unimatch"),
        labeled_batch=4,
        unlabeled_batch=8,
        mix_group=4,
        seed=0,
        workers=0,
        fill=(0.5, 0.4, 0.3),
    )
    with fake_gpu:
        for number in range(3):  # with and without padding, blur and boxes
            cut = loader.cut(number)
            assert cut.labeled.image.device.type == ("cuda" if resident else "cpu")
            fake_gpu.crossings.clear()  # of the images themselves
            batch = loader._finish(cut.pin_memory().to(GPU))
            assert fake_gpu.crossings == []
            made = [batch.labeled.image, batch.unlabeled.weak, batch.unlabeled.valid]
            made += [batch.labeled.label, *(t for v in batch.unlabeled.strong for t in (v.image, v.mix.box))]
            assert {tensor.device for tensor in made} == {GPU}


@pytest.mark.parametrize("name", NAMES)
def test_images_are_segmented_on_the_device(name: str, make_method: Make, fake_gpu: FakeGpu) -> None:
    with fake_gpu:
        method = make_method(name).to(GPU).eval()
        image = torch.zeros(3, 40, 33, dtype=torch.uint8).to(GPU)
        fake_gpu.crossings.clear()
        for model in method.predictors().values():
            for config in (EvalConfig(), EvalConfig(mode="sliding", window=24), EvalConfig(resize=0.5)):
                confidence, label = segment(model, image.float() / 255, config).max(0)
                assert confidence.shape == label.shape == (40, 33)
                assert confidence.device == label.device == GPU
        assert fake_gpu.crossings == []


@pytest.mark.parametrize("name", NAMES)
def test_the_doctor_counts_on_the_device_what_it_counts_elsewhere(
    name: str, make_method: Make, make_batch: Make, fake_gpu: FakeGpu
) -> None:
    expected = step_cost(make_method(name), make_batch())
    with fake_gpu:
        assert step_cost(make_method(name).to(GPU), on_gpu(make_batch()), "bf16").flops == expected.flops


# ── that it is noticed ───────────────────────────────────────────────────────────────────────────────────────────────

CROSSING: dict[str, Callable[[Tensor], object]] = {
    "a list sent": lambda image: torch.tensor([1.0, 2.0], device=GPU),
    "a number sent": lambda image: torch.tensor(2.0, device=GPU),
    "an array sent": lambda image: torch.as_tensor([1.0, 2.0]).to(GPU),
    "not pinned": lambda image: torch.ones(3).to(GPU, non_blocking=True),
    "waited for": lambda image: torch.ones(3).pin_memory().to(GPU),
    "fetched": lambda image: image.cpu(),
    "fetched, not pinned": lambda image: image.to("cpu", non_blocking=True),
    "copied into": lambda image: image[0, 0, 0, :3].copy_(torch.ones(3)),
    "assigned": lambda image: image.__setitem__((0, 0, 0), torch.ones(image.shape[-1])),
    "indexed by a list": lambda image: image[[1, 0]],
    "indexed from the host": lambda image: image[torch.tensor([1, 0])],
}
FREE: dict[str, Callable[[Tensor], object]] = {
    "pinned": lambda image: torch.ones(3).pin_memory().to(GPU, non_blocking=True),
    "a number of the host": lambda image: image * torch.tensor(2.0),
    "a number assigned": lambda image: image.__setitem__(0, 1.0),
    "made there": lambda image: torch.zeros(3, device=GPU) + torch.rand(3, device=GPU),
    "only on the host": lambda image: torch.ones(3)[torch.tensor([1, 0])].tolist(),
}
FAILING: dict[str, tuple[Callable[[Tensor], object], type[Exception]]] = {
    "mixed": (lambda image: image + torch.ones(image.shape[-1]), FakeTensorDeviceMismatchError),
    "a value": (lambda image: image.sum().item(), DataDependentOutputException),
    "a decision": (lambda image: bool((image > 1).any()), DataDependentOutputException),
    "values": (lambda image: image[0, 0, 0].tolist(), DataDependentOutputException),
    "a size": (lambda image: image[image > 0.5], DynamicOutputShapeException),
    "a count": (lambda image: image.long().flatten().bincount(), DynamicOutputShapeException),
}


@pytest.mark.parametrize("kind", [*CROSSING, *FREE])
def test_crossings_are_told_from_what_costs_nothing(kind: str, fake_gpu: FakeGpu) -> None:
    with fake_gpu:
        image = torch.zeros(2, 3, 8, 8, device=GPU)
        (CROSSING | FREE)[kind](image)
    assert len(fake_gpu.crossings) == (kind in CROSSING)


@pytest.mark.parametrize("kind", FAILING)
def test_two_devices_and_values_fail(kind: str, fake_gpu: FakeGpu) -> None:
    act, error = FAILING[kind]
    with fake_gpu, pytest.raises(error):
        act(torch.zeros(2, 3, 8, 8, device=GPU))


@pytest.mark.parametrize("kind", ["a list sent", "pinned", "mixed", "a value", "a size"])
def test_a_step_with_something_planted_is_noticed(
    kind: str, make_method: Make, make_batch: Make, fake_gpu: FakeGpu
) -> None:
    act, error = FAILING.get(kind, ((CROSSING | FREE).get(kind), None))

    def plant(module: object, args: tuple[Batch]) -> None:
        assert act
        act(args[0].labeled.image)

    with fake_gpu:
        method, batch = make_method("supervised").to(GPU), on_gpu(make_batch())
        step = step_of(method, "sgd")
        method.register_forward_pre_hook(plant)
        fake_gpu.crossings.clear()
        if error:
            with pytest.raises(error):
                step(batch)
        else:
            step(batch)
            assert len(fake_gpu.crossings) == (kind in CROSSING)


def test_a_weight_that_stayed_behind_is_noticed(make_method: Make, make_batch: Make, fake_gpu: FakeGpu) -> None:
    with fake_gpu:
        method, batch = make_method("supervised").to(GPU), on_gpu(make_batch())
        method.student.head = make_method("supervised").student.head
        with pytest.raises(RuntimeError, match="weight is on cpu"):
            step_of(method, "sgd")(batch)
