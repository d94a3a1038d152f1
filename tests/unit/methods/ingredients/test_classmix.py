"""ClassMix: how many classes, whose, how often, and that no padding moves."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from des4.methods import SupervisionConfig
from des4.methods.ingredients.classmix import class_mixed
from des4.methods.ingredients.supervision import Supervision
from des4.methods.ingredients.targets import SoftTarget, Target
from des4.types import Mix, StrongView

CLASSES = 5
SUPERVISION = Supervision(SupervisionConfig(), torch.ones(CLASSES))


def keys(count: int) -> Tensor:
    return torch.randint(2**62, (count,), generator=torch.Generator().manual_seed(0))


def pair(labels: Tensor, valid: Tensor | None = None, count: int = 400) -> tuple[StrongView, Target]:
    """Many pairs of images (1, width) whose colours are their classes; the first has labels[0], the second labels[1].

    The second has them raised by 100 as its colour, so that pixels tell where they come from.
    """
    label = labels[:, None].repeat(count, 1, 1)
    image = (label + 100 * (torch.arange(2 * count) % 2)[:, None, None])[:, None].float()
    valid = torch.ones_like(label, dtype=torch.bool) if valid is None else valid[:, None].repeat(count, 1, 1)
    partner = torch.arange(2 * count) ^ 1
    view = StrongView(image, Mix(partner, torch.zeros_like(valid), 2))
    confidence = torch.rand(label.shape)
    return view, Target(label, confidence, valid, valid, SUPERVISION, torch.tensor(7.0))


@pytest.mark.parametrize(("present", "pasted"), [(1, 1), (2, 1), (3, 2), (4, 3), (5, 3)])
def test_half_of_the_classes_and_one_more_are_pasted_but_never_both_of_two(present: int, pasted: int) -> None:
    view, target = pair(torch.stack([torch.zeros(5), torch.arange(5).clamp_max(present - 1)]).long())
    image, mixed = class_mixed(view, target, CLASSES, keys(800), "mix", 1.0)
    onto, seen = image[::2, 0, 0], torch.zeros(CLASSES)
    for row, label in zip(onto, mixed.label[::2, 0], strict=True):
        from_other = row >= 100
        assert len((row[from_other] % 100).unique()) == pasted
        assert torch.equal(label, (row % 100).long())
        assert from_other.sum() == torch.isin(target.label[1, 0], label[from_other]).sum()  # all of these classes
        seen[row[from_other].long().unique() % 100] += 1
    share = seen[:present] / len(onto)
    assert share.tolist() == pytest.approx([pasted / present] * present, abs=0.08)  # each as often as any other


def test_all_that_belongs_to_pixels_moves_along_and_the_draw_is_the_samples() -> None:
    view, target = pair(torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0]]), count=3)
    target = target.weighted(torch.rand(target.label.shape))
    image, mixed = class_mixed(view, target, CLASSES, keys(6), "mix", 1.0)
    came = image[:, 0] != view.image[:, 0]
    partner = view.mix.partner
    for name in ("label", "confidence", "keep", "weight"):
        one = getattr(target, name)
        assert torch.equal(getattr(mixed, name), torch.where(came, one[partner], one)), name
    probs = F.one_hot(target.label, CLASSES).permute(0, 3, 1, 2) * 0.6 + torch.rand(6, CLASSES, 1, 4) * 0.1
    soft = SoftTarget(probs, target.valid)
    assert torch.equal(soft.label, target.label)  # so the same pixels move
    of_soft, distributions = class_mixed(view, soft, CLASSES, keys(6), "mix", 1.0)
    assert torch.equal(of_soft, image)
    assert torch.equal(distributions.probs, torch.where(came[:, None], probs[partner], probs))
    assert mixed.pixels is target.pixels
    again, _ = class_mixed(view, target, CLASSES, keys(6), "mix", 1.0)
    other, _ = class_mixed(view, target, CLASSES, keys(6), "another", 1.0)
    assert torch.equal(image, again) and not torch.equal(image, other)


def test_it_happens_as_often_as_it_is_asked_to() -> None:
    view, target = pair(torch.tensor([[0, 0], [1, 1]]))
    image, _ = class_mixed(view, target, CLASSES, keys(800), "mix", 0.75)
    assert (image != view.image).flatten(1).all(1).float().mean().item() == pytest.approx(0.75, abs=0.05)
    image, mixed = class_mixed(view, target, CLASSES, keys(800), "mix", 0.0)
    assert torch.equal(image, view.image) and torch.equal(mixed.label, target.label)


def test_boxes_are_filled_before_classes_are_pasted() -> None:
    view, target = pair(torch.tensor([[0, 0, 0], [1, 1, 1]]), count=1)
    view.mix.box[0, 0, 0] = True  # a pixel of the first image is the second's
    target = target.mixed(view)
    image, mixed = class_mixed(view, target, CLASSES, keys(2), "mix", 0.0)
    assert image[0, 0, 0].tolist() == [101, 0, 0] and mixed.label[0, 0].tolist() == [1, 0, 0]


def test_a_background_is_pasted_only_where_it_is_alone() -> None:
    view, target = pair(torch.tensor([[4, 4, 4], [0, 0, 1]]))
    image, _ = class_mixed(view, target, CLASSES, keys(800), "mix", 1.0, background=0)
    assert image[::2, 0, 0].unique(dim=0).tolist() == [[4, 4, 101]]
    view, target = pair(torch.tensor([[4, 4, 4], [0, 0, 0]]))
    image, _ = class_mixed(view, target, CLASSES, keys(800), "mix", 1.0, background=0)
    assert image[::2, 0, 0].unique(dim=0).tolist() == [[100, 100, 100]]
    view, target = pair(torch.tensor([[4, 4, 4], [2, 0, 1]]))
    image, _ = class_mixed(view, target, CLASSES, keys(800), "mix", 1.0, background=0)
    assert image[::2, 0, 0].unique(dim=0).tolist() == [[102, 4, 101]], "both objects: the background stays"


def test_classes_may_be_chosen_before_all_others() -> None:
    view, target = pair(torch.tensor([[4, 4, 4, 4], [0, 1, 2, 3]]))
    first = torch.tensor([False, True, False, True, True])
    _, mixed = class_mixed(view, target, CLASSES, keys(800), "mix", 1.0, first=first)
    onto = mixed.label[::2, 0]
    assert onto[:, 1].eq(1).all() and onto[:, 3].eq(3).all()  # three of four are pasted, these two always
    assert onto[:, 0].eq(0).float().mean().item() == pytest.approx(0.5, abs=0.08)  # and one of the others
    assert torch.equal(onto[:, 0].eq(0), onto[:, 2].eq(4))


def test_of_two_classes_the_one_that_comes_first_is_pasted_and_the_other_stays() -> None:
    view, target = pair(torch.tensor([[0, 0, 0, 0], [0, 1, 1, 0]]))
    first = torch.tensor([False, True, False, False, False])
    image, mixed = class_mixed(view, target, CLASSES, keys(800), "mix", 1.0, first=first)
    assert image[::2, 0, 0].unique(dim=0).tolist() == [[0, 101, 101, 0]]
    assert mixed.label[::2, 0].unique(dim=0).tolist() == [[0, 1, 1, 0]]


def test_padding_neither_comes_nor_goes_nor_counts_as_a_class() -> None:
    valid = torch.tensor([[True, False, True], [True, True, False]])
    view, target = pair(torch.tensor([[0, 0, 0], [1, 1, 2]]), valid)
    image, mixed = class_mixed(view, target, CLASSES, keys(800), "mix", 1.0)
    assert torch.equal(mixed.valid, target.valid)
    assert image[::2, 0, 0].unique(dim=0).tolist() == [[101, 0, 0]]  # of class 2 there is padding alone
