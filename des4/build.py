"""From settings to objects: the composition root. Nothing here trains, and nothing writes."""

from __future__ import annotations

import math
import os
import platform
import random
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import des4
from des4.config import RunConfig
from des4.data import Balance, Loader
from des4.data_tools.checks.advice import validations
from des4.data_tools.checks.check import refuse_errors, warnings_by_kind
from des4.data_tools.checks.inspection import Role
from des4.data_tools.importing import prepared
from des4.datasets import DATASETS, FileDataset, content_hash, pixel_counts, recognise_lists
from des4.datasets.faults import collecting
from des4.datasets.files import FilesConfig
from des4.engine import (
    DriftGuard,
    Evaluator,
    Guards,
    PolySchedule,
    Recorder,
    Trainer,
    TrainStep,
    Validation,
    build_optimiser,
    choose_device,
    choose_precision,
)
from des4.engine.callbacks import Callbacks
from des4.engine.cost import fewest_parts
from des4.engine.distributed import on_first
from des4.engine.evaluator import Evaluation
from des4.engine.process import free_memory
from des4.engine.sharding import shard_weights
from des4.images.bands import Chosen
from des4.methods import METHODS, Method, Setting
from des4.metrics import tail_classes
from des4.models import (
    HeadName,
    PrototypeClassifier,
    Segmenter,
    build_segmenter,
    compile_networks,
    synchronise_norms,
)
from des4.ops.reduce import gather_over_ranks, num_ranks, this_rank
from des4.ops.tail import few_images
from des4.runlog import RunFolder
from des4.types import Bands, ConfigError, DataError, Dataset
from des4.weights import Beginning, WeightsInfo, beginning, save_weights

ORACLE = (
    "ORACLE RUN: it learns from the true labels of its unlabeled images, so its figures are what perfect "
    "pseudo-labels would give, and no result"
)
"""What stands wherever the figures of such a run do."""


