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
