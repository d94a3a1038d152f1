"""FixMatch: its equation written out, and its limiting cases."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from des4.types import IGNORE

Make = Callable[..., Any]


def up(logits: Tensor) -> Tensor:
    return F.interpolate(logits, size=(33, 33), mode="bilinear", align_corners=True)


def test_the_terms_are_those_of_the_equation(make_sure: Make, make_batch: Make) -> None:
    method, batch = make_sure("fixmatch", threshold=0.5), make_batch()
    twin = copy.deepcopy(method)
    found = method.losses(batch)
    lab, un = batch.labeled, batch.unlabeled
    (strong,) = un.strong
    with torch.no_grad():
        target = up(twin.student.eval()(torch.cat([lab.image, un.weak]))).softmax(1)
    confidence, pseudo = strong.mix(target[2:]).max(1)
    valid = strong.mix(un.valid)
    keep = confidence >= 0.5
    assert 0 < keep[valid].float().mean() < 1
    logits = up(twin.student.train()(torch.cat([lab.image, strong.mixed])))
    loss = F.cross_entropy(logits[2:], pseudo, reduction="none")
    expected = {
        "labeled": F.cross_entropy(logits[:2], lab.label, ignore_index=IGNORE) / 2,
        "unlabeled": (loss * keep)[valid].mean() / 2,
    }
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_a_threshold_that_nothing_reaches_leaves_the_labels_alone(make_method: Make, make_batch: Make) -> None:
    found, all_of_it = (make_method("fixmatch", threshold=t).losses(make_batch()) for t in (1.0, 0.0))
    assert found["unlabeled"] == 0 < all_of_it["unlabeled"]
    torch.testing.assert_close(found["labeled"], all_of_it["labeled"])


def test_memory_that_runs_out_while_it_labels_leaves_it_learning(
    make_method: Make, make_batch: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step is taken again in smaller parts, whose norms have to go by the batch."""
    method = make_method("fixmatch").train()

    def too_large(*_: Tensor) -> None:
        assert not method.student.training
        raise torch.OutOfMemoryError

    monkeypatch.setattr(method.student, "forward", too_large)
    with pytest.raises(torch.OutOfMemoryError):
        method.losses(make_batch())
    assert all(module.training for module in method.modules())
