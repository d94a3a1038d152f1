"""A step's batch cut into micro-batches, which are trained on one after the other to save memory.

However a step is cut, and shared out over processes, its loss is that of the whole: sums over pixels are divided by
the pixels of all parts and processes (`Labelled.pixels`), and samples are mixed within groups that no cut divides.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from des4.ops.mixing import part
from des4.ops.reduce import num_ranks, sum_over_ranks
from des4.types import Batch, Labelled, StrongView, Unlabelled


def can_split(batch: Batch, parts: int) -> bool:
    """Whether a batch can be cut into so many equal micro-batches."""
    unlabelled = batch.unlabelled
    groups = len(unlabelled.weak) // max((view.mix.group for view in unlabelled.strong), default=1) if unlabelled else 0
    return len(batch.labelled.image) % parts == 0 and groups % parts == 0


def split(batch: Batch, parts: int) -> list[Batch]:
    """Cut this process's batch into equal micro-batches; their mean loss, over processes too, is the step's."""
    labelled, unlabelled = batch.labelled, batch.unlabelled
    counts = [labelled.valid.sum()]
    if unlabelled:
        counts += [unlabelled.valid.sum(), *(view.mix(unlabelled.valid).sum() for view in unlabelled.strong)]
    (total,) = sum_over_ranks(torch.stack(counts))
    # where there is no pixel at all, sums are 0 whatever they are divided by
    pixels = torch.where(total > 0, total / (parts * num_ranks()), 1.0).float().unbind()
    return [
        Batch(
            _labelled_part(labelled, number, parts, pixels[0]),
            _unlabelled_part(unlabelled, number, parts, pixels[1:]) if unlabelled else None,
        )
        for number in range(parts)
    ]


def _labelled_part(whole: Labelled, number: int, parts: int, pixels: Tensor) -> Labelled:
    here = _span(len(whole.image), number, parts)
    return replace(
        whole,
        image=whole.image[here],
        label=whole.label[here],
        keys=whole.keys[here],
        ids=whole.ids[here],
        pixels=pixels,
        recoloured=tuple(view[here] for view in whole.recoloured),
        donor=None if whole.donor is None else _labelled_part(whole.donor, number, parts, pixels),
    )


def _unlabelled_part(whole: Unlabelled, number: int, parts: int, pixels: tuple[Tensor, ...]) -> Unlabelled:
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
