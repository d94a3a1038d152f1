"""The loader: an endless stream of batches, each a pure function of (seed, step).

The labeled and the unlabeled ids are each permuted anew per epoch, and batch m takes the positions [m·b, (m+1)·b) of
the endless row of permutations. So nothing is remembered from batch to batch: any number of workers gives the same
batches, and a run resumes at step m by asking for batch m. Of R processes, number r takes the batches m·R + r in step
m: together they are the batch that one process would have taken. What is mixed together are groups of neighbours in
that row, not the samples of a batch, so that mixes do not depend on how a step is shared out either.

Workers read, cut and draw. What they send is small, bytes and drawn numbers; the training process makes the views of
it, on its device, for the whole batch at once.

An image that cannot be read gives its place to another of the same list, drawn from (seed, epoch, id). Which one, and
so the batch, depends on the files alone.
"""

from __future__ import annotations

import itertools
import random
import signal
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from des4.data.balance import TRIES, Balance
from des4.data.order import Order
from des4.data.views import (
    CropBox,
    Strong,
    ViewsConfig,
    crop_image,
    crop_label,
    draw_crop,
    draw_photometric,
    padded_views,
    strong_view,
)
from des4.ops.mixing import draw_mix, join
from des4.ops.noise import sample_key
from des4.types import (
    IGNORE,
    STOP_SIGNALS,
    Batch,
    ConfigError,
    DataError,
    Dataset,
    Labeled,
    Mix,
    StrongView,
    Unlabeled,
    UserError,
    ViewSpec,
)

CPU = torch.device("cpu")
SUBSTITUTES = 11
"""Images drawn one after the other in the place of an unreadable one; if none can be read, the run stops.

With a tenth of a list broken that happens once in 10¹² samples, with half of it once in 4,000."""

T = TypeVar("T")


