"""PC2Seg: its equation written out, what teaches what, and who has no other image."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from des4.methods.ingredients.pixel_pairs import pixel_pairs
from des4.types import IGNORE, Batch, ConfigError, StrongView, Unlabeled

Make = Callable[..., Any]


def up(logits: Tensor) -> Tensor:
    return F.interpolate(logits, size=(33, 33), mode="bilinear", align_corners=True)


@pytest.mark.parametrize("running", [False, True])
def test_the_terms_are_those_of_the_equation(running: bool, make_method: Make, make_batch: Make) -> None:
    settings = {"consistency_weight": 2.0, "contrast_weight": 0.3, "running_norms": running}
    method, batch = make_method("pc2seg", **settings), make_batch()
    with torch.no_grad():
        method.student.head.weight.weight.mul_(100)
    twin, lab, un = copy.deepcopy(method), batch.labeled, batch.unlabeled
    found, (view,) = method.losses(batch), un.strong
    features = twin.student.features(torch.cat([lab.image, un.weak, view.mixed]))
    logits = twin.student.head(features)
    seen = copy.deepcopy(twin.student).eval()(un.weak) if running else logits[2:4]
    probs = up(logits[4:]).softmax(1)
    gap = 1 - F.cosine_similarity(probs, view.mix(up(seen.detach()).softmax(1)), dim=1)
    weak, strong = twin.projection(features[2:]).split(2)
    expected = {
        "labeled": F.cross_entropy(up(logits[:2]), lab.label, ignore_index=IGNORE),
        "consistency": 2 * gap[view.mix(un.valid)].mean(),
        "contrast": 0.3 * pixel_pairs(weak, strong, seen.softmax(1), un, view, twin.config),
    }
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert found["consistency"] > 1e-3


def test_the_same_image_twice_is_consistent_and_another_is_not(make_method: Make, make_batch: Make) -> None:
    method, batch = make_method("pc2seg").eval(), make_batch(cutmix="none")
    with torch.no_grad():
        method.student.head.weight.weight.mul_(100)
    un = batch.unlabeled

    def gap(image: Tensor) -> float:
        view = StrongView(image, un.strong[0].mix)
        return method.losses(Batch(batch.labeled, Unlabeled(un.weak, (view,), un.valid, un.keys)))["consistency"].item()

    assert gap(un.weak) == pytest.approx(0, abs=1e-7)
    assert gap(1 - un.weak) > 1e-3


def test_a_lone_image_has_nothing_to_be_held_against(make_method: Make, make_batch: Make) -> None:
    with pytest.raises(ConfigError, match="unlabeled_batch_size"):
        make_method("pc2seg").losses(make_batch(images=1))
