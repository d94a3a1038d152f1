"""CutMixSeg: its equation written out, and its limiting cases."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from des4.types import IGNORE

Make = Callable[..., Any]


def up(logits: Tensor) -> Tensor:
    return F.interpolate(logits, size=(33, 33), mode="bilinear", align_corners=True)


def test_the_terms_are_those_of_the_equation(make_sure: Make, make_batch: Make) -> None:
    method, batch = make_sure("cutmixseg", threshold=0.5), make_batch()
    twin = copy.deepcopy(method)
    found = method.losses(batch)
    lab, un = batch.labeled, batch.unlabeled
    (strong,) = un.strong
    with torch.no_grad():
        target = up(twin.teacher.eval()(torch.cat([lab.image, un.weak]))).softmax(1)
    mixed, valid = strong.mix(target[2:]), strong.mix(un.valid)
    logits = up(twin.student.train()(torch.cat([lab.image, strong.mixed])))
    sure = (mixed.amax(1) >= 0.5)[valid].float().mean()
    assert 0 < sure < 1
    gap = (logits.softmax(1)[2:] - mixed).square().sum(1)
    expected = {
        "labeled": F.cross_entropy(logits[:2], lab.label, ignore_index=IGNORE),
        "consistency": sure * gap[valid].mean(),
    }
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_a_threshold_that_nothing_reaches_leaves_the_labels_alone(make_method: Make, make_batch: Make) -> None:
    found, all_of_it = (make_method("cutmixseg", threshold=t).losses(make_batch()) for t in (1.0, 0.0))
    assert found["consistency"] == 0 < all_of_it["consistency"]
    torch.testing.assert_close(found["labeled"], all_of_it["labeled"])
