"""From settings to objects: the composition root. Nothing here trains, and only `save_weights` writes.

A weights file is a safetensors file whose header says how to build the network around its tensors, so it loads alone.
"""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import des4
from des4.config import RunConfig
from des4.data import DATASETS, Loader, pixel_counts
from des4.data.lists import content_hash
from des4.engine import EvalConfig, Evaluator, PolySchedule, Trainer, build_optimiser
from des4.engine.trainer import choose_device
from des4.methods import METHODS, Method
from des4.metrics import tail_classes
from des4.models import ModelConfig, PrototypeClassifier, Segmenter, build_segmenter
from des4.runlog import RunFolder
from des4.types import Config, ConfigError, DataError, Dataset, WeightsError


@dataclass(frozen=True)
class Training:
    """What a training is made of, built and checked; no file has been written yet.

    counts: (C,) pixels of each class in the labelled list. steps: of the whole schedule.
    """

    config: RunConfig
    dataset: Dataset
    counts: Tensor
    method: Method
    steps: int
    device: torch.device

    def trainer(self, run: RunFolder) -> Trainer:
        """Return the trainer that fills an open run folder."""
        train, optim = self.config.train, self.config.optim
        return Trainer(
            self.method,
            loader(self.config, self.dataset, self.method),
            build_optimiser(self.method, optim, train.batch_size),
            PolySchedule(self.steps, optim.power, optim.warmup_steps),
            run,
            train,
            device=self.device,
            save_weights=self._save,
            evaluator=Evaluator(self.dataset, self.dataset.val, self.config.eval, self.device, tail_classes(self.counts)),
            clip=optim.clip,
            about=self._about(),
        )

    def _save(self, path: Path, segmenter: nn.Module) -> None:
        assert isinstance(segmenter, Segmenter)  # noqa: S101  # what `Method.predictors` returns
        info = WeightsInfo(
            model=self.config.model,
            head="prototype" if isinstance(segmenter.head, PrototypeClassifier) else "linear",
            classes=self.dataset.classes,
            palette=self.dataset.palette,
            tail=self._tail(),
            eval=self.config.eval,
            method=self.config.method.name,
        )
        save_weights(path, segmenter, info)

    def _tail(self) -> tuple[str, ...]:
        return tuple(self.dataset.classes[index] for index in tail_classes(self.counts))

    def _about(self) -> dict[str, Any]:
        """Return what results.json says about method and data."""
        lists = {"labelled": self.dataset.labelled, "unlabelled": self.dataset.unlabelled, "val": self.dataset.val}
        share = self.counts.double() / self.counts.sum()
        return {
            "method": self.config.method.name,
            "tail_classes": list(self._tail()),
            "pixel_share": dict(zip(self.dataset.classes, share.tolist(), strict=True)),
            "data": {
                "name": self.config.data.name,
                **{name: len(ids) for name, ids in lists.items()},
                **{f"{name}_hash": content_hash(ids) for name, ids in lists.items()},
            },
        }


def training(config: RunConfig) -> Training:
    """Build everything a run needs. Raises ConfigError, DataError or WeightsError; nothing is written before that."""
    device = choose_device(config.train.device)
    data = dataset(config)
    spec = METHODS[config.method.name].VIEWS
    if spec.strong and not data.unlabelled:
        raise DataError(f"method {config.method.name} learns from unlabelled images, and there is none; add some, or "
                        "train with method=supervised")  # fmt: skip
    steps = config.train.total_steps(len(data.labelled), len(data.unlabelled) if spec.strong else 0)
    config.train.micro_batches()
    counts = pixel_counts(data, data.labelled)
    return Training(config, data, counts, method(config, data, counts).to(device), steps, device)


def dataset(config: RunConfig) -> Dataset:
    """Build the data set. Raises DataError."""
    return DATASETS[config.data.name](config.data)


def method(config: RunConfig, dataset: Dataset, counts: Tensor) -> Method:
    """Build the method and its networks, from the seed. Raises ConfigError and WeightsError."""
    torch.manual_seed(config.train.seed)

    def make_segmenter(head: Literal["linear", "prototype"]) -> Segmenter:
        return build_segmenter(config.model, len(dataset.classes), head)

    return METHODS[config.method.name](config.method, make_segmenter, counts, config.train.seed)


def loader(config: RunConfig, dataset: Dataset, method: Method) -> Loader:
    """Build the source of micro-batches; padding has the mean colour of the encoder's training images."""
    labelled, unlabelled = config.train.micro_batches()
    red, green, blue = next(iter(method.predictors().values())).mean.tolist()
    return Loader(
        dataset,
        config.views,
        method.VIEWS,
        labelled_batch=labelled,
        unlabelled_batch=unlabelled,
        seed=config.train.seed,
        workers=config.train.workers,
        fill=(red, green, blue),
    )


# ── weights ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class WeightsInfo(Config):
    """What a weights file says of itself, enough to build the network and to name its output.

    head: the classifier in use. tail: names of the rare classes of the list it was trained on. eval: how its images
    were segmented when it was scored. method: that trained it.
    """

    version: Literal[1] = 1
    model: ModelConfig
    head: Literal["linear", "prototype"]
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    tail: tuple[str, ...]
    eval: EvalConfig
    method: str


def save_weights(path: Path, segmenter: Segmenter, info: WeightsInfo) -> None:
    """Write a weights file as a whole: a crash leaves the old one or the new one."""
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in segmenter.state_dict().items()}
    partial = path.with_name(f".{path.name}.partial")
    save_file(tensors, partial, {"format": "pt", "des4": info.model_dump_json()})
    partial.replace(path)


def load_weights(path: Path) -> tuple[Segmenter, WeightsInfo]:
    """Build the network of a weights file, in eval mode on the CPU. Raises WeightsError."""
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get("des4")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: cannot be read as a weights file ({error})") from None
    if header is None:
        raise WeightsError(f"{path}: was not written by des4; an encoder's weights go into model.weights=PATH")
    try:
        info = WeightsInfo.model_validate_json(header)
    except ValidationError as error:
        raise WeightsError(f"{path}: its header does not fit this version of des4 ({_first(error)})") from None
    try:
        segmenter = build_segmenter(info.model, len(info.classes), info.head, pretrained=False)
        segmenter.load_state_dict(tensors)
    except (ConfigError, RuntimeError) as error:
        raise WeightsError(f"{path}: its tensors do not fit its header ({str(error).splitlines()[-1].strip()})") from None
    return segmenter.eval(), info


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


# ── environment ──────────────────────────────────────────────────────────────────────────────────────────────────────


def environment(device: torch.device) -> dict[str, Any]:
    """Return what env.json keeps: versions, machine, source revision and command."""
    return {
        "des4": des4.__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "torchvision", "timm", "numpy", "pillow")},
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "commit": _commit(),
        "command": shlex.join(sys.argv),
    }


def _commit() -> str | None:
    """Return the commit of the checkout this package runs from, marked where files have changed; None if it is installed."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    ask: Callable[..., str] = lambda *words: subprocess.run(  # noqa: E731, S603
        ["git", "-C", str(root), *words], capture_output=True, text=True, check=True  # noqa: S607
    ).stdout.strip()  # fmt: skip
    try:
        return ask("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")
    except (OSError, subprocess.CalledProcessError):
        return None
