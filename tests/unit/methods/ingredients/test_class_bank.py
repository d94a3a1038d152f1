"""The memory of sure pixels: what enters it, and how far pixels are from it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from des4.methods.ingredients.class_bank import ClassBank, ClassBankConfig
from des4.types import IGNORE, Labeled

KEYS = torch.tensor([11, -5])


def bank(images: int = 2, **settings: object) -> ClassBank:
    config = {"memory_threshold": 0.6, "queue": 8, "anchors": 16} | settings
    return ClassBank(3, images, 2, ClassBankConfig(**config))  # type: ignore[arg-type]


def same(maps: Tensor) -> Tensor:
    return maps


def even(rows: Tensor) -> Tensor:
    return torch.full(rows.shape[:-1], 0.3)


def labeled(label: Tensor) -> Labeled:
    return Labeled(torch.zeros(len(label), 3, *label.shape[1:]), label, KEYS[: len(label)])


def said(*probs: tuple[float, float, float]) -> Tensor:
    """Logits (1, 3, 1, N) of pixels with these probabilities."""
    return torch.tensor(probs).log().T[None, :, None, :]


def test_what_is_right_and_sure_enters_and_nothing_else() -> None:
    memory = bank()
    label = torch.tensor([[[0, 0, 0, 1, IGNORE]]])
    logits = said((0.7, 0.2, 0.1), (0.5, 0.4, 0.1), (0.1, 0.8, 0.1), (0.1, 0.8, 0.1), (0.9, 0.05, 0.05))
    features = torch.arange(10.0).view(1, 2, 1, 5)
    memory.collect(same, even, features, logits, labeled(label))
    memory.queue.commit()
    assert memory.queue.filled.tolist() == [1, 1, 0]
    assert memory.queue.rows[0, 0].tolist() == [0, 5]
    assert memory.queue.rows[1, 0].tolist() == [3, 8]


def test_of_an_image_and_class_the_best_enter_in_the_memorys_own_measure() -> None:
    memory = bank(pushed=2)
    features = torch.tensor([[0.0, 1, 2, 3, 4], [0, 0, 0, 0, 0]]).view(1, 2, 1, 5).repeat(2, 1, 1, 1)
    label, logits = torch.zeros(2, 1, 5, dtype=torch.long), said(*[(0.98, 0.01, 0.01)] * 5).repeat(2, 1, 1, 1)

    def score(rows: Tensor) -> Tensor:
        return 1 / (1 + (rows[..., 0] - 13).abs())  # best: what projects to 13, 12 or 14

    memory.collect(lambda maps: maps + 10, score, features, logits, labeled(label))
    memory.queue.commit()
    assert memory.queue.filled.tolist() == [4, 0, 0]
    rows = memory.queue.rows[0, :4, 0].view(2, 2)
    assert (rows == 13).any(1).all() and ((rows - 13).abs() <= 1).all()


@pytest.mark.parametrize(("queue", "images", "pushed"), [(256, 100, 3), (256, 1000, 1), (256, 92, 3), (10, 1, 10)])
def test_a_pass_over_the_labeled_images_fills_the_memory_about_once(queue: int, images: int, pushed: int) -> None:
    assert bank(images, queue=queue).pushed == pushed
    assert bank(images, queue=queue, pushed=5).pushed == 5
    assert bank(images, queue=queue, anchors=2).pushed == min(2, pushed)


def filled() -> ClassBank:
    """Class 0 is on the first axis, class 1 at 45°, once and thrice as long; of class 2 nothing is known."""
    memory = bank()
    features = torch.tensor([[1.0, 1, 3], [0, 1, 3]]).view(1, 2, 1, 3)
    logits = said((0.98, 0.01, 0.01), (0.01, 0.98, 0.01), (0.01, 0.98, 0.01))
    memory.collect(same, even, features, logits, labeled(torch.tensor([[[0, 1, 1]]])))
    memory.queue.commit()
    assert memory.queue.filled.tolist() == [1, 2, 0]
    return memory


def test_the_distance_is_that_to_the_own_class_and_a_mean_over_all_classes() -> None:
    memory = filled()
    features = torch.tensor([[0.0, 5], [2, 5]]).view(1, 2, 1, 2)  # on the second axis, and at 45°

    def distance(label: list[int]) -> float:
        found = memory.distance(same, even, even, features, torch.tensor([[label]]), KEYS[:1], "x")
        return float(found)

    near = 1 - 0.5**0.5
    assert distance([0, 1]) == pytest.approx((1 + 0 + 0) / 3, abs=1e-6)
    assert distance([1, 1]) == pytest.approx((near + 0) / 2 / 3, abs=1e-6)
    assert distance([0, 2]) == pytest.approx(1 / 3, abs=1e-6)  # class 2 counts as 0
    assert distance([2, IGNORE]) == 0
    assert bank().distance(same, even, even, features, torch.tensor([[[0, 1]]]), KEYS[:1], "x") == 0


def test_scores_weigh_pixels_and_what_is_remembered_among_themselves() -> None:
    memory = filled()
    memory.queue.rows[1, 1] = torch.tensor([0.0, 4.0])  # class 1 is now at 45° and at 90°
    features, label = torch.tensor([[1.0, 0], [0, 1]]).view(1, 2, 1, 2), torch.tensor([[[1, 1]]])

    def score(rows: Tensor) -> Tensor:
        return torch.where(rows[..., 0] > 0, 0.2, 0.6)  # what is not on the second axis counts a third as much

    found = memory.distance(same, score, score, features, label, KEYS[:1], "x")
    pixels, rows = torch.eye(2), torch.tensor([[0.5**0.5, 0.5**0.5], [0, 1]])
    gap = 1 - pixels @ rows.T
    expected = (gap * torch.tensor([[1.0], [3.0]]) * torch.tensor([1.0, 3.0])).sum() / 16 / 3
    torch.testing.assert_close(found, expected)


def test_a_pixel_is_not_moved_through_its_score_but_the_score_is() -> None:
    memory, weight = filled(), torch.ones((), requires_grad=True)
    features = torch.randn(1, 2, 1, 4, requires_grad=True)
    label = torch.tensor([[[1, 1, 1, 1]]])

    def score(rows: Tensor) -> Tensor:
        return (weight * rows[..., 0]).sigmoid()

    (moved,) = torch.autograd.grad(
        memory.distance(same, score, even, features, label, KEYS[:1], "x"), features, retain_graph=True
    )
    fixed = score(features[0, :, 0].T).detach()
    unit = F.normalize(features[0, :, 0].T, dim=-1)
    gap = 1 - unit @ torch.full((2,), 0.5**0.5)
    (expected,) = torch.autograd.grad((gap * fixed).sum() / fixed.sum() / 3, features)
    torch.testing.assert_close(moved, expected)
    (slope,) = torch.autograd.grad(memory.distance(same, score, even, features, label, KEYS[:1], "x"), weight)
    assert slope != 0


def test_the_distance_is_a_mean_over_images_whoever_holds_them() -> None:
    memory = filled()
    features, label = torch.randn(2, 2, 5, 5), torch.randint(0, 3, (2, 5, 5))

    def distance(part: slice) -> Tensor:
        return memory.distance(same, even, even, features[part], label[part], KEYS[part], "x")

    torch.testing.assert_close(distance(slice(2)), (distance(slice(1)) + distance(slice(1, 2))) / 2)
    assert distance(slice(1)) != distance(slice(1, 2))
