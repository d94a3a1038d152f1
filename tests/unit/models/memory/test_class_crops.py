"""Which crop is remembered for a class."""

from __future__ import annotations

import torch

from des4.models.memory import ClassCrops
from des4.types import Unlabeled

VALID = torch.ones(2, 4, 4, dtype=torch.bool)


def unlabeled(first: float = 0.25, truth: torch.Tensor | None = None, valid: torch.Tensor = VALID) -> Unlabeled:
    weak = torch.tensor([first, 0.5])[:, None, None, None].expand(2, 3, 4, 4)
    return Unlabeled(weak, (), valid, torch.tensor([7, -7]), truth=truth)


def labels() -> torch.Tensor:
    """The first image has classes 0 and 1, the second has 1 and one pixel of 2."""
    label = torch.ones(2, 4, 4, dtype=torch.int64)
    label[0, :2], label[1, 0, 0] = 0, 2
    return label


def test_a_class_has_the_crop_with_the_largest_key_in_which_enough_of_it_is_found() -> None:
    memory, batch = ClassCrops(3, (3, 4, 4)), unlabeled()
    memory.collect(batch, labels(), 0.25)
    memory.commit()
    drawn = memory.draw(torch.tensor([0, 1, 2]), batch)
    assert drawn.weak[:, 0, 0, 0].tolist() == [0.25, 0.25, 0]
    assert drawn.valid.flatten(1).all(1).tolist() == [True, True, False]  # of class 2 there is a 16th alone
    assert drawn.truth is None and drawn.strong == ()
    memory.collect(unlabeled(0.75), labels(), 1 / 16)
    memory.commit()
    assert memory.draw(torch.tensor([0, 1, 2]), batch).weak[:, 0, 0, 0].tolist() == [0.75, 0.75, 0.5]


def test_padding_counts_for_nothing_and_is_0() -> None:
    valid = VALID.clone()
    valid[0, :2] = False
    memory = ClassCrops(3, (3, 4, 4))
    memory.collect(unlabeled(valid=valid), labels(), 0.25)
    memory.commit()
    drawn = memory.draw(torch.tensor([0, 1]), unlabeled())
    assert not drawn.valid[0].any()
    assert torch.equal(drawn.valid[1], valid[0]) and torch.equal(drawn.weak[1, 0] > 0, valid[0])


def test_the_area_is_a_share_of_the_crop_with_its_padding() -> None:
    valid = VALID.clone()
    valid[1, 1:] = False  # of the four pixels that are left one is of class 2, a 16th of the crop
    memory = ClassCrops(3, (3, 4, 4))
    memory.collect(unlabeled(valid=valid), labels(), 0.25)
    memory.commit()
    assert not memory.valid[2].any()


def test_an_oracles_labels_travel_along() -> None:
    memory, truth = ClassCrops(3, (3, 4, 4)), labels()
    memory.collect(unlabeled(truth=truth), labels(), 0.25)
    memory.commit()
    drawn = memory.draw(torch.tensor([1]), unlabeled(truth=truth))
    assert drawn.truth is not None and torch.equal(drawn.truth[0], truth[0])


def test_what_is_not_finite_and_a_skipped_step_leave_nothing() -> None:
    memory = ClassCrops(3, (3, 4, 4))
    memory.collect(unlabeled(torch.nan), labels(), 0.25)
    memory.commit()
    assert memory.draw(torch.tensor([0, 1]), unlabeled()).weak[:, 0, 0, 0].tolist() == [0, 0.5]
    memory.collect(unlabeled(), labels(), 0.25)
    memory.skipped = torch.ones(())
    memory.commit()
    assert not memory.valid[0].any()
