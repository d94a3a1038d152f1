"""A config for a data set that has been checked, with the reason for each value.

It is where to begin, no optimum. What a value rests on: the paper and the protocol it follows (crop, scale, schedule);
our trainings on CamVid with few masks, docs/results/few_masks.md (the method, and all that is said of machines without
a GPU); and the memory of a step of des4_committee, counted (MEMORY). Nothing is said of a key of which we have no such
reason.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from des4.data_tools.checks.survey import DataCheck
from des4.datasets.files import share_for_val
from des4.ops.tail import FEW_VAL

MEMORY = {"resnet101": 10500, "resnet50": 8000, "tf_efficientnet_lite0": 8000}
"""Bytes that one step of des4_committee keeps for its backward pass, per pixel of a crop and per pair of a labeled and
an unlabeled image: float32, output stride 16, default decoder. By benchmarks/memory.py, rounded up. Best first."""

GPU_CROP, GPU_SIDE, GPU_BATCH = 769, 2048, 16
"""Crop, long side and batch of the largest data set of the paper."""

CPU_CROP, CPU_SIDE, CPU_BATCH, CPU_STEPS = 129, 256, 4, 3300
"""What two CPU cores trained on CamVid; beyond them a step takes seconds."""

FEW_MINUTES, FEW_NETWORKS = 25, 2
"""In fewer minutes of a CPU a committee has so many networks: three would each learn for too short a time."""

EPOCHS, MOST_STEPS, FEWEST_STEPS = 80, 40_000, 500
"""The paper's on VOC, and the number of steps to which the protocol's schedules amount."""

EVALUATIONS, EVAL_SHARE = 10, 0.05
"""How often a training is validated, and the part of its time that this may take at most."""

DRAWN_EACH_TIME = 3
"""Val images of which a picture is drawn at each validation, the first ones."""

PASSES = 9, 2
"""Passes over an image in a step of des4_committee for a pair, a backward one counted twice, and in the scoring of two
models."""


@dataclass(frozen=True)
class Machine:
    """What a training will run on. gpu_bytes: memory of the GPU, None without one."""

    gpu_bytes: int | None

    @classmethod
    def here(cls) -> Machine:
        """Look at this machine."""
        return cls(torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None)


@dataclass(frozen=True)
class Setting:
    """One key of a config, dotted, with the reason for its value."""

    key: str
    value: Any
    reason: str


def suggest(check: DataCheck, machine: Machine, minutes: float | None = None) -> tuple[Setting, ...]:
    """Suggest a config; an empty one for data that cannot be trained on: no image read, or none labeled.

    minutes: how long the training may take, if that is known.
    """
    if not check.sizes or not check.counts["labeled"]:
        return ()
    seen = _Seen.of(check, machine)
    return (
        *_method(check, machine, minutes),
        *_data(check),
        *_views(seen),
        *_model(seen),
        _supervision(),
        *_schedule(check, seen),
        *_evaluation(seen),
    )


def as_yaml(settings: Sequence[Setting], heading: str = "") -> str:
    """Write settings as a config file, each reason in a comment above the keys it stands for."""
    lines = [f"# {line}".rstrip() for line in heading.splitlines()]
    section, reason = "", ""
    for setting in settings:
        place, _, key = setting.key.rpartition(".")
        if place != section:
            lines += ["", f"{place}:"]
        if setting.reason != reason or place != section:
            lines += textwrap.wrap(setting.reason, 110, initial_indent="  # ", subsequent_indent="  # ")
        section, reason = place, setting.reason
        lines.append(f"  {key}: {_scalar(setting.value)}")
    return "\n".join(lines).lstrip("\n") + "\n"


def _scalar(value: Any) -> str:
    """Write a value on one line. What JSON writes is YAML; a plain word needs no quotes."""
    if isinstance(value, Path):
        value = str(value)
    plain = isinstance(value, str) and value.isprintable() and "#" not in value and ": " not in value
    if plain and _reads_as_itself(value):
        return str(value)
    return json.dumps(value, ensure_ascii=False)


def _reads_as_itself(word: str) -> bool:
    """Whether YAML takes a word without quotes for itself: not a number, a list, or a sign of its own such as @."""
    try:
        return bool(yaml.safe_load(word) == word)
    except yaml.YAMLError:
        return False


@dataclass(frozen=True)
class _Seen:
    """What the network is to see. side: long side of most images, in pixels. resize: factor to the working size."""

    machine: Machine
    side: int
    resize: float
    crop: int
    encoder: str
    pairs: int

    @classmethod
    def of(cls, check: DataCheck, machine: Machine) -> _Seen:
        side = _median_side(check)
        most_side, most_crop = (GPU_SIDE, GPU_CROP) if machine.gpu_bytes else (CPU_SIDE, CPU_CROP)
        resize = next((factor for factor in (1.0, 0.75, 0.5, 0.333, 0.25, 0.125) if factor * side <= most_side), 0.0625)
        cells = -(-round(resize * side) // 16)
        crop = min(most_crop, 16 * cells + 1)
        if not machine.gpu_bytes:
            return cls(machine, side, resize, crop, "tf_efficientnet_lite0", CPU_BATCH)
        fitting = {name: int(machine.gpu_bytes / 2 / (size * crop**2)) for name, size in MEMORY.items()}
        encoder = next((name for name, pairs in fitting.items() if pairs >= 4), "tf_efficientnet_lite0")
        return cls(machine, side, resize, crop, encoder, max(1, fitting[encoder]))


def _median_side(check: DataCheck) -> int:
    """Return the long side that half of the images do not exceed."""
    sides = sorted((max(size), count) for size, count in check.sizes.items())
    half, passed = sum(check.sizes.values()) / 2, 0
    for side, count in sides:
        passed += count
        if passed >= half:
            return side
    raise AssertionError("a check with sizes has a median")


def _method(check: DataCheck, machine: Machine, minutes: float | None) -> Iterator[Setting]:
    labeled, unlabeled = check.counts["labeled"], check.counts["unlabeled"]
    if not unlabeled:
        yield Setting("method.name", "supervised", "there is no unlabeled image, which all other methods need")
        return
    yield Setting(
        "method.name",
        "des4_committee",
        f"it learns from the {unlabeled} images without masks beside the {labeled} with one. On CamVid with few "
        "masks it was ahead of supervised training. Train method=supervised with the same settings too: only that "
        "shows what it gains here",
    )
    if minutes is not None and minutes < FEW_MINUTES and machine.gpu_bytes is None:
        why = f"in less than {FEW_MINUTES} minutes without a GPU, as we trained CamVid for ten; three learn too little"
        yield Setting("method.networks", FEW_NETWORKS, why)


def _data(check: DataCheck) -> Iterator[Setting]:
    given = check.config.model_dump(exclude_defaults=True, exclude={"name", "root"}, mode="json")
    yield Setting("data.name", check.format, "the format of this check")
    yield Setting("data.root", check.config.root, "as given, relative to the directory a training is started in")
    fraction = given.pop("val_fraction", None)
    for key, value in given.items():
        yield Setting(f"data.{key}", value, "as given to the check")
    if check.dataset is None or not check.dataset.val_is_drawn:
        return
    total = check.counts["labeled"] + check.counts["val"]
    share = fraction or share_for_val(total)
    yield Setting(
        "data.val_fraction",
        share,
        f"nothing names a val set: about {round(share * total)} of the {total} images with masks are drawn. "
        f"{FEW_VAL} or more make a score that is not that of a few pictures, but a training needs masks too",
    )


def _views(seen: _Seen) -> Iterator[Setting]:
    work = round(seen.resize * seen.side)
    if seen.crop >= work:
        why = f"half of the images are at most {work} pixels long, which a crop covers"
    elif seen.machine.gpu_bytes:
        why = f"images are {work} pixels long; this is the largest crop of the paper"
    else:
        why = f"images are seen at a length of {work} pixels; without a GPU a larger crop makes a step take seconds"
    yield Setting("views.crop_size", seen.crop, f"{why}. 16k + 1 pixels fit the network's grid")
    low, high, source = (0.5, 2.0, "the protocol's") if seen.machine.gpu_bytes else (0.6, 1.2, "as we trained CamVid")
    scale = [round(low * seen.resize, 3), round(high * seen.resize, 3)]
    reason = f"{low:g} to {high:g} times the size at which images are seen: {source}"
    if seen.resize < 1:
        reason += f". That size is {seen.resize:g} of their own ({seen.side} pixels), " + (
            "for a network sees little of so large a picture in one crop"
            if seen.machine.gpu_bytes
            else "for the time a step takes; objects of a few pixels are lost by it"
        )
    yield Setting("views.scale", scale, reason)


def _model(seen: _Seen) -> Iterator[Setting]:
    if seen.machine.gpu_bytes is None:
        yield Setting("model.encoder", seen.encoder, "the smallest encoder we trained with; there is no GPU")
        yield Setting("model.weights", "package", _PRETRAINED + "these come with the pip extra `pretrained`")
        for key, value in (("channels", 64), ("low_channels", 24), ("embedding_dim", 64)):
            yield Setting(
                f"model.{key}", value, "a quarter of the paper's width, or half, for a CPU; as we trained CamVid"
            )
        return
    gib = seen.machine.gpu_bytes / 2**30
    best = next(iter(MEMORY))
    why = "the paper's" if seen.encoder == best else f"the paper's {best} leaves room for fewer than 4 images"
    yield Setting("model.encoder", seen.encoder, f"{why}; this GPU has {gib:.0f} GiB")
    if seen.encoder == "tf_efficientnet_lite0":
        yield Setting("model.weights", "package", _PRETRAINED + "these come with the pip extra `pretrained`")
    else:
        yield Setting("model.weights", "timm", _PRETRAINED + "timm downloads these once")
    small = seen.crop <= 257 and seen.pairs >= 2 * GPU_BATCH
    yield Setting(
        "model.output_stride",
        8 if small else 16,
        f"a crop of {seen.crop} pixels has only {seen.crop // 16} cells a side at stride 16"
        if small
        else "8 takes about twice the memory",
    )


_PRETRAINED = "few masks do not teach an encoder to see, so it starts with ImageNet weights; "


def _schedule(check: DataCheck, seen: _Seen) -> Iterator[Setting]:
    labeled, unlabeled = check.counts["labeled"], check.counts["unlabeled"]
    gpu = seen.machine.gpu_bytes is not None
    batch = GPU_BATCH if gpu else CPU_BATCH
    at_once = max(size for size in (16, 8, 4, 2, 1) if size <= seen.pairs)
    steps = round(EPOCHS * (unlabeled or labeled) / batch)
    steps = min(max(FEWEST_STEPS, steps), MOST_STEPS if gpu else CPU_STEPS)
    passes = steps * batch / (unlabeled or labeled)
    over = f"{passes:.3g} passes over the {'unlabeled' if unlabeled else 'labeled'} images"
    if gpu:
        yield Setting("optim.name", "sgd", "the paper's")
        yield Setting("optim.lr", 0.001, "the paper's on VOC, for a batch of 16; it takes 0.01 on Cityscapes")
    else:
        yield Setting("optim.name", "adamw", "it learnt more than SGD in our short trainings on CamVid")
        yield Setting("optim.lr", 0.001, "as we trained CamVid with few masks")
        yield Setting("optim.weight_decay", 0.01, "as we trained CamVid")
    why = f"{over}, as in the paper"
    if steps in (FEWEST_STEPS, MOST_STEPS, CPU_STEPS):
        bound = "needs a few steps" if passes > EPOCHS else "need not"
        why = f"{over}, the paper makes {EPOCHS}; a first training {bound}"
    yield Setting("train.steps", steps, f"{why}. On CamVid three times as many steps gained several points")
    yield _early(check, seen, steps, batch)
    yield Setting("train.batch_size", batch, "the paper's" if gpu else "as we trained CamVid, without a GPU")
    if gpu and at_once < batch:
        yield Setting(
            "train.accumulate",
            batch // at_once,
            f"a step in parts: about {seen.pairs} pairs of images fit into half of this GPU's memory",
        )


def _early(check: DataCheck, seen: _Seen, steps: int, batch: int) -> Setting:
    """Say how often to validate, so that a training shows early what it learns. The time is counted in pixels."""
    area = sum(count * height * width for (height, width), count in check.sizes.items()) / sum(check.sizes.values())
    times, share = validations(steps * batch * seen.crop**2, area * seen.resize**2, check.counts["val"])
    why = f"scored {times} times, in about {100 * share:.1g} % of the time"
    return Setting("train.eval_every", -(-steps // times), why)


def validations(trained: float, area: float, num_val: int) -> tuple[int, float]:
    """Return how often to validate a training, and the part of its time that this takes, about. Pixels stand for time.

    trained: pixels of all labeled crops of the run. area: pixels of a val image as the network sees it.
    """
    of_step, of_image = PASSES
    scored = max(1, num_val) + min(DRAWN_EACH_TIME, num_val)
    share = of_image * scored * area / (of_step * trained)
    times = max(1, min(EVALUATIONS, int(EVAL_SHARE / share)))
    return times, times * share


def _supervision() -> Setting:
    return Setting("supervision.logit_adjustment", 0.5, "better for rare classes, as we trained CamVid with few masks")


def _evaluation(seen: _Seen) -> Iterator[Setting]:
    if seen.resize < 1:
        yield Setting("eval.resize", seen.resize, "the size that the network is trained at")
    if seen.resize * seen.side > 2 * seen.crop:
        yield Setting("eval.mode", "sliding", "images are more than two crops long; the protocol's on Cityscapes")
        yield Setting("eval.window", seen.crop, "the crop, as in the protocol")
