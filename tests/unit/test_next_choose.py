"""What counts as labeled, by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from des4.acquisition.choose import _labeled, _labeled_names
from des4.acquisition.rules import Scores


def test_each_mask_counts_as_one_image_whatever_its_size_and_held_out_ones_count_too() -> None:
    masks = {
        "small": torch.tensor([[0, 0, 0], [1, 255, 255]], dtype=torch.uint8),  # four pixels and two ignored ones
        "large": torch.ones(8, 8, dtype=torch.uint8),
    }
    dataset: Any = SimpleNamespace(
        labeled=("small",), held_out=("large",), label=masks.__getitem__, classes=("road", "pole"), skip_broken=False
    )
    names = _labeled_names(dataset)
    assert names == ["small", "large"]
    none = np.zeros((2, 2), np.float32)
    seen = Scores(names, none[:, 0], none, none, np.array([[1], [2]], np.float32))
    found = _labeled(dataset, seen, seen, notes := [])
    assert found.images.tolist() == [0.75, 1.25]
    assert list(found.names) == names and found.features.tolist() == [[1], [2]] and notes == []
