from __future__ import annotations

import torch

from des4.models.memory import ClassCentres
from des4.types import IGNORE


def test_centres_are_the_means_of_the_last_step_in_which_a_class_occurred() -> None:
    memory = ClassCentres(3, 2)
    features = torch.tensor([[1.0, 0.0], [3.0, 2.0], [9.0, 9.0], [0.0, 4.0]])
    memory.collect(features[:2], torch.tensor([0, 0]))
    memory.collect(features[2:], torch.tensor([IGNORE, 2]))
    assert not memory.seen.any()
    memory.commit()
    assert memory.centres.tolist() == [[2, 1], [0, 0], [0, 4]]
    assert memory.seen.tolist() == [True, False, True]
    memory.collect(features[2:3], torch.tensor([0]))
    memory.commit()
    assert memory.centres.tolist() == [[9, 9], [0, 0], [0, 4]]


def test_a_skipped_step_leaves_no_trace() -> None:
    memory = ClassCentres(2, 2)
    memory.skipped = torch.ones(())
    memory.collect(torch.full((3, 2), torch.nan), torch.tensor([0, 1, 1]))
    memory.commit()
    assert not memory.seen.any()
    assert not memory.centres.any()
