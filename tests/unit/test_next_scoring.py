"""What is kept of an image once it is segmented, by hand."""

from __future__ import annotations

from math import log

import numpy as np
import pytest

from des4.acquisition.features import DIMENSIONS
from des4.acquisition.scoring import _Summary, as_scores, row_width


def test_a_row_holds_entropies_as_shares_of_the_most_there_can_be() -> None:
    summary = _Summary(3)  # one piece of two pixels, and one of two
    summary.add(np.array([[0, 0]], np.uint8), log(3) * np.array([[0.2, 0.4]], np.float32))
    summary.add(np.array([[0, 1]], np.uint8), log(3) * np.array([[0.6, 1.0]], np.float32))
    row = summary.row(np.array([7, 8], np.float32))
    assert len(row) == row_width(3)
    assert row[0] == pytest.approx(2.2 / 4)
    assert row[1:4].tolist() == pytest.approx([1.2 / 3, 1, 0])  # of each class, over its own pixels
    assert row[4:7].tolist() == [0.75, 0.25, 0]
    assert row[7:].tolist() == [7, 8] + [0] * (DIMENSIONS - 2)
    unread = np.full_like(row, np.nan)
    scores = as_scores(["a", "b"], {0: unread, 1: row}, 3)
    assert scores.names == ["b"] and scores.doubt[0] == pytest.approx((0.4 + 1) / 2)
    assert np.isnan(scores.class_entropy).tolist() == [[False, False, True]]
