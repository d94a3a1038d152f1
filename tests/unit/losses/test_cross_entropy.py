import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from des4.losses import cross_entropy, kept_cross_entropy, reweighted_cross_entropy, soft_cross_entropy
from des4.ops.resize import upsample
from des4.types import IGNORE


def logits_of(*probs: list[float]) -> Tensor:
    """One image, one row, one pixel a distribution."""
    return torch.tensor(probs).log().T[None, :, None, :]


TWO_PIXELS = logits_of([0.5, 0.5], [0.2, 0.8])
LABEL = torch.tensor([[[0, 0]]])


# ── plain ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_plain_cross_entropy_by_hand() -> None:
    assert cross_entropy(TWO_PIXELS, LABEL).item() == pytest.approx((-math.log(0.5) - math.log(0.2)) / 2)


def test_ignored_pixels_leave_sum_and_denominator() -> None:
    label = torch.tensor([[[0, IGNORE]]])
    assert cross_entropy(TWO_PIXELS, label).item() == pytest.approx(-math.log(0.5))


def test_kept_pixels_are_divided_by_valid_ones() -> None:
    logits = logits_of([0.5, 0.5], [0.2, 0.8], [0.9, 0.1], [0.3, 0.7])
    pseudo = torch.zeros(1, 1, 4, dtype=torch.int64)
    keep = torch.tensor([[[True, False, True, True]]])
    valid = torch.tensor([[[True, True, True, False]]])
    expected = (-math.log(0.5) - math.log(0.9)) / 3
    assert kept_cross_entropy(logits, pseudo, keep, valid).item() == pytest.approx(expected)
    assert kept_cross_entropy(logits, pseudo, valid, valid).item() == pytest.approx(
        cross_entropy(logits, pseudo.masked_fill(~valid, IGNORE)).item()
    )


def test_pixels_outside_valid_or_keep_change_nothing() -> None:
    logits = torch.randn(2, 5, 8, 8)
    pseudo, keep, valid = torch.randint(0, 5, (2, 8, 8)), torch.rand(2, 8, 8) > 0.3, torch.rand(2, 8, 8) > 0.3
    unread = ~(keep & valid)
    other = torch.where(unread[:, None], torch.randn_like(logits) * 9, logits)
    pseudo_2 = torch.where(unread, torch.randint(0, 5, (2, 8, 8)), pseudo)
    assert torch.equal(
        kept_cross_entropy(logits, pseudo, keep, valid), kept_cross_entropy(other, pseudo_2, keep, valid)
    )


def test_focal_loss_by_hand() -> None:
    expected = (-(0.5**2) * math.log(0.5) - 0.8**2 * math.log(0.2)) / 2
    assert cross_entropy(TWO_PIXELS, LABEL, focal_gamma=2).item() == pytest.approx(expected)


def test_the_slope_of_the_focal_loss_is_that_of_its_weight_too() -> None:
    """Of f(p) = -(1 - p)² log p, by the logit of the class: f'(p) · p (1 - p)."""
    logits = TWO_PIXELS.clone().requires_grad_()
    cross_entropy(logits, LABEL, focal_gamma=2).backward()  # type: ignore[no-untyped-call]
    slopes = [(2 * (1 - p) * math.log(p) - (1 - p) ** 2 / p) * p * (1 - p) for p in (0.5, 0.2)]
    assert logits.grad is not None
    assert logits.grad[0, 0, 0].tolist() == pytest.approx([slope / 2 for slope in slopes])  # a mean of two pixels


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_loss_has_finite_slopes_where_a_pixel_is_sure_or_ignored(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0.0], [0.0, 0.0]]).T[None, :, None, :].requires_grad_()
    cross_entropy(logits, torch.tensor([[[0, IGNORE]]]), focal_gamma=gamma).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_class_weights_multiply_the_pixels_of_their_class() -> None:
    weights, label = torch.tensor([3.0, 0.5]), torch.tensor([[[0, 1]]])
    expected = (-3 * math.log(0.5) - 0.5 * math.log(0.8)) / 2
    assert cross_entropy(TWO_PIXELS, label, class_weights=weights).item() == pytest.approx(expected)
    everywhere = torch.ones_like(label, dtype=torch.bool)
    found = kept_cross_entropy(TWO_PIXELS, label, everywhere, everywhere, class_weights=weights)
    assert found.item() == pytest.approx(expected)
    label[..., 1] = IGNORE
    assert cross_entropy(TWO_PIXELS, label, class_weights=weights).item() == pytest.approx(-3 * math.log(0.5))


# ── re-weighted, eqs. 7-8 ────────────────────────────────────────────────────────────────────────────────────────────


def test_reweighted_by_hand() -> None:
    # q = 0.5 and 0.8: (1 - q)² = 0.25 and 0.04, W = 0.25/0.29 and 0.04/0.29
    expected = -0.25 / 0.29 * math.log(0.5) - 0.04 / 0.29 * math.log(0.2)
    assert reweighted_cross_entropy(TWO_PIXELS, LABEL).item() == pytest.approx(expected)


def test_weights_of_each_image_sum_to_one() -> None:
    logits, label = torch.randn(3, 5, 9, 9), torch.randint(0, 5, (3, 9, 9))
    label[torch.rand(3, 9, 9) < 0.2] = IGNORE
    logits.requires_grad_()
    reweighted_cross_entropy(logits, label).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    # d loss / d logit of the true class = -W (1 - p_true) / B, hence the weights from the gradient:
    valid, truth = label != IGNORE, label.masked_fill(label == IGNORE, 0)[:, None]
    weight = -logits.grad.gather(1, truth)[:, 0] / (1 - logits.detach().softmax(1).gather(1, truth)[:, 0])
    torch.testing.assert_close((3 * weight * valid).sum((1, 2)), torch.ones(3))


