"""What stays in float32 when the networks compute in less: classification, sampling, prototypes, moving averages."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from des4.models import ModelConfig, PrototypeClassifier, PrototypeFeed, build_segmenter
from des4.models.memory import Sampling
from des4.models.training.ema import follow
from des4.ops.entropy import pixel_entropy

COUNTS = torch.tensor([900, 90, 10])

pytestmark = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)


def seen_classifier() -> PrototypeClassifier:
    """A classifier whose classes have all been seen, so that an update averages."""
    head = PrototypeClassifier(3, 8)
    head.seen.fill_(True)
    return head


def low_batch(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Features and logits of low precision on a 9 × 9 grid, labels on 33 × 33 pixels."""
    return 100 * torch.randn(2, 8, 9, 9).to(dtype), torch.randn(2, 3, 9, 9).to(dtype), torch.randint(0, 3, (2, 33, 33))


@pytest.mark.parametrize("encoder", ["test_efficientnet", "test_vit"])
def test_the_network_computes_in_low_precision_and_its_classifier_in_float32(
    encoder: str, dtype: torch.dtype, tiny_model: ModelConfig
) -> None:
    config = tiny_model.model_copy(update={"encoder": encoder, "embedding": "linear"})
    segmenter = build_segmenter(config, 3, "prototype").train()
    with torch.autocast("cpu", dtype):
        features = segmenter.features(torch.rand(2, 3, 33, 33))
        logits = segmenter.head(features)
    assert features.dtype == dtype
    assert logits.dtype == torch.float32
    assert torch.equal(logits, segmenter.head(features.float()))
    logits.square().mean().backward()
    for name, parameter in segmenter.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == torch.float32, name
        assert parameter.grad.isfinite().all(), name
    assert all(b.dtype == torch.float32 for b in segmenter.buffers() if b.is_floating_point())


@pytest.mark.parametrize("sampling", ["multi_entropy", "quantity", "confidence", "all"])
def test_the_same_pixels_are_chosen_and_prototypes_are_unit_vectors_in_float32(
    sampling: Sampling, dtype: torch.dtype
) -> None:
    features, logits, label = low_batch(dtype)
    labels = label[:, ::4, ::4].flatten()  # as the feed shrinks them
    feed, inside, outside = PrototypeFeed(COUNTS, sampling), seen_classifier(), seen_classifier()
    outside.load_state_dict(inside.state_dict())
    before = inside.prototypes.clone()
    with torch.autocast("cpu", dtype):
        mask = feed.choose(logits, labels, torch.Generator().manual_seed(0))
        feed.collect(features, logits, label)
        feed.commit(inside, torch.Generator().manual_seed)
    feed.collect(features.float(), logits.float(), label)
    feed.commit(outside, torch.Generator().manual_seed)
    assert torch.equal(mask, feed.choose(logits.float(), labels, torch.Generator().manual_seed(0)))
    assert inside.prototypes.dtype == torch.float32
    assert torch.equal(inside.prototypes, outside.prototypes)
    assert ((inside.prototypes - before).norm(dim=1) > 0).all()
    torch.testing.assert_close(inside.prototypes.norm(dim=1), torch.ones(3))


def test_sums_beyond_the_range_of_float16_do_not_overflow(dtype: torch.dtype) -> None:
    """70,000 pixels of one class: their count alone is no float16, nor exact in bfloat16."""
    head = PrototypeClassifier(1, 2)
    with torch.autocast("cpu", dtype):
        head.update(torch.tensor([[3e4, 4e4]]).to(dtype).expand(70_000, 2), torch.zeros(70_000, dtype=torch.int64))
    expected = F.normalize(torch.tensor([[3e4, 4e4]]).to(dtype).float(), dim=1)
    torch.testing.assert_close(head.prototypes, expected, rtol=1e-3, atol=0)


def test_entropy_is_that_of_float32(dtype: torch.dtype) -> None:
    probs = torch.rand(2, 5, 4, 4).softmax(1).to(dtype)
    with torch.autocast("cpu", dtype):
        inside = pixel_entropy(probs)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, pixel_entropy(probs.float()))


def test_a_moving_average_takes_steps_too_small_for_low_precision(dtype: torch.dtype, tiny_model: ModelConfig) -> None:
    source = build_segmenter(tiny_model, 3, "prototype")
    inside = build_segmenter(tiny_model, 3, "prototype")
    outside, before = copy.deepcopy(inside), copy.deepcopy(inside)
    with torch.autocast("cpu", dtype):
        follow(inside, source, 0.9999)
    follow(outside, source, 0.9999)
    moved = 0
    for name, mine in inside.state_dict().items():
        assert torch.equal(mine, outside.state_dict()[name]), name
        if mine.is_floating_point():
            assert mine.dtype == torch.float32, name
            moved += int((mine != before.state_dict()[name]).sum())
    assert moved > 0.9 * sum(p.numel() for p in inside.encoder.parameters() if p.ndim > 1)
