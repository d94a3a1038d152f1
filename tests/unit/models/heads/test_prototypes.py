import math
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from des4.models import PrototypeClassifier


def mean_direction(features: Tensor) -> Tensor:
    """Unit vector of the mean of unit features."""
    return F.normalize(F.normalize(features, dim=1).mean(0), dim=0)


# ── classification ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_raw_cosines_cap_the_largest_probability() -> None:
    head = PrototypeClassifier(21, 32, temperature=1.0)
    # The best case: the feature is one prototype, all others point away from it.
    head.prototypes.copy_(-torch.eye(32)[0].expand(21, 32))
    head.prototypes[0] = torch.eye(32)[0]
    best = head(3 * torch.eye(32)[:1]).softmax(1).max().item()
    assert best == pytest.approx(math.e / (math.e + 20 / math.e)) == pytest.approx(0.270, abs=5e-4)
    cold = PrototypeClassifier(21, 32, temperature=0.1)
    cold.load_state_dict(head.state_dict())
    assert cold(torch.eye(32)[:1]).softmax(1).max() > 0.999


def test_logits_are_cosines_over_the_temperature() -> None:
    head, features = PrototypeClassifier(5, 8, temperature=0.25), torch.randn(7, 8)
    expected = F.cosine_similarity(features[:, None], head.prototypes[None], dim=2) / 0.25
    torch.testing.assert_close(head(features), expected)
    torch.testing.assert_close(head(features.T.reshape(1, 8, 7, 1))[0, :, :, 0].T, expected)


def test_the_length_of_features_and_prototypes_does_not_matter() -> None:
    head, features = PrototypeClassifier(5, 8), torch.randn(2, 8, 3, 4)
    logits = head(features)
    torch.testing.assert_close(head(features * torch.rand(2, 1, 3, 4).add(0.1) * 100), logits)
    head.prototypes.mul_(torch.rand(5, 1) + 0.1)  # as in a teacher that averaged them
    torch.testing.assert_close(head(features), logits)


def test_the_nearest_prototype_wins() -> None:
    head = PrototypeClassifier(5, 8)
    assert head(head.prototypes * 7).argmax(1).tolist() == [0, 1, 2, 3, 4]


def test_float32_under_autocast() -> None:
    head, features = PrototypeClassifier(5, 8), torch.randn(2, 8, 3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(features)
        assert head(features.bfloat16()).dtype == torch.float32
    assert torch.equal(logits, head(features))


def test_no_gradient_reaches_the_prototypes() -> None:
    head, features = PrototypeClassifier(5, 8), torch.randn(4, 8, requires_grad=True)
    head(features).logsumexp(1).sum().backward()
    assert features.grad is not None
    assert features.grad.abs().sum() > 0
    assert not list(head.parameters())
    assert not head.prototypes.requires_grad
    head.update(features, torch.arange(4))
    assert not head.prototypes.requires_grad


# ── moving ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_class_starts_at_the_mean_of_its_unit_features_and_then_follows_by_ema() -> None:
    head = PrototypeClassifier(3, 4, momentum=0.9)
    before, features = head.prototypes.clone(), torch.randn(5, 4) * torch.tensor([1.0, 9, 1, 1, 5])[:, None]
    head.update(features, torch.tensor([0, 0, 2, 2, 2]))
    torch.testing.assert_close(head.prototypes[0], mean_direction(features[:2]))
    torch.testing.assert_close(head.prototypes[2], mean_direction(features[2:]))
    assert torch.equal(head.prototypes[1], before[1])
    assert head.seen.tolist() == [True, False, True]

    first, more = head.prototypes.clone(), torch.randn(2, 4)
    head.update(more, torch.tensor([0, 0]))
    moved = 0.9 * first[0] + 0.1 * F.normalize(more, dim=1).mean(0)
    torch.testing.assert_close(head.prototypes[0], F.normalize(moved, dim=0))
    assert torch.equal(head.prototypes[1:], first[1:])
    torch.testing.assert_close(head.prototypes.norm(dim=1), torch.ones(3))


def test_a_random_start_moves_by_ema_from_the_beginning() -> None:
    head = PrototypeClassifier(2, 4, momentum=0.9, start="random")
    before, features = head.prototypes.clone(), torch.randn(1, 4)
    head.update(features, torch.tensor([1]))
    moved = 0.9 * before[1] + 0.1 * F.normalize(features[0], dim=0)
    torch.testing.assert_close(head.prototypes[1], F.normalize(moved, dim=0))


@pytest.mark.parametrize("outside", [255, -1, 3])
def test_labels_outside_the_classes_are_ignored(outside: int) -> None:
    head, features = PrototypeClassifier(3, 4), torch.randn(3, 4)
    twin = PrototypeClassifier(3, 4)
    twin.load_state_dict(head.state_dict())
    head.update(features, torch.tensor([1, outside, outside]))
    twin.update(features[:1], torch.tensor([1]))
    torch.testing.assert_close(head.prototypes, twin.prototypes)
    before = head.prototypes.clone()
    head.update(features, torch.full((3,), outside))
    head.update(features[:0], torch.zeros(0, dtype=torch.int64))
    assert torch.equal(head.prototypes, before)


def test_uint8_labels_and_half_features_are_welcome() -> None:
    head = PrototypeClassifier(3, 4)
    head.update(torch.randn(2, 4).bfloat16(), torch.tensor([0, 255], dtype=torch.uint8))
    assert head.prototypes.dtype == torch.float32
    assert head.seen.tolist() == [True, False, False]


def test_a_state_dict_restores_prototypes_and_what_was_seen() -> None:
    head, twin = PrototypeClassifier(3, 4), PrototypeClassifier(3, 4)
    head.update(torch.randn(2, 4), torch.tensor([0, 2]))
    twin.load_state_dict(head.state_dict())
    features, labels = torch.randn(6, 4), torch.tensor([0, 1, 1, 2, 2, 0])
    head.update(features, labels)
    twin.update(features, labels)
    assert torch.equal(head.prototypes, twin.prototypes)
    assert torch.equal(head.seen, twin.seen)


# ── ranks ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _update_on_rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.manual_seed(0)
    head, features, labels = PrototypeClassifier(3, 4), torch.randn(10, 4), torch.arange(10) % 2
    head.update(features[rank * 3 :][: 3 + 4 * rank], labels[rank * 3 :][: 3 + 4 * rank])  # 3 pixels here, 7 there
    torch.save(head.prototypes, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_hold_the_prototypes_of_one(tmp_path: Path) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.multiprocessing.spawn(_update_on_rank, (str(tmp_path),), nprocs=2)  # type: ignore[attr-defined,no-untyped-call]
    one, two = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    torch.manual_seed(0)
    head, features, labels = PrototypeClassifier(3, 4), torch.randn(10, 4), torch.arange(10) % 2
    head.update(features, labels)
    assert torch.equal(one, two)
    torch.testing.assert_close(one, head.prototypes)
