import warnings

import torch

from des4.engine import process
from des4.engine.process import deterministic_kernels, free_memory, memory_of_machine, peak_memory


def switches():
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
    )


def test_deterministic_kernels_are_for_gpus_and_for_as_long_as_they_are_wanted():
    before = switches()
    for device, wanted in (("cpu", True), ("cpu", False), ("cuda", False)):
        with deterministic_kernels(torch.device(device), wanted):
            assert switches() == before
    with deterministic_kernels(torch.device("cuda"), True):
        assert switches() == (True, True, False)
    assert switches() == before == (False, False, True)


def test_an_operation_without_a_deterministic_kernel_is_named_and_done():
    pooled = torch.nn.functional.max_unpool2d  # one that has none on a CPU either
    image = torch.arange(16.0).view(1, 1, 4, 4)
    values, places = torch.nn.functional.max_pool2d(image, 2, return_indices=True)
    with deterministic_kernels(torch.device("cuda"), True), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert pooled(values, places, 2).sum() == values.sum()
    assert any("does not have a deterministic implementation" in str(one.message) for one in said)


def test_the_peak_of_a_process_without_a_gpu_is_within_the_machine(monkeypatch):
    machine = memory_of_machine()
    peak = peak_memory(torch.device("cpu"))
    assert peak["device"] is None and peak["process"] > 50_000_000  # torch alone takes more
    assert machine is None or peak["process"] < 4 * machine[0]
    monkeypatch.setattr(process, "resource", None)  # as on Windows
    assert peak_memory(torch.device("cpu")) == {"device": None, "process": None}


def test_processes_of_one_machine_share_its_free_memory(monkeypatch):
    monkeypatch.setattr(process, "memory_of_machine", lambda: (100, 60))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert free_memory(torch.device("cpu")) == 60
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_memory(torch.device("cpu")) == 15