@dataclass(frozen=True)
class Training:
    """What a training is made of, built and checked; no file has been written yet.

    counts: (C,) pixels of each class in the labeled list. parts: that this process's share of a batch is split into.
    warnings: what a look at the data found, a line a kind; for the process alone that looked.
    guards: what is watched of it.
    """

    config: RunConfig
    dataset: Dataset
    counts: Tensor
    method: Method
    loader: Loader
    optimiser: Optimizer
    parts: int
    schedule: PolySchedule
    evaluator: Evaluator
    device: torch.device
    warnings: tuple[str, ...] = ()
    guards: Guards = field(default_factory=Guards)

    def trainer(
        self,
        run: RunFolder,
        on_validation: Callable[[Evaluation], Path | None] | None = None,
        callbacks: Callbacks | None = None,
    ) -> Trainer:
        """Return the trainer that fills an open run folder. on_validation, callbacks: see `Recorder`."""
        config = self.config.train
        recorder = self._recorder(run, on_validation, callbacks)
        take_step = TrainStep(
            self.method,
            self.optimiser,
            self.device,
            precision=choose_precision(config.precision, self.device),
            clip=self.config.optim.clip,
            parts=max(self.parts, run.parts()),
            sync_norm=config.sync_norm,
            on_smaller=recorder.note_parts,
        )
        return Trainer(take_step, self.loader, self.schedule, recorder, config)

    def _recorder(
        self,
        run: RunFolder,
        on_validation: Callable[[Evaluation], Path | None] | None,
        callbacks: Callbacks | None,
    ) -> Recorder:
        """Return what writes down the training."""
        info = self._weights_info()

        def save(path: Path, segmenter: nn.Module, state: Mapping[str, Tensor]) -> None:
            save_weights(path, state, info)

        stop_after = self.config.train.stop_after
        return Recorder(
            run,
            self.method,
            self.schedule,
            self.config.train,
            save_weights=save,
            validation=Validation(self.schedule, self.eval_every, stop_after, self.evaluator, self.guards),
            about=self._about(),
            network=info.model_dump(mode="json"),
            on_validation=on_validation,
            callbacks=callbacks,
        )

    @cached_property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width of a typical labeled image: that of middle size."""
        return self._sizes[len(self._sizes) // 2] if self._sizes else None

    @cached_property
    def _sizes(self) -> list[tuple[int, int]]:
        return labeled_sizes(self.dataset)

    @property
    def eval_every(self) -> int:
        """Steps between validations; 0 = only at the end."""
        every = self.config.train.eval_every
        return self._planned_every() if every is None else every

    def _planned_every(self) -> int:
        """Steps between validations where nobody says. Pixels stand for time, so a run that goes on repeats them."""
        if self.image_size is None:
            return 0
        area = math.prod(self.image_size) * self.config.eval.resize**2
        work = self.schedule.steps * self.config.train.batch_size * math.prod(self.config.views.crop)
        return -(-self.schedule.steps // validations(work, area, len(self.dataset.val) + self.guards.num_images)[0])

    def _weights_info(self) -> WeightsInfo:
        segmenter = next(iter(self.method.predictors().values()))
        return WeightsInfo(
            model=self.config.model,
            head="prototype" if isinstance(segmenter.head, PrototypeClassifier) else "linear",
            classes=self.dataset.classes,
            palette=self.dataset.palette,
            tail=self.evaluator.tail,
            eval=self.config.eval,
            method=self.config.method.name,
            image_size=self.image_size,
            image_pixels=(math.prod(self._sizes[0]), math.prod(self._sizes[-1])) if self._sizes else None,
            oracle=self.config.train.oracle,
            bands=self.dataset.bands,
        )

    def _about(self) -> dict[str, Any]:
        """Return what results.json says about method and data."""
        protocol = recognise_lists(self.dataset.labeled, self.dataset.unlabeled)
        caution = cautions(self.config.train.oracle, len(self.dataset.val))
        return {
            "method": self.config.method.name,
            "oracle": self.config.train.oracle,
            "tail_classes": list(self.evaluator.tail),
            "caution": caution or None,
            "pixel_share": _pixel_share(self.dataset, self.counts),
            "data": {
                "name": self.config.data.name,
                "protocol": protocol.name if protocol else None,
                **_list_facts(self.dataset),
            },
        }


def _list_facts(data: Dataset) -> dict[str, Any]:
    """Return how many images each list has, and its hash."""
    lists = {"labeled": data.labeled, "unlabeled": data.unlabeled, "val": data.val}
    return {
        **{name: len(ids) for name, ids in lists.items()},
        **{f"{name}_hash": content_hash(ids) for name, ids in lists.items()},
    }


def lists_now(config: RunConfig) -> dict[str, Any]:
    """Return what results.json would say of the lists of a run that began now: `labeled`, `labeled_hash`, and so on.

    No image and no mask is opened. Raises DataError where data or lists cannot be found, or have faults.
    """
    if isinstance(config.data, FilesConfig):
        config = config.model_copy(update={"data": config.data.model_copy(update={"cache": 0.0})})  # it makes a folder
    with collecting() as faults:  # classes that nobody names are then not counted, which would open all masks
        data = _open(config, MEASURED, hold_out=False)
    if faults:
        raise faults[0].error
    if config.guard.held_out:
        _take_held_out(data, config.guard.held_out)
    return _list_facts(data)


def cautions(oracle: bool, num_val: int) -> str:
    """Say what has to be known of a score: whether an oracle's run has it, and if it rests on few images; '' if not."""
    return "; ".join(filter(None, [ORACLE if oracle else "", few_images(num_val)]))


def _pixel_share(data: Dataset, counts: Tensor) -> dict[str, float]:
    """Share of the labeled pixels that each class has."""
    share = counts.double() / counts.sum()
    return dict(zip(data.classes, share.tolist(), strict=True))


MEASURED: Literal["measured"] = "measured"
"""What images are made of is seen from them; else it is known already."""

Known = Bands | None | Literal["measured"]


