"""Which labeled pixels move the prototypes: Multi-Entropy Sampling and its rivals (DeS4, section 3.3 and table 4).

Every sampler answers with a mask over the N pixels, in one vectorised pass: one sort by (group, random key), ranks
inside the groups, a comparison. No Python loop runs over classes or pixels and nothing waits for the device, so the
number of operations does not depend on the number of classes.

Labels outside [0, C) are ignored pixels: never counted, never sampled. A `generator` must live on the labels' device.
"""

from __future__ import annotations

import torch
from torch import Tensor


def class_ratio(counts: Tensor) -> Tensor:
    """Sampling ratio of each class over the labeled list, `r_c = min_k cnt_k / cnt_c` (DeS4, section 3.3).

    counts: (C,) labeled pixels of each class. Returns (C,) float64 in (0, 1], 1 for the rarest class that occurs
    and 0 for classes that do not occur. This is the reading under which head classes are under-sampled, as the text
    wants.
    """
    counts = counts.double()
    present = counts > 0
    rarest = torch.where(present, counts, torch.inf).amin()
    return torch.where(present, rarest / counts.clamp_min(1), 0.0)


def class_quota(labels: Tensor, ratio: Tensor) -> Tensor:
    """Pixels to sample of each class in this batch, `max(1, round(r_c · n_c))`, 0 where n_c = 0 (DeS4, section 3.3).

    labels: (N,) integers. ratio: (C,) from `class_ratio`. Returns (C,) int64.
    """
    num_classes = ratio.numel()
    count = _count(_group(labels, num_classes), num_classes)
    target = (ratio.to(labels.device).double() * count).round().long().clamp_min(1)
    return torch.where(count > 0, target, 0)


