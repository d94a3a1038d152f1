"""Sub-classes: what each pixel is called, how the centres move, and that none stays small."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from des4.models.memory import Subclasses
from des4.ops.prior import class_prior, subclass_counts
from des4.types import IGNORE


def rows(*values: float) -> Tensor:
    """A row of places with features of one dimension, (1, 1, 1, N)."""
    return torch.tensor(values)[None, None, None]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def started(*centres: float, pixels: list[float]) -> Subclasses:
    """Two classes, of two sub-classes and of one."""
    memory = Subclasses((2, 1), 1, momentum=0.5)
    memory.centres.copy_(torch.tensor(centres)[:, None])
    memory.pixels.copy_(torch.tensor(pixels))
    return memory


def test_classes_have_sub_classes_in_proportion_to_their_pixels() -> None:
    assert subclass_counts(class_prior(torch.tensor([8000, 4000, 1990, 500])), 200) == (16, 8, 4, 1)
    assert subclass_counts(class_prior(torch.tensor([8000, 4000, 1990, 500])), 15) == (8, 4, 2, 1)
    assert subclass_counts(class_prior(torch.tensor([9, 0, 3])), 3) == (1, 1, 1)
    assert subclass_counts(class_prior(torch.tensor([10**9, 1])), 255) == (254, 1)


def test_a_place_is_of_the_nearest_sub_class_of_its_class_and_new_classes_have_none() -> None:
    memory = started(0.0, 10.0, 4.0, pixels=[5, 5, 5])
    assert memory.assign(rows(3, 8, 3, 8, 0), torch.tensor([[[0, 0, 1, 1, IGNORE]]])).tolist() == [[[0, 1, 2, 2, 255]]]
    new = started(0.0, 10.0, 4.0, pixels=[5, 5, 0])
    assert new.assign(rows(3, 8, 3), torch.tensor([[[0, 0, 1]]])).tolist() == [[[0, 1, IGNORE]]]


def test_a_sub_class_with_more_pixels_is_further_away() -> None:
    memory = started(0.0, 10.0, 4.0, pixels=[9, 1, 5])  # 0.9 · 4² > 0.1 · 6²
    assert memory.assign(rows(4, 2), torch.tensor([[[0, 0]]])).tolist() == [[[1, 0]]]


def test_centres_move_to_the_fading_mean_of_what_they_got() -> None:
    memory = started(0.0, 10.0, 4.0, pixels=[4, 4, 6])
    memory.assign(rows(1, 3, 11), torch.tensor([[[0, 0, 0]]]))
    memory.assign(rows(2), torch.tensor([[[0]]]))  # another part of the step
    memory.commit(generator())
    assert memory.centres[:, 0].tolist() == pytest.approx([(2 * 0 + 1 + 3 + 2) / 5, (2 * 10 + 11) / 3, 4.0])
    assert memory.pixels.tolist() == pytest.approx([5, 3, 6])


def test_a_new_class_starts_about_its_mean_with_its_deviation() -> None:
    memory = Subclasses((400, 1, 2), 1)
    memory.assign(rows(4, 6, 1), torch.tensor([[[0, 0, 1]]]))
    memory.commit(generator())
    first = memory.centres[:400, 0]
    assert (first.mean().item(), first.std().item()) == pytest.approx((5, 1), abs=0.1)
    assert memory.centres[400] == 1
    assert memory.pixels[:401].tolist() == pytest.approx([2 / 400] * 400 + [1])
    assert memory.pixels[401:].tolist() == [0, 0]


def test_a_skipped_step_leaves_all_as_it_was() -> None:
    memory = started(0.0, 10.0, 4.0, pixels=[4, 4, 0])
    before = memory.centres.clone(), memory.pixels.clone()
    memory.assign(rows(1, 3), torch.tensor([[[0, 1]]]))
    memory.skipped = torch.ones(())
    memory.commit(generator())
    assert torch.equal(memory.centres, before[0]) and torch.equal(memory.pixels, before[1])


def test_sub_classes_become_about_as_large_as_one_another() -> None:
    """Nine tenths of the pixels lie close together; plain k-means would give these few sub-classes."""
    torch.manual_seed(0)
    memory, found = Subclasses((6,), 2), torch.zeros(0, dtype=torch.int64)
    for step in range(150):
        features = torch.cat([torch.randn(2, 270) * 0.3, torch.randn(2, 30) * 0.3 + 4], 1)
        found = memory.assign(features[None, :, None], torch.zeros(1, 1, 300, dtype=torch.int64))
        memory.commit(torch.Generator().manual_seed(step))
    shares = torch.bincount(found.flatten(), minlength=6) / 300
    assert shares.min() > 0.06 and shares.max() < 0.33
