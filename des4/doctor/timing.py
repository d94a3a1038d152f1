"""Where the time of a step goes, and how fast a device is: measured, and seen from outside a method."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from des4.engine.process import wait_for
from des4.engine.settings import DTYPES, Precision
from des4.models import PrototypeClassifier, PrototypeFeed, TargetTally

if TYPE_CHECKING:
    from des4.methods.base import Method

LOSSES, WATCHING, SAMPLING, PROTOTYPES, AVERAGES, OPTIMISER, REST = (
    "losses",
    "counting targets",
    "choosing pixels",
    "prototypes",
    "averages",
    "optimiser",
    "rest",
)
"""Parts of a step beside the networks. losses: with mixing and pseudo-labels. averages: what else follows the step."""

_MARK = "des4: "
_BACKWARD = "autograd::engine::evaluate_function: "


def time_shares(method: Method, step: Callable[[], object], steps: int = 1) -> dict[str, float]:
    """Measure which part of a step's time goes where, over some steps: name → share, which sum to 1.

    The names are those of the method's networks, `student forward` and `student backward`, and the parts above. Time is
    the device's: on a GPU that of its kernels, which waiting for the host is no part of. A backward operation belongs
    to the part whose forward operation it differentiates. A classifier that networks share is the first one's.
    step: takes one step of `method`. The profiler slows small operations down more than large ones.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler reports on stderr that there is no GPU
    device = next(method.parameters()).device
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with _marked(method), profile(activities=activities) as recorded:
        for _ in range(steps):
            step()
        wait_for(device)
    seconds = _add_up(recorded.events() or (), on_gpu)
    whole = sum(seconds.values())
    return {name: value / whole for name, value in seconds.items()}


@contextmanager
def _marked(method: Method) -> Iterator[None]:
    """Inside, the profiler sees which part of the method runs."""
    before: list[tuple[nn.Module, str, Any]] = []
    for module, attribute, name in _parts(method):
        before.append((module, attribute, vars(module).get(attribute)))
        setattr(module, attribute, _under(_MARK + name, getattr(module, attribute)))
    try:
        yield
    finally:
        for module, attribute, own in reversed(before):
            if own is None:
                delattr(module, attribute)
            else:
                setattr(module, attribute, own)


def _parts(method: Method) -> Iterator[tuple[nn.Module, str, str]]:
    """Yield module, name of its function, and the part of the step that this function is."""
    yield method, method.forward.__name__, LOSSES  # "losses", as a rule
    yield method, "after_step", AVERAGES
    for name, network in method.networks().items():
        for module in dict.fromkeys(network.parts):
            compiled = vars(module).get("_compiled_call_impl") is not None
            yield module, "_compiled_call_impl" if compiled else "forward", name
    for module in method.modules():
        if isinstance(module, PrototypeFeed):
            yield module, "choose", SAMPLING
        elif isinstance(module, PrototypeClassifier):
            yield module, "update", PROTOTYPES
        elif isinstance(module, TargetTally):
            yield module, "collect", WATCHING


def _under(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def marked(*args: Any, **kwargs: Any) -> Any:
        with record_function(name):
            return function(*args, **kwargs)

    return marked


def _add_up(events: Iterable[FunctionEvent], on_gpu: bool) -> Counter[str]:
    """Add the events' own times up by part. Each is found under a mark, or under the backward pass of one that was."""
    ordered = sorted(
        (event for event in events if event.device_type == DeviceType.CPU),
        key=lambda event: (event.time_range.start, -event.time_range.end),
    )
    # (thread, sequence number) of a forward operation → its part
    differentiated: dict[tuple[int | None, int | None], str] = {}
    last: dict[int | None, str] = {}  # thread → part of the newest backward operation
    times: Counter[str] = Counter()
    for event in ordered:
        place = _place(event)
        if place is not None and place.name.startswith(_BACKWARD):
            # adding a gradient to a parameter's comes right after the operation that made it, and has no number
            part = differentiated.get((place.fwd_thread, place.sequence_nr), last.get(place.thread, REST))
            last[place.thread] = part
            name = _with_direction(part, "backward")
        else:
            part = _part_of(place)
            if event.sequence_nr >= 0:
                differentiated[event.thread, event.sequence_nr] = part
            name = _with_direction(part, "forward")
        times[name] += event.self_device_time_total if on_gpu else event.self_cpu_time_total
    return times


def _place(event: FunctionEvent) -> FunctionEvent | None:
    """Return the innermost of an event and its callers that says to which part it belongs."""
    caller: FunctionEvent | None = event
    while caller is not None and not caller.name.startswith((_MARK, _BACKWARD, "Optimizer.")):
        caller = caller.cpu_parent
    return caller


def _part_of(place: FunctionEvent | None) -> str:
    if place is None:
        return REST
    return place.name.removeprefix(_MARK) if place.name.startswith(_MARK) else OPTIMISER


def _with_direction(part: str, direction: str) -> str:
    return part if part in (WATCHING, SAMPLING, PROTOTYPES, AVERAGES, OPTIMISER, REST) else f"{part} {direction}"


def matrix_rate(device: torch.device, precision: Precision, seconds: float = 0.3) -> float:
    """Measure how fast this device multiplies matrices in a precision: FLOP/s, the best of what fits the time.

    Larger matrices are tried until one takes a good part of the time.
    """
    size, best = 256, 0.0
    end = time.perf_counter() + seconds
    while True:
        a, b = torch.rand(2, size, size, device=device).to(DTYPES[precision])
        torch.mm(a, b)  # a first time, which sets things up
        wait_for(device)
        start = time.perf_counter()
        torch.mm(a, b)
        wait_for(device)
        elapsed = time.perf_counter() - start
        best = max(best, 2 * size**3 / elapsed)
        if time.perf_counter() > end:
            return best
        if elapsed < seconds / 30 and size < 8192:
            size *= 2
