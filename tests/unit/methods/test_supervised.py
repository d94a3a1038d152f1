"""Supervised training: its equation written out."""

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


def test_the_term_is_that_of_the_equation(make_sure: Make, make_batch: Make) -> None:
    method, batch = make_sure("supervised"), make_batch()
    twin = copy.deepcopy(method)
    found = method.losses(batch)
    lab = batch.labeled
    logits = up(twin.student.train()(lab.image))
    expected = {"labeled": F.cross_entropy(logits, lab.label, ignore_index=IGNORE)}
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
