"""Pasting by class: what is drawn, what is pasted where, and the box about an object."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from des4.methods.ingredients.pasting import (
    draw_classes,
    object_boxes,
    paste_classes,
    pasted_view,
    with_donors,
)
from des4.methods.ingredients.targets import target_of
from des4.models.memory import ShareAlignment
from des4.types import IGNORE, Labeled, Mix, StrongView, Unlabeled

KEYS = torch.randint(2**62, (2000,), generator=torch.Generator().manual_seed(0))


def test_classes_are_drawn_as_often_as_they_are_probable() -> None:
    probs = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.2])
    drawn = draw_classes(probs, KEYS, 3, "classes")
    assert drawn.shape == (2000, 3)
    shares = torch.bincount(drawn.flatten(), minlength=5) / drawn.numel()
    assert shares.tolist() == pytest.approx(probs.tolist(), abs=0.02)
    assert shares[0] == shares[2] == 0
    assert torch.equal(drawn[5:9], draw_classes(probs, KEYS[5:9], 3, "classes"))


def test_pixels_of_chosen_classes_are_pasted_where_there_was_a_label() -> None:
    label = torch.tensor([[[0, 0, IGNORE, 1]], [[2, 2, 2, 2]]])
    donor = Labeled(torch.ones(2, 3, 1, 4), torch.tensor([[[1, 2, 1, IGNORE]], [[0, 1, 1, 0]]]), KEYS[:2])
    labeled = Labeled(torch.zeros(2, 3, 1, 4), label, KEYS[:2], donor=donor)
    found = paste_classes(labeled, torch.tensor([[False, True, False], [True, False, False]]))
    assert found.label.tolist() == [[[1, 0, IGNORE, 1]], [[0, 2, 2, 0]]]
    assert found.image[:, 0].tolist() == [[[1, 0, 0, 0]], [[1, 0, 0, 1]]]
    assert torch.equal(found.valid, labeled.valid)
    assert torch.equal(paste_classes(labeled, torch.zeros(2, 3, dtype=torch.bool)).image, labeled.image)


def test_the_box_is_about_one_object_that_is_large_enough() -> None:
    label = torch.zeros(1, 8, 8, dtype=torch.int64)
    label[0, 0, 0] = 1  # too small
    label[0, 2:4, 1:3] = label[0, 4, 3] = 1  # touches at a corner
    label[0, 5:7, 6:8] = 1
    label, where, classes = label.expand(2000, 8, 8), torch.ones(2000, 8, 8, dtype=torch.bool), torch.ones(2000).long()
    boxes = object_boxes(label, where, classes, 1 / 32, KEYS)
    first, second = torch.zeros(2, 8, 8, dtype=torch.bool)
    first[2:5, 1:4] = second[5:7, 6:8] = True
    is_first, is_second = ((boxes == box).flatten(1).all(1) for box in (first, second))
    assert (is_first | is_second).all()
    assert is_first.float().mean().item() == pytest.approx(0.5, abs=0.05)  # each is as probable, however large
    assert not object_boxes(label[:9], where[:9], classes[:9], 0.1, KEYS[:9]).any()
    assert not object_boxes(label[:9], where[:9], 2 * classes[:9], 0.0, KEYS[:9]).any()
    assert not object_boxes(label[:9], ~where[:9], classes[:9], 0.0, KEYS[:9]).any()


def test_a_donor_fills_its_box_and_where_there_is_none_the_views_partner_does() -> None:
    weak = torch.tensor([0.1, 0.2])[:, None, None, None].expand(2, 3, 4, 4)
    valid = torch.ones(2, 4, 4, dtype=torch.bool)
    own = torch.zeros(2, 4, 4, dtype=torch.bool)
    own[:, :1] = True
    view = StrongView(weak, Mix(torch.tensor([1, 0]), own, 2))
    unlabeled = Unlabeled(weak, (view,), valid, KEYS[:2])
    donors = Unlabeled(weak + 0.5, (), valid.logical_not(), KEYS[:2])
    box = torch.zeros(2, 2, 2, dtype=torch.bool)
    box[0, 1] = True
    both, found = with_donors(unlabeled, donors), pasted_view(view, donors.weak, box)
    assert both.weak.shape == (4, 3, 4, 4) and both.truth is None and len(both.keys) == 4
    torch.testing.assert_close(found.mixed[0, 0, :, 0], torch.tensor([0.1, 0.1, 0.6, 0.6]))
    torch.testing.assert_close(found.mixed[1, 0, :, 0], torch.tensor([0.1, 0.2, 0.2, 0.2]))
    assert found.mix(both.valid)[:, :, 0].tolist() == [[True, True, False, False], [True] * 4]
    assert found.pixels == 2


def test_donors_are_aligned_and_are_no_predictions_that_the_alignment_counts() -> None:
    valid = torch.ones(2, 4, 4, dtype=torch.bool)
    alignment = ShareAlignment(torch.tensor([0.5, 0.5]), 1.0, 0.9)
    unlabeled = Unlabeled(torch.zeros(2, 3, 4, 4), (), valid, KEYS[:2], alignment=alignment)
    both = with_donors(unlabeled, replace(unlabeled, valid=valid.clone()))
    probs = torch.tensor([[0.8, 0.2]] * 2 + [[0.0, 1.0]] * 2)[:, :, None, None].expand(4, 2, 4, 4)
    assert torch.equal(target_of(probs, both).probs, probs), "there is no running mean yet"
    alignment.commit()
    assert alignment.shares.tolist() == pytest.approx([0.8, 0.2])
    half = torch.full((4, 2, 4, 4), 0.5)
    torch.testing.assert_close(target_of(half, both).probs[:, 0], torch.full((4, 4, 4), 0.2))
