"""Remedies of imbalance that are no losses run with every method: aligned targets, repeated images, pasted classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from eager import eager
from torch import Tensor

from des4.data import Balance, BalanceConfig, Loader, ViewsConfig
from des4.datasets import Scenes, ScenesConfig, pixel_counts
from des4.engine import OptimConfig, TrainStep, build_optimiser
from des4.engine.checkpoint import optimiser_state, restore_optimiser
from des4.methods import METHODS, Method, SupervisionConfig
from des4.models import HeadName, ModelConfig, Segmenter, build_segmenter
from des4.models.memory import ShareAlignment

DATA = Scenes(ScenesConfig(labeled=4, unlabeled=4, val=1, size=48))
MODEL = ModelConfig(encoder="test_efficientnet", weights="none", channels=8, low_channels=8, embedding_dim=8)
BALANCE = Balance(BalanceConfig(repeat_threshold=0.9, paste_rare=0.8), DATA)

Make = Callable[..., Any]


def build(name: str, make_setting: Make, alignment: float = 1.0, seed: int = 0) -> Method:
    def make_segmenter(head: HeadName) -> Segmenter:
        return build_segmenter(MODEL, len(DATA.classes), head)

    torch.manual_seed(seed)
    setting = make_setting(
        classes=DATA.classes,
        pixel_counts=pixel_counts(DATA, DATA.labeled),
        make_segmenter=make_segmenter,
        supervision=SupervisionConfig(distribution_alignment=alignment),
    )
    cls = METHODS[name]
    method = cls(cls.Config(**eager(name)), setting).train()
    method.step = max((0, *method.restarts))  # to the part that reads unlabeled images
    return method


def loader(method: Method, balance: Balance | None = BALANCE) -> Loader:
    return Loader(
        DATA, ViewsConfig(crop_size=33), method.VIEWS, labeled_batch=2, unlabeled_batch=2, mix_group=2, seed=0,
        workers=0, fill=(0.5, 0.5, 0.5), balance=balance,
    )  # fmt: skip


def step_of(method: Method, parts: int = 1) -> TrainStep:
    return TrainStep(method, build_optimiser(method, OptimConfig(lr=1e-3), 2), torch.device("cpu"), parts=parts)


def snapshot(method: Method) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in method.state_dict().items()}


@pytest.mark.parametrize("name", METHODS)
def test_any_method_takes_steps_with_all_of_them_and_resumes_to_the_bit(name: str, make_setting: Make) -> None:
    method = build(name, make_setting)
    source, step = loader(method), step_of(method)
    for number in range(2):
        assert all(term.isfinite() for term in step(source[number]).terms.values())
    assert isinstance(method.alignment, ShareAlignment)
    reads = METHODS[name].VIEWS.reads_unlabeled
    assert bool(method.alignment.steps == 2) == reads
    assert torch.equal(method.alignment.shares, method.alignment.prior) != reads
    moments, numbers = optimiser_state(step.optimiser)
    kept, moments = snapshot(method), {key: value.clone() for key, value in moments.items()}
    step(source[2])

    resumed = build(name, make_setting, seed=7)
    resumed.setting = replace(resumed.setting, seed=0)
    resumed.load_state_dict(kept)
    again = step_of(resumed)
    restore_optimiser(again.optimiser, moments, numbers)
    again(loader(resumed)[2])
    after = snapshot(method)
    assert [key for key, value in snapshot(resumed).items() if not torch.equal(value, after[key])] == []


@pytest.mark.parametrize("name", [name for name, cls in METHODS.items() if cls.VIEWS.reads_unlabeled])
def test_aligned_targets_are_other_targets_once_something_was_predicted(name: str, make_setting: Make) -> None:
    plain, aligned = build(name, make_setting, alignment=0.0), build(name, make_setting)
    assert plain.alignment is None
    assert snapshot(aligned).keys() - snapshot(plain).keys() == {"alignment.shares", "alignment.steps"}
    batch = loader(plain)[0]
    one, two = plain(batch), aligned(aligned.prepared(batch))
    assert [key for key in one if not torch.equal(one[key], two[key])] == []  # nothing is known in the first step
    aligned.after_step(), plain.after_step()
    aligned.load_state_dict({**snapshot(plain), **{k: v for k, v in snapshot(aligned).items() if "alignment" in k}})
    assert aligned.alignment is not None
    aligned.alignment.shares.copy_(torch.linspace(9, 1, len(DATA.classes)) / (5 * len(DATA.classes)))
    one, two = plain(batch), aligned(aligned.prepared(batch))
    assert [key for key in one if not torch.equal(one[key], two[key])]
