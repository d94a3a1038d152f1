"""Says when pseudo-labels go wrong: a class takes over, or dies out, among the labels that a method makes for itself.

No labels tell whether a pseudo-label is right, but how many of each class there are can be held against the labeled
images. A network that learns from its own mistakes makes more of them, so the share of a class then leaves that among
the labels and keeps moving away.

The rule. At each log line a class has a ratio: its share of the pseudo-labels since the last line, over its share of
the labeled pixels. The last quarter of the lines (six at least; four in a training of less than twelve) is held
against as many lines before it. A warning is due when the mean of the log ratio is beyond ±log `factor`, a tenth
further away than before on the same side, and the way that it went is four times what the spread of the lines explains.
Lines of the first tenth of the training do not count, for an untrained network says nothing; a ratio below 1/50 counts
as 1/50, for what has gone moves nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, variance
from typing import Any, NamedTuple

WARM_UP = 0.1
"""Share of the training whose log lines do not count."""
FEWEST_LINES = 6
"""Log lines of which a mean is taken, at least."""
FEWEST_OF_SHORT = 4
"""The same, of a training too short for two such means."""
FLOOR = 0.02
"""Ratios below this one count as this one."""
FURTHER = 1.1
"""Factor that a mean has to have moved by."""
SURE = 4.0
"""Standard errors that it has to have moved by. Lines that follow each other are alike, so 2 would not be enough."""


class Drifted(NamedTuple):
    """A class that a warning was given of. ratio: its share of the pseudo-labels over its labeled share."""

    name: str
    step: int
    ratio: float


class DriftGuard:
    """Follows the shares of classes among pseudo-labels, from log line to log line; it is a function of these alone.

    pixel_share: name → share of the labeled pixels; classes without a labeled pixel are not followed.
    factor: > 1, beyond which a share is worth a warning; None = there are no warnings. steps: of the whole training,
    with a log line every `log_every`; with less than eight that count, nothing is told.
    """

    def __init__(self, pixel_share: Mapping[str, float], factor: float | None, steps: int, log_every: int) -> None:
        self.pixel_share, self.factor, self.steps = dict(pixel_share), factor, steps
        lines = -(-steps // log_every) - int(WARM_UP * steps) // log_every  # that count; the last step always has one
        self.fewest = FEWEST_LINES if lines >= 2 * FEWEST_LINES else FEWEST_OF_SHORT
        self.drifted: list[Drifted] = []
        self._lines: list[list[float]] = []  # log ratios of the classes
        self._last: list[float] | None = None

    def look(self, step: int, shares: Sequence[float]) -> list[str]:
        """Take the shares of a log line; return a warning for each class that drifts and had none yet."""
        if not any(shares):  # no label counted
            return []
        self._last = list(shares)
        if step <= WARM_UP * self.steps:
            return []
        labeled = list(self.pixel_share.values())
        ratios = [share / own if own else 1.0 for share, own in zip(shares, labeled, strict=True)]
        self._lines.append([math.log(max(ratio, FLOOR)) for ratio in ratios])
        found = [] if self.factor is None else self._drifting(math.log(self.factor))
        new = {name: ratio for name, ratio in found if name not in {one.name for one in self.drifted}}
        self.drifted += [Drifted(name, step, ratio) for name, ratio in new.items()]
        return [self._warning(name, ratio) for name, ratio in new.items()]

    def replay(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take the lines that a run has logged so far, as `metrics.jsonl` holds them."""
        for row in rows:
            if shares := row.get("drift/shares"):
                self.look(row["step"], shares)

    def summary(self) -> dict[str, Any] | None:
        """What results.json says: the last ratio of each class, and what was warned of; None without pseudo-labels."""
        if self._last is None:
            return None
        own = self.pixel_share
        ratios = {n: s / own[n] if own[n] else None for n, s in zip(own, self._last, strict=True)}
        return {"factor": self.factor, "ratio": ratios, "warned": [one._asdict() for one in self.drifted]}

    def _drifting(self, bound: float) -> list[tuple[str, float]]:
        """Classes that are beyond the bound and move away, each with its present ratio."""
        count = max(self.fewest, len(self._lines) // 4)
        if len(self._lines) < 2 * count:
            return []
        lines = self._lines[-2 * count :]
        found = []
        for index, name in enumerate(self.pixel_share):
            values = [line[index] for line in lines]
            before, now = fmean(values[:count]), fmean(values[count:])
            error = math.sqrt((variance(values[:count]) + variance(values[count:])) / count)
            away = (now - before) * math.copysign(1, now)
            if abs(now) > bound and before * now > 0 and away > max(SURE * error, math.log(FURTHER)):
                found.append((name, math.exp(now)))
        return found

    def _warning(self, name: str, ratio: float) -> str:
        own = self.pixel_share[name]
        moves = "grows" if ratio > 1 else "shrinks"
        return (
            f"warning: pseudo-labels drift: {name} has {ratio:.2g} times its share of the labels "
            f"({_percent(ratio * own)} % of the pseudo-labels, {_percent(own)} % of the labeled pixels), and that "
            f"still {moves}. Unless the unlabeled images do hold {'more' if ratio > 1 else 'less'} of it, stop, and "
            "try a higher threshold, a smaller weight of the unlabeled images, or fewer steps: docs/unlabeled.md"
        )


def _percent(share: float) -> str:
    return f"{100 * share:.2g}" if share < 0.1 else f"{100 * share:.0f}"
