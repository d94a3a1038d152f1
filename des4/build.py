"""From settings to objects: the composition root. Nothing here trains, and nothing writes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Literal

import torch
from torch import Tensor

from des4.config import RunConfig
from des4.data import Balance, Loader
from des4.datasets import pixel_counts
from des4.engine import (
    DriftGuard,
    Evaluator,
    Guards,
    PolySchedule,
    build_optimiser,
    choose_device,
    choose_precision,
)
from des4.engine.cost import fewest_parts
from des4.engine.process import free_memory
from des4.engine.sharding import shard_weights
from des4.methods import METHODS, Method, Setting
from des4.metrics import tail_classes
from des4.models import HeadName, Segmenter, build_segmenter, compile_networks, synchronise_norms
from des4.opening import MEASURED, Known, checked_dataset, dataset, opened_dataset, truth_images
from des4.ops.reduce import num_ranks, this_rank
from des4.training import Training, pixel_share
from des4.types import ConfigError, Dataset
from des4.weights import Beginning, beginning

__all__ = ["Training", "dataset", "loader", "method", "mix_group", "training"]


def training(config: RunConfig, *, checked: bool = True, bands: Known = MEASURED, fresh: bool = True) -> Training:
    """Build everything a run needs. Raises ConfigError, DataError or WeightsError.

    checked: open all labeled and val files, as `des4 data check` does; else read their headers alone. bands: of a run
    that goes on, those that it began with. fresh: whether it begins; a checkpoint holds what `train.start_from` gave.
    """
    device = choose_device(config.train.device)
    if checked:
        data, seen = checked_dataset(config, ("labeled", "val"), bands)
    else:
        data, seen = opened_dataset(config, bands), None
    reads = METHODS[config.method.name].VIEWS.reads_unlabeled
    steps = config.train.total_steps(len(data.labeled), len(data.unlabeled), reads)
    counts = torch.tensor(seen.counts) if seen else pixel_counts(data, data.labeled)
    truth = truth_images(config, data, len(data.unlabeled) if reads else 0)
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

    drift = DriftGuard(pixel_share(data, counts), config.guard.drift_factor, steps, config.train.log_every)
    return Guards(drift, evaluator(truth), evaluator(data.held_out))


def _parts(config: RunConfig, method: Method, source: Loader, device: torch.device) -> int:
    """Return how many micro-batches a batch is split into; `auto`: as few as the method's first batch needs to fit."""
    if config.train.accumulate != "auto":
        return config.train.accumulate
    with closing(source.batches(source.unlabeled_from, device)) as batches:  # type: ignore[type-var]  # it is a generator
        batch = next(batches)
    precision = choose_precision(config.train.precision, device)
    shards = num_ranks() if config.train.shard else 1
    return fewest_parts(method.train(), batch, free_memory(device), precision, config.optim.num_moments, shards)


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
    images, usual = unlabeled // (1 if parts == "auto" else parts), config.views.usual_group(method.VIEWS)
    fill = next(iter(method.predictors().values())).mean.tolist()
    return Loader(
        dataset,
        config.views,
        method.VIEWS,
        labeled_batch=labeled,
        unlabeled_batch=unlabeled,
        mix_group=mix_group(config.views.mix_group, images, usual),
        seed=config.train.seed,
        workers=config.train.workers,
        fill=tuple(fill),
        colour=dataset.bands is None,
        rank=this_rank(),
        ranks=num_ranks(),
        oracle=config.train.oracle,
        unlabeled_from=method.reads_unlabeled_from,
        balance=Balance(config.balance, dataset) if config.balance.is_on else None,
    )


def mix_group(wanted: int | Literal["auto"], images: int, usual: int = 2) -> int:
    """Return how many neighbours are mixed together. images: unlabeled ones that a process trains on at a time; usual:
    what `auto` means, where it divides them.

    Raises ConfigError if groups of `wanted` do not fill them.
    """
    if wanted == "auto":
        return next(group for group in (usual, 2, images) if images % group == 0)
    if images % wanted:
        raise ConfigError(f"views.mix_group={wanted} does not divide the {images} unlabeled images that a process "
                          "trains on at a time; change it, the batch size or train.accumulate")  # fmt: skip
    return wanted
