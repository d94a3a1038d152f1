"""Distribution alignment by hand (ReMixMatch, section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from des4.models.memory import ShareAlignment
from des4.models.memory.share_alignment import LARGEST

PRIOR = torch.tensor([0.6, 0.3, 0.1])


def maps(*distributions: list[float]) -> Tensor:
    """One image, a row of pixels: (1, C, 1, N)."""
    return torch.tensor(distributions).T[None, :, None]


def moved(*distributions: list[float], power: float = 1.0, momentum: float = 0.99) -> ShareAlignment:
    memory = ShareAlignment(PRIOR, power, momentum)
    probs = maps(*distributions)
    memory.aligned(probs, torch.ones(1, 1, probs.shape[-1], dtype=torch.bool))
    memory.commit()
    return memory


def test_before_anything_was_predicted_nothing_is_aligned() -> None:
    probs = maps([0.2, 0.3, 0.5])
    assert torch.equal(ShareAlignment(PRIOR, 1.0, 0.99).aligned(probs, torch.ones(1, 1, 1, dtype=torch.bool)), probs)


def test_a_prediction_is_multiplied_by_labeled_over_predicted_shares_and_scaled() -> None:
    memory = moved([0.9, 0.1, 0.0], [0.7, 0.2, 0.1])
    torch.testing.assert_close(memory.shares, torch.tensor([0.8, 0.15, 0.05]))
    torch.testing.assert_close(memory.ratio, torch.tensor([0.75, 2.0, 2.0]))
    found = memory.aligned(maps([0.5, 0.2, 0.3]), torch.ones(1, 1, 1, dtype=torch.bool)).flatten()
    torch.testing.assert_close(found, torch.tensor([0.375, 0.4, 0.6]) / 1.375)
    half = moved([0.9, 0.1, 0.0], [0.7, 0.2, 0.1], power=0.5)
    torch.testing.assert_close(half.ratio, memory.ratio.sqrt())


def test_shares_that_are_right_change_nothing() -> None:
    memory = moved(PRIOR.tolist())
    probs = maps([0.2, 0.3, 0.5])
    torch.testing.assert_close(memory.aligned(probs, torch.ones(1, 1, 1, dtype=torch.bool)), probs)


def test_padding_is_not_counted_and_the_ratio_has_bounds() -> None:
    memory = ShareAlignment(PRIOR, 1.0, 0.99)
    memory.aligned(maps([1.0, 0.0, 0.0], [0.0, 0.0, 1.0]), torch.tensor([[[True, False]]]))
    memory.commit()
    assert memory.shares.tolist() == [1.0, 0.0, 0.0]
    assert memory.ratio.tolist()[1:] == [LARGEST, LARGEST]
    never = ShareAlignment(torch.tensor([0.99, 0.01]), 1.0, 0.99)
    never.aligned(maps([0.0, 1.0]), torch.ones(1, 1, 1, dtype=torch.bool))
    never.commit()
    torch.testing.assert_close(never.ratio, torch.tensor([LARGEST, 1 / LARGEST]))  # not 0.01


def test_the_running_mean_starts_warm_and_parts_add_up() -> None:
    memory = moved([1.0, 0.0, 0.0], momentum=0.75)
    valid = torch.ones(1, 1, 1, dtype=torch.bool)
    for _ in range(2):  # two parts of one step
        memory.aligned(maps([0.0, 1.0, 0.0]), valid)
    memory.commit()
    torch.testing.assert_close(memory.shares, torch.tensor([0.5, 0.5, 0.0]))  # momentum 1 - 1/2
    for _ in range(3):
        memory.aligned(maps([0.0, 0.0, 1.0]), valid)
        memory.commit()
    expected = torch.tensor([0.5, 0.5, 0.0]) * 2 / 3 + torch.tensor([0.0, 0.0, 1.0]) / 3  # 1 - 1/3
    for _ in range(2):
        expected = 0.75 * expected + torch.tensor([0.0, 0.0, 0.25])
    torch.testing.assert_close(memory.shares, expected)
    assert memory.steps == 5


def test_distributions_over_sub_classes_are_left_alone() -> None:
    memory = moved([0.9, 0.1, 0.0])
    probs = maps([0.1, 0.2, 0.3, 0.4])
    assert memory.aligned(probs, torch.ones(1, 1, 1, dtype=torch.bool)) is probs
    assert memory._take() == []


def test_a_skipped_or_empty_step_leaves_no_trace() -> None:
    memory = moved([0.5, 0.5, 0.0])
    before = memory.shares.clone()
    memory.commit()
    memory.aligned(maps([0.0, 0.0, 1.0]), torch.zeros(1, 1, 1, dtype=torch.bool))
    memory.commit()
    memory.skipped = torch.ones(())
    memory.aligned(maps([torch.nan, 0.0, 1.0]), torch.ones(1, 1, 1, dtype=torch.bool))
    memory.commit()
    assert torch.equal(memory.shares, before) and memory.steps == 1
