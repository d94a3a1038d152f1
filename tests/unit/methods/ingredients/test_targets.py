"""Targets: made on unmixed pixels, mixed as the view is, divided by the pixels they are told."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from des4.losses import kept_cross_entropy, soft_cross_entropy, squared_gap
from des4.methods import SupervisionConfig
from des4.methods.ingredients.supervision import Supervision
from des4.methods.ingredients.targets import (
    SoftTarget,
    Target,
    averaged_target,
    hard_target,
    labeled_on_grid,
    soft_target,
    target_of,
    view_on_grid,
)
from des4.models.memory import ShareAlignment
from des4.types import IGNORE, Labeled, Mix, StrongView, Unlabeled

KEYS = torch.tensor([1, 2])
SUPERVISION = Supervision(SupervisionConfig(), torch.tensor([3, 2, 1]))
SUPERVISION_OF_TWO = Supervision(SupervisionConfig(), torch.tensor([2, 1]))


def upsampled(logits: Tensor) -> Tensor:
    return F.interpolate(logits, size=(9, 9), mode="bilinear", align_corners=True)


@pytest.fixture
def unlabeled() -> Unlabeled:
    generator = torch.Generator().manual_seed(0)
    box = torch.zeros(2, 9, 9, dtype=torch.bool)
    box[0, 2:6, 1:8], box[1, :4, :4] = True, True
    valid = torch.rand(2, 9, 9, generator=generator) > 0.2
    view = StrongView(
        torch.rand(2, 3, 9, 9, generator=generator), Mix(torch.tensor([1, 0]), box, 2), torch.tensor(50.0)
    )
    return Unlabeled(torch.rand(2, 3, 9, 9, generator=generator), (view,), valid, KEYS, pixels=torch.tensor(70.0))


@pytest.fixture
def logits() -> Tensor:
    return 3 * torch.randn(2, 3, 3, 3, generator=torch.Generator().manual_seed(1))


def test_a_hard_target_is_the_best_class_where_it_is_sure(unlabeled: Unlabeled, logits: Tensor) -> None:
    target = hard_target(logits, unlabeled, 0.6, SUPERVISION)
    probs = upsampled(logits).softmax(1)
    assert torch.equal(target.label, probs.argmax(1))
    torch.testing.assert_close(target.confidence, probs.amax(1))
    keep = (probs.amax(1) >= 0.6) & unlabeled.valid
    assert torch.equal(target.keep, keep)
    assert 0 < keep.sum() < unlabeled.valid.sum()
    torch.testing.assert_close(target.share_kept(), keep.sum() / unlabeled.valid.sum())
    torch.testing.assert_close(target.mean_confidence(), probs.amax(1)[unlabeled.valid].mean())


def test_mixing_moves_everything_with_the_boxes_and_takes_the_views_pixels(
    unlabeled: Unlabeled, logits: Tensor
) -> None:
    (view,) = unlabeled.strong
    target = hard_target(logits, unlabeled, 0.6, SUPERVISION)
    mixed = target.mixed(view)
    for name in ("label", "confidence", "valid", "keep"):
        assert torch.equal(getattr(mixed, name), view.mix(getattr(target, name))), name
    assert (target.pixels, mixed.pixels) == (unlabeled.pixels, view.pixels)
    soft = soft_target(logits, unlabeled)
    assert torch.equal(soft.mixed(view).probs.amax(1), mixed.confidence)  # mixing probabilities or confidences is one
    assert soft.mixed(view).pixels is view.pixels


def test_the_loss_divides_by_the_pixels_it_is_told(unlabeled: Unlabeled, logits: Tensor) -> None:
    target = hard_target(logits, unlabeled, 0.6, SUPERVISION)
    student = torch.randn(2, 3, 3, 3)
    assert torch.equal(
        target.cross_entropy(student),
        kept_cross_entropy(student, target.label, target.keep, target.valid, torch.tensor(70.0)),
    )
    own = replace(target, pixels=None)
    torch.testing.assert_close(own.cross_entropy(student), target.cross_entropy(student) * 70 / target.valid.sum())


def test_labels_may_weigh_more_or_less_and_means_divide_by_all_valid_pixels(
    unlabeled: Unlabeled, logits: Tensor
) -> None:
    (view,), student, weight = unlabeled.strong, torch.randn(2, 3, 3, 3), torch.rand(2, 9, 9)
    target = hard_target(logits, unlabeled, 0.6, SUPERVISION)
    loss = F.cross_entropy(upsampled(student), target.label, reduction="none")
    weighted = target.weighted(weight)
    torch.testing.assert_close(weighted.cross_entropy(student), (loss * weight * target.keep).sum() / 70)
    torch.testing.assert_close(target.weighted(3 * torch.ones(2, 9, 9)).cross_entropy(student),
                               3 * target.cross_entropy(student))  # fmt: skip
    mixed = F.cross_entropy(upsampled(student), view.mix(target.label), reduction="none")
    expected = (mixed * view.mix(weight * target.keep)).sum() / 50
    torch.testing.assert_close(weighted.mixed(view).cross_entropy(student), expected)
    unknown = target.weighted(torch.where(target.keep, weight, torch.nan))
    assert torch.equal(unknown.cross_entropy(student), weighted.cross_entropy(student))


def test_labels_of_an_image_may_weigh_as_their_mean_confidence_by_hand() -> None:
    confidence = torch.tensor([[[0.5, 0.9, 0.1]], [[1.0, 1.0, 0.4]]])
    valid = torch.tensor([[[True, True, False]], [[True, True, True]]])
    keep = torch.tensor([[[True, True, False]], [[True, False, False]]])
    target = Target(torch.zeros(2, 1, 3, dtype=torch.long), confidence, keep, valid, SUPERVISION).weighted_by_image()
    assert target.weight is not None
    torch.testing.assert_close(target.weight, torch.tensor([[[0.7, 0.7, 0.0]], [[0.8, 0.0, 0.0]]]))
    loss = target.cross_entropy(torch.zeros(2, 3, 1, 3))  # log 3 at every pixel
    assert loss.item() == pytest.approx((2 * 0.7 + 0.8) * math.log(3) / 5)


def test_no_gradient_reaches_what_a_target_is_made_of(unlabeled: Unlabeled, logits: Tensor) -> None:
    logits.requires_grad_()
    hard, soft = hard_target(logits, unlabeled, 0.0, SUPERVISION), soft_target(logits, unlabeled)
    assert not any(tensor.requires_grad for tensor in (hard.confidence, soft.probs))


def test_nothing_is_kept_above_a_confidence_of_one(unlabeled: Unlabeled, logits: Tensor) -> None:
    target = hard_target(logits, unlabeled, torch.tensor(1.01), SUPERVISION)
    assert target.cross_entropy(torch.randn(2, 3, 3, 3)) == 0


def test_a_target_that_knows_nothing_is_kept_nowhere() -> None:
    nan = torch.full((1, 2, 2), torch.nan)
    everywhere = torch.ones(1, 2, 2, dtype=torch.bool)
    assert not SoftTarget(nan[:, None].expand(1, 3, 2, 2), everywhere).hardened(0.0, SUPERVISION).keep.any()


def test_a_soft_target_over_labeled_and_unlabeled_images(unlabeled: Unlabeled, logits: Tensor) -> None:
    label = torch.randint(3, (2, 9, 9))
    label[:, :2] = IGNORE
    labeled = Labeled(torch.rand(2, 3, 9, 9), label, KEYS, pixels=torch.tensor(130.0))
    target = soft_target(logits, labeled).and_also(soft_target(-logits, unlabeled))
    student = torch.randn(4, 3, 3, 3)
    probs = upsampled(torch.cat([logits, -logits])).softmax(1)
    valid = torch.cat([label != IGNORE, unlabeled.valid])
    expected = squared_gap(upsampled(student).softmax(1), probs, valid, torch.tensor(200.0))
    torch.testing.assert_close(target.squared_gap(student), expected)
    assert target.squared_gap(student) > 0
    assert replace(target, pixels=None).squared_gap(torch.cat([logits, -logits])) < 1e-12


def test_the_share_that_is_sure(unlabeled: Unlabeled, logits: Tensor) -> None:
    sure = upsampled(logits).softmax(1).amax(1) >= 0.7
    expected = sure[unlabeled.valid].float().mean()
    assert 0 < expected < 1
    torch.testing.assert_close(soft_target(logits, unlabeled).share_sure(0.7), expected)


def test_what_is_as_sure_as_the_threshold_counts() -> None:
    probs = torch.tensor([0.25, 0.75])[:, None, None].expand(1, 2, 1, 4)
    target = SoftTarget(probs, torch.tensor([[[True, True, True, False]]]))
    for threshold, share in ((0.75, 1.0), (0.7500001, 0.0)):
        assert target.share_sure(threshold) == target.hardened(threshold, SUPERVISION_OF_TWO).share_kept() == share


def test_a_soft_target_as_a_loss_and_hardened(unlabeled: Unlabeled, logits: Tensor) -> None:
    soft, student = soft_target(logits, unlabeled), torch.randn(2, 3, 3, 3)
    expected = soft_cross_entropy(student, soft.probs, unlabeled.valid, torch.tensor(70.0))
    assert torch.equal(soft.cross_entropy(student), expected)
    hard = hard_target(logits, unlabeled, 0.6, SUPERVISION)
    assert torch.equal(soft.hardened(0.6, SUPERVISION).label, hard.label)
    torch.testing.assert_close(soft.mean_confidence(), hard.mean_confidence())


def test_sharpening_by_hand() -> None:
    valid = torch.ones(1, 1, 2, dtype=torch.bool)
    soft = SoftTarget(torch.tensor([[0.5, 0.2], [0.3, 0.8], [0.2, 0.0]])[None, :, None], valid)
    squares = torch.tensor([[0.25 / 0.38, 0.04 / 0.68], [0.09 / 0.38, 0.64 / 0.68], [0.04 / 0.38, 0.0]])
    torch.testing.assert_close(soft.sharpened(0.5).probs[0, :, 0], squares)
    hard = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    for temperature in (0, 1e-3):
        torch.testing.assert_close(soft.sharpened(temperature).probs[0, :, 0], hard)
    assert soft.sharpened(1) is soft


def test_an_average_over_views_by_hand(unlabeled: Unlabeled) -> None:
    def predict(image: Tensor) -> Tensor:  # not symmetric: its first class likes the left
        left = torch.linspace(1, -1, image.shape[-1])
        return torch.cat([image[:, :2] * 3, (image[:, 2:] + left)], 1)

    weak, size = unlabeled.weak, (9, 9)
    plain = predict(weak).softmax(1)
    assert torch.equal(averaged_target([predict], unlabeled, (1.0,), mirror=False).probs, plain)
    mirrored = predict(weak.flip(-1)).softmax(1).flip(-1)
    both = averaged_target([predict], unlabeled, (1.0,), mirror=True).probs
    torch.testing.assert_close(both, (plain + mirrored) / 2)
    assert not torch.allclose(plain, mirrored)
    small = predict(F.interpolate(weak, size=(4, 4), mode="bilinear", antialias=True))
    small = F.interpolate(small, size=size, mode="bilinear", align_corners=True).softmax(1)
    scaled = averaged_target([predict], unlabeled, (1.0, 0.5), mirror=False)
    torch.testing.assert_close(scaled.probs, (plain + small) / 2)
    assert scaled.pixels is unlabeled.pixels
    two = averaged_target([predict, lambda image: -predict(image)], unlabeled, (1.0,), mirror=False)
    torch.testing.assert_close(two.probs, (plain + (-predict(weak)).softmax(1)) / 2)


# ── who watches, and what is true ────────────────────────────────────────────────────────────────────────────────────


class Seen:
    """Remembers what it is shown."""

    def __init__(self) -> None:
        self.shown: list[tuple[Tensor, ...]] = []

    def collect(self, *tensors: Tensor) -> None:
        self.shown.append(tensors)


def test_a_watched_target_is_shown_on_the_grid_each_time_a_loss_is_taken(unlabeled: Unlabeled, logits: Tensor) -> None:
    (view,), watch = unlabeled.strong, Seen()
    watched = replace(unlabeled, watch=watch)
    target, student = hard_target(logits, watched, 0.6, SUPERVISION).mixed(view), torch.randn(2, 3, 3, 3)
    assert not watch.shown
    assert torch.equal(
        target.cross_entropy(student),
        hard_target(logits, unlabeled, 0.6, SUPERVISION).mixed(view).cross_entropy(student),
    )
    ((shown, label, confidence, keep, valid),) = watch.shown
    assert shown is student
    assert torch.equal(label, target.label[:, ::4, ::4])  # 9 pixels on a grid of 3: corners lie on corners
    assert torch.equal(confidence, target.confidence[:, ::4, ::4])
    assert torch.equal(keep, target.keep[:, ::4, ::4])
    assert torch.equal(valid, target.valid[:, ::4, ::4])


@pytest.mark.parametrize("loss", ["cross_entropy", "class_masks"])
def test_who_watches_sees_predictions_and_labels_under_the_same_adjustment(
    unlabeled: Unlabeled, logits: Tensor, loss: str
) -> None:
    adjusting, watch = Supervision(SupervisionConfig(logit_adjustment=1.0), torch.tensor([90, 9, 1])), Seen()
    target = hard_target(logits, replace(unlabeled, watch=watch), 0.0, adjusting)
    getattr(target, loss)(logits[:, :, ::4, ::4])  # of the network that made the labels
    ((shown, label, *_),) = watch.shown
    assert torch.equal(shown.argmax(1), label)
    assert not torch.equal(logits[:, :, ::4, ::4].argmax(1), label)


def test_a_watched_distribution_is_shown_by_its_best_class_wherever_it_counts(
    unlabeled: Unlabeled, logits: Tensor
) -> None:
    watch, student = Seen(), torch.randn(2, 3, 3, 3)
    target = soft_target(logits, replace(unlabeled, watch=watch)).mixed(unlabeled.strong[0])
    target.cross_entropy(student)
    target.squared_gap(student)
    target.divergence(student)
    assert len(watch.shown) == 3
    for _, label, confidence, keep, valid in watch.shown:
        assert torch.equal(label, target.probs.argmax(1)[:, ::4, ::4])
        assert torch.equal(confidence, target.probs.amax(1)[:, ::4, ::4])
        assert torch.equal(keep, valid) and torch.equal(valid, target.valid[:, ::4, ::4])


def test_of_a_target_over_both_kinds_of_images_the_unlabeled_part_is_shown(
    unlabeled: Unlabeled, logits: Tensor
) -> None:
    watch, student = Seen(), torch.randn(4, 3, 3, 3)
    known = soft_target(logits, Labeled(torch.rand(2, 3, 9, 9), torch.randint(3, (2, 9, 9)), KEYS))
    weak = soft_target(-logits, replace(unlabeled, watch=watch))
    known.and_also(weak).squared_gap(student)
    ((shown, label, *_),) = watch.shown
    assert torch.equal(shown, student[2:])
    assert torch.equal(label, weak.probs.argmax(1)[:, ::4, ::4])


def test_an_oracle_says_what_is_true_instead(unlabeled: Unlabeled, logits: Tensor) -> None:
    truth = torch.randint(3, (2, 9, 9), generator=torch.Generator().manual_seed(2))
    told = replace(unlabeled, truth=truth)
    hard = hard_target(logits, told, 0.95, SUPERVISION)
    assert torch.equal(hard.label, truth)
    assert torch.equal(hard.keep, unlabeled.valid) and (hard.confidence == 1).all()
    averaged = averaged_target([lambda image: logits, lambda image: -logits], told, (1.0, 0.5), mirror=True)
    for soft in (soft_target(logits, told), averaged):
        assert torch.equal(soft.probs, F.one_hot(truth, 3).movedim(-1, 1).float())
    labeled = Labeled(torch.rand(2, 3, 9, 9), truth, KEYS)
    assert torch.equal(soft_target(logits, labeled).probs, soft_target(logits, unlabeled).probs)


def test_a_target_of_a_mixed_view_is_mixed_already(unlabeled: Unlabeled, logits: Tensor) -> None:
    (view,), watch = unlabeled.strong, Seen()
    truth = torch.randint(3, (2, 9, 9), generator=torch.Generator().manual_seed(2))
    probs = upsampled(logits).softmax(1)
    target = target_of(probs, replace(unlabeled, watch=watch), view)
    assert target.probs is probs and target.watch is watch
    assert torch.equal(target.valid, view.mix(unlabeled.valid))
    assert target.pixels is view.pixels
    assert torch.equal(target_of(probs, replace(unlabeled, truth=truth), view).probs.argmax(1), view.mix(truth))


def test_a_target_on_a_grid_has_places_that_stand_for_many_pixels(unlabeled: Unlabeled, logits: Tensor) -> None:
    truth = torch.randint(3, (2, 9, 9), generator=torch.Generator().manual_seed(2))
    probs = logits.softmax(1)
    target = target_of(probs, unlabeled)
    assert target.probs is probs
    assert torch.equal(target.valid, unlabeled.valid[:, ::4, ::4])
    assert target.pixels.item() == pytest.approx(70 * 9 / 81)
    student = torch.randn(2, 3, 3, 3)
    expected = ((student.softmax(1) - probs).square().sum(1) * target.valid).sum() / (70 / 9)
    torch.testing.assert_close(target.squared_gap(student), expected)
    alone = target_of(probs, replace(unlabeled, pixels=None))
    assert alone.pixels.item() == pytest.approx(unlabeled.valid.sum().item() / 9)
    told = target_of(probs, replace(unlabeled, truth=truth))
    assert torch.equal(told.probs.argmax(1), truth[:, ::4, ::4])
    assert (told.probs.amax(1) == 1).all()


def test_alignment_sees_predictions_on_the_grid_and_comes_before_an_oracle(unlabeled: Unlabeled) -> None:
    memory = ShareAlignment(torch.tensor([0.2, 0.3, 0.5]), 1.0, 0.99)
    memory.shares.copy_(torch.tensor([0.4, 0.3, 0.3]))
    memory.steps += 1
    probs, aligned = torch.rand(2, 3, 3, 3).softmax(1), replace(unlabeled, alignment=memory)
    found = target_of(probs, aligned)
    raised = probs * torch.tensor([0.5, 1.0, 5 / 3])[:, None, None]
    torch.testing.assert_close(found.probs, raised / raised.sum(1, keepdim=True))
    ((sums,),) = memory._take()
    torch.testing.assert_close(sums[:3].float(), (probs * found.valid[:, None]).sum((0, 2, 3)))
    assert sums[3] == found.valid.sum()
    truth = torch.randint(3, (2, 9, 9))
    assert (target_of(probs, replace(aligned, truth=truth)).probs.amax(1) == 1).all()


def test_a_method_may_let_only_some_labels_count(unlabeled: Unlabeled, logits: Tensor) -> None:
    target, where = hard_target(logits, unlabeled, 0.6, SUPERVISION), torch.rand(2, 9, 9) > 0.5
    chosen = target.only(where)
    assert torch.equal(chosen.keep, target.keep & where)
    assert torch.equal(chosen.confidence, target.confidence)
    (view,) = unlabeled.strong
    assert torch.equal(chosen.mixed(view).keep, view.mix(chosen.keep))
    torch.testing.assert_close(chosen.mean_over_kept(logits) * chosen.share_kept(), chosen.cross_entropy(logits))


def test_some_distributions_may_count_alone_and_means_divide_by_all_valid_pixels(
    unlabeled: Unlabeled, logits: Tensor
) -> None:
    (view,), student, where = unlabeled.strong, torch.randn(2, 3, 3, 3), torch.rand(2, 9, 9) > 0.5
    target = soft_target(logits, unlabeled)
    some, counted = target.only(where), where & unlabeled.valid
    log_p = upsampled(student).log_softmax(1)
    cross = -(target.probs * log_p).sum(1)
    torch.testing.assert_close(some.cross_entropy(student), (cross * counted).sum() / 70)
    alone = replace(some, pixels=None)
    torch.testing.assert_close(alone.cross_entropy(student), (cross * counted).sum() / unlabeled.valid.sum())
    gap = (upsampled(student).softmax(1) - target.probs).square().sum(1)
    torch.testing.assert_close(some.squared_gap(student), (gap * counted).sum() / 70)
    kl = F.kl_div(log_p, view.mix(target.probs), reduction="none").sum(1)
    torch.testing.assert_close(some.mixed(view).divergence(student), (kl * view.mix(counted)).sum() / 50)
    assert torch.equal(some.only(~where).counted, torch.zeros_like(where))
    known = soft_target(logits, Labeled(torch.rand(2, 3, 9, 9), torch.randint(3, (2, 9, 9)), KEYS))
    both = known.and_also(some)
    assert torch.equal(both.counted, torch.cat([known.valid, counted]))
    assert both.watch is None and known.and_also(target).keep is None


def test_a_watched_distribution_that_does_not_count_is_shown_as_one(unlabeled: Unlabeled, logits: Tensor) -> None:
    seen: list[tuple[Tensor, ...]] = []

    class Watch:
        def collect(self, *arguments: Tensor) -> None:
            seen.append(arguments)

    where = torch.zeros(2, 9, 9, dtype=torch.bool)
    soft_target(logits, replace(unlabeled, watch=Watch())).only(where).cross_entropy(torch.randn(2, 3, 9, 9))
    ((_, _, _, keep, valid),) = seen
    assert not keep.any() and torch.equal(valid, unlabeled.valid)


def test_labels_and_views_on_a_grid_divide_as_pixels_do(unlabeled: Unlabeled) -> None:
    (view,), label = unlabeled.strong, torch.randint(3, (2, 9, 9))
    label[0, :3] = IGNORE
    small = labeled_on_grid(Labeled(torch.rand(2, 3, 9, 9), label, KEYS), (3, 3))
    assert torch.equal(small.label, label[:, ::4, ::4]) and small.pixels == pytest.approx(135 / 9)
    assert labeled_on_grid(replace(small, label=label, pixels=torch.tensor(90.0)), (3, 3)).pixels == 10
    found = view_on_grid(view, unlabeled, (3, 3))
    assert torch.equal(found.mix.box, view.mix.box[:, ::4, ::4]) and found.pixels == pytest.approx(50 / 9)
    counted = view_on_grid(replace(view, pixels=None), unlabeled, (3, 3)).pixels
    torch.testing.assert_close(counted, view.mix(unlabeled.valid).sum() / 9)


def test_masks_of_classes_lie_on_the_grid_and_are_watched_as_a_loss_is(unlabeled: Unlabeled, logits: Tensor) -> None:
    watch, student = Seen(), torch.randn(2, 3, 3, 3)
    target = hard_target(logits, replace(unlabeled, watch=watch), 0.6, SUPERVISION)
    masks = target.class_masks(student)
    label, keep = target.label[:, ::4, ::4], target.keep[:, ::4, ::4]
    assert 0 < keep.sum() < keep.numel()
    for c in range(3):
        assert torch.equal(masks[:, c], (label == c) & keep)
    ((shown, of_whom, _, counts, _),) = watch.shown
    assert shown is student
    assert torch.equal(of_whom, label) and torch.equal(counts, keep)