def multi_entropy_sample(
    entropy: Tensor,
    labels: Tensor,
    quota: Tensor,
    *,
    zones: int = 5,
    alpha: float = 0.1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw pixels in balance over classes and over entropy zones (DeS4, eqs. 10-11).

    entropy: (N,) of the teacher's class distribution. labels: (N,) integers. quota: (C,) int64, pixels wanted of
    each class.
    zones: k, equal-width entropy zones of each class. alpha: added to a zone's mean entropy; larger values
    move the budget towards uncertain pixels.
    Returns (N,) bool with exactly `min(quota_c, n_c)` pixels of each class.
    """
    num_classes, device = quota.numel(), labels.device
    group = _group(labels, num_classes)
    count = _count(group, num_classes)
    zone = _zone_of(entropy, group, num_classes, zones)
    cell = group * zones + zone
    in_cell = torch.zeros((num_classes + 1) * zones, dtype=torch.int64, device=device)
    in_cell.scatter_add_(0, cell, torch.ones_like(cell))
    summed = torch.zeros_like(in_cell, dtype=torch.float64).scatter_add_(0, cell, entropy.double())
    mean = (summed / in_cell.clamp_min(1)).view(-1, zones)[:num_classes]
    available = in_cell.view(-1, zones)[:num_classes]

    target = torch.minimum(quota, count)
    take = _fill_shortage(_zone_quota(mean, available, target, alpha), available)
    key = torch.rand(labels.shape, generator=generator, device=device, dtype=torch.float64)
    return _keep_first(cell, key, torch.cat([take.flatten(), take.new_zeros(zones)]))


def entropy_bins(
    entropy: Tensor, labels: Tensor, chosen: Tensor, num_classes: int, bins: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Count the pixels of each class, and those chosen, in equal-width bins of the class's own range of entropy.

    entropy, labels: (N,). chosen: (N,) bool. bins: a multiple of the zones, whose borders are then borders of bins.
    Pixels without a finite entropy are left out. Returns two (C, bins) float64 counts, and the lowest and the highest
    entropy of each class, (C,) float64, infinite where it has no pixel.
    """
    group = torch.where(entropy.isfinite(), _group(labels, num_classes), num_classes)
    entropy = entropy.nan_to_num(0.0, 0.0, 0.0).double()
    cell = group * bins + _zone_of(entropy, group, num_classes, bins)
    counts = torch.zeros(2, (num_classes + 1) * bins, dtype=torch.float64, device=labels.device)
    counts[0].scatter_add_(0, cell, torch.ones_like(entropy))
    counts[1].scatter_add_(0, cell, chosen.double())
    pixels, taken = counts.view(2, -1, bins)[:, :num_classes]
    low = torch.full((num_classes + 1,), torch.inf, dtype=torch.float64, device=labels.device)
    high = torch.full_like(low, -torch.inf).scatter_reduce_(0, group, entropy, "amax")[:num_classes]
    return pixels, taken, low.scatter_reduce_(0, group, entropy, "amin")[:num_classes], high


def quantity_sample(labels: Tensor, quota: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Draw `min(quota_c, n_c)` pixels of each class at random (DeS4, table 4, quantity balance). Returns (N,) bool."""
    key = torch.rand(labels.shape, generator=generator, device=labels.device, dtype=torch.float64)
    return _keep_first(_group(labels, quota.numel()), key, torch.cat([quota, quota.new_zeros(1)]))


def confidence_sample(
    confidence: Tensor, labels: Tensor, quota: Tensor, *, generator: torch.Generator | None = None
) -> Tensor:
    """Draw `min(quota_c, n_c)` pixels of each class, without replacement, in proportion to `confidence` (DeS4, table
    4).

    confidence: (N,) in [0, 1], the softmax probability. Returns (N,) bool. Keeping the smallest of exponential
    variables with rates `confidence` is such a draw (Efraimidis & Spirakis 2006).
    """
    rate = confidence.double().clamp_min(1e-12)
    wait = -torch.rand(labels.shape, generator=generator, device=labels.device, dtype=torch.float64).log() / rate
    key = (wait / (1 + wait)).clamp_max(1 - 2.0**-32)  # an increasing map into [0, 1), as _keep_first wants
    return _keep_first(_group(labels, quota.numel()), key, torch.cat([quota, quota.new_zeros(1)]))


def spread_draw(mask: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Draw k of the True places of each row, one at random in each of k equal parts of them; all, where they are fewer.

    mask: (..., N) bool. noise: (..., k) in [0, 1). Returns places (..., k) int64, and (..., k) bool: which of them are
    drawn ones. Where there are many, a place at the border of two parts can be drawn twice.
    """
    until = mask.cumsum(-1)
    total, count = until[..., -1:], noise.shape[-1]
    parts = torch.arange(count, device=noise.device)
    wanted = ((parts + noise.double()) * (total.double() / count).clamp_min(1)).long() + 1  # the first, second, … True
    drawn = wanted <= total
    places = torch.searchsorted(until, wanted.clamp_max(mask.shape[-1]), out_int32=False)
    return places.clamp_max(mask.shape[-1] - 1), drawn


def weighted_draw(weight: Tensor, noise: Tensor, count: int) -> Tensor:
    """Draw `count` entries of each row without replacement, in proportion to their weights; all, where fewer have one.

    weight: (..., N) ≥ 0. noise: (..., N) in [0, 1). Returns (..., N) bool. Each entry waits for a time that is drawn
    from an exponential distribution of its rate; those that wait least are taken (Efraimidis & Spirakis 2006).
    """
    wait = -torch.log1p(-noise.double()) / weight.double().clamp_min(1e-12)
    first = wait.masked_fill(weight <= 0, torch.inf).topk(min(count, weight.shape[-1]), largest=False).indices
    return torch.zeros_like(weight, dtype=torch.bool).scatter_(-1, first, value=True) & (weight > 0)


def take_places(features: Tensor, places: Tensor) -> Tensor:
    """Take pixels of maps (B, D, h, w) at places (B, ..., k), counted along rows: (B, ..., k, D)."""
    flat = features.flatten(2)
    index = places.flatten(1)[:, None].expand(-1, flat.shape[1], -1)
    return flat.gather(2, index).reshape(*flat.shape[:2], *places.shape[1:]).movedim(1, -1)


def _group(labels: Tensor, num_classes: int) -> Tensor:
    """Class of each pixel, with every ignored pixel in one extra group C."""
    labels = labels.long()
    return torch.where((labels >= 0) & (labels < num_classes), labels, num_classes)


def _count(group: Tensor, num_classes: int) -> Tensor:
    # scatter_add, because bincount asks the device for the largest value and waits for the answer.
    count = torch.zeros(num_classes + 1, dtype=torch.int64, device=group.device)
    return count.scatter_add_(0, group, torch.ones_like(group))[:num_classes]


def _zone_of(entropy: Tensor, group: Tensor, num_classes: int, zones: int) -> Tensor:
    """Zone of each pixel inside its class: equal widths, left-closed, the last one closed on both sides (eq. 10)."""
    entropy = entropy.double()
    low = torch.full((num_classes + 1,), torch.inf, dtype=torch.float64, device=entropy.device)
    low.scatter_reduce_(0, group, entropy, "amin")
    high = torch.full_like(low, -torch.inf).scatter_reduce_(0, group, entropy, "amax")
    width = (high - low)[group]
    position = (entropy - low[group]) * zones / torch.where(width > 0, width, 1.0)
    return position.long().clamp_(0, zones - 1)


def _zone_quota(mean: Tensor, available: Tensor, target: Tensor, alpha: float) -> Tensor:
    """Split each class's target over its zones by 1 / (alpha + mean entropy) (eq. 11), rounded by largest remainder.

    mean, available: (C, k). target: (C,). Returns (C, k) int64 whose rows sum to the target; empty zones want nothing.
    """
    weight = torch.where(available > 0, 1 / (alpha + mean), 0.0)
    share = weight / weight.sum(1, keepdim=True).clamp_min(1e-12) * target[:, None]
    whole = share.floor()
    remainder = torch.where(available > 0, share - whole, -1.0)
    rank = remainder.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    whole = whole.long()
    left = target[:, None] - whole.sum(1, keepdim=True)
    return whole + (rank < left)


def _fill_shortage(quota: Tensor, available: Tensor) -> Tensor:
    """Pixels to take from each zone when zones that lack pixels borrow from the nearest ones that have more.

    Nearest pairs trade first and, at equal distance, the harder (higher-entropy) zone gives before the easier one.
    At a given distance and direction each zone is asked by one other only, so all classes and zones trade at once.
    """
    lack, spare = (quota - available).clamp_min(0), (available - quota).clamp_min(0)
    for distance in range(1, quota.shape[1]):
        for asking, giving in (
            (lack[:, :-distance], spare[:, distance:]),  # from the harder zone
            (lack[:, distance:], spare[:, :-distance]),  # from the easier zone
        ):
            moved = torch.minimum(asking, giving)
            asking -= moved  # views: `lack` and `spare` change
            giving -= moved
    return available - spare


def _keep_first(group: Tensor, key: Tensor, take: Tensor) -> Tensor:
    """Keep, in every group, the `take[group]` pixels with the smallest keys.

    group: (N,) int64 in [0, G). key: (N,) float64 in [0, 1). take: (G,) int64. Returns (N,) bool.
    """
    order = (group + key).argsort()
    sorted_group = group[order]
    size = torch.zeros_like(take).scatter_add_(0, group, torch.ones_like(group))
    start = size.cumsum(0) - size
    rank = torch.arange(group.numel(), device=group.device) - start[sorted_group]
    return torch.empty_like(group, dtype=torch.bool).scatter_(0, order, rank < take[sorted_group])
