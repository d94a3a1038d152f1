"""What the DeS4 step takes beyond its networks, beside the mean-teacher step of the same networks on the same batch.

python benchmarks/step.py [--encoder NAME] [--crop N] [--batch N] [--stride N] [--precision NAME] [--compile]
                          [--device NAME] [--repeats N] [--threads N]

Steps are the trainer's own (TrainStep with the fused optimiser), and take turns. `networks alone` is the forward and
backward pass of all that DeS4's networks compute in a step, with no losses, sampling, averages or optimiser. The mean
teacher is CutMixSeg with the same prototype classifier: the teacher on the weak view, the student on labeled and
mixed images. FLOPs are counted by des4.engine.cost; the floor of a step is its FLOPs at the rate of large matrix
products, measured in the same process.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Mapping

import torch
from timing import machine, prepare
from torch import Tensor, nn

from des4.doctor.timing import matrix_rate, time_shares
from des4.engine import OptimConfig, TrainStep, build_optimiser
from des4.engine.cost import StepCost, step_cost
from des4.engine.process import wait_for
from des4.engine.settings import DTYPES, Precision, autocast
from des4.methods import METHODS, Method, Setting
from des4.models import HeadName, ModelConfig, Segmenter, build_segmenter
from des4.models.compilation import compile_networks
from des4.ops.mixing import draw_mix
from des4.types import Batch, Labeled, StrongView, Unlabeled

NUM_CLASSES = 21
WARMUP, BLOCK = 2, 3
"""Rounds that do not count. Steps between two events on a GPU, so that the host may run ahead as in a training."""

Step = Callable[[], object]


def make_batch(batch: int, crop: int, device: torch.device = torch.device("cpu")) -> Batch:  # noqa: B008  # immutable
    """Random images with blocky labels of imbalanced classes."""
    cells = -(-crop // 16)
    blocks = (torch.rand(batch, cells, cells) ** 3 * NUM_CLASSES).long()
    label = blocks.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, :crop, :crop].contiguous().to(device)
    labeled, weak = torch.rand(2, batch, 3, crop, crop, device=device)
    boxes = draw_mix("french", batch, crop, crop, random.Random(0))
    boxes = type(boxes)(boxes.partner.to(device), boxes.box.to(device), boxes.group)
    valid = torch.ones(batch, crop, crop, dtype=torch.bool, device=device)
    keys = torch.arange(batch, device=device)
    return Batch(Labeled(labeled, label, keys), Unlabeled(weak, (StrongView(weak, boxes),), valid, keys))


def make_method(name: str, model: ModelConfig, counts: Tensor, **settings: object) -> Method:
    """Build a method around prototype classifiers."""

    def make_segmenter(head: HeadName) -> Segmenter:
        return build_segmenter(model, NUM_CLASSES, "prototype")

    cls = METHODS[name]
    return cls(cls.Config(**settings), make_setting(make_segmenter, counts)).train()


def make_setting(make_segmenter: Callable[[HeadName], Segmenter], counts: Tensor) -> Setting:
    """Return the setting of a training on VOC."""
    return Setting(
        classes=tuple(map(str, range(NUM_CLASSES))),
        pixel_counts=counts,
        total_steps=40_000,
        num_labeled=662,
        num_unlabeled=9920,
        seed=0,
        make_segmenter=make_segmenter,
    )


class Networks(nn.Module):
    """What the networks of DeS4 compute in a step, and nothing else."""

    WAITS = False

    def __init__(self, des4: Method) -> None:
        super().__init__()
        self.student, self.teacher = des4.student, des4.teacher

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        labeled, weak, strong = batch.labeled.image, batch.unlabeled.weak, batch.unlabeled.strong[0].image
        count, teacher = len(labeled), self.teacher
        with torch.no_grad():
            maps = teacher.encode(torch.cat([labeled, weak]))
            teacher.head(teacher.decoder(tuple(each[count:] for each in maps)))
        taught = teacher.head(teacher.decoder(tuple(each[:count] for each in maps)))
        return {"student": self.student(torch.cat([labeled, strong])).mean(), "teacher": taught.mean()}


def bare_step(networks: Networks, batch: Batch, device: torch.device, precision: Precision) -> Step:
    def step() -> None:
        with autocast(device, precision):
            terms = networks(batch)
        torch.stack(list(terms.values())).sum().backward()
        networks.zero_grad()

    return step


def training_step(method: Method, batch: Batch, device: torch.device, precision: Precision) -> Step:
    optimiser = build_optimiser(method, OptimConfig(lr=1e-4), len(batch.labeled.image))
    take_step = TrainStep(method, optimiser, device, precision=precision)
    return lambda: take_step(batch)


def medians(steps: Mapping[str, Step], repeats: int, device: torch.device) -> dict[str, float]:
    """Let all steps take turns; return the median seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(WARMUP + repeats):
        for name, step in steps.items():
            elapsed = seconds_of(step, device)
            if turn >= WARMUP:
                seconds[name].append(elapsed)
    return {name: statistics.median(values) for name, values in seconds.items()}


