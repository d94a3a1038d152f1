import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex

from des4.metrics import PseudoLabelQuality, Results, confusion_matrix

nan = pytest.approx(math.nan, nan_ok=True)


def test_confusion_counts_truth_by_row_and_ignores_labels_outside():
    label = torch.tensor([[0, 0, 1], [2, 255, -1]])
    prediction = torch.tensor([[0, 1, 1], [0, 2, 1]])
    expected = torch.tensor([[1, 1, 0], [0, 1, 0], [1, 0, 0]])
    matrix = confusion_matrix(label, prediction, 3)
    assert matrix.dtype == torch.int64
    assert torch.equal(matrix, expected)
    assert torch.equal(confusion_matrix(label.to(torch.uint8), prediction.to(torch.uint8), 3), expected)


def test_many_classes_do_not_overflow_the_label_type():
    label = torch.tensor([254], dtype=torch.uint8)
    assert confusion_matrix(label, label, 255)[254, 254] == 1


def test_figures_by_hand():
    results = Results(
        torch.tensor([[6, 2, 0, 0], [1, 3, 0, 0], [0, 0, 0, 0], [4, 0, 0, 0]]), ("a", "b", "c", "d"), ("b", "d")
    )
    assert results.iou == {"a": 6 / 13, "b": 0.5, "c": nan, "d": 0.0}
    assert results.miou == pytest.approx((6 / 13 + 0.5) / 3)
    assert results.tail_miou == 0.25
    assert results.pixel_accuracy == 9 / 16


def test_nothing_scored_is_nan_not_zero():
    results = Results(torch.zeros(2, 2, dtype=torch.int64), ("a", "b"))
    assert math.isnan(results.miou) and math.isnan(results.tail_miou) and math.isnan(results.pixel_accuracy)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 7), st.integers(0, 2**31))
def test_agrees_with_torchmetrics(num_classes, seed):
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, num_classes, (2, 9, 7), generator=generator)
    prediction = torch.randint(0, num_classes, (2, 9, 7), generator=generator)
    label[torch.rand(label.shape, generator=generator) < 0.2] = 255
    matrix = confusion_matrix(label, prediction, num_classes)
    assert torch.equal(matrix, MulticlassConfusionMatrix(num_classes, ignore_index=255)(prediction, label))
    results = Results(matrix, tuple("abcdefg"[:num_classes]))
    theirs = MulticlassJaccardIndex(num_classes, average="none", ignore_index=255)(prediction, label)
    ours = torch.tensor(list(results.iou.values()))
    known = ~ours.isnan()
    torch.testing.assert_close(ours[known], theirs[known])


def test_pseudo_label_quality_by_hand():
    everything = torch.tensor([[8, 2, 0], [3, 7, 0], [0, 0, 0]])
    kept = torch.tensor([[4, 1, 0], [1, 0, 0], [0, 0, 0]])
    quality = PseudoLabelQuality.from_confusions(kept, everything, ("a", "b", "c"), 0.9)
    assert quality.precision == {"a": 4 / 5, "b": 0.0, "c": nan}
    assert quality.coverage == {"a": 5 / 10, "b": 1 / 10, "c": nan}
    assert quality.threshold == 0.9
