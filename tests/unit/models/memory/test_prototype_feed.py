"""What moves the prototypes: collected in a step's losses, committed after it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from des4.models import PrototypeClassifier, PrototypeFeed
from des4.models.memory import Sampling

COUNTS = torch.tensor([900, 90, 10])
SAMPLINGS: tuple[Sampling, ...] = ("multi_entropy", "quantity", "confidence", "all")


def mean_direction(features: Tensor) -> Tensor:
    """Unit vector of the mean of unit features."""
    return F.normalize(F.normalize(features, dim=1).mean(0), dim=0)


def collected(images: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Features and logits on a 9 × 9 grid, labels on 33 × 33 pixels."""
    label = torch.randint(0, 3, (images, 33, 33))
    label[:, :5] = 255
    return torch.randn(images, 4, 9, 9, requires_grad=True), torch.randn(images, 3, 9, 9), label


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_collecting_moves_nothing_and_committing_does(sampling: Sampling) -> None:
    head, feed = PrototypeClassifier(3, 4), PrototypeFeed(COUNTS, sampling)
    before = head.prototypes.clone()
    feed.collect(*collected())
    assert torch.equal(head.prototypes, before)
    feed.commit(head, torch.Generator().manual_seed)
    assert head.seen.all()
    assert ((head.prototypes - before).norm(dim=1) > 0.01).all()
    after = head.prototypes.clone()
    feed.commit(head)  # nothing is pending any more
    assert torch.equal(head.prototypes, after)


def test_what_is_discarded_moves_nothing() -> None:
    head, twin, feed = PrototypeClassifier(3, 4), PrototypeClassifier(3, 4), PrototypeFeed(COUNTS, "all")
    twin.load_state_dict(head.state_dict())
    failed, retaken = collected(), collected()
    feed.collect(*failed)
    feed.discard()
    before = head.prototypes.clone()
    feed.commit(head)
    assert torch.equal(head.prototypes, before)
    assert not head.seen.any()
    feed.collect(*failed)
    feed.discard()
    for target in (head, twin):
        feed.collect(*retaken)
        feed.commit(target)
    assert torch.equal(head.prototypes, twin.prototypes)


def test_all_pixels_of_the_grid_are_committed() -> None:
    head, feed = PrototypeClassifier(3, 4), PrototypeFeed(COUNTS, "all")
    features, logits, label = collected()
    feed.collect(features, logits, label)
    feed.commit(head)
    on_grid = label[:, ::4, ::4].flatten()
    flat = features.detach().movedim(1, -1).flatten(0, 2)
    for c in range(3):
        torch.testing.assert_close(head.prototypes[c], mean_direction(flat[on_grid == c]))


def test_two_micro_batches_are_one_update() -> None:
    head, twin = PrototypeClassifier(3, 4), PrototypeClassifier(3, 4)
    twin.load_state_dict(head.state_dict())
    feed, one, two = PrototypeFeed(COUNTS, "all"), collected(), collected()
    for warm_up in (True, False):  # the first update sets the prototypes, the second averages
        feed.collect(*one)
        if not warm_up:
            feed.collect(*two)
        feed.commit(head)
        pairs = zip(one, two, strict=True)
        feed.collect(*(one if warm_up else (torch.cat(pair) for pair in pairs)))
        feed.commit(twin)
    torch.testing.assert_close(head.prototypes, twin.prototypes)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_feed_balances_as_asked(sampling: Sampling) -> None:
    torch.manual_seed(0)
    feed = PrototypeFeed(COUNTS, sampling)
    labels = torch.tensor([0] * 100 + [1] * 40 + [2] * 20 + [255] * 2)
    mask = feed.choose(torch.randn(2, 3, 9, 9), labels)
    counts = [int((mask & (labels == c)).sum()) for c in range(3)]
    # r = 10/900, 10/90, 1; round(1.1) = 1, round(4.4) = 4, 20
    assert counts == ([100, 40, 20] if sampling == "all" else [1, 4, 20])


def drawn_of(feed: PrototypeFeed, *probs: float) -> list[int]:
    """Of groups of 100 pixels of class 0, to which it has these probabilities: how many are drawn of each."""
    first = torch.tensor(probs).repeat_interleave(100).logit()
    logits = torch.stack([first, torch.zeros_like(first)])[None, :, None]
    keep = feed.choose(logits, torch.zeros(len(first), dtype=torch.int64), torch.Generator().manual_seed(0))
    drawn: list[int] = keep.view(-1, 100).sum(1).tolist()
    return drawn


def test_zones_and_alpha_are_those_that_were_asked_for() -> None:
    """Of entropies 0.5004 at p = 0.8, 0.6109 at 0.7 and 0.6931 at 0.5; half of the pixels are drawn."""
    counts = torch.tensor([200, 100])
    # 1/0.6004 to 1/0.7931, as 57 to 43
    assert drawn_of(PrototypeFeed(counts, "multi_entropy"), 0.8, 0.5) == [57, 43]
    # a large α makes zones alike
    assert drawn_of(PrototypeFeed(counts, "multi_entropy", alpha=1e6), 0.8, 0.5) == [50, 50]
    # of five zones each group has one of its own; of two the second and the third group share one
    assert drawn_of(PrototypeFeed(counts, "multi_entropy", alpha=1e6), 0.8, 0.7, 0.5) == [50, 50, 50]
    assert drawn_of(PrototypeFeed(counts, "multi_entropy", zones=2, alpha=1e6), 0.8, 0.7, 0.5)[0] == 75


