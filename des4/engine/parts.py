"""A step's batch cut into micro-batches, which are trained on one after the other to save memory.

However a step is cut, and shared out over processes, its loss is that of the whole: sums over pixels are divided by
the pixels of all parts and processes (`Labeled.pixels`), and samples are mixed within groups that no cut divides.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from des4.ops.mixing import part
from des4.ops.reduce import num_ranks, sum_over_ranks
from des4.types import Batch, Labeled, StrongView, Unlabeled


def can_split(batch: Batch, parts: int) -> bool:
    """Whether a batch can be cut into so many equal micro-batches."""
    unlabeled = batch.unlabeled
    groups = len(unlabeled.weak) // max((view.mix.group for view in unlabeled.strong), default=1) if unlabeled else 0
    return len(batch.labeled.image) % parts == 0 and groups % parts == 0


def possible_parts(batch: Batch) -> list[int]:
    """Into how many equal micro-batches a batch can be cut, the fewest first: 1."""
    return [parts for parts in range(1, len(batch.labeled.image) + 1) if can_split(batch, parts)]


def parts_from(batch: Batch, fewest: int) -> int:
    """Return into how many micro-batches a batch can be cut that are no fewer than `fewest`; else the most."""
    possible = possible_parts(batch)
    return next((parts for parts in possible if parts >= fewest), possible[-1])


def split(batch: Batch, parts: int) -> list[Batch]:
    """Cut this process's batch into equal micro-batches; their mean loss, over processes too, is the step's."""
    labeled, unlabeled = batch.labeled, batch.unlabeled
    counts = [labeled.valid.sum()]
    if unlabeled:
        counts += [unlabeled.valid.sum(), *(view.mix(unlabeled.valid).sum() for view in unlabeled.strong)]
    (total,) = sum_over_ranks(torch.stack(counts))
    # where there is no pixel at all, sums are 0 whatever they are divided by
    pixels = torch.where(total > 0, total / (parts * num_ranks()), 1.0).float().unbind()
    return [
        Batch(
            _labeled_part(labeled, number, parts, pixels[0]),
            _unlabeled_part(unlabeled, number, parts, pixels[1:]) if unlabeled else None,
        )
        for number in range(parts)
    ]


def _labeled_part(whole: Labeled, number: int, parts: int, pixels: Tensor) -> Labeled:
    here = _span(len(whole.image), number, parts)
    return replace(
        whole,
        image=whole.image[here],
        label=whole.label[here],
        keys=whole.keys[here],
        ids=whole.ids[here],
        pixels=pixels,
        recoloured=tuple(view[here] for view in whole.recoloured),
        donor=None if whole.donor is None else _labeled_part(whole.donor, number, parts, pixels),
    )


def _unlabeled_part(whole: Unlabeled, number: int, parts: int, pixels: tuple[Tensor, ...]) -> Unlabeled:
    here = _span(len(whole.weak), number, parts)
    return replace(
        whole,
        weak=whole.weak[here],
        strong=tuple(
            StrongView(view.image[here], part(view.mix, here.start, here.stop), count)
            for view, count in zip(whole.strong, pixels[1:], strict=True)
        ),
        valid=whole.valid[here],
        keys=whole.keys[here],
        ids=whole.ids[here],
        pixels=pixels[0],
        truth=None if whole.truth is None else whole.truth[here],
    )


def _span(length: int, number: int, parts: int) -> slice:
    return slice(number * length // parts, (number + 1) * length // parts)
