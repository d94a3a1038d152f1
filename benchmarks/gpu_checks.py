"""Looks at a GPU that is lent for minutes: crops made on it, DeS4's step against its floor, bf16, NCCL, compilation.

python benchmarks/gpu_checks.py --out FOLDER [--only NAME …] [--minutes N] [--device NAME]

Each check is a process of its own and ends in a line of `checks.md`; when the minutes are over, the rest is left out.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from gpu.device import gpu_name
from gpu.images import Resident

from des4 import build
from des4.config import load_config
from des4.engine import TrainStep, choose_precision
from des4.engine.process import prepare_process
from des4.runlog import write_atomically


def check_views(device: torch.device) -> str:
    """Crops that a GPU makes of images that lie there, beside the CPU's."""
    training = _scenes(device, {"train.steps": 4})
    made = []
    for place in (torch.device("cpu"), device):
        data = training.dataset
        ids = (*data.labeled, *data.unlabeled)
        known = {one: (data.image(one), data.label(one) if one in data.labeled else torch.zeros(0)) for one in ids}
        training.loader.dataset = Resident(known, place).of(data)
        batch = next(training.loader.batches(0, device))
        made.append((batch.labeled.image.cpu(), batch.unlabeled.weak.cpu(), batch.labeled.label.cpu()))
    (image, weak, label), (image2, weak2, label2) = made
    gap = max(float((image - image2).abs().max()), float((weak - weak2).abs().max()))
    return f"largest difference {255 * gap:.2f} of 255; labels alike: {torch.equal(label, label2)}"


def check_bf16(device: torch.device) -> str:
    """Loss curves in fp32 and bf16, from the same weights on the same batches."""
    curves = {name: _losses(device, {"train.precision": name}) for name in ("fp32", "bf16")}
    return _beside(curves)


def check_compile(device: torch.device) -> str:
    """Loss curves with and without torch.compile."""
    return _beside({name: _losses(device, {"train.compile": name}) for name in ("false", "true")})


def check_nccl(device: torch.device) -> str:
    """One process joins NCCL (gloo on a CPU) and takes a step of averaged gradients; two would need two GPUs."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    with tempfile.TemporaryDirectory() as folder:
        torch.distributed.init_process_group(backend, init_method=f"file://{folder}/store", rank=0, world_size=1)
        try:
            summed = torch.ones(8, device=device)
            torch.distributed.all_reduce(summed)
            network = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(8, 2).to(device))
            network(summed[None]).sum().backward()
            finite = all(bool(p.grad.isfinite().all()) for p in network.parameters() if p.grad is not None)
        finally:
            torch.distributed.destroy_process_group()
    return f"{backend}: sum {float(summed.sum()):g} of 8, gradients finite: {finite}"


def check_step(device: torch.device) -> str:
    """DeS4's step of the paper's network against its floor: benchmarks/step.py."""
    big = ["--encoder", "resnet101", "--crop", "512", "--batch", "16", "--precision", "bf16"]
    small = ["--encoder", "test_efficientnet", "--crop", "32", "--batch", "1", "--channels", "16"]
    command = [sys.executable, str(Path(__file__).with_name("step.py")), "--device", device.type, "--repeats", "5"]
    command += big if device.type == "cuda" else small
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return f"\n```\n{done.stdout}{done.stderr[-2000:] if done.returncode else ''}```"


CHECKS = {"views": check_views, "step": check_step, "bf16": check_bf16, "nccl": check_nccl, "compile": check_compile}


def _scenes(device: torch.device, settings: Mapping[str, Any]) -> build.Training:
    """Build a small DeS4 training on painted scenes."""
    config = load_config({
        "method": "des4",
        "data": {"name": "scenes", "size": 96},
        "views": {"crop_size": 64, "scale": [0.5, 1.5]},
        "model": {"encoder": "tf_efficientnet_lite0", "weights": "none", "channels": 32, "low_channels": 16},
        "train": {"steps": 20, "batch_size": 4, "workers": 0, "device": device.type},
    }, settings)  # fmt: skip
    return build.training(config, checked=False)


def _losses(device: torch.device, settings: Mapping[str, Any]) -> tuple[list[float], float]:
    """Return the loss of each step of a small training, and the seconds of its later steps."""
    training = _scenes(device, settings)
    precision = choose_precision(training.config.train.precision, training.device)
    take_step = TrainStep(training.method.train(), training.optimiser, training.device, precision=precision)
    losses, seconds = [], []
    for number, batch in zip(range(training.schedule.steps), training.loader.batches(0, training.device), strict=False):
        training.schedule.apply(training.optimiser, number)
        torch.manual_seed(number)
        started = time.perf_counter()
        losses.append(float(sum(take_step(batch).terms.values())))
        seconds.append(time.perf_counter() - started)
    return losses, statistics.median(seconds[len(seconds) // 2 :])


def _beside(curves: Mapping[str, tuple[list[float], float]]) -> str:
    (one, (first, quick)), (other, (second, quick2)) = curves.items()
    gaps = [abs(a - b) / abs(a) for a, b in zip(first, second, strict=True)]
    return (
        f"{len(first)} steps, loss {first[0]:.3f} to {first[-1]:.3f}; largest relative difference {max(gaps):.2e}, in "
        f"the first step {gaps[0]:.2e}; a step {1000 * quick:.1f} ms ({one}), {1000 * quick2:.1f} ms ({other})"
    )


def look(args: argparse.Namespace) -> None:
    """Make the checks one after the other, each in a process of its own, as long as there is time."""
    ends = time.time() + 60 * args.minutes
    args.out.mkdir(parents=True, exist_ok=True)
    lines = [gpu_name()]
    for name in args.only:
        left = ends - time.time()
        command = [sys.executable, __file__, "--device", args.device, "--out", str(args.out), "--alone", name]
        said = "no time was left"
        if left > 0:
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=left, check=False)  # noqa: S603
                said = done.stdout.strip() if done.returncode == 0 else f"FAILED: {done.stderr.strip()[-2000:]}"
            except subprocess.TimeoutExpired:
                said = f"stopped after {left:.0f} s, when the time was over"
        lines.append(f"- {name}: {said}")
        print(lines[-1], flush=True)
        write_atomically(args.out / "checks.md", "\n".join(lines) + "\n")


def main() -> None:
    """Look, or make one check alone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=list(CHECKS))
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--alone", choices=CHECKS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        prepare_process()
        print(CHECKS[args.alone](torch.device(args.device)))
    else:
        look(args)


if __name__ == "__main__":
    main()