def test_confidence_is_the_probability_of_the_likeliest_class() -> None:
    counts = torch.tensor([1000, 100])  # of 2000 pixels 200 are drawn
    found = drawn_of(PrototypeFeed(counts, "confidence"), *[0.1] * 10, *[0.5] * 10)
    assert sum(found) == 200
    assert sum(found[:10]) == pytest.approx(200 * 0.9 / 1.4, abs=15)  # by the other class: 200 · 0.1 / 0.6


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_nothing_of_a_skipped_step_is_remembered_whatever_it_was(sampling: Sampling) -> None:
    head, feed = PrototypeClassifier(3, 4), PrototypeFeed(COUNTS, sampling)
    feed.collect(*collected())
    feed.commit(head, torch.Generator().manual_seed)
    before = {name: value.clone() for name, value in head.state_dict().items()}
    features, logits, label = collected()
    feed.skipped = torch.ones(())
    feed.collect(features * torch.nan, logits * torch.nan, label)
    feed.commit(head, torch.Generator().manual_seed)
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())
    feed.skipped = torch.zeros(())
    feed.collect(features, logits, label)
    feed.commit(head, torch.Generator().manual_seed)
    assert not torch.equal(head.prototypes, before["prototypes"])
    assert head.prototypes.isfinite().all()


def test_what_is_collected_holds_no_gradients() -> None:
    feed = PrototypeFeed(COUNTS)
    feed.collect(*collected())
    assert not any(tensor.requires_grad for tensor in feed._held[0])


def watched(feed: PrototypeFeed, head: PrototypeClassifier, *collections: tuple[Tensor, Tensor, Tensor]) -> None:
    feed.watched = True
    for collection in collections:
        feed.collect(*collection)
    feed.commit(head, torch.Generator().manual_seed)


def test_a_watched_step_shows_zones_and_what_was_taken_of_them() -> None:
    """Twenty pixels of class 0 with entropies of five zones, one of class 1: all those of the rarest are taken."""
    head, feed = PrototypeClassifier(3, 4), PrototypeFeed(torch.tensor([200, 10, 0]))
    feed.sampling = "multi_entropy"
    sure = torch.linspace(0, 6, 20)
    logits = torch.stack([torch.cat([sure, torch.tensor([0.0])]), torch.zeros(21), torch.zeros(21)])[None, :, None]
    label = torch.tensor([0] * 20 + [1])[None, None]
    watched(feed, head, (torch.randn(1, 4, 1, 21), logits, label))
    figures = feed.figures()
    assert figures is not None and feed.figures() is None, "figures are given once"
    assert figures.pixels.shape == figures.taken.shape == (3, 20)
    assert figures.pixels.sum(1).tolist() == [20, 1, 0] and figures.taken.sum(1).tolist() == [1, 1, 0]
    assert (figures.taken <= figures.pixels).all()
    assert figures.high[0] == pytest.approx(1.0986, abs=1e-3) and figures.low[1] == figures.high[1]
    assert figures.low[0] < 0.1 and figures.low[2].isnan()
    zones = figures.pixels[0].view(5, 4).sum(1)
    entropies = (-(p := logits.softmax(1)) * p.log()).sum(1).flatten()[:20].double()
    position = (entropies - entropies.min()) / (entropies.max() - entropies.min()) * 5
    assert zones.tolist() == torch.bincount(position.long().clamp_max(4), minlength=5).tolist()
    assert figures.cosine.shape == (3, 3) and figures.cosine[0, 1] == pytest.approx(
        float(head.prototypes[0] @ head.prototypes[1]), abs=1e-6
    )
    assert figures.cosine[0, 2].isnan(), "a class that was never seen has no prototype of its own"
    assert figures.moved.isnan().all(), "there is nothing yet that it was held against"


def test_how_far_prototypes_moved_between_watched_steps() -> None:
    head, feed = PrototypeClassifier(3, 4, momentum=0.5), PrototypeFeed(COUNTS, "all")
    watched(feed, head, collected())
    feed.figures()
    before = head.prototypes.clone()
    feed.watched = False
    feed.collect(*collected())
    feed.commit(head)
    assert feed.figures() is None, "the step was not watched"
    watched(feed, head, collected(1), collected(1))
    figures = feed.figures()
    assert figures is not None and feed.watched_before is not None
    turned = torch.rad2deg(torch.arccos((before * head.prototypes).sum(1).clamp(-1, 1)))
    assert figures.moved.tolist() == pytest.approx(turned.tolist(), abs=0.05) and (turned > 1).all()
    assert torch.equal(feed.watched_before, head.prototypes)
    assert torch.equal(figures.pixels, figures.taken), "without balancing all are taken"


def test_watching_changes_nothing_and_a_skipped_step_shows_nothing_taken() -> None:
    twins = []
    for wanted in (False, True):
        torch.manual_seed(0)
        head, feed = PrototypeClassifier(3, 4), PrototypeFeed(COUNTS, "multi_entropy")
        feed.watched = wanted
        features, logits, label = collected()
        feed.collect(features, logits, label)
        feed.commit(head, torch.Generator().manual_seed)
        twins.append(head.prototypes)
        feed.skipped = torch.tensor(1)
        feed.collect(features, torch.full_like(logits, torch.nan), label)
        feed.commit(head, torch.Generator().manual_seed)
    assert torch.equal(*twins)
    figures = feed.figures()
    assert figures is not None and not figures.taken.any() and not figures.pixels.any() and figures.low.isnan().all()