class Loader:
    """Batches of labeled and unlabeled samples; `loader[m]` is batch m, `batches(m)` streams from there.

    spec: the views the method asks for; with `strong == 0` no unlabeled image is read. labeled_batch,
    unlabeled_batch: images of one process. workers: processes that prepare batches ahead, 0 = none. fill: the
    colour of padding in [0, 1], a number a band. colour: whether the images are RGB, of which strong views change the
    colours. mix_group: neighbours that are mixed together, a divisor of unlabeled_batch; None = as many. rank, ranks:
    this process among those that share a step. oracle: read the masks of unlabeled images too, which the data set has
    revealed. unlabeled_from: the step from which on unlabeled images are read; before it, batches have none. balance:
    of the labeled list, so that rare classes are shown more often; None = as it is. Raises DataError if a needed list
    is empty, ConfigError for `augseg` without colours.
    """

    def __init__(
        self,
        dataset: Dataset,
        views_config: ViewsConfig,
        spec: ViewSpec,
        *,
        labeled_batch: int,
        unlabeled_batch: int,
        seed: int,
        workers: int,
        fill: tuple[float, ...],
        colour: bool = True,
        mix_group: int | None = None,
        rank: int = 0,
        ranks: int = 1,
        oracle: bool = False,
        unlabeled_from: int = 0,
        balance: Balance | None = None,
    ) -> None:
        if not dataset.labeled:
            raise DataError("The data set has no labeled images; training needs some masks")
        if spec.reads_unlabeled and not dataset.unlabeled:
            raise DataError(
                "The data set has no unlabeled images, which this method needs; add some or use method=supervised"
            )
        self.dataset, self.config, self.spec = dataset, views_config, spec
        self.labeled_batch, self.unlabeled_batch = labeled_batch, unlabeled_batch
        self.seed, self.workers, self.fill, self.colour = seed, workers, fill, colour
        self.mix_group = unlabeled_batch if mix_group is None else mix_group
        self.rank, self.ranks, self.oracle, self.unlabeled_from = rank, ranks, oracle, unlabeled_from
        self.cutmix = views_config.cutmix_of(spec)
        self.photometric = spec.photometric if views_config.photometric == "auto" else views_config.photometric
        if not colour and "augseg" in (self.photometric, views_config.labeled_photometric, *spec.recoloured):
            raise ConfigError("views.photometric: augseg changes the colours of 8-bit RGB; set it to french or none")
        self.balance = balance
        # The keys of orders keep the letters that they always had: others would draw other orders.
        self._labeled_order = (balance.order if balance else Order)(dataset.labeled, f"{seed}/labelled")
        self._unlabeled_order = Order(dataset.unlabeled, f"{seed}/unlabelled")

    def batches(self, start: int = 0, device: torch.device = CPU) -> Iterator[Batch]:
        """Yield this process's batches of the steps start, start + 1, … on `device`, endlessly.

        Raises DataError where samples cannot be read.
        """
        with warnings.catch_warnings():  # more workers than cores do no harm, and `des4 doctor` names them
            warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
            stream = iter(
                DataLoader[_Cut | UserError](
                    _Attempt(self),
                    batch_size=None,
                    sampler=itertools.count(start * self.ranks + self.rank, self.ranks),  # any iterable serves
                    num_workers=self.workers,
                    pin_memory=device.type == "cuda",
                    worker_init_fn=_leave_signals_to_the_trainer,
                    generator=torch.Generator(),  # else it would draw from the global one, which a resume restores
                )
            )
        try:
            for item in stream:
                if isinstance(item, UserError):
                    raise item
                yield self._finish(item.to(device))
        finally:  # whoever keeps the error keeps this frame, and so the workers, which the end of the process waits for
            del stream

    def __getitem__(self, number: int) -> Batch:
        """Make batch `number`, on the CPU."""
        return self._finish(self.cut(number))

    def cut(self, number: int) -> _Cut:
        """Do a worker's part of batch `number`."""
        skipped: dict[str, str] = {}
        labeled = self._cut_labeled(number, skipped)
        scale = self.spec.donor_scale
        donors = self._cut_donors(number, scale, skipped) if scale else None
        wanted = self.spec.reads_unlabeled and number // self.ranks >= self.unlabeled_from
        return _Cut(labeled, self._cut_unlabeled(number, skipped) if wanted else None, donors, skipped)

    def _cut_labeled(self, number: int, skipped: dict[str, str]) -> _Crops:
        drawn = self._labeled_order.batch(number, self.labeled_batch)
        further = (
            tuple(draw_photometric(preset, self._rng(*sample, "colour", n)) for sample in drawn)
            for n, preset in enumerate(self.spec.recoloured)
        )
        colours = (self._labeled_colours(drawn, "colour"), *further)
        rngs = [self._rng(*sample) for sample in drawn]
        return self._cut_pairs(drawn, rngs, self.config, colours, skipped, paste=True)

    def _cut_donors(self, number: int, factors: tuple[float, float], skipped: dict[str, str]) -> _Crops:
        """Cut the donors of batch `number`, each drawn for the labeled sample that it belongs to.

        factors: of the lowest and the highest scale of the user's crops.
        """
        order = self._labeled_order
        drawn = order.batch(number, self.labeled_batch)
        rngs = [self._rng(*sample, "donor") for sample in drawn]
        donors = [(epoch, rng.choice(order.ids)) for (epoch, _), rng in zip(drawn, rngs, strict=True)]
        scale = tuple(of_crops * factor for of_crops, factor in zip(self.config.scale, factors, strict=True))
        config = self.config.model_copy(update={"scale": scale})
        colours = (self._labeled_colours(drawn, "donor colour"),)
        return replace(self._cut_pairs(donors, rngs, config, colours, skipped), keys=self._keys(drawn))

    def _labeled_colours(self, samples: list[tuple[int, str]], purpose: str) -> tuple[Strong, ...]:
        """Draw the colours of labeled samples, (epoch, place) each. purpose: part of the keys of their draws."""
        preset, probability = self.config.labeled_photometric, self.config.labeled_photometric_probability
        return tuple(draw_photometric(preset, self._rng(*sample, purpose), probability) for sample in samples)

    def _cut_pairs(
        self,
        samples: list[tuple[int, str]],
        rngs: list[random.Random],
        config: ViewsConfig,
        colours: tuple[tuple[Strong, ...], ...],
        skipped: dict[str, str],
        paste: bool = False,
    ) -> _Crops:
        """Cut labeled samples, (epoch, id) each. rngs: draw their crops. paste: rare classes, if the user wants it."""
        allowed, crops = skipped if self.dataset.skip_broken else None, []
        for (epoch, place), rng in zip(samples, rngs, strict=True):
            sample_id, (image, label) = self._read(self._pair, self._labeled_order, epoch, place, allowed)
            box = draw_crop(config, image.shape[1], image.shape[2], rng)
            crop, cut = crop_image(image, box, config), crop_label(label, box, config)
            if paste:
                crop, cut = self._pasted(crop, cut, box, (epoch, place, sample_id), allowed)
            crops.append((crop, box, sample_id, cut))
        images, boxes, ids, labels = zip(*crops, strict=True)
        return _Crops(torch.stack(images), boxes, ids, self._keys(samples), label=torch.stack(labels), colours=colours)

    def _pasted(
        self, crop: Tensor, label: Tensor, box: CropBox, drawn: tuple[int, str, str], skipped: dict[str, str] | None
    ) -> tuple[Tensor, Tensor]:
        """Lay the rare classes of another labeled image over a crop, if that is drawn; padding stays as it is.

        drawn: epoch, place in the list, and id of the crop's image. skipped: as of `_read`.
        """
        if self.balance is None or not self.balance.config.paste_rare:
            return crop, label
        epoch, place, sample_id = drawn
        rng = self._rng("paste", epoch, place)
        if (donor := self.balance.donor(sample_id, rng)) is None:
            return crop, label
        rare, other = donor
        try:
            their_image, their_label = self._pair(other)
        except DataError as error:
            if skipped is None:
                raise
            skipped[other] = str(error)
            return crop, label
        for _ in range(TRIES):
            theirs = draw_crop(self.config, their_image.shape[1], their_image.shape[2], rng)
            pasted = crop_label(their_label, theirs, self.config)
            if (pasted == rare).any():
                break
        inside = torch.zeros(label.shape, dtype=torch.bool)
        inside[box.inside] = True
        where = self.balance.is_rare(pasted) & inside
        new = torch.where(where[..., None], crop_image(their_image, theirs, self.config), crop)
        return new, torch.where(where, pasted, label)

    def _cut_unlabeled(self, number: int, skipped: dict[str, str]) -> _Crops:
        order, crops, truths = self._unlabeled_order, [], []
        drawn = order.batch(number, self.unlabeled_batch)
        for epoch, place in drawn:
            sample_id, (image, label) = self._read(self._unlabeled, order, epoch, place, skipped)
            box = draw_crop(self.config, image.shape[1], image.shape[2], self._rng(epoch, place))
            crops.append((crop_image(image, box, self.config), box, sample_id))
            if label is not None:
                truths.append(crop_label(label, box, self.config))
        images, boxes, ids = zip(*crops, strict=True)
        views = range(self.spec.strong)
        return _Crops(
            torch.stack(images),
            boxes,
            ids,
            self._keys(drawn),
            label=torch.stack(truths) if truths else None,
            colours=tuple(
                tuple(draw_photometric(self.photometric, self._rng(*sample, view)) for sample in drawn)
                for view in views
            ),
            mix=tuple(self._draw_mix(number, view) for view in views),
        )

    def _draw_mix(self, number: int, view: int) -> Mix:
        """Draw the boxes of batch `number`; group g of the endless row of samples has a generator of its own."""
        group, count = self.mix_group, self.unlabeled_batch // self.mix_group
        numbers = range(number * count, (number + 1) * count)
        return join([draw_mix(self.cutmix, group, *self.config.crop, self._rng("mix", g, view)) for g in numbers])

    def _unlabeled(self, sample_id: str) -> tuple[Tensor, Tensor | None]:
        """Read an unlabeled image, and what is true of it if an oracle is to say so."""
        return self._pair(sample_id) if self.oracle else (self.dataset.image(sample_id), None)

    def _pair(self, sample_id: str) -> tuple[Tensor, Tensor]:
        """Read an image and its label."""
        image, label = self.dataset.image(sample_id), self.dataset.label(sample_id)
        if image.shape[1:] != label.shape:
            sizes = " and ".join(f"{width}×{height}" for height, width in (label.shape, image.shape[1:]))
            raise DataError(f"{sample_id}: mask and image have different sizes ({sizes} pixels); export both alike")
        return image, label

    def _read(
        self, read: Callable[[str], T], order: Order, epoch: int, place: str, skipped: dict[str, str] | None
    ) -> tuple[str, T]:
        """Read the sample `place`, or the first readable one drawn in its stead.

        skipped: takes the broken ones, id → reason; None: none may be broken. Raises DataError.
        """
        sample_id = place
        for attempt in range(SUBSTITUTES + 1):
            try:
                return sample_id, read(sample_id)
            except DataError as error:
                if skipped is None:
                    raise
                skipped[sample_id] = reason = str(error)
            sample_id = order.ids[self._rng("substitute", epoch, place, attempt).randrange(len(order.ids))]
        raise DataError(f"{SUBSTITUTES + 1} images in a row cannot be used, so the run stops. The last: {reason}")

    def _keys(self, drawn: list[tuple[int, str]]) -> Tensor:
        """Return the keys of samples, given their epochs and ids."""
        return torch.tensor([sample_key(self.seed, *sample) for sample in drawn])

    def _rng(self, *key: int | str) -> random.Random:
        """Return the generator of this key; Python seeds from a string by SHA-512, alike in every process."""
        return random.Random("/".join(map(str, (self.seed, *key))))

    def _finish(self, cut: _Cut) -> Batch:
        """Make the views, on the device where the crops are."""
        labeled, un = self._labeled_views(cut.labeled), cut.unlabeled
        if cut.donors is not None:
            labeled = replace(labeled, donor=self._labeled_views(cut.donors))
        if un is None:
            return Batch(labeled, None, cut.skipped)
        weak, valid = padded_views(un.image, un.boxes, self.fill)
        truth = None
        if un.label is not None:
            valid &= un.label != IGNORE
            truth = un.label.long().masked_fill(~valid, 0)
        views = zip(un.colours, un.mix, strict=True)
        strong = tuple(StrongView(strong_view(weak, colours, self.colour), boxes) for colours, boxes in views)
        return Batch(labeled, Unlabeled(weak, strong, valid, un.keys, un.ids, truth=truth), cut.skipped)

    def _labeled_views(self, crops: _Crops) -> Labeled:
        assert crops.label is not None  # noqa: S101  # as `_cut_pairs` made it
        plain = padded_views(crops.image, crops.boxes, self.fill)[0]
        image, *recoloured = (strong_view(plain, colours, self.colour) for colours in crops.colours)
        return Labeled(image, crops.label.long(), crops.keys, crops.ids, recoloured=tuple(recoloured))


