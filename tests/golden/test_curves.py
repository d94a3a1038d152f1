"""A 20-step loss curve of every method, from a fixed start over a fixed stream of batches, on the CPU and one thread.

A refactoring leaves the curves as they are; a change of numbers writes them anew and says why:

    python -m pytest tests/golden --regenerate-golden

CPUs and library versions round differently, by some parts in a million. That is amplified where a hard decision, a
pseudo-label or a sampled pixel, falls the other way: so the first ten steps may differ by one part in a thousand, the
last ten by one in fifty. Four images and a warm temperature keep such events rare.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from des4.methods import METHODS

CURVES = Path(__file__).parent / "curves"
STEPS = 20

Make = Callable[..., Any]


@pytest.fixture
def curve_of(make_method: Make, make_batch: Make) -> Callable[[str], dict[str, list[float]]]:
    """Train a method for 20 steps; every pseudo-label counts, or the fresh networks would learn from none."""

    def curve_of(name: str) -> dict[str, list[float]]:
        settings = {"threshold": 0.0} if "threshold" in METHODS[name].Config.model_fields else {}
        method = make_method(name, model={"temperature": 0.5}, **settings)
        trainable = [p for p in method.parameters() if p.requires_grad]
        optimiser = torch.optim.SGD(trainable, lr=0.003, momentum=0.9, weight_decay=1e-4)
        curve: dict[str, list[float]] = {}
        for m in range(STEPS):
            terms = method(make_batch(m, images=4))
            torch.stack(list(terms.values())).sum().backward()
            optimiser.step()
            optimiser.zero_grad()
            method.after_step()
            for term, value in terms.items():
                curve.setdefault(term, []).append(float(f"{value.item():.7g}"))
        return curve

    return curve_of


@pytest.mark.parametrize("name", METHODS)
def test_the_curve_is_the_golden_one(
    name: str, curve_of: Callable[[str], dict[str, list[float]]], request: pytest.FixtureRequest
) -> None:
    path, curve = CURVES / f"{name}.json", curve_of(name)
    if request.config.getoption("--regenerate-golden"):
        path.write_text(json.dumps(curve, indent=1) + "\n", encoding="utf-8")
        pytest.skip(f"written: {path.name}")
    golden = json.loads(path.read_text(encoding="utf-8"))
    assert curve.keys() == golden.keys()
    for term, values in curve.items():
        assert values[:10] == pytest.approx(golden[term][:10], rel=1e-3, abs=1e-6), term
        assert values[10:] == pytest.approx(golden[term][10:], rel=2e-2, abs=1e-4), term


def test_every_curve_belongs_to_a_method() -> None:
    assert {path.stem for path in CURVES.glob("*.json")} == set(METHODS)
