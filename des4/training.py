"""What a training is made of, and what it says of itself: beside its weights, and at the head of its results."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from des4.config import RunConfig
from des4.data import Loader
from des4.data_tools.checks.advice import validations
from des4.datasets import recognise_lists
from des4.engine import Evaluator, Guards, PolySchedule, Recorder, Trainer, TrainStep, Validation, choose_precision
from des4.engine.callbacks import Callbacks
from des4.engine.distributed import on_first
from des4.engine.evaluator import Evaluation
from des4.methods import Method
from des4.models import PrototypeClassifier
from des4.opening import list_facts
from des4.ops.reduce import num_ranks
from des4.ops.tail import few_images
from des4.runlog import RunFolder
from des4.types import DataError, Dataset
from des4.weights import WeightsInfo, save_weights

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
        parts = self._parts(run)
        take_step = TrainStep(
            self.method,
            self.optimiser,
            self.device,
            precision=choose_precision(config.precision, self.device),
            clip=self.config.optim.clip,
            parts=parts,
            sync_norm=config.sync_norm,
            on_smaller=recorder.note_parts,
        )
        return Trainer(take_step, self.loader, self.schedule, recorder, config)

    def _parts(self, run: RunFolder) -> int:
        """Return into how many micro-batches each process splits its share: as the run has noted, if it has.

        A number that was chosen by the free memory is noted when the run begins: to a run that goes on, another one
        would show other images at a time, and so to BatchNorm.
        """
        noted, chosen = run.micro_batches(), self.config.train.accumulate == "auto"
        if noted is not None:
            own = -(-noted // num_ranks())
            return own if chosen else max(self.parts, own)
        if chosen:
            on_first(lambda: run.write_micro_batches(self.parts * num_ranks()))
        return self.parts

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

    @property
    def lone_images(self) -> list[str]:
        """A warning, if unlabeled images are to be mixed and each has itself alone to be mixed with."""
        views, group = self.config.views, self.loader.mix_group
        if group > 1 or views.mix_group == 1 or not views.mixes(self.loader.spec):
            return []
        return ["a process trains on 1 unlabeled image at a time, so none is mixed with another; with a lower "
                "train.accumulate, or a larger train.unlabeled_batch_size, they are"]  # fmt: skip

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
            "pixel_share": pixel_share(self.dataset, self.counts),
            "data": {
                "name": self.config.data.name,
                "protocol": protocol.name if protocol else None,
                **list_facts(self.dataset),
            },
        }


def labeled_sizes(dataset: Dataset, looked_at: int = 15) -> list[tuple[int, int]]:
    """Return height and width of some labeled images, evenly spaced in their list, by pixels."""
    sizes = []
    for sample_id in dataset.labeled[:: max(1, len(dataset.labeled) // looked_at)]:
        with suppress(DataError):  # the training has said so
            height, width = dataset.image(sample_id).shape[1:]
            sizes.append((height, width))
    return sorted(sizes, key=math.prod)


def pixel_share(data: Dataset, counts: Tensor) -> dict[str, float]:
    """Share of the labeled pixels that each class has."""
    share = counts.double() / counts.sum()
    return dict(zip(data.classes, share.tolist(), strict=True))


def cautions(oracle: bool, num_val: int) -> str:
    """Say what has to be known of a score: whether an oracle's run has it, and if it rests on few images; '' if not."""
    return "; ".join(filter(None, [ORACLE if oracle else "", few_images(num_val)]))
