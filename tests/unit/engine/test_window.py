"""Means of the loss terms between two log lines."""

import math

import pytest
import torch

from des4.engine.step import Outcome
from des4.engine.window import Window


def _outcome(*, skipped: bool = False, **terms: float) -> Outcome:
    made = {name: torch.tensor(value) for name, value in terms.items()}
    return Outcome(made, norm=torch.tensor(1.0), skipped=torch.tensor(float(skipped)))


def test_a_term_is_the_mean_over_the_steps_that_have_it() -> None:
    """A method that learns in two parts changes its terms between two log lines: no curve drops there."""
    window = Window()
    window.add(_outcome(labeled=1.0, others=4.0), images=2, seconds=0.5)
    window.add(_outcome(labeled=3.0, unlabeled=2.0), images=4, seconds=0.5)
    window.add(_outcome(labeled=5.0, unlabeled=6.0), images=4, seconds=0.5)
    means = window.means()
    assert means == {"loss": 7.0, "loss/labeled": 3.0, "loss/others": 4.0, "loss/unlabeled": 4.0}
    assert (window.images, window.seconds) == (10, 1.5)


def test_a_step_that_was_skipped_counts_for_nothing() -> None:
    window = Window()
    window.add(_outcome(labeled=1.0), images=2, seconds=0.5)
    window.add(_outcome(labeled=math.nan, skipped=True), images=2, seconds=0.5)
    assert window.means() == {"loss": 1.0, "loss/labeled": 1.0}
    window = Window()
    window.add(_outcome(labeled=math.inf, skipped=True), images=2, seconds=0.5)
    assert all(math.isnan(mean) for mean in window.means().values())


@pytest.mark.parametrize("steps_of_all", [False, True], ids=["now", "an earlier checkpoint"])
def test_a_window_goes_on_from_a_checkpoint(steps_of_all: bool) -> None:
    whole, cut = Window(), Window()
    for window in (whole, cut):
        window.add(_outcome(labeled=1.0), images=2, seconds=0.5)
    state = cut.state()
    if steps_of_all:
        state["sums"] = {"loss": 1.0, "loss/labeled": 1.0, "steps": 1.0}
    cut = Window()
    cut.restore(state, torch.device("cpu"))
    for window in (whole, cut):
        window.add(_outcome(labeled=4.0), images=2, seconds=0.5)
    assert cut.means() == whole.means()
    assert cut.state() == whole.state()
