"""`train.start_from`: a run whose networks begin as that of another."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import des4
from des4 import build
from des4.config import load_config
from des4.types import WeightsError
from des4.weights import beginning, load_weights

Settings = dict[str, Any]


def state_of(config: Settings, *overrides: str) -> dict[str, Tensor]:
    return build.training(load_config(config, [*overrides, "accumulate=1"])).method.state_dict()


def part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    assert first.keys() == second.keys() and first
    return all(torch.equal(first[name], second[name]) for name in first)


def test_student_and_teacher_begin_as_the_network_of_a_run(tiny: Settings, trained: Path) -> None:
    before = load_weights(trained / "weights" / "last.safetensors")[0].state_dict()
    for source in (trained, trained / "weights" / "last.safetensors"):
        state = state_of(tiny, f"start_from={source}")
        assert equal(part(state, "student."), before)
        assert equal(part(state, "teacher.encoder."), part(before, "encoder."))
    assert not equal(part(state_of(tiny), "student."), before)


def test_a_peer_begins_with_the_encoder_alone(tiny: Settings, trained: Path) -> None:
    state = state_of(tiny, "method=cps", "model.head=prototype", f"start_from={trained}")
    student, peer = part(state, "student."), part(state, "peer.")
    assert equal(part(student, "encoder."), part(peer, "encoder."))
    assert not equal(part(student, "decoder."), part(peer, "decoder."))


def test_a_classifier_of_another_kind_or_for_other_classes_begins_anew(tiny: Settings, trained: Path) -> None:
    before = load_weights(trained / "weights" / "last.safetensors")[0].state_dict()
    state = part(state_of(tiny, "method=supervised", f"start_from={trained}"), "student.")
    fresh = part(state_of(tiny, "method=supervised"), "student.")
    assert equal(part(state, "head."), part(fresh, "head."))
    assert equal(part(state, "encoder."), part(before, "encoder."))
    config = load_config(tiny)
    segmenter = build.training(config).method.student
    assert isinstance(segmenter, torch.nn.Module)
    drawn = {name: tensor.clone() for name, tensor in segmenter.state_dict().items()}
    beginning(trained).put_into(segmenter, ("of", "others"))
    state = dict(segmenter.state_dict())
    assert equal(part(state, "head."), part(drawn, "head."))
    assert equal(part(state, "decoder.fuse."), part(before, "decoder.fuse."))


def test_a_classifier_of_another_embedding_begins_anew(tiny: Settings, tmp_path: Path) -> None:
    wide = ("method=supervised", "model.channels=12", "model.embedding_dim=12")
    run = des4.train(load_config(tiny, [*wide, "model.embedding=linear", "steps=1", f"out={tmp_path / 'run'}"]))
    state = part(state_of(tiny, *wide, f"start_from={run.dir}"), "student.")
    fresh = part(state_of(tiny, *wide), "student.")
    assert equal(part(state, "head."), part(fresh, "head."))


def test_another_network_and_no_run_are_refused(tiny: Settings, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"holds another network \(.* differs\); it was built with model.encoder="):
        state_of(tiny, f"start_from={trained}", "model.channels=8")
    with pytest.raises(WeightsError, match="no such run folder or weights file"):
        state_of(tiny, f"start_from={tmp_path / 'nowhere'}")


def test_a_run_goes_on_without_what_it_began_from(tiny: Settings, trained: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(trained, source)
    run = des4.train(tiny, out=tmp_path / "run", start_from=str(source), steps=4, checkpoint_every=2)
    whole = (run.dir / "weights" / "last.safetensors").read_bytes()
    shutil.rmtree(source)
    for path in (run.dir / "results.json", run.dir / "weights" / "last.safetensors"):
        path.unlink()
    shutil.rmtree(run.dir / "checkpoints" / "step-4")
    des4.api.resume(run.dir)
    assert (run.dir / "weights" / "last.safetensors").read_bytes() == whole