def training(config: RunConfig, *, checked: bool = True, bands: Known = MEASURED, fresh: bool = True) -> Training:
    """Build everything a run needs. Raises ConfigError, DataError or WeightsError.

    checked: open all labeled and val files, as `des4 data check` does; else read their headers alone. bands: of a run
    that goes on, those that it began with. fresh: whether it begins; a checkpoint holds what `train.start_from` gave.
    """
    device = choose_device(config.train.device)
    if checked:
        data, seen = _checked_dataset(config, ("labeled", "val"), bands)
    else:
        data, seen = _opened_dataset(config, bands), None
    num_unlabeled = len(data.unlabeled) if METHODS[config.method.name].VIEWS.strong else 0
    steps = config.train.total_steps(len(data.labeled), num_unlabeled)
    counts = torch.tensor(seen.counts) if seen else pixel_counts(data, data.labeled)
    truth = _truth_images(config, data, num_unlabeled)
    start = beginning(config.train.start_from) if config.train.start_from and fresh else None
    net = method(config, data, counts, steps, start).to(device)
    schedule = PolySchedule(steps, config.optim.power, config.optim.warmup_steps, net.restarts)
    if config.train.sync_norm and num_ranks() > 1:
        synchronise_norms(net)
    if config.train.compile:
        for network in net.networks().values():
            if isinstance(network.module, Segmenter):
                compile_networks(network.module)
    source = loader(config, data, net)
    parts = _parts(config, net, source, device)  # counted on whole networks
    if config.train.shard and num_ranks() > 1:
        shard_weights(net)
    return Training(
        config,
        data,
        counts,
        net,
        source,
        build_optimiser(net, config.optim, config.train.batch_size),
        parts,
        schedule,
        Evaluator(data, data.val, config.eval, device, tail_classes(counts)),
        device,
        seen.warnings if seen else (),
        _guards(config, data, counts, schedule.steps, truth, device),
    )


def _guards(
    config: RunConfig, data: Dataset, counts: Tensor, steps: int, truth: Sequence[str], device: torch.device
) -> Guards:
    """Build what is watched of a run. truth: unlabeled images to measure pseudo-labels on."""

    def evaluator(ids: Sequence[str]) -> Evaluator | None:
        return Evaluator(data, ids, config.eval, device, tail_classes(counts)) if ids else None

    drift = DriftGuard(_pixel_share(data, counts), config.guard.drift_factor, steps)
    return Guards(drift, evaluator(truth), evaluator(data.held_out))


