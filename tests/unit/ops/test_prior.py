import math

import pytest
import torch

from des4.ops.prior import class_prior, class_weights

COUNTS = torch.tensor([60, 30, 10])


def test_the_prior_is_the_share_of_pixels() -> None:
    assert class_prior(COUNTS).tolist() == pytest.approx([0.6, 0.3, 0.1])


def test_a_class_without_a_pixel_is_as_rare_as_the_rarest() -> None:
    assert class_prior(torch.tensor([6, 0, 2])).tolist() == pytest.approx([0.6, 0.2, 0.2])
    assert class_prior(torch.zeros(4)).tolist() == [0.25] * 4


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_weights_follow_the_power_and_have_mean_one_over_pixels(power: float) -> None:
    weights = class_weights(COUNTS, power)
    assert (weights * class_prior(COUNTS)).sum().item() == pytest.approx(1)
    assert (weights[2] / weights[0]).item() == pytest.approx(6**power)


def test_inverse_frequency_by_hand() -> None:
    assert class_weights(COUNTS, 1).tolist() == pytest.approx([1 / (3 * 0.6), 1 / (3 * 0.3), 1 / (3 * 0.1)])
    root = [1 / math.sqrt(share) for share in (0.6, 0.3, 0.1)]
    mean = sum(math.sqrt(share) for share in (0.6, 0.3, 0.1))
    assert class_weights(COUNTS, 0.5).tolist() == pytest.approx([one / mean for one in root])


def test_classes_without_a_pixel_have_no_part_in_the_mean() -> None:
    weights = class_weights(torch.tensor([60, 0, 40, 0, 0]), 1)
    assert weights.tolist() == pytest.approx([1 / (2 * 0.6), *[1 / (2 * 0.4)] * 4])
    assert class_weights(torch.zeros(3), 1).tolist() == [1, 1, 1]
