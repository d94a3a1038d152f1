"""A step of every method side by side: its time and its FLOPs, relative to supervised training.

python benchmarks/methods.py [--method NAME[,KEY=VALUE …] …] [--encoder NAME] [--crop N] [--batch N] [--channels N]
                             [--stride N] [--device NAME] [--precision NAME] [--repeats N] [--threads N]

Each method has the batch that the loader makes for it of the embedded data set, and the trainer's own step; all of them
take turns in one process. A method that learns in parts has a row for each. `time / FLOPs` is how many times longer a
floating-point operation takes than in supervised training: what a method spends beside its networks. Settings after a
method's name are its own, as in `unimatch,running_norms=true`.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import closing, nullcontext

import torch
from timing import machine, medians, prepare

from des4 import build
from des4.config import load_config
from des4.engine import TrainStep
from des4.engine.cost import at_step, parts_of_run, run_cost
from des4.engine.process import wait_for
from des4.methods import METHODS
from des4.types import UserError

PAIRS = ("u2pl", "unimatch")
"""What the step of des4 is held against."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", nargs="+", default=list(METHODS), metavar="NAME[,KEY=VALUE]")
    parser.add_argument("--encoder", default="tf_efficientnet_lite0")
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--batch", type=int, default=4, help="labeled images, and as many unlabeled ones")
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--stride", type=int, default=16, help="output stride")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    prepare(args.threads)
    device = torch.device(args.device)
    steps, flops = {}, {}
    for asked in dict.fromkeys(("supervised", *args.method)):
        name, *settings = asked.split(",")
        config = load_config({
            "method": name,
            "data": {"name": "scenes", "size": max(96, args.crop)},
            "views.crop_size": args.crop,
            "model": {"encoder": args.encoder, "weights": "none", "channels": args.channels,
                      "output_stride": args.stride},
            "train": {"steps": 1000, "batch_size": args.batch, "workers": 0, "device": args.device},
        }, settings)  # fmt: skip
        training = build.training(config, checked=False)
        with closing(training.loader.batches(training.loader.unlabeled_from, device)) as batches:  # type: ignore[type-var]  # it is a generator
            batch = next(batches)
        method = training.method.train()
        take_step = TrainStep(method, training.optimiser, device, precision=args.precision)
        parts = parts_of_run(method)
        for number, (part, cost) in enumerate(run_cost(method, batch, args.precision), 1):
            row = asked if len(parts) == 1 else f"{asked}, part {number}"

            def step(method=method, batch=batch, take_step=take_step, first=part.first):
                with at_step(method, first) if first else nullcontext():
                    take_step(batch)
                wait_for(device)

            steps[row], flops[row] = step, cost.flops.total
    seconds = medians(steps, args.repeats)
    print(f"{machine()}; {args.encoder}, output stride {args.stride}, decoder {args.channels} wide, {args.batch} + "
          f"{args.batch} images of {args.crop}², {args.precision}")  # fmt: skip
    print(f"{'':30} {'ms':>9} {'time':>7} {'FLOPs':>7} {'time / FLOPs':>13}")
    for row, taken in seconds.items():
        time_ratio, flop_ratio = taken / seconds["supervised"], flops[row] / flops["supervised"]
        print(f"{row:30} {1000 * taken:9.1f} {time_ratio:7.2f} {flop_ratio:7.2f} {time_ratio / flop_ratio:13.2f}")
    for other in PAIRS if "des4" in seconds else ():
        if other in seconds:
            print(f"des4 / {other}: time {seconds['des4'] / seconds[other]:.2f}, "
                  f"FLOPs {flops['des4'] / flops[other]:.2f}")  # fmt: skip


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
