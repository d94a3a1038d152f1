"""The tally of targets: figures by hand, over parts, skipped steps and a resume."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from des4.models.memory import TargetTally

LABEL = torch.tensor([[[0, 0, 1], [2, 1, 0]]])
CONFIDENCE = torch.tensor([[[0.9, 0.8, 0.7], [0.6, 0.5, 1.0]]])
VALID = torch.tensor([[[True, True, True], [True, True, False]]])
KEEP = (CONFIDENCE >= 0.6) & VALID


def logits(label: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(label, 3).movedim(-1, 1).float()


STUDENT = logits(torch.tensor([[[0, 1, 1], [0, 1, 0]]]))


def collected(tally: TargetTally) -> TargetTally:
    tally.collect(STUDENT, LABEL, CONFIDENCE, KEEP, VALID)
    return tally


def test_figures_by_hand() -> None:
    tally = collected(TargetTally(3))
    assert tally.take() is None  # nothing counts before the step is taken
    tally.commit()
    figures = tally.take()
    assert figures
    assert figures.shares == [2 / 4, 1 / 4, 1 / 4]  # kept: 0, 0, 1, 2
    assert figures.kept == 4 / 5
    assert figures.confidence == pytest.approx((0.9 + 0.8 + 0.7 + 0.6 + 0.5) / 5)
    assert figures.agreement == 2 / 4  # of 0, 0, 1, 2 the student says 0, 1, 1, 0
    assert tally.take() is None


def test_parts_and_steps_add_up() -> None:
    tally = collected(collected(TargetTally(3)))
    tally.commit()
    collected(tally).commit()
    assert tally.state() == [6.0, 3.0, 3.0, 6.0, 15.0, pytest.approx(10.5)]


def test_a_step_that_is_taken_again_or_skipped_is_forgotten() -> None:
    tally = collected(TargetTally(3))
    tally.discard()
    tally.commit()
    tally.skipped = torch.tensor(1.0)
    collected(tally).commit()
    assert tally.take() is None
    tally.skipped = torch.tensor(0.0)
    collected(tally).commit()
    assert tally.take() is not None


def test_what_is_not_a_number_counts_nowhere() -> None:
    tally = TargetTally(3)
    nan = CONFIDENCE.clone()
    nan[0, 0, 0] = torch.nan
    tally.collect(STUDENT, LABEL, nan, KEEP, VALID)
    tally.commit()
    figures = tally.take()
    assert figures
    assert figures.shares == pytest.approx([1 / 3, 1 / 3, 1 / 3])
    assert figures.confidence == pytest.approx((0.8 + 0.7 + 0.6 + 0.5) / 4)


def test_nothing_kept_is_no_share_of_any_class() -> None:
    tally = TargetTally(3)
    tally.collect(STUDENT, LABEL, CONFIDENCE, torch.zeros_like(KEEP), VALID)
    tally.commit()
    figures = tally.take()
    assert figures and figures.shares == [0.0, 0.0, 0.0]
    assert (figures.kept, figures.agreement) == (0.0, 0.0)


def test_it_goes_on_where_it_was_and_is_no_part_of_a_state_dict() -> None:
    straight, stopped = (collected(TargetTally(3)) for _ in range(2))
    stopped.commit()
    resumed = TargetTally(3)
    resumed.restore(stopped.state())
    straight.commit()
    for tally in (straight, resumed):
        collected(tally).commit()
    assert straight.take() == resumed.take()
    assert not straight.state_dict()
