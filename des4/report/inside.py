"""What a run recorded of its prototypes at each validation: entropy zones, what was sampled of them, similarities.

Lines of metrics.jsonl with `inside/FEED/…`; a feed is what moves the prototypes of one classifier. docs/reports.md
says what each figure is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from des4.report.classes import ends

BINS_A_ZONE = 4
"""Bins of the histograms in a zone."""
FREQUENT, RARE = 4, 8
"""Classes whose histograms are drawn, of many: the most frequent and the rarest."""


@dataclass(frozen=True)
class Zones:
    """Of one class, in the last watched step that held it. pixels, taken: (bins,)."""

    step: int
    low: float
    high: float
    pixels: NDArray[np.int64]
    taken: NDArray[np.int64]

    @property
    def by_zone(self) -> list[tuple[int, int]]:
        """Pixels taken and pixels there are, of each zone."""
        taken, pixels = (counts.reshape(-1, BINS_A_ZONE).sum(1).tolist() for counts in (self.taken, self.pixels))
        return list(zip(taken, pixels, strict=True))


@dataclass(frozen=True)
class Watched:
    """What was recorded of a feed. zones: of the classes that were met. cosine: (C, C) of the last step, nan where a
    class was never seen. steps, moved: of all watched steps, degrees by class.
    """

    zones: dict[str, Zones]
    cosine: NDArray[np.float64]
    steps: list[int]
    moved: list[list[float | None]]

    @property
    def has_moved(self) -> bool:
        """Whether there are two watched steps to be held against each other."""
        return any(value is not None for row in self.moved for value in row)

    def drawn(self, order: Sequence[str]) -> list[str]:
        """Classes whose histograms are drawn, in the order given, which is that of their frequency."""
        met = [name for name in order if name in self.zones]
        return ends(met, FREQUENT, RARE)


def watched(metrics: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> dict[str, Watched]:
    """Collect what a run recorded, by feed. metrics: the lines of metrics.jsonl. classes: in the order of the data."""
    rows = [row for row in metrics if any(key.startswith("inside/") for key in row)]
    feeds = dict.fromkeys(key.split("/")[1] for row in rows for key in row if key.startswith("inside/"))
    return {feed: _of_feed(feed, [row for row in rows if f"inside/{feed}/moved" in row], classes) for feed in feeds}


def _of_feed(feed: str, rows: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> Watched:
    count = len(classes)
    zones = {}
    for row in rows:  # later ones replace earlier ones
        low, high = row[f"inside/{feed}/low"], row[f"inside/{feed}/high"]
        pixels, taken = (
            np.array(row[f"inside/{feed}/{key}"], np.int64).reshape(count, -1) for key in ("pixels", "taken")
        )
        for index, name in enumerate(classes):
            if pixels[index].sum():
                zones[name] = Zones(row["step"], low[index], high[index], pixels[index], taken[index])
    cosine = np.full((count, count), np.nan)
    above = np.triu_indices(count, 1)
    cosine[above] = np.array(rows[-1][f"inside/{feed}/cosine"], dtype=float)  # None becomes nan
    cosine.T[above] = cosine[above]
    seen = ~np.isnan(cosine).all(1)
    cosine[seen, seen] = 1
    return Watched(zones, cosine, [row["step"] for row in rows], [row[f"inside/{feed}/moved"] for row in rows])
