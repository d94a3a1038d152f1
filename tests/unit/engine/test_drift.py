"""The drift guard: when it speaks, what it says, and that it is a function of the log alone."""

from __future__ import annotations

import math
import random

import pytest

from des4.engine.drift import DriftGuard

SHARE = {"wall": 0.6, "tree": 0.3, "pole": 0.1, "never": 0.0}


def shares(ratio: float, name: str = "tree") -> list[float]:
    """Shares in which a class has so many times its labeled share, and the rest goes to the wall."""
    found = dict(SHARE)
    found[name] *= ratio
    found["wall"] -= found[name] - SHARE[name]
    return list(found.values())


def warnings(ratios: list[float], factor: float | None = 1.5, name: str = "tree") -> list[tuple[int, str]]:
    guard = DriftGuard(SHARE, factor, steps=100 * len(ratios), log_every=100)
    return [(n, text) for n, ratio in enumerate(ratios, 1) for text in guard.look(100 * n, shares(ratio, name))]


def test_a_class_that_takes_over_is_named_once_with_its_figures() -> None:
    found = warnings([1 + 0.03 * n for n in range(40)])
    (line, text), *more = found
    assert [name for _, name in more if "tree" in name] == []
    logs = [math.log(1 + 0.03 * n) for n in range(4, 40)]
    counts = {k: max(6, k // 4) for k in range(12, 37)}  # the lines that a mean is of
    first = next(k for k, n in counts.items() if sum(logs[k - n : k]) / n > math.log(1.5))
    assert line == first + 4  # the first tenth, four lines, does not count
    assert text.startswith("warning: pseudo-labels drift: tree has 1.5 times its share of the labels (46 % of the ")
    assert "30 % of the labeled pixels), and that still grows" in text
    assert "do hold more of it, stop, and try a higher threshold" in text


def test_a_class_that_dies_out_is_named() -> None:
    (found, *_) = warnings([0.9**n for n in range(40)], name="pole")
    assert "pole has 0." in found[1] and "still shrinks" in found[1] and "less of it" in found[1]


@pytest.mark.parametrize(
    "ratios",
    [
        pytest.param([1.9] * 40, id="beyond, but it stays"),
        pytest.param([3 - 0.05 * n for n in range(40)], id="comes back"),
        pytest.param([1 + 0.01 * n for n in range(40)], id="moves, but not beyond"),
        pytest.param([0.0] * 40, id="was never there"),
        pytest.param([0.019 - 0.0004 * n for n in range(40)], id="as good as gone"),
        pytest.param([0.05 * 3**n for n in range(4)] + [1.0] * 36, id="in the first tenth alone"),
        pytest.param([1 + 0.1 * n for n in range(7)], id="too few lines"),
        pytest.param([0.8] * 7 + [2.0] * 6, id="on the other side before"),
    ],
)
def test_what_is_no_drift(ratios: list[float]) -> None:
    assert [text for _, text in warnings(ratios) if "tree" in text] == []


def test_the_line_at_the_end_of_the_first_tenth_does_not_count() -> None:
    """Of 20 lines these are two, so twelve that count are there with the 14th."""
    assert [line for line, text in warnings([1.1] * 8 + [2.0] * 12) if "tree" in text] == [14]


@pytest.mark.parametrize(("lines", "told"), [(8, 8), (9, 8), (10, 9), (12, 9), (13, 13)])
def test_a_short_training_is_told_of_sooner(lines: int, told: int) -> None:
    """With eight lines that count; of ten lines and more the first does not. From twelve that count on, with those."""
    found = warnings([1 + 0.1 * n for n in range(lines)])
    assert [line for line, text in found if "tree" in text] == [told]


@pytest.mark.parametrize("lines", [10, 60])
def test_noise_is_no_drift(lines: int) -> None:
    rng = random.Random(0)
    runs = [warnings([1.8 * math.exp(rng.gauss(0, 0.05)) for _ in range(lines)]) for _ in range(100)]
    assert sum(map(bool, runs)) <= 2  # three classes, two or 42 lines to speak at


def test_without_a_factor_it_is_silent_and_still_sums_up() -> None:
    guard = DriftGuard(SHARE, None, steps=100, log_every=1)
    assert [guard.look(n, shares(1 + 0.1 * n)) for n in range(11, 20)] == [[]] * 9
    summary = guard.summary()
    assert summary and summary["factor"] is None and summary["warned"] == []
    assert summary["ratio"]["tree"] == pytest.approx(2.9)
    assert summary["ratio"]["never"] is None


def test_lines_without_a_label_that_counts_are_left_out() -> None:
    guard = DriftGuard(SHARE, 1.5, steps=100, log_every=1)
    assert guard.look(50, [0.0] * 4) == []
    assert guard.summary() is None


def test_a_resumed_run_warns_as_the_uninterrupted_one() -> None:
    lines = [(100 * n, shares(1 + 0.03 * n)) for n in range(1, 41)]
    straight = DriftGuard(SHARE, 1.5, steps=4000, log_every=100)
    said = [straight.look(*line) for line in lines]
    warned = next(n for n, texts in enumerate(said) if texts)
    for stop in (5, warned, warned + 1, 39):
        resumed = DriftGuard(SHARE, 1.5, steps=4000, log_every=100)
        resumed.replay([{"step": 1, "loss": 2.0}, *({"step": s, "drift/shares": v} for s, v in lines[:stop])])
        assert [resumed.look(*line) for line in lines[stop:]] == said[stop:]
        assert resumed.summary() == straight.summary()
