"""Methods with heads or memories of their own, on two classes: the fewest there can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from des4.methods import METHODS
from des4.models import ModelConfig, build_segmenter
from des4.types import Batch, Labelled, Mix, StrongView, Unlabelled

Make = Callable[..., Any]
MODEL = ModelConfig(encoder="test_efficientnet", weights="none", channels=16, low_channels=8)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ael", {"threshold": 0.0, "never_pasted": (0,)}),
        ("corrmatch", {"threshold": 0.0}),
        ("usrn", {"threshold": 0.0, "labels_alone": 0.0}),
        ("pseudoseg", {"background_class": 0}),
        ("pseudoseg", {}),
    ],
)
def test_two_classes_are_enough(name: str, settings: dict[str, Any], make_setting: Make) -> None:
    torch.manual_seed(0)
    setting = make_setting(
        classes=("no", "yes"),
        pixel_counts=torch.tensor([9, 1]),
        make_segmenter=lambda head: build_segmenter(MODEL, 2, head),
    )
    cls = METHODS[name]
    method = cls(cls.Config.model_validate(settings), setting).train()
    image, keys, valid = torch.rand(2, 3, 33, 33), torch.tensor([1, 2]), torch.ones(2, 33, 33, dtype=torch.bool)
    labelled = Labelled(
        image, (image[:, 0] > 0.5).long(), keys, donor=Labelled(image, (image[:, 1] > 0.5).long(), keys)
    )
    view = StrongView(image, Mix(torch.tensor([1, 0]), torch.zeros(2, 33, 33, dtype=torch.bool), 2))
    batch = Batch(labelled, Unlabelled(image, (view,), valid, keys + 5))
    for _ in range(2):
        terms = method(batch)
        torch.stack(list(terms.values())).sum().backward()
        method.after_step()
    assert all(term.isfinite() and term > 0 for term in terms.values())
