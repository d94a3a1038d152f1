import math

import pytest
import torch

from des4.losses import cosine_gap, divergence, pixel_divergence, squared_gap


def test_the_gap_is_summed_over_classes_and_averaged_over_valid_pixels() -> None:
    probs = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.2, 0.3, 0.5]]).T[None, :, None, :]
    target = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.25, 0.25], [0.9, 0.05, 0.05]]).T[None, :, None, :]
    valid = torch.tensor([[[True, True, False]]])
    # (1 + 1 + 0) and (0 + 0.0625 + 0.0625), over two pixels; a mean over classes would be a third of it
    assert squared_gap(probs, target, valid).item() == pytest.approx((2 + 0.125) / 2)


def test_equal_distributions_have_no_gap_and_opposite_ones_the_largest() -> None:
    probs, valid = torch.rand(2, 4, 3, 3).softmax(1), torch.ones(2, 3, 3, dtype=torch.bool)
    assert squared_gap(probs, probs, valid) == 0
    assert squared_gap(torch.eye(2)[None, :, :, None], torch.eye(2).flip(0)[None, :, :, None], valid[:1, :2, :1]) == 2


def test_no_gradient_reaches_the_target() -> None:
    probs, target = (torch.rand(1, 3, 2, 2, requires_grad=True) for _ in range(2))
    squared_gap(probs, target, torch.ones(1, 2, 2, dtype=torch.bool)).backward()  # type: ignore[no-untyped-call]
    assert probs.grad is not None
    assert target.grad is None


def test_invalid_pixels_change_nothing_and_no_valid_pixel_gives_zero() -> None:
    probs, target, valid = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4), torch.rand(2, 4, 4) > 0.5
    other = torch.where(valid[:, None], probs, torch.rand(2, 3, 4, 4))
    assert torch.equal(squared_gap(probs, target, valid), squared_gap(other, target, valid))
    assert squared_gap(probs, target, torch.zeros_like(valid)) == 0


def test_float32_under_autocast() -> None:
    probs, target, valid = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4), torch.ones(2, 4, 4, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        gap = squared_gap(probs, target, valid)
    assert gap.dtype == torch.float32
    assert torch.equal(gap, squared_gap(probs, target, valid))


def test_divergence_is_that_of_kullback_and_leibler() -> None:
    target = torch.tensor([[0.5, 0.5], [1.0, 0.0]]).T[None, :, None, :]
    logits = torch.tensor([[0.25, 0.75], [0.5, 0.5]]).log().T[None, :, None, :]
    valid = torch.ones(1, 1, 2, dtype=torch.bool)
    expected = [0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75), math.log(2)]
    assert divergence(logits, target, valid).item() == pytest.approx(sum(expected) / 2)
    assert divergence(target.log().clamp_min(-1e4), target, valid).item() == pytest.approx(0, abs=1e-6)
    valid[..., 1] = False
    assert divergence(logits, target, valid).item() == pytest.approx(expected[0])
    assert divergence(logits, target, valid, torch.tensor(4.0)).item() == pytest.approx(expected[0] / 4)


def test_the_cosine_gap_is_one_minus_the_cosine_of_distributions() -> None:
    probs = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.8, 0.2]]).T[None, :, None, :]
    target = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.8, 0.2]]).T[None, :, None, :]
    valid = torch.tensor([[[True, True, False]]])
    assert cosine_gap(probs, target, valid).item() == pytest.approx((1 + 1 - 0.5**0.5) / 2)
    assert cosine_gap(probs, probs, valid) == 0
    assert cosine_gap(probs, target, valid, torch.tensor(10.0)).item() == pytest.approx((2 - 0.5**0.5) / 10)


def test_the_divergence_of_each_pixel_is_what_the_mean_is_of() -> None:
    target, logits = torch.rand(2, 3, 4, 4).softmax(1), torch.randn(2, 3, 4, 4)
    valid = torch.rand(2, 4, 4) > 0.5
    torch.testing.assert_close(divergence(logits, target, valid), pixel_divergence(logits, target)[valid].mean())
