"""What bfloat16, float16, memory format, checkpointing, the fused optimiser and compilation gain over plain float32.

python benchmarks/precision.py [--method NAME] [--encoder NAME] [--crop N] [--batch N] [--channels N] [--repeats N]
                               [--only NAME …]

Each variant is a training of its own, of the same method on the same batch, that differs from `plain` in what its name
says: float32, contiguous tensors, the foreach optimiser, no gradient checkpointing, not compiled. `as trained` is what
a training does by default in float32. A step is losses, backward pass, optimiser and what follows. Time: medians of
steps that take turns. Memory: the most that a step holds at any moment beyond what it finds, of one step on its own. A
variant that the device does not run is named and left out.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable
from dataclasses import dataclass

import torch
from step import NUM_CLASSES, make_batch, make_setting
from timing import machine, medians, prepare
from torch.profiler import ProfilerActivity, profile

from des4.engine.optim import OptimConfig, build_optimiser
from des4.engine.settings import Precision, autocast
from des4.methods import METHODS
from des4.models import HeadName, ModelConfig, Segmenter, build_segmenter
from des4.models.compilation import compile_networks, cpp_compiler
from des4.types import Batch

Step = Callable[[], None]


@dataclass(frozen=True)
class Variant:
    """What differs from plain float32."""

    precision: Precision = "fp32"
    channels_last: bool = False
    checkpointing: bool = False
    fused: bool = False
    compiled: bool = False


VARIANTS = {
    "plain": Variant(),
    "channels_last": Variant(channels_last=True),
    "bf16": Variant(precision="bf16"),
    "fp16": Variant(precision="fp16"),
    "checkpointing": Variant(checkpointing=True),
    "fused optimiser": Variant(fused=True),
    "compile": Variant(compiled=True),
    "as trained": Variant(channels_last=True, fused=True),
    "as trained, compile": Variant(channels_last=True, fused=True, compiled=True),
    "as trained, bf16": Variant(channels_last=True, fused=True, precision="bf16"),
    "as trained, bf16, compile": Variant(channels_last=True, fused=True, precision="bf16", compiled=True),
}


def make_step(variant: Variant, method: str, model: ModelConfig, batch: Batch, device: torch.device) -> Step:
    """Build a training and return its step."""
    torch.manual_seed(0)
    config = model.model_copy(update={"checkpointing": variant.checkpointing})
    layout = torch.channels_last if variant.channels_last else torch.contiguous_format

    def make_segmenter(head: HeadName) -> Segmenter:
        return build_segmenter(config, NUM_CLASSES, head).to(device, memory_format=layout)

    cls = METHODS[method]
    net = cls(cls.Config(), make_setting(make_segmenter, torch.ones(NUM_CLASSES))).to(device).train()
    if variant.compiled:
        for network in net.networks().values():
            compile_networks(network.module)
    optimiser = build_optimiser(net, OptimConfig(lr=1e-4), len(batch.labeled.image))
    for group in optimiser.param_groups:
        group.update(fused=variant.fused, foreach=not variant.fused)
    optimiser._step_supports_amp_scaling = variant.fused
    scaler = torch.amp.GradScaler(device.type, enabled=variant.precision == "fp16")

    def step() -> None:
        with autocast(device, variant.precision):
            terms = net(batch)
        scaler.scale(torch.stack(list(terms.values())).sum()).backward()
        scaler.step(optimiser)
        scaler.update()
        optimiser.zero_grad()
        net.after_step()

    return step


def peak_bytes(step: Step, device: torch.device) -> int:
    """Most memory that a step holds at any moment, beyond what was held before it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="des4", choices=METHODS)
    parser.add_argument("--encoder", default="tf_efficientnet_lite0")
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    args = parser.parse_args()
    prepare(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = ModelConfig(encoder=args.encoder, weights="none", channels=args.channels)
    batch = make_batch(args.batch, args.crop, device)

    print(f"{machine()}; {args.method}, {args.encoder}, {args.batch} + {args.batch} images of {args.crop}²")
    steps: dict[str, Step] = {}
    for name in dict.fromkeys(["plain", *args.only]):
        variant = VARIANTS[name]
        if variant.compiled and not cpp_compiler():
            print(f"{name:30} left out: no C++ compiler")
            continue
        step = make_step(variant, args.method, model, batch, device)
        try:
            step()
        except RuntimeError as error:  # what torch raises for a kernel that a device lacks
            if name == "plain":  # which every device runs, and all others are measured against
                raise
            print(f"{name:30} left out: {str(error).partition(chr(10))[0]}")
            continue
        steps[name] = step
    peaks = {name: peak_bytes(step, device) for name, step in steps.items()}
    seconds = medians(steps, args.repeats)
    for name, value in seconds.items():
        print(
            f"{name:30} {value * 1e3:9.1f} ms  × {value / seconds['plain']:.2f} "
            f"{peaks[name] / 2**20:9.1f} MiB  × {peaks[name] / peaks['plain']:.2f}"
        )


if __name__ == "__main__":
    main()
