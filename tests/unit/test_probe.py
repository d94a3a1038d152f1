"""Classifiers on frozen features, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from des4.metrics import Results
from des4.probe import NEVER, OWN, RIDGE, AffineHead, LoweredHead, Probe, discriminant, softmax_regression


def test_a_discriminant_by_hand() -> None:
    # means 1 and 5, both with a variance of 1; a third class that nobody has seen
    features, labels = torch.tensor([[0.0], [2.0], [4.0], [6.0]]), torch.tensor([0, 0, 1, 1])
    weight, bias = discriminant(features, labels, torch.tensor([300, 100, 0]))
    variance = 1 + RIDGE
    share = [300 / 500, 100 / 500]  # an absent class counts as frequent as the rarest
    assert weight[:, 0].tolist() == pytest.approx([1 / variance, 5 / variance, 0])
    expected = [math.log(share[0]) - 0.5 / variance, math.log(share[1]) - 12.5 / variance, NEVER]
    assert bias.tolist() == pytest.approx(expected)


def test_a_discriminant_heeds_how_features_spread() -> None:
    """Both features tell the classes apart by 1; the first is ten times as noisy, and a cosine would not know."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(4000) % 2
    noise = torch.randn(4000, 2, generator=generator) * torch.tensor([10.0, 1.0])
    weight, _ = discriminant(labels[:, None] + noise, labels, torch.tensor([1, 1]))
    first, second = (weight[1] - weight[0]).tolist()
    assert second == pytest.approx(1, abs=0.15)
    assert abs(first) < 0.05


@pytest.mark.parametrize(("power", "gap"), [(0.0, math.log(3)), (0.5, 0.5 * math.log(3)), (1.0, 0.0)])
def test_a_regression_without_features_knows_the_shares(power: float, gap: float) -> None:
    labels = torch.tensor([0, 0, 0, 1])
    weight, bias = softmax_regression(torch.zeros(4, 2), labels, torch.tensor([30, 10]), power)
    assert not weight.any()
    assert (bias[0] - bias[1]).item() == pytest.approx(gap, abs=1e-3)


def test_a_regression_finds_the_side_on_features_of_any_scale() -> None:
    features = torch.tensor([[100.0, 5.0], [101.0, 5.0], [104.0, 5.0], [105.0, 5.0]])
    weight, bias = softmax_regression(features, torch.tensor([0, 0, 1, 1]), torch.tensor([1, 1, 0]))
    assert (features @ weight.T + bias).argmax(1).tolist() == [0, 0, 1, 1]
    assert weight[0, 0] == pytest.approx(-weight[1, 0].item(), rel=1e-3)
    assert (bias[2], weight[2].any()) == (NEVER, False)


def test_heads_give_their_logits() -> None:
    features = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1)
    affine = AffineHead(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([0.5, -1.0]))
    assert affine(features).flatten().tolist() == [1.5, 2.0]
    lowered = LoweredHead(nn.Identity(), 0.5 * torch.tensor([0.25, 0.5]).log())
    assert lowered(features).flatten().tolist() == pytest.approx([1 + math.log(2), 2 + 0.5 * math.log(2)])


def results(hits: int) -> Results:
    return Results(torch.tensor([[hits, 100 - hits], [0, 100]]), ("a", "b"), ("b",))


def test_the_verdict_names_what_was_chosen_on_what() -> None:
    found = Probe("student", 90, 6, 1234, 34, {OWN: results(60), "LDA": results(90), "linear": results(70)})
    assert found.best == "LDA"
    fitted, said = found.verdict()
    assert "6 labeled images (1,234 pixels)" in fitted and "34 val images" in fitted
    assert said.startswith("LDA gets 24.7 points of mIoU more")  # (90/100 + 100/110)/2 - (60/100 + 100/140)/2
    assert "best of 3, chosen on the val images" in said
    data = found.as_data()
    assert data["best"] == {"head": "LDA", "chosen_on": "val"}
    assert data["heads"]["LDA"]["iou"] == {"a": 0.9, "b": 100 / 110}
    close = Probe("student", 90, 6, 1234, 34, {OWN: results(80), "LDA": results(80)})
    assert close.best == OWN and "No other classifier gets a point" in close.verdict()[1]


def test_what_is_undefined_is_null_in_json() -> None:
    empty = Results(torch.zeros(2, 2, dtype=torch.int64), ("a", "b"))
    data = Probe("student", 1, 1, 1, 1, {OWN: empty}).as_data()
    assert data["heads"][OWN] == {
        "miou": None, "tail_miou": None, "pixel_accuracy": None, "iou": {"a": None, "b": None}
    }  # fmt: skip
