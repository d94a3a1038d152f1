"""Every method on two classes, the fewest there can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from eager import eager

from des4.methods import METHODS
from des4.models import ModelConfig, build_segmenter
from des4.types import Batch, Labeled, Mix, StrongView, Unlabeled

Make = Callable[..., Any]
MODEL = ModelConfig(encoder="test_efficientnet", weights="none", channels=16, low_channels=8)
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "ael": [{"never_pasted": (0,)}],
    "cmb": [{"dim": 8, "queue": 32, "anchors": 100}],
    "u2pl": [{"dim": 8, "queue": 64, "pushed": 8, "anchors": 8, "negatives": 8}],
    "pseudoseg": [{"background_class": 0}, {}],
}
"""Beside those with which all of a method counts from the first step on."""


@pytest.mark.parametrize(("name", "settings"), [(name, one) for name in METHODS for one in SETTINGS.get(name, [{}])])
def test_two_classes_are_enough(name: str, settings: dict[str, Any], make_setting: Make) -> None:
    torch.manual_seed(0)
    setting = make_setting(
        classes=("no", "yes"),
        pixel_counts=torch.tensor([9, 1]),
        make_segmenter=lambda head: build_segmenter(MODEL, 2, head),
    )
    cls = METHODS[name]
    method = cls(cls.Config.model_validate(eager(name) | settings), setting).train()
    image, keys, valid = torch.rand(2, 3, 33, 33), torch.tensor([1, 2]), torch.ones(2, 33, 33, dtype=torch.bool)
    donor = Labeled(image, (image[:, 1] > 0.5).long(), keys)
    colours = tuple(1 - image for _ in cls.VIEWS.recoloured)
    labeled = Labeled(image, (image[:, 0] > 0.5).long(), keys, recoloured=colours, donor=donor)
    view = StrongView(1 - image, Mix(torch.tensor([1, 0]), torch.zeros_like(valid), 2))
    batch = Batch(labeled, Unlabeled(image, (view,) * cls.VIEWS.strong, valid, keys + 5))
    for _ in range(2):
        terms = method(batch)
        torch.stack(list(terms.values())).sum().backward()
        method.after_step()
    assert all(term.isfinite() and term > 0 for term in terms.values())
