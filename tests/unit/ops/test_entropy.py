import math

import pytest
import torch

from des4.ops.entropy import doubt, pixel_entropy


@pytest.mark.parametrize("num_classes", [2, 21, 150])
def test_a_uniform_pixel_has_entropy_log_c_and_a_sure_one_none(num_classes: int) -> None:
    probs = torch.stack([torch.full((num_classes,), 1 / num_classes), torch.eye(num_classes)[0]])
    torch.testing.assert_close(pixel_entropy(probs), torch.tensor([math.log(num_classes), 0.0]), atol=1e-6, rtol=1e-6)


def test_two_classes_by_hand() -> None:
    # -(0.25 ln 0.25 + 0.75 ln 0.75)
    assert pixel_entropy(torch.tensor([[0.25, 0.75]])).item() == pytest.approx(0.5623351, abs=1e-6)


def test_the_class_dimension_goes_wherever_it_is() -> None:
    probs = torch.rand(2, 5, 3, 4).softmax(1)
    expected = pixel_entropy(probs)
    assert expected.shape == (2, 3, 4)
    torch.testing.assert_close(pixel_entropy(probs.movedim(1, -1), dim=-1), expected)
    torch.testing.assert_close(pixel_entropy(probs.movedim(1, 0), dim=0), expected)


def test_half_precision_goes_in_and_float32_comes_out() -> None:
    probs = torch.tensor([[0.5, 0.5]], dtype=torch.bfloat16)
    assert pixel_entropy(probs).dtype == torch.float32
    assert pixel_entropy(probs).item() == pytest.approx(math.log(2), abs=1e-6)


def test_doubt_rises_with_the_entropy_from_0_to_1_and_more_so_at_the_ends():
    probs = torch.stack([torch.linspace(0.5, 1, 101), 1 - torch.linspace(0.5, 1, 101)], 1)
    found = doubt(probs)
    assert (found[0].item(), found[-1].item()) == pytest.approx((1, 0), abs=1e-4)
    assert (found[:-1] > found[1:]).all()
    share = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1)) / math.log(2)
    assert doubt(torch.tensor([[0.9, 0.1]])).item() == pytest.approx((1 + share**0.5 - (1 - share) ** 0.5) / 2)
    assert doubt(torch.tensor([[1 - 1e-6, 1e-6]])).item() > 0.002
    assert doubt(torch.tensor([[torch.nan, 0.5]])).isnan()
