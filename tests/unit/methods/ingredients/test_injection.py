"""Labeled boxes in unlabeled images: where, how often, and that labels come along."""

from __future__ import annotations

import pytest
import torch

from des4.methods import SupervisionConfig
from des4.methods.ingredients.injection import injected, injection_boxes
from des4.methods.ingredients.supervision import Supervision
from des4.methods.ingredients.targets import Target
from des4.types import IGNORE, Labeled


def keys(count: int) -> torch.Tensor:
    return torch.randint(2**62, (count,), generator=torch.Generator().manual_seed(0))


def test_a_box_is_given_with_its_probability_and_never_for_nan() -> None:
    boxes = injection_boxes(keys(4000), torch.full((4000,), 0.3), 16, 16).flatten(1)
    assert boxes.any(1).float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert not injection_boxes(keys(50), torch.full((50,), torch.nan), 16, 16).any()
    assert not injection_boxes(keys(50), torch.zeros(50), 16, 16).any()


def test_boxes_are_rectangles_whose_share_is_that_of_the_distribution() -> None:
    """λ ~ Beta(8, 2) has the mean 0.8, so an unclipped box has a fifth of the crop on average."""
    boxes = injection_boxes(keys(4000), torch.ones(4000), 40, 60)
    height, width = boxes.any(2).sum(1), boxes.any(1).sum(1)
    assert torch.equal(boxes.flatten(1).sum(1), height * width)
    whole = (boxes[:, 0] | boxes[:, -1]).any(1) | (boxes[:, :, 0] | boxes[:, :, -1]).any(1)  # clipped, perhaps
    large = ~whole & (height >= 10)  # sides of small ones are rounded
    assert (height[large] / width[large] - 40 / 60).abs().max() < 0.1
    unclipped = boxes.flatten(1).sum(1)[~whole].float() / (40 * 60)
    assert unclipped.mean().item() == pytest.approx(0.14, abs=0.02)  # the larger, the more often clipped
    assert boxes.float().mean(0).min() > 0.03  # anywhere in the crop
    assert torch.equal(boxes, injection_boxes(keys(4000), torch.ones(4000), 40, 60))


def test_pixels_and_labels_come_together_and_what_has_no_label_counts_nowhere() -> None:
    label = torch.tensor([[[2, IGNORE]], [[1, 1]]])
    labeled = Labeled(torch.rand(2, 3, 1, 2), label, torch.tensor([1, 2]))
    target = Target(
        torch.zeros(4, 1, 2, dtype=torch.int64),
        torch.full((4, 1, 2), 0.5),
        torch.zeros(4, 1, 2, dtype=torch.bool),
        torch.tensor([[[True, False]]]).expand(4, 1, 2),
        Supervision(SupervisionConfig(), torch.tensor([1, 1, 1])),
    )
    box = torch.tensor([[[True, True]], [[False, True]], [[False, False]], [[False, True]]])
    images, found = injected(torch.zeros(4, 3, 1, 2), target, labeled, box)
    # four images and two labeled ones: the first half meets the first
    assert torch.equal(images[0], labeled.image[0])
    assert torch.equal(images[1, :, 0, 1], labeled.image[0, :, 0, 1])
    assert torch.equal(images[3, :, 0, 1], labeled.image[1, :, 0, 1])
    assert not images[2].any()
    assert found.label.tolist() == [[[2, 0]], [[0, 0]], [[0, 0]], [[0, 1]]]
    assert found.valid.tolist() == [[[True, False]], [[True, False]], [[True, False]], [[True, True]]]
    assert found.keep.tolist() == [[[True, False]], [[False, False]], [[False, False]], [[False, True]]]
    assert torch.equal(found.confidence.isnan(), box)  # nobody counts them as pseudo-labels
    assert (found.confidence[~box] == 0.5).all()
