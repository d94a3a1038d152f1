"""Entropy as a loss: its scale, and the pixels that count."""

from __future__ import annotations

import math

import pytest
import torch

from des4.losses import mean_entropy


def test_even_predictions_have_an_entropy_of_one_and_sure_ones_of_none() -> None:
    valid = torch.ones(2, 5, 5, dtype=torch.bool)
    for classes in (2, 7):
        assert mean_entropy(torch.zeros(2, classes, 3, 3), valid).item() == pytest.approx(1)
        sure = torch.zeros(2, classes, 3, 3)
        sure[:, 0] = 50
        assert mean_entropy(sure, valid).item() == pytest.approx(0, abs=1e-6)


def test_by_hand_over_the_valid_pixels() -> None:
    logits = torch.tensor([[0.25, 0.75], [0.5, 0.5], [1e-9, 1 - 1e-9]]).log().T[None, :, None, :]
    valid = torch.tensor([[[True, True, False]]])
    first = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    assert mean_entropy(logits, valid).item() == pytest.approx((first + 1) / 2)
    assert mean_entropy(logits, valid, torch.tensor(8.0)).item() == pytest.approx((first + 1) / 8)
    assert mean_entropy(logits, torch.zeros_like(valid)) == 0
