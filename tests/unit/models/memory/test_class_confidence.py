"""How well classes are predicted: hand-computed averages."""

from __future__ import annotations

import pytest
import torch

from des4.models.memory import ClassConfidence
from des4.types import IGNORE


def logits(*probs: tuple[float, float, float]) -> torch.Tensor:
    """One row of pixels with these distributions, (1, 3, 1, N)."""
    return torch.tensor(probs).log().T[None, :, None]


def test_averages_start_warm_and_a_class_that_is_missing_stays() -> None:
    memory = ClassConfidence(3, momentum=0.6)
    memory.collect(logits((0.5, 0.3, 0.2), (0.7, 0.2, 0.1), (0.1, 0.1, 0.8)), torch.tensor([[[0, 0, IGNORE]]]))
    memory.commit()
    assert memory.values.tolist() == pytest.approx([0.6, 0, 0])
    memory.collect(logits((0.2, 0.4, 0.4)), torch.tensor([[[0]]]))  # two parts of one step
    memory.collect(logits((0.4, 0.5, 0.1), (0.1, 0.6, 0.3)), torch.tensor([[[0, 1]]]))
    memory.commit()
    assert memory.values.tolist() == pytest.approx([0.5 * 0.6 + 0.5 * 0.3, 0.6, 0])
    memory.collect(logits((0.9, 0.05, 0.05)), torch.tensor([[[0]]]))
    memory.commit()
    assert memory.values.tolist() == pytest.approx([0.6 * 0.45 + 0.4 * 0.9, 0.6, 0])
    assert memory.steps.tolist() == [3, 1, 0]


def test_a_skipped_step_and_a_discarded_one_leave_nothing() -> None:
    memory = ClassConfidence(3, momentum=0.9)
    memory.collect(logits((0.5, 0.3, 0.2)), torch.tensor([[[0]]]))
    memory.skipped = torch.ones(())
    memory.commit()
    memory.skipped = None
    memory.collect(logits((0.5, 0.3, 0.2)), torch.tensor([[[0]]]))
    memory.discard()
    memory.commit()
    assert not memory.values.any() and not memory.steps.any()
