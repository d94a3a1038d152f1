"""Maps of flaws: by hand, and in their limits."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms.v2.functional import gaussian_blur

from des4.methods.ingredients.flaws import blurred, exchanged_flaws, stretched, true_flaws
from des4.types import IGNORE


def test_a_blur_is_a_gaussian_with_repeated_edges() -> None:
    maps = torch.rand(2, 30, 40)
    sigma = 0.3 * (5 - 1) + 0.8
    padded = torch.nn.functional.pad(maps[:, None], (5, 5, 5, 5), mode="replicate")
    expected = gaussian_blur(padded, [11, 11], [sigma, sigma])[:, 0, 5:-5, 5:-5]
    torch.testing.assert_close(blurred(maps, 10), expected)
    assert torch.equal(blurred(maps, 1), maps)
    torch.testing.assert_close(blurred(torch.ones(1, 3, 2), 40), torch.ones(1, 3, 2))


def test_maps_are_stretched_one_by_one_and_even_ones_are_0() -> None:
    maps = torch.tensor([[[1.0, 3.0]], [[5.0, 5.0]], [[-1.0, 0.0]]])
    assert stretched(maps).tolist() == [[[0, 1]], [[0, 0]], [[0, 1]]]


def test_flaws_are_where_the_own_class_is_missed() -> None:
    """Too small an image to be blurred: what is left is the largest of 3×3, stretched."""
    label = torch.tensor([[[0, 0, 0, 0, 0], [0, 0, 0, 1, IGNORE]]])
    probs = torch.zeros(1, 2, 2, 5)
    probs[:, 0] = 1.0
    probs[0, :, 0, 0] = torch.tensor([0.5, 0.5])
    found = true_flaws(probs, label, label != IGNORE)
    assert found.tolist() == [[[0, 0, 1, 1, 1], [0, 0, 1, 1, 1]]]  # 0.5 is the least there
    right = torch.nn.functional.one_hot(label.clamp_max(1), 2).movedim(-1, 1).float()
    assert not true_flaws(right, label, label != IGNORE).any()
    assert not true_flaws(probs, label, torch.zeros_like(label, dtype=torch.bool)).any()


def test_flaws_are_blurred_over_an_eighth_and_a_quarter_and_exchanged_ones_over_a_sixteenth() -> None:
    def blur(maps: torch.Tensor, radius: int) -> torch.Tensor:
        sigma = 0.3 * (radius - 1) + 0.8
        padded = torch.nn.functional.pad(maps[:, None], (radius,) * 4, mode="replicate")
        return gaussian_blur(padded, [2 * radius + 1] * 2, [sigma] * 2)[:, 0, radius:-radius, radius:-radius]

    label, everywhere = torch.zeros(2, 64, 80, dtype=torch.int64), torch.ones(2, 64, 80, dtype=torch.bool)
    own = torch.rand(2, 64, 80)
    spread = torch.nn.functional.max_pool2d(blur(1 - own, 4)[:, None], 3, 1, 1)[:, 0]
    found = true_flaws(torch.stack([own, 1 - own], 1), label, everywhere)
    torch.testing.assert_close(found, stretched(blur(spread, 8)))
    smooth = stretched(blur(own, 2))
    torch.testing.assert_close(exchanged_flaws(own, 0.6), torch.where(smooth >= 0.6, 1.0, smooth))


def test_exchanged_flaws_are_positive_stretched_and_full_from_the_threshold_on() -> None:
    flaws = torch.tensor([[[-1.0, 0.1, 0.3, 0.5]], [[0.0, 0.02, 0.05, 0.09]]])
    found = exchanged_flaws(flaws, 0.6)
    assert found[0, 0].tolist() == pytest.approx([0, 0.2, 1, 1])
    assert not found[1].any()  # nothing above 0.1
    assert exchanged_flaws(flaws, 0.0).eq(1).all()
