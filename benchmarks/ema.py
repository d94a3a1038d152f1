"""The teacher's moving average in fused operations against a loop over parameters.

python benchmarks/ema.py [--encoder NAME] [--repeats N] [--threads N]
"""

from __future__ import annotations

import argparse
import copy

import torch
from timing import machine, medians, prepare
from torch import nn

from des4.models import ModelConfig, build_segmenter
from des4.models.training.ema import follow


@torch.no_grad()
def loop(target: nn.Module, source: nn.Module, momentum: float) -> None:
    """The moving average as scripts of this field write it: one parameter, and one buffer, at a time."""
    for mine, theirs in zip(target.parameters(), source.parameters(), strict=True):
        mine.data = momentum * mine.data + (1 - momentum) * theirs.data
    for mine, theirs in zip(target.buffers(), source.buffers(), strict=True):
        if mine.is_floating_point():
            mine.data = momentum * mine.data + (1 - momentum) * theirs.data
        else:
            mine.data = theirs.data


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="tf_efficientnet_lite0")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    prepare(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    student = build_segmenter(ModelConfig(encoder=args.encoder, weights="none"), 21, "prototype").to(device)
    teacher = copy.deepcopy(student)
    seconds = medians(
        {"foreach": lambda: follow(teacher, student, 0.99), "loop": lambda: loop(teacher, student, 0.99)}, args.repeats
    )
    print(f"{machine()}; {args.encoder}, {sum(p.numel() for p in student.parameters()) / 1e6:.1f} million parameters")
    for name, value in seconds.items():
        print(f"{name:10} {value * 1e3:8.2f} ms")
    print(f"loop / foreach: {seconds['loop'] / seconds['foreach']:.2f}")


if __name__ == "__main__":
    main()
