import math

import pytest
import torch
from torch import Tensor

from des4.losses import cross_entropy, hard_cross_entropy
from des4.types import IGNORE


def logits_of(*probs: float) -> Tensor:
    """One image, one row; the probability of class 0 at each pixel, of two classes."""
    return torch.tensor([[p, 1 - p] for p in probs]).log().T[None, :, None, :]


LOGITS = logits_of(0.9, 0.8, 0.6, 0.2)
LABEL = torch.zeros(1, 1, 4, dtype=torch.int64)


def test_pixels_up_to_the_threshold_count() -> None:
    expected = (-math.log(0.6) - math.log(0.2)) / 2
    assert hard_cross_entropy(LOGITS, LABEL, threshold=0.7, min_share=0.01).item() == pytest.approx(expected)


def test_the_hardest_share_counts_however_easy() -> None:
    three = (-math.log(0.8) - math.log(0.6) - math.log(0.2)) / 3
    assert hard_cross_entropy(LOGITS, LABEL, threshold=0.1, min_share=0.75).item() == pytest.approx(three)
    assert hard_cross_entropy(LOGITS, LABEL, threshold=0.1, min_share=0.6).item() == pytest.approx(three)  # rounded up
    assert hard_cross_entropy(LOGITS, LABEL, threshold=0.1, min_share=0.01).item() == pytest.approx(-math.log(0.2))


def test_all_pixels_make_it_plain_cross_entropy() -> None:
    logits, label = torch.randn(2, 5, 9, 9), torch.randint(0, 5, (2, 9, 9))
    label[0, :3] = IGNORE
    for settings in ({"threshold": 1.0}, {"threshold": 0.01, "min_share": 1.0}):
        torch.testing.assert_close(hard_cross_entropy(logits, label, **settings), cross_entropy(logits, label))


def test_ignored_pixels_neither_count_nor_take_a_place() -> None:
    label = torch.tensor([[[0, IGNORE, 0, IGNORE]]])
    found = hard_cross_entropy(LOGITS, label, threshold=0.1, min_share=0.5)
    assert found.item() == pytest.approx(-math.log(0.6))
    assert hard_cross_entropy(LOGITS, torch.full_like(LABEL, IGNORE)) == 0


def test_a_part_weighs_by_its_valid_pixels() -> None:
    label = LABEL.clone()
    label[..., 3] = IGNORE
    plain = hard_cross_entropy(LOGITS, label, threshold=0.7)
    torch.testing.assert_close(hard_cross_entropy(LOGITS, label, torch.tensor(2.0), threshold=0.7), plain * 3 / 2)
    nothing = hard_cross_entropy(LOGITS, torch.full_like(LABEL, IGNORE), torch.tensor(2.0))
    assert nothing == 0


def test_class_weights_change_the_loss_and_not_the_choice() -> None:
    label = torch.tensor([[[0, 0, 1, 1]]])  # probabilities 0.9, 0.8, 0.4, 0.8
    weights = torch.tensor([1.0, 3.0])
    found = hard_cross_entropy(LOGITS, label, threshold=0.5, min_share=0.01, class_weights=weights)
    assert found.item() == pytest.approx(-3 * math.log(0.4))


def test_the_gradient_of_an_easy_pixel_is_zero() -> None:
    logits = LOGITS.clone().requires_grad_()
    hard_cross_entropy(logits, LABEL, threshold=0.7).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert (logits.grad[0, 0, 0] != 0).tolist() == [False, False, True, True]
