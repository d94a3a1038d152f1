"""Pixels seen twice: by hand, which pixels they are held against, and that parts do not matter."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from des4.methods.ingredients.pixel_pairs import PixelPairsConfig, pixel_pairs
from des4.types import Mix, StrongView, Unlabeled

KEYS = torch.tensor([11, -5, 7, 3])
EVEN = torch.full((4, 2, 2, 3), 0.5)


def pairs(weak: Tensor, strong: Tensor, probs: Tensor = EVEN, **settings: object) -> float:
    config = {"anchors": 50, "candidates": 50, "negatives": 50, "contrast_temperature": 0.5} | settings
    images = unlabeled(weak)
    return float(
        pixel_pairs(weak, strong, probs, images, images.strong[0], PixelPairsConfig(**config))  # type: ignore[arg-type]
    )


def unlabeled(
    weak: Tensor, part: slice = slice(4), valid: Tensor | None = None, box: Tensor | None = None
) -> Unlabeled:
    """Pairs of images of the size of their embeddings."""
    size = weak.shape[-2:]
    valid = torch.ones(len(weak), *size, dtype=torch.bool) if valid is None else valid
    box = torch.zeros_like(valid) if box is None else box
    image, partner = torch.zeros(len(weak), 3, *size), torch.arange(len(weak)) ^ 1
    return Unlabeled(image, (StrongView(image, Mix(partner, box, 2)),), valid, KEYS[part])


def pointing(*axes: int) -> Tensor:
    """Embeddings (B, 3, 2, 3) of images all of whose pixels point along an axis."""
    return torch.eye(3)[torch.tensor(axes)][:, :, None, None].repeat(1, 1, 2, 3)


def test_a_pixel_is_told_from_those_of_the_other_image_of_its_pair() -> None:
    weak = pointing(0, 1, 2, 2)  # in the first pair the other is at 90°, in the second the same
    near = math.log(1 + 6 * math.exp(-2))
    assert pairs(weak, weak) == pytest.approx((near + math.log(7)) / 2)
    assert pairs(weak, 4 * weak) == pytest.approx((near + math.log(7)) / 2)  # directions alone count
    strong = pointing(1, 0, 0, 0)  # who is not found again loses
    assert pairs(weak, strong) == pytest.approx((math.log(1 + 6) + math.log(1 + 6 * math.exp(2))) / 2)


def test_negatives_are_so_many_and_likely_of_another_class() -> None:
    weak, two = pointing(0, 1, 0, 1), math.exp(-2)
    assert pairs(weak, weak, negatives=2) == pytest.approx(math.log(1 + 2 * two))
    said = torch.zeros(4, 2, 2, 3)
    said[:2, 0], said[2:, 0], said[2:, 1] = 1, 0.5, 0.5
    said[1, :, 0, :2] = torch.tensor([[0.0, 0.0], [1.0, 1.0]])  # of the other image two pixels are of another class
    alone = pairs(weak, weak, said)
    # image 0 has 2 negatives; of image 1 the two pixels have 6, the others none; the last two have 6 each
    six = math.log(1 + 6 * two)
    assert alone == pytest.approx((math.log(1 + 2 * two) + six * 2 / 6 + six + six) / 4)


def test_unlikely_negatives_are_drawn_less_often() -> None:
    weak = pointing(0, 1, 0, 1)
    weak[1::2, :, 0] = -weak[::2, :, 0]  # half of the other image's pixels are far, the other half nearer
    said = torch.zeros(4, 2, 2, 3)
    said[::2, 0] = 1
    said[1::2, 0], said[1::2, 1] = 0.9, 0.1
    said[1::2, 0, 0], said[1::2, 1, 0] = 0.1, 0.9  # and nine times as likely to be drawn
    config = PixelPairsConfig(anchors=50, candidates=50, negatives=1, contrast_temperature=0.5)
    found = []
    for n in range(60):
        images = unlabeled(weak)
        images = Unlabeled(images.weak, images.strong, images.valid, KEYS + 97 * n)
        found.append(pixel_pairs(weak, weak, said, images, images.strong[0], config).item())
    far, near = math.log(1 + math.exp(-4)), math.log(1 + math.exp(-2))
    # of images 0 and 2: far by 0.9; of 1 and 3: all of the other image alike, half of their pixels opposite to it
    assert sum(found) / 60 == pytest.approx(((0.9 * far + 0.1 * near) + (far + near) / 2) / 2, abs=0.003)


def test_padding_is_no_pixel_and_an_image_of_it_counts_as_nothing() -> None:
    weak, valid = pointing(0, 1, 2, 2), torch.ones(4, 2, 3, dtype=torch.bool)
    valid[1, 1], valid[2:] = False, False
    weak[1, :, 1] = 9.0
    images, config = unlabeled(weak, valid=valid), PixelPairsConfig(contrast_temperature=0.5)
    found = pixel_pairs(weak, weak, EVEN, images, images.strong[0], config)
    three, six = math.log(1 + 3 * math.exp(-2)), math.log(1 + 6 * math.exp(-2))
    assert found.item() == pytest.approx((three + six) / 4)


def test_in_a_box_a_pixel_is_that_of_the_partner_and_held_against_the_rest() -> None:
    weak, box = pointing(0, 1, 0, 1), torch.zeros(4, 2, 3, dtype=torch.bool)
    box[::2, :, :2] = True
    images, config = unlabeled(weak, box=box), PixelPairsConfig(contrast_temperature=0.5)
    view = images.strong[0]
    found = pixel_pairs(weak, view.mix(weak), EVEN, images, view, config)
    assert found.item() == pytest.approx(math.log(1 + 6 * math.exp(-2)))


def test_the_mean_is_over_images_whoever_holds_them_and_all_sides_learn() -> None:
    weak, strong = (torch.randn(4, 3, 2, 3, requires_grad=True) for _ in range(2))
    probs, config = torch.rand(4, 2, 2, 3).softmax(1), PixelPairsConfig(anchors=3, candidates=4, negatives=2)

    def loss(part: slice) -> Tensor:
        images = unlabeled(weak[part], part)
        return pixel_pairs(weak[part], strong[part], probs[part], images, images.strong[0], config)

    whole, parts = loss(slice(4)), (loss(slice(2)), loss(slice(2, 4)))
    torch.testing.assert_close(whole, sum(parts) / 2)
    assert parts[0] != parts[1]
    moved = torch.autograd.grad(whole, (weak, strong))
    assert all(gradient.abs().max() > 0.01 for gradient in moved)
