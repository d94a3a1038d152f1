"""How long, how much at a time, where and in which precision to train."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, PositiveInt, ValidationInfo, field_serializer, field_validator

from des4.engine.distributed import own_gpu
from des4.types import Config, ConfigError

Precision = Literal["fp32", "bf16", "fp16"]
Device = Literal["auto", "cpu", "cuda"]
LoggerName = Literal["tensorboard", "wandb", "mlflow"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""What the networks compute in; weights, losses, prototypes and averages are float32 always."""


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Inside, networks compute in a precision.

    Weights are cast each time they are used. torch's cache of cast weights would keep those of a pass without gradients
    for the pass with them, which then gives none (torch 2.10 does so), and whole ones of parameters in shards.
    """
    return torch.autocast(device.type, DTYPES[precision], enabled=precision != "fp32", cache_enabled=False)


class TrainConfig(Config):
    """How long, how much at a time, and on what to train."""

    steps: int | None = Field(None, ge=1)
    """Optimiser steps. Exactly one of `steps`, `epochs` and `minutes` is given."""
    epochs: float | None = Field(None, gt=0)
    """Passes over the list of `epochs_of`."""
    epochs_of: Literal["auto", "labeled", "unlabeled"] = "auto"
    """List whose passes `epochs` counts. `auto`: the unlabeled one, or the labeled one for methods that read no
    unlabeled image. `unlabeled` gives these as many steps as the others, to be compared with them."""
    minutes: float | None = Field(None, gt=0, le=1_000_000)
    """A budget in the place of steps: `des4 train` times the first steps and records how many fit as `steps`."""
    start_from: Path | None = None
    """A run, a weights file, or an address on [the hub](deployment.md#the-hub), whose network this run begins with
    ([more](evaluation.md#beginning-as-another-run)). Encoder and decoder are taken over, and the classifier if it is of
    the same kind and for the same classes. Networks that are to differ from the first one, such as the peer of CPS,
    take the encoder alone."""
    batch_size: int = Field(16, ge=1)
    """Labeled images in a step, over all processes. `auto`: `optim.reference_batch`, or 16, in as few micro-batches as
    fit (`accumulate=auto`). So one recipe serves any number of GPUs of any size."""
    unlabeled_batch_size: int | None = Field(None, ge=1)
    """Unlabeled images in a step, over all processes; `null`: as many as labeled ones."""
    accumulate: PositiveInt | Literal["auto"] = 1
    """Micro-batches into which each process splits its share of a step, to save memory. The number must divide that
    share. `auto`: as few as fit into the free memory. The loss is that of the whole step; BatchNorm sees the
    micro-batches. If memory runs out, a run splits further by itself."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of network weights, data order, augmentation and sampling."""
    workers: int = Field(2, ge=0)
    """Processes that read images, for each process that trains; 0: the training process reads them itself."""
    device: Device = "auto"
    """`auto`: a GPU if there is one."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format in which the networks compute, by autocast; `fp16` has a loss scale. `auto`: `bf16` on a GPU that
    has it, else `fp32`."""
    deterministic: bool = False
    """On a GPU, use kernels that give the same bits each time where torch has them, and warn where it has none. They
    are slower. A CPU needs none."""
    compile: bool = False
    """Let `torch.compile` fuse the networks; the first steps then take minutes."""
    shard: bool = False
    """With [several processes](scaling.md#shards): each keeps a share of weights, gradients and moments instead of all
    of them. For encoders that are too large for one GPU."""
    sync_norm: bool = True
    """With [several processes](scaling.md): BatchNorm takes its statistics from all of them; `false`: each takes its
    own."""
    log_every: int = Field(20, ge=1)
    """Steps between lines of `metrics.jsonl`."""
    eval_every: int | None = Field(None, ge=0)
    """Steps between validations; 0: only at the end; `null`: ten times a run, or as often as [about 5 % of the
    time](evaluation.md#how-often) allows."""
    stop_after: int | None = Field(None, ge=1)
    """[Stop the run early](evaluation.md#stopping-early), after this many validations in a row without a better mIoU of
    the headline model. They count from the last start of the learning rate. The length is then chosen on the val
    images. `null`: the run goes to its last step."""
    checkpoint_every: int = Field(500, ge=1)
    """Steps between checkpoints; one is also written before each evaluation and at the end."""
    max_skipped_steps: int = Field(10, ge=0)
    """Steps in a row that may be skipped because their loss or gradient is not finite; one more stops the run."""
    log_to: tuple[LoggerName, ...] = ()
    """Programs that also get losses, scores, settings and pictures. Each is served by a process of its own."""
    oracle: bool = False
    """Use the true labels of the unlabeled images instead of pseudo-labels; the dataset must hold their masks. It
    shows what perfect pseudo-labels would be worth, and is [no result](unlabeled.md#the-oracle)."""

    @field_serializer("start_from", when_used="json-unless-none")
    @staticmethod
    def _as_written(value: Path) -> str:
        """An address on the hub is none any more once it is a path: `hf://a/b` has become `hf:/a/b`."""
        return re.sub(r"^hf:/+", "hf://", str(value))

    @field_validator("log_to", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        """Take `tensorboard` and `tensorboard,wandb`, which need no quotes on a command line, as lists."""
        if isinstance(value, str):
            return [name.strip() for name in value.split(",")]
        return () if value is None else value

    @field_validator("log_to")
    @classmethod
    def _each_once(cls, value: tuple[LoggerName, ...]) -> tuple[LoggerName, ...]:
        return tuple(dict.fromkeys(value))

    @field_validator("stop_after")
    @classmethod
    def _counts_validations(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and info.data.get("eval_every") == 0:
            raise ValueError("counts validations, and with eval_every=0 there is one alone, at the end; leave one out")
        return value

    def total_steps(self, num_labeled: int, num_unlabeled: int, reads_unlabeled: bool = True) -> int:
        """Return all steps of the training, of lists of so many images. reads_unlabeled: whether the method does.

        Raises ConfigError.
        """
        if self.minutes is not None:
            raise ConfigError("train.minutes: is a budget of `des4 train`, which turns it into steps; give steps here")
        if (self.steps is None) == (self.epochs is None):
            given = "neither is" if self.steps is None else "both are"
            raise ConfigError(f"train.steps and train.epochs: {given} given; give one, e.g. steps=40000 epochs=null")
        if self.epochs is None:
            assert self.steps is not None  # noqa: S101  # as checked above
            return self.steps
        if self.epochs_of == "unlabeled" and not num_unlabeled:
            raise ConfigError("train.epochs_of=unlabeled: there are no unlabeled images; leave it at auto")
        if self.epochs_of == "unlabeled" or (self.epochs_of == "auto" and reads_unlabeled and num_unlabeled):
            return math.ceil(self.epochs * num_unlabeled / (self.unlabeled_batch_size or self.batch_size))
        return math.ceil(self.epochs * num_labeled / self.batch_size)

    def shares(self, processes: int = 1) -> tuple[int, int]:
        """Return the labeled and unlabeled images of one process in a step.

        Raises ConfigError if a batch does not split into that many shares of `accumulate` parts each.
        """
        parts = 1 if self.accumulate == "auto" else self.accumulate
        sizes = self.batch_size, self.unlabeled_batch_size or self.batch_size
        for size in sizes:
            if size % (processes * parts):
                among = f" on {processes} processes" if processes > 1 else ""
                raise ConfigError(f"train.accumulate={parts}{among} does not divide a batch of {size}; "
                                  "change accumulate or the batch size")  # fmt: skip
        return sizes[0] // processes, sizes[1] // processes


class GuardConfig(Config):
    """What is watched of a run, so that it says whether [unlabeled images help or harm](unlabeled.md)."""

    drift_factor: float | None = Field(2.0, gt=1)
    """Warn of a class whose share of the pseudo-labels is more than this many times its labeled share, or less than
    one over it, and keeps moving away; `null`: no warnings."""
    truth_images: int = Field(0, ge=0)
    """Number of unlabeled images with masks on which pseudo-labels are measured at each validation; 0: masks of
    unlabeled images stay unopened."""
    held_out: float = Field(0.0, ge=0)
    """Labeled images that are kept out of training and scored at each validation: a whole number, or below 1 a share
    of the list; 0: none."""

    @field_validator("held_out")
    @classmethod
    def _number_or_share(cls, value: float) -> float:
        if value > 1 and value != int(value):
            raise ValueError("give a whole number of images, or a share below 1")
        return value


def choose_device(name: Device) -> torch.device:
    """Return the device of that name, of several GPUs this process's own; `auto` = a GPU if there is one.

    Raises ConfigError if there is no GPU.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError("train.device=cuda, but PyTorch sees no GPU; use device=auto or device=cpu")
    return own_gpu()


def choose_precision(name: Literal["auto", "fp32", "bf16", "fp16"], device: torch.device) -> Precision:
    """Return the precision of that name; `auto` = bf16 on a GPU that computes in it, else fp32."""
    if name != "auto":
        return name
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
