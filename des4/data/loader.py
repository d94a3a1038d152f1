"""The loader: an endless stream of batches, each a pure function of (seed, step).

The labelled and the unlabelled ids are each permuted anew per epoch, and batch m takes the positions [m·b, (m+1)·b) of
the endless row of permutations. So nothing is remembered from batch to batch: any number of workers gives the same
batches, and a run resumes at step m by asking for batch m.
"""

from __future__ import annotations

import itertools
import random
import signal
from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from des4.data.views import (
    ViewsConfig,
    draw_crop,
    draw_photometric,
    labelled_view,
    strong_view,
    valid_pixels,
    weak_view,
)
from des4.ops.mixing import draw_mix
from des4.types import Batch, DataError, Dataset, Labelled, Unlabelled, UserError, ViewSpec


class Loader:
    """Batches of labelled and unlabelled samples; `loader[m]` is batch m, `batches(m)` streams from there.

    spec: the views the method asks for; with `strong == 0` no unlabelled image is read. workers: processes that prepare
    batches ahead, 0 = none. fill: RGB in [0, 1], the colour of padding. Raises DataError if a needed list is empty.
    """

    def __init__(
        self,
        dataset: Dataset,
        views_config: ViewsConfig,
        spec: ViewSpec,
        *,
        labelled_batch: int,
        unlabelled_batch: int,
        seed: int,
        workers: int,
        fill: tuple[float, float, float],
    ) -> None:
        if not dataset.labelled:
            raise DataError("The data set has no labelled images; training needs some masks")
        if spec.strong and not dataset.unlabelled:
            raise DataError(
                "The data set has no unlabelled images, which this method needs; add some or use method=supervised"
            )
        self.dataset, self.config, self.spec = dataset, views_config, spec
        self.labelled_batch, self.unlabelled_batch = labelled_batch, unlabelled_batch
        self.seed, self.workers = seed, workers
        self.fill = torch.tensor(fill)
        self.cutmix = spec.cutmix if views_config.cutmix == "auto" else views_config.cutmix
        self.photometric = spec.photometric if views_config.photometric == "auto" else views_config.photometric
        self._labelled_order = _Order(dataset.labelled, f"{seed}/labelled")
        self._unlabelled_order = _Order(dataset.unlabelled, f"{seed}/unlabelled")

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Yield batches start, start + 1, …, endlessly. Raises DataError where a sample cannot be read."""
        stream: DataLoader[Batch | UserError] = DataLoader(
            _Attempt(self),
            batch_size=None,
            sampler=itertools.count(start),  # any iterable serves
            num_workers=self.workers,
            worker_init_fn=_leave_signals_to_the_trainer,
            generator=torch.Generator(),  # else the DataLoader would draw from the global one, which a resume restores
        )
        for item in stream:
            if isinstance(item, UserError):
                raise item
            yield item

    def __getitem__(self, step: int) -> Batch:
        """Make batch `step`."""
        return Batch(self._labelled(step), self._unlabelled(step) if self.spec.strong else None)

    def _labelled(self, step: int) -> Labelled:
        drawn = self._labelled_order.batch(step, self.labelled_batch)
        views = []
        for epoch, sample_id in drawn:
            image, label = self.dataset.image(sample_id), self.dataset.label(sample_id)
            _, height, width = image.shape
            box = draw_crop(self.config, height, width, self._rng(epoch, sample_id))
            views.append(labelled_view(image, label, box, self.config, self.fill))
        images, labels = zip(*views, strict=True)
        return Labelled(torch.stack(images), torch.stack(labels), tuple(sample_id for _, sample_id in drawn))

    def _unlabelled(self, step: int) -> Unlabelled:
        drawn = self._unlabelled_order.batch(step, self.unlabelled_batch)
        views, valids = [], []
        for epoch, sample_id in drawn:
            image = self.dataset.image(sample_id)
            _, height, width = image.shape
            box = draw_crop(self.config, height, width, self._rng(epoch, sample_id))
            views.append(weak_view(image, box, self.config, self.fill))
            valids.append(valid_pixels(box, self.config))
        weak = torch.stack(views)
        strong = tuple(
            strong_view(weak, [draw_photometric(self.photometric, self._rng(*sample, view)) for sample in drawn])
            for view in range(self.spec.strong)
        )
        mixes = tuple(
            draw_mix(self.cutmix, len(drawn), *self.config.crop, self._rng("mix", step, view))
            for view in range(self.spec.strong)
        )
        return Unlabelled(weak, strong, mixes, torch.stack(valids), tuple(sample_id for _, sample_id in drawn))

    def _rng(self, *key: int | str) -> random.Random:
        """Return the generator of this key; Python seeds from a string by SHA-512, alike in every process."""
        return random.Random("/".join(map(str, (self.seed, *key))))


def _leave_signals_to_the_trainer(worker: int) -> None:
    """Let Ctrl-C reach the training process alone: the step it finishes before it saves needs its workers."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


class _Order:
    """The endless row of an id list's permutations, one an epoch."""

    def __init__(self, ids: Sequence[str], key: str) -> None:
        self.ids, self.key = sorted(ids), key
        self._epochs: dict[int, list[str]] = {}

    def batch(self, step: int, size: int) -> list[tuple[int, str]]:
        """Return the (epoch, id) of the positions [step·size, (step+1)·size)."""
        places = (divmod(position, len(self.ids)) for position in range(step * size, (step + 1) * size))
        return [(epoch, self._permutation(epoch)[index]) for epoch, index in places]

    def _permutation(self, epoch: int) -> list[str]:
        if epoch not in self._epochs:
            self._epochs = {e: ids for e, ids in self._epochs.items() if e == epoch - 1}
            order = self.ids.copy()
            random.Random(f"{self.key}/{epoch}").shuffle(order)
            self._epochs[epoch] = order
        return self._epochs[epoch]


class _Attempt(TorchDataset[Batch | UserError]):
    """Hands a UserError over as a value: raised in a worker, its one line would arrive wrapped in a traceback."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def __getitem__(self, step: int) -> Batch | UserError:
        try:
            return self.loader[step]
        except UserError as error:
            return error