def _truth_images(config: RunConfig, data: Dataset, num_unlabeled: int) -> tuple[str, ...]:
    """Open the masks of unlabeled images to those who ask for them; return the images to measure pseudo-labels on.

    These are evenly spaced in the list. Raises ConfigError or DataError where there are no masks, or an oracle lacks
    some.
    """
    wanted = config.guard.truth_images
    if config.train.oracle and not num_unlabeled:
        raise ConfigError(
            f"train.oracle: method={config.method.name} reads no unlabeled image, so there is nothing to tell it; to "
            "train with all masks, name all images in data.labeled"
        )
    if not config.train.oracle and not wanted:
        return ()
    known = data.reveal()
    if config.train.oracle and len(known) < len(data.unlabeled):
        there = set(known)
        first = next(sample_id for sample_id in data.unlabeled if sample_id not in there)
        raise DataError(
            f"train.oracle: {len(data.unlabeled) - len(known)} of the {len(data.unlabeled)} unlabeled images have "
            f"no mask, the first is '{first}'; add the masks, or name in data.unlabeled the images that have one"
        )
    if wanted and not known:
        raise DataError(f"guard.truth_images={wanted}: no unlabeled image has a mask; leave it out")
    count = min(wanted, len(known))
    return _readable(data, (known[number * len(known) // count] for number in range(count)))


def _parts(config: RunConfig, method: Method, source: Loader, device: torch.device) -> int:
    """Return how many micro-batches a batch is split into; `auto`: as few as the method's first batch needs to fit."""
    if config.train.accumulate != "auto":
        return config.train.accumulate
    with closing(source.batches(0, device)) as batches:  # type: ignore[type-var]  # it is a generator
        batch = next(batches)
    precision = choose_precision(config.train.precision, device)
    shards = num_ranks() if config.train.shard else 1
    return fewest_parts(method.train(), batch, free_memory(device), precision, config.optim.num_moments, shards)


def dataset(config: RunConfig, roles: Sequence[Role] = ("labeled", "val"), bands: Known = MEASURED) -> Dataset:
    """Build the data set and check its samples of some roles. Raises DataError at what `des4 data check` calls one.

    bands: what a network was trained on.
    """
    return _checked_dataset(config, roles, bands)[0]


@dataclass(frozen=True)
class _Seen:
    """What the check of a data set leaves behind. counts: labeled pixels of each class. warnings: a line a kind."""

    counts: list[int]
    warnings: tuple[str, ...]


def _checked_dataset(config: RunConfig, roles: Sequence[Role], bands: Known) -> tuple[Dataset, _Seen | None]:
    """Build the data set, let the first process check it, and say what it found; None for data not in files."""
    data = _open(config, bands, hold_out="labeled" in roles)
    if not isinstance(data, FileDataset) or not isinstance(config.data, FilesConfig):
        return data, None
    done = on_first(lambda: refuse_errors(data, config.data, roles))
    _share_bands(data)
    counts = [count.pixels["labeled"] for count in done.classes] if done else None
    return data, _Seen(gather_over_ranks(counts)[0] or [], warnings_by_kind(done) if done else ())


def _opened_dataset(config: RunConfig, bands: Known) -> Dataset:
    """Build the data set and look at its files' headers. Raises DataError."""
    data = _open(config, bands, hold_out=True)
    data.check_labeled()
    if isinstance(data, FileDataset):
        _share_bands(data)
    return data


def _open(config: RunConfig, bands: Known, hold_out: bool) -> Dataset:
    """Build the data set. hold_out: keep labeled images from training, if the config says so. Raises DataError."""
    given: Any = prepared(config.data) if isinstance(config.data, FilesConfig) else config.data
    cls: Any = DATASETS[given.name]
    data: Dataset = cls(given)
    if given is not config.data:
        data.notes = (
            f"imported: {given.root} holds what was read of it, and import.json there what was lost",
            *data.notes,
        )
    if isinstance(data, FileDataset) and bands != MEASURED:
        data.read_as(bands)
    elif bands is not None and bands != MEASURED:
        raise DataError(f"{config.data.name}: are pictures in RGB, and the network was trained on {Chosen.of(bands)}")
    if hold_out and config.guard.held_out:
        _hold_out(data, config.guard.held_out)
    return data


def _hold_out(data: Dataset, wanted: float) -> None:
    """Keep a number or a share of the labeled images from training. Raises DataError."""
    held_out = _take_held_out(data, wanted)
    count = len(held_out) + len(data.labeled)
    data.held_out = _readable(data, held_out)
    data.notes += (f"held out: {len(held_out)} of the {count} labeled images, which are scored and not learnt from",)


def _take_held_out(data: Dataset, wanted: float) -> list[str]:
    """Take the images that are held out off the labeled list, and return them. Raises DataError.

    They are drawn without regard to the seed of the training, so that several seeds share them.
    """
    ids = sorted(data.labeled)
    count = max(1, round(wanted * len(ids))) if wanted < 1 else int(wanted)
    if count >= len(ids):
        raise DataError(
            f"guard.held_out={wanted:g} leaves none of the {len(ids)} labeled images to learn from; hold out fewer"
        )
    held_out = set(random.Random("held out").sample(ids, count))
    data.labeled = tuple(sample_id for sample_id in data.labeled if sample_id not in held_out)
    return sorted(held_out)


def _readable(data: Dataset, ids: Iterable[str]) -> tuple[str, ...]:
    """Read images and masks that no check of the lists sees, so that none stops a run on its way. Raises DataError."""
    found = tuple(ids)
    for sample_id in found:
        data.image(sample_id), data.label(sample_id)
    return found


def _share_bands(data: FileDataset) -> None:
    """Let the first process measure what the images are made of, where that is not known, and tell the others."""
    found = on_first(lambda: data.bands.model_dump() if data.bands else None)
    shared = gather_over_ranks(found)[0]
    data.read_as(Bands.model_validate(shared) if shared else None)


def method(
    config: RunConfig, dataset: Dataset, counts: Tensor, total_steps: int, start: Beginning | None = None
) -> Method:
    """Build the method and its networks, from the seed. start: what they begin as. Raises ConfigError, WeightsError."""
    torch.manual_seed(config.train.seed)

    def make_segmenter(head: HeadName, encoder_alone: bool = False) -> Segmenter:
        made = build_segmenter(config.model, len(dataset.classes), head, dataset.bands, pretrained=start is None)
        if start is not None:
            start.put_into(made, dataset.classes, encoder_alone)
        return made

    def make_another(head: HeadName) -> Segmenter:
        return make_segmenter(head, encoder_alone=True)

    setting = Setting(
        classes=dataset.classes,
        pixel_counts=counts,
        total_steps=total_steps,
        num_labeled=len(dataset.labeled),
        num_unlabeled=len(dataset.unlabeled),
        seed=config.train.seed,
        make_segmenter=make_segmenter,
        make_another=make_another,
        supervision=config.supervision,
        crop=(len(dataset.bands.numbers) if dataset.bands else 3, *config.views.crop),
    )
    return METHODS[config.method.name](config.method, setting)


def loader(config: RunConfig, dataset: Dataset, method: Method) -> Loader:
    """Build the source of micro-batches; padding has the mean colour of the encoder's training images."""
    labeled, unlabeled = config.train.shares(num_ranks())
    parts = config.train.accumulate
    fill = next(iter(method.predictors().values())).mean.tolist()
    return Loader(
        dataset,
        config.views,
        method.VIEWS,
        labeled_batch=labeled,
        unlabeled_batch=unlabeled,
        mix_group=mix_group(config.views.mix_group, unlabeled // (1 if parts == "auto" else parts)),
        seed=config.train.seed,
        workers=config.train.workers,
        fill=tuple(fill),
        colour=dataset.bands is None,
        rank=this_rank(),
        ranks=num_ranks(),
        oracle=config.train.oracle,
        balance=Balance(config.balance, dataset) if config.balance.is_on else None,
    )


def mix_group(wanted: int | Literal["auto"], images: int) -> int:
    """Return how many neighbours are mixed together. images: unlabeled ones that a process trains on at a time.

    Raises ConfigError if groups of `wanted` do not fill them.
    """
    if wanted == "auto":
        return 2 if images % 2 == 0 else images
    if images % wanted:
        raise ConfigError(f"views.mix_group={wanted} does not divide the {images} unlabeled images that a process "
                          "trains on at a time; change it, the batch size or train.accumulate")  # fmt: skip
    return wanted


def labeled_sizes(dataset: Dataset, looked_at: int = 15) -> list[tuple[int, int]]:
    """Return height and width of some labeled images, evenly spaced in their list, by pixels."""
    sizes = []
    for sample_id in dataset.labeled[:: max(1, len(dataset.labeled) // looked_at)]:
        with suppress(DataError):  # the training has said so
            height, width = dataset.image(sample_id).shape[1:]
            sizes.append((height, width))
    return sorted(sizes, key=math.prod)


# ── environment ──────────────────────────────────────────────────────────────────────────────────────────────────────


def environment(device: torch.device) -> dict[str, Any]:
    """Return what env.json keeps: versions, machine, source revision and command."""
    return {
        "des4": des4.__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "torchvision", "timm", "numpy", "pillow", "simplejpeg")},
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "commit": _commit(),
        "command": shlex.join(sys.argv),
    }


def _commit() -> str | None:
    """Return the commit of the checkout this package runs from, `-dirty` if files have changed; None without one."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None