def seconds_of(step: Step, device: torch.device) -> float:
    if device.type == "cpu":
        start = time.perf_counter()
        step()
        return time.perf_counter() - start
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record()
    for _ in range(BLOCK):
        step()
    after.record()
    after.synchronize()
    return before.elapsed_time(after) / 1000 / BLOCK


def peak_bytes(step: Step, device: torch.device) -> int | None:
    """Most GPU memory of a step, above the weights, moments and images that are there all the time."""
    if device.type == "cpu":
        return None
    wait_for(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    step()
    wait_for(device)
    return torch.cuda.max_memory_allocated(device) - before


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="tf_efficientnet_lite0")
    parser.add_argument("--crop", type=int, default=160)
    parser.add_argument("--batch", type=int, default=4, help="labeled images, and as many unlabeled ones")
    parser.add_argument("--stride", type=int, default=16, help="output stride")
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--precision", choices=DTYPES, default="fp32")
    parser.add_argument("--compile", action="store_true", help="the encoders and decoders, by torch.compile")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    args = arguments()
    prepare(args.threads)
    device = torch.device(args.device)
    model = ModelConfig(encoder=args.encoder, weights="none", output_stride=args.stride, channels=args.channels)
    batch = make_batch(args.batch, args.crop, device)
    counts = torch.bincount(batch.labeled.label.flatten().cpu(), minlength=NUM_CLASSES)
    methods = {
        "supervised": make_method("supervised", model, counts).to(device),
        "mean teacher": make_method("cutmixseg", model, counts).to(device),
        "des4": make_method("des4", model, counts).to(device),
        "des4, sampling all": make_method("des4", model, counts, sampling="all").to(device),
    }
    networks = Networks(make_method("des4", model, counts).to(device))
    costs = {name: step_cost(method, batch, args.precision) for name, method in methods.items()}
    costs["networks alone"] = step_cost(networks, batch, args.precision)
    if args.compile:
        for module in (*methods.values(), networks):
            for segmenter in (part for part in module.children() if isinstance(part, Segmenter)):
                compile_networks(segmenter)
    steps = {name: training_step(method, batch, device, args.precision) for name, method in methods.items()}
    steps["networks alone"] = bare_step(networks, batch, device, args.precision)
    seconds = medians(steps, args.repeats, device)
    rate = matrix_rate(device, args.precision, seconds=2.0)
    print(f"{machine()}; {args.encoder}, output stride {args.stride}, decoder {args.channels} wide, {args.batch} + "
          f"{args.batch} images of {args.crop}², {args.precision}{', compiled' if args.compile else ''}; "
          f"matrix products at {rate / 1e12:.4g} TFLOP/s")  # fmt: skip
    for name, step in steps.items():
        print_row(name, seconds[name], costs[name], rate, peak_bytes(step, device))
    for other in ("mean teacher", "networks alone", "des4, sampling all", "supervised"):
        time_ratio = seconds["des4"] / seconds[other]
        flop_ratio = costs["des4"].flops.total / costs[other].flops.total
        print(f"des4 / {other:20} time {time_ratio:6.3f}   FLOPs {flop_ratio:6.3f}   "
              f"time over FLOPs {time_ratio / flop_ratio:6.3f}")  # fmt: skip
    print("where the time of des4 goes:")
    shares = time_shares(methods["des4"], steps["des4"], steps=min(args.repeats, 5))
    for name, share in sorted(shares.items(), key=lambda item: -item[1]):
        print(f"  {name:20} {100 * share:6.2f} %")


def print_row(name: str, seconds: float, cost: StepCost, rate: float, peak: int | None) -> None:
    flops = cost.flops.total
    floor = flops / rate
    print(f"{name:20} {1000 * seconds:9.1f} ms = {seconds / floor:5.2f} × the floor of {1000 * floor:8.1f} ms; "
          f"{flops / 1e12:8.4f} TFLOP at {flops / seconds / 1e12:8.4f} TFLOP/s = {100 * floor / seconds:5.1f} %; "
          f"keeps {cost.kept_bytes / 2**30:.2f} GiB"
          + (f", peak {peak / 2**30:.2f} GiB" if peak is not None else ""))  # fmt: skip


if __name__ == "__main__":
    main()