def test_equal_uncertainty_is_plain_cross_entropy() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0])[None, :, None, None].expand(2, 3, 4, 4)
    label = torch.randint(0, 3, (2, 4, 4))
    torch.testing.assert_close(reweighted_cross_entropy(logits, label), cross_entropy(logits, label))


def test_an_image_without_labels_contributes_nothing_but_counts() -> None:
    logits, label = torch.randn(2, 4, 6, 6, requires_grad=True), torch.randint(0, 4, (2, 6, 6))
    alone = reweighted_cross_entropy(logits[:1], label[:1])
    label[1] = IGNORE
    loss = reweighted_cross_entropy(logits, label)
    torch.testing.assert_close(loss, alone / 2)
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert not logits.grad[1].any()


def test_a_sure_pixel_weighs_nothing() -> None:
    logits = torch.tensor([[0.0, 200.0], [0.0, 0.0]]).T[None, :, None, :]  # the first is sure, and wrong
    assert reweighted_cross_entropy(logits, LABEL).item() == pytest.approx(math.log(2))
    assert reweighted_cross_entropy(logits[..., :1], LABEL[..., :1]).item() == 0


@pytest.mark.parametrize("margin", [10.0, 16.0, 25.0, 40.0, 60.0])
def test_the_weights_of_a_very_sure_image_are_exact(margin: float) -> None:
    # margins m and m + ln 2 to one other class: 1 - q halves, so the weights are 4/5 and 1/5 however sure both are
    logits = torch.tensor([[margin, 0.0], [margin + math.log(2), 0.0]]).T[None, :, None, :]
    wrong = torch.ones(1, 1, 2, dtype=torch.int64)
    expected = 0.8 * margin + 0.2 * (margin + math.log(2))
    assert reweighted_cross_entropy(logits, wrong).item() == pytest.approx(expected, rel=1e-3)


def test_no_gradient_runs_through_the_weights() -> None:
    logits, label = torch.randn(2, 4, 5, 5, requires_grad=True), torch.randint(0, 4, (2, 5, 5))
    weight = (1 - logits.detach().softmax(1).amax(1)) ** 2
    weight = weight / weight.sum((1, 2), keepdim=True)
    by_hand = (weight * F.cross_entropy(logits, label, reduction="none")).sum((1, 2)).mean()
    (expected,) = torch.autograd.grad(by_hand, logits)
    (found,) = torch.autograd.grad(reweighted_cross_entropy(logits, label), logits)
    torch.testing.assert_close(found, expected)


# ── against distributions ────────────────────────────────────────────────────────────────────────────────────────────


def test_soft_by_hand() -> None:
    probs = torch.tensor([[0.25, 0.75], [1.0, 0.0]]).T[None, :, None, :]
    valid = torch.ones(1, 1, 2, dtype=torch.bool)
    # the networks' probabilities of the two classes: 0.5, 0.5 and 0.8, 0.2
    expected = (-math.log(0.5) - math.log(TWO_PIXELS.softmax(1)[0, 0, 0, 1].item())) / 2
    assert soft_cross_entropy(TWO_PIXELS, probs, valid).item() == pytest.approx(expected)
    valid[..., 1] = False
    assert soft_cross_entropy(TWO_PIXELS, probs, valid).item() == pytest.approx(-math.log(0.5))
    assert soft_cross_entropy(TWO_PIXELS, probs, valid, torch.tensor(4.0)).item() == pytest.approx(-math.log(0.5) / 4)


def test_soft_of_a_certain_distribution_is_hard_and_least_where_both_agree() -> None:
    logits, label = torch.randn(2, 4, 3, 3), torch.randint(0, 4, (2, 9, 9))
    valid = torch.ones(2, 9, 9, dtype=torch.bool)
    probs = F.one_hot(label, 4).movedim(-1, 1).float()
    torch.testing.assert_close(soft_cross_entropy(logits, probs, valid), cross_entropy(logits, label))
    full = torch.randn(2, 4, 9, 9, requires_grad=True)
    (gradient,) = torch.autograd.grad(soft_cross_entropy(full, full.detach().softmax(1), valid), full)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))


# ── all of them ──────────────────────────────────────────────────────────────────────────────────────────────────────


def kept(logits: Tensor, label: Tensor) -> Tensor:
    valid = label != IGNORE
    return kept_cross_entropy(logits, label.masked_fill(~valid, 0), valid, valid)


LOSSES = pytest.mark.parametrize("loss", [cross_entropy, kept, reweighted_cross_entropy])


@LOSSES
def test_nothing_labeled_gives_zero_with_a_zero_gradient(loss) -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    value = loss(logits, torch.full((2, 4, 4), IGNORE))
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@LOSSES
def test_small_logits_are_resized_to_the_label(loss) -> None:
    logits, label = torch.randn(2, 3, 9, 9), torch.randint(0, 3, (2, 33, 33))
    torch.testing.assert_close(loss(logits, label), loss(upsample(logits, (33, 33)), label))


@LOSSES
def test_float32_under_autocast(loss) -> None:
    logits, label = torch.randn(2, 3, 5, 5), torch.randint(0, 3, (2, 9, 9))
    with torch.autocast("cpu", torch.bfloat16):
        assert loss(logits.bfloat16(), label).dtype == torch.float32
        under = loss(logits, label)
    assert torch.equal(under, loss(logits, label))


@LOSSES
def test_ignored_pixels_change_nothing(loss) -> None:
    logits, label = torch.randn(2, 3, 6, 6), torch.randint(0, 3, (2, 6, 6))
    label[:, :2] = IGNORE
    other = logits.clone()
    other[:, :, :2] = 50 * torch.randn(2, 3, 2, 6)
    assert torch.equal(loss(logits, label), loss(other, label))