@dataclass(frozen=True)
class _Crops:
    """One list's share of a batch, as a worker sends it.

    image: (B, H, W, bands) uint8 or float32. keys: (B,) int64. label: (B, H, W) uint8, of labeled samples, and for an
    oracle of the others. colours: one entry a view that is recoloured. mix: one entry a strong view.
    """

    image: Tensor
    boxes: tuple[CropBox, ...]
    ids: tuple[str, ...]
    keys: Tensor
    label: Tensor | None = None
    colours: tuple[tuple[Strong, ...], ...] = ()
    mix: tuple[Mix, ...] = ()


@dataclass(frozen=True)
class _Cut:
    """A batch as a worker sends it. skipped: what could not be read for it, id → reason."""

    labeled: _Crops
    unlabeled: _Crops | None
    donors: _Crops | None = None
    skipped: dict[str, str] = field(default_factory=dict)

    def to(self, device: torch.device) -> _Cut:
        """Copy to the device; from pinned memory, without waiting for it."""
        if device.type == "cpu":
            return self
        moved: _Cut = _with_tensors(self, lambda t: t.to(device, non_blocking=True))
        return moved

    def pin_memory(self) -> _Cut:
        """Copy what is not on a device already to pinned memory; the DataLoader calls it by this name."""
        pinned: _Cut = _with_tensors(self, lambda t: t.pin_memory() if t.device.type == "cpu" else t)
        return pinned


def _with_tensors(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Return `value` with `function` applied to each tensor in it, through tuples and dataclasses."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple):
        return tuple(_with_tensors(item, function) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _with_tensors(getattr(value, f.name), function) for f in fields(value)})
    return value


def _leave_signals_to_the_trainer(worker: int) -> None:
    """Let Ctrl-C reach the training process alone: the step it finishes before it saves needs its workers."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class _Attempt(TorchDataset["_Cut | UserError"]):
    """Hands a UserError over as a value: raised in a worker, its one line would arrive wrapped in a traceback."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def __getitem__(self, number: int) -> _Cut | UserError:
        try:
            return self.loader.cut(number)
        except UserError as error:
            return error
