"""What the hand checks of several methods begin with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from eager import optimiser_of

from des4.methods import Method

Make = Callable[..., Any]


@pytest.fixture
def make_sure(make_method: Make, make_batch: Make) -> Callable[..., Method]:
    """Factory of methods with linear classifiers that have taken a step, and are sure of some pixels, but not of all.

    So a teacher is no copy of its student any more. Fresh networks are unsure of everything.
    """

    def make(name: str, **settings: Any) -> Method:
        method: Method = make_method(name, **settings)
        optimiser = optimiser_of(method)
        torch.stack(list(method.losses(make_batch(1)).values())).sum().backward()
        optimiser.step()
        optimiser.zero_grad()
        method.after_step()
        with torch.no_grad():
            for segmenter in method.predictors().values():
                segmenter.head.get_submodule("weight").get_parameter("weight").mul_(100)
        return method

    return make
