import math

import pytest
import torch

from des4.losses import judged


def test_cross_entropy_against_one_answer_over_valid_pixels() -> None:
    logits = torch.tensor([[[0.0, math.log(3), -50.0]]])  # probabilities 1/2, 3/4, and one that is not valid
    valid = torch.tensor([[[True, True, False]]])
    assert judged(logits, True, valid).item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)
    assert judged(logits, False, valid).item() == pytest.approx((math.log(2) + math.log(4)) / 2)
    assert judged(logits, True, valid, torch.tensor(4.0)).item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 4)
    assert judged(logits, True, torch.zeros_like(valid)) == 0


def test_a_judge_that_is_right_costs_nothing_and_one_that_is_wrong_its_sureness() -> None:
    valid = torch.ones(1, 2, 2, dtype=torch.bool)
    sure = torch.full((1, 2, 2), 80.0)
    assert judged(sure, True, valid).item() < 1e-30
    assert judged(sure, False, valid).item() == pytest.approx(80)
