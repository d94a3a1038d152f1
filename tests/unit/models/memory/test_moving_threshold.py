"""The threshold that moves: hand-computed averages."""

from __future__ import annotations

import pytest
import torch

from des4.models.memory import MovingThreshold

SEEN = torch.ones(1, 1, 4, dtype=torch.bool)


def test_it_follows_the_mean_of_the_classes_largest_confidences() -> None:
    memory = MovingThreshold(3, start=0.8, momentum=0.9)
    memory.collect(torch.tensor([[[0.5, 0.7, 0.9, 0.99]]]), torch.tensor([[[0, 0, 2, 2]]]),
                   torch.tensor([[[True, True, True, False]]]))  # fmt: skip
    memory.collect(torch.tensor([[[0.6, torch.nan, 0.2, 0.3]]]), torch.tensor([[[0, 0, 2, 2]]]), SEEN)  # another part
    assert memory.value == pytest.approx(0.8)
    memory.commit()
    assert memory.value.item() == pytest.approx(0.9 * 0.8 + 0.1 * (0.7 + 0.9) / 2)


def test_a_step_that_sees_nothing_or_is_skipped_changes_nothing() -> None:
    memory = MovingThreshold(3, start=0.8, momentum=0.9)
    memory.collect(torch.ones(1, 1, 4), torch.zeros(1, 1, 4, dtype=torch.int64), ~SEEN)
    memory.commit()
    memory.skipped = torch.ones(())
    memory.collect(torch.ones(1, 1, 4), torch.zeros(1, 1, 4, dtype=torch.int64), SEEN)
    memory.commit()
    assert memory.value == pytest.approx(0.8)
