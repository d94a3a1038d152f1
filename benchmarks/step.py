"""The DeS4 step against the mean-teacher step of the same networks on the same batch, beside the ratio of their FLOPs.

python benchmarks/step.py [--encoder NAME] [--crop N] [--batch N] [--repeats N] [--threads N]

FLOPs are counted on one forward pass of each module and multiplied by how often the step runs it; a backward pass
counts as two forward passes (torch's counter over-counts the backward of grouped convolutions). The mean teacher
here is CutMixSeg
with the same prototype classifier: the teacher on the weak view, the student on labelled and mixed images.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable

import torch
from timing import machine, medians, prepare
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from des4.engine.optim import OptimConfig, build_optimiser
from des4.methods import METHODS, Method
from des4.models import HeadName, ModelConfig, Segmenter, build_segmenter
from des4.ops.mixing import draw_mix
from des4.types import Batch, Labelled, Unlabelled

NUM_CLASSES = 21


def make_batch(batch: int, crop: int) -> Batch:
    """Random images with blocky labels of imbalanced classes."""
    blocks = (torch.rand(batch, crop // 16, crop // 16) ** 3 * NUM_CLASSES).long()
    label = blocks.repeat_interleave(16, 1).repeat_interleave(16, 2)
    weak = torch.rand(batch, 3, crop, crop)
    boxes = draw_mix("french", batch, crop, crop, random.Random(0))
    valid = torch.ones(batch, crop, crop, dtype=torch.bool)
    return Batch(Labelled(torch.rand(batch, 3, crop, crop), label), Unlabelled(weak, (weak,), (boxes,), valid))


def make_method(name: str, model: ModelConfig, counts: Tensor, **settings: object) -> Method:
    """Build a method around prototype classifiers."""

    def make_segmenter(head: HeadName) -> Segmenter:
        return build_segmenter(model, NUM_CLASSES, "prototype")

    cls = METHODS[name]
    return cls(cls.Config(**settings), make_segmenter, counts, 0).train()


def make_step(method: Method, batch: Batch) -> Callable[[], None]:
    """One training step: losses, backward, optimiser, what follows."""
    optimiser = build_optimiser(method, OptimConfig(lr=1e-4), len(batch.labelled.image))

    def step() -> None:
        torch.stack(list(method(batch).values())).sum().backward()
        optimiser.step()
        optimiser.zero_grad()
        method.after_step()

    return step


def forward_flops(segmenter: Segmenter, crop: int) -> tuple[int, int]:
    """FLOPs of one image's forward pass through encoder and decoder."""
    image = torch.rand(1, 3, crop, crop)
    segmenter.eval()
    with torch.no_grad():
        with FlopCounterMode(display=False) as encoder:
            maps = segmenter.encode(image)
        with FlopCounterMode(display=False) as decoder:
            segmenter.decoder(maps)
    return encoder.get_total_flops(), decoder.get_total_flops()


def share_of_sampling(method: Method, step: Callable[[], None], repeats: int) -> float:
    """Time of choosing the prototypes' pixels (ratio, entropy, zones, draw) as a share of the step."""
    inside, whole = [], []
    choose = method.feed.choose

    def timed(*args: object) -> Tensor:
        start = time.perf_counter()
        mask = choose(*args)
        inside.append(time.perf_counter() - start)
        return mask

    method.feed.choose = timed
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        whole.append(time.perf_counter() - start)
    method.feed.choose = choose
    return sorted(inside)[len(inside) // 2] / sorted(whole)[len(whole) // 2]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="tf_efficientnet_lite0")
    parser.add_argument("--crop", type=int, default=160)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    prepare(args.threads)
    model = ModelConfig(encoder=args.encoder, weights="none", channels=args.channels)
    batch = make_batch(args.batch, args.crop)
    counts = torch.bincount(batch.labelled.label.flatten(), minlength=NUM_CLASSES)
    methods = {
        "supervised": make_method("supervised", model, counts),
        "mean teacher": make_method("cutmixseg", model, counts),
        "des4": make_method("des4", model, counts),
        "des4, sampling all": make_method("des4", model, counts, sampling="all"),
    }
    steps = {name: make_step(method, batch) for name, method in methods.items()}
    seconds = medians(steps, args.repeats)

    encoder, decoder = forward_flops(methods["des4"].student, args.crop)
    student = 3 * 2 * (encoder + decoder)  # labelled + mixed images, forward and backward
    flops = {
        "supervised": student / 2,
        "mean teacher": student + (encoder + decoder),
        "des4": student + 2 * (encoder + decoder) + 2 * decoder,  # the labelled pass, and its decoder's backward
    }
    print(
        f"{machine()}; {args.encoder}, {args.batch} + {args.batch} images of {args.crop}², decoder {args.channels} wide"
    )
    for name, value in seconds.items():
        gflop = f"{flops[name] * args.batch / 1e9:8.1f} GFLOP" if name in flops else ""
        print(f"{name:20} {value * 1e3:9.1f} ms  × {value / seconds['mean teacher']:.3f} of the mean teacher {gflop}")
    time_ratio = seconds["des4"] / seconds["mean teacher"]
    flop_ratio = flops["des4"] / flops["mean teacher"]
    print(
        f"DeS4 / mean teacher: time {time_ratio:.3f}, FLOPs {flop_ratio:.3f}, "
        f"time over FLOPs {time_ratio / flop_ratio:.3f}"
    )
    share = share_of_sampling(methods["des4"], steps["des4"], args.repeats)
    print(f"Multi-Entropy Sampling: {100 * share:.2f} % of the step")


if __name__ == "__main__":
    main()
