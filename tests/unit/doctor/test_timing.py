import time

import pytest
import torch
from eager import eager

from des4.doctor.timing import AVERAGES, OPTIMISER, PROTOTYPES, SAMPLING, WATCHING, matrix_rate, time_shares
from des4.engine import OptimConfig, TrainStep, build_optimiser
from des4.methods import METHODS

CPU = torch.device("cpu")


def make_step(method, batch):
    take_step = TrainStep(method, build_optimiser(method, OptimConfig(lr=1e-3), 2), CPU)
    take_step(batch)
    return lambda: take_step(batch)


@pytest.mark.parametrize("name", METHODS)
def test_shares_name_the_parts_of_any_method(name, make_method, make_batch):
    method = make_method(name, **eager(name))
    method.step = max((0, *method.restarts))  # to the part where all take part
    step = make_step(method, make_batch())
    own = {module: set(vars(module)) for module in method.modules()}
    shares = time_shares(method, step)
    assert sum(shares.values()) == pytest.approx(1)
    assert {"student forward", "student backward", "losses forward", "losses backward", OPTIMISER, AVERAGES} <= set(
        shares
    )
    assert ("teacher forward" in shares) == hasattr(method, "teacher")
    assert (WATCHING in shares) == (name != "supervised")
    assert ("teacher backward" in shares) == (name in ("des4", "vat"))  # VAT asks it which change would tell most
    assert ({SAMPLING, PROTOTYPES} <= set(shares)) == (name == "des4")
    assert {module: set(vars(module)) for module in method.modules()} == own
    step()


def test_a_slow_part_has_the_largest_share(make_method, make_batch):
    method = make_method("mean_teacher")
    step = make_step(method, make_batch())
    started = time.perf_counter()
    step()
    usual, after_step = time.perf_counter() - started, method.after_step

    def slow():
        time.sleep(10 * usual)
        after_step()

    method.after_step = slow
    shares = time_shares(method, step)
    assert max(shares, key=shares.get) == AVERAGES
    assert method.after_step is slow


def test_the_rate_of_matrix_products_is_positive():
    assert matrix_rate(CPU, "fp32", seconds=0.01) > 1e6
