"""Tables of a campaign beside its scores: IoU by class, and what the runs took.

Runs of earlier versions have not noted all of it; a dash stands for what is not known.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from des4.report.compare import Rows, Score
from des4.report.templates import duration

if TYPE_CHECKING:
    from des4.report.campaign import CampaignReport, Finished
    from des4.runlog import RunFolder


def few_masks(report: CampaignReport, method: str) -> list[Finished]:
    """Return a method's runs with few masks; all of them where it has no others."""
    own = [one for one in report.runs if one.method == method]
    return [one for one in own if one.lists != report.full] or own


def iou_of(report: CampaignReport) -> dict[str, dict[str, Score]]:
    """Method → class → IoU over all of its lists with few masks and seeds."""
    found: dict[str, dict[str, Score]] = {}
    for method in report.methods:
        every = [one.results["iou"] for one in few_masks(report, method)]
        names = dict.fromkeys(name for iou in every for name in iou)
        found[method] = {name: Score(tuple(_number(iou.get(name)) for iou in every)) for name in names}
    return found


def by_class(report: CampaignReport) -> Rows:
    """IoU by class, the most frequent first, the rare ones marked."""
    iou, (share, tail) = iou_of(report), shares_of_labels(report)
    rows = [["IoU %", *report.methods]]
    for name in sorted(share, key=lambda name: -share[name]):
        cells = [str(scores[name]) if name in scores else "–" for scores in iou.values()]
        rows.append([f"{name} (tail)" if name in tail else name, *cells])
    return rows if len(rows) > 1 else []


def shares_of_labels(report: CampaignReport) -> tuple[Mapping[str, float], Sequence[str]]:
    """Pixel shares and rare classes of the first run that says so."""
    told = next((one.results for one in report.runs if one.results.get("pixel_share")), {})
    return told.get("pixel_share", {}), told.get("tail_classes", ())


def cost(report: CampaignReport) -> Rows:
    """What a run of each method took, as a mean over its runs."""
    rows = [["method", "runs", "time", "images a second", "parameters: trained", "predicting", "peak memory, GiB"]]
    for method in report.methods:
        own = [one for one in report.runs if one.method == method]
        env = [one.run.env() if one.run else {} for one in own]
        memory = [each.get("peak_memory") or {} for each in env]
        cells = [
            _mean((_number(one.results.get("seconds")) for one in own), duration),
            _mean((_speed(one.run) for one in own), "{:.1f}".format),
            *(_mean((_number((e.get("parameters") or {}).get(k)) for e in env), _millions)
              for k in ("trained", "predicting")),
            _mean((_number(m.get("device") or m.get("process")) for m in memory), lambda b: f"{b / 2**30:.2f}"),
        ]  # fmt: skip
        rows.append([method, str(len(own)), *cells])
    return rows


def _speed(run: RunFolder | None) -> float:
    """Images a second: the median of the log lines, so that a pause does not count."""
    every = [float(row["images_per_second"]) for row in (run.metrics() if run else ()) if "images_per_second" in row]
    return statistics.median(every) if every else math.nan


def _mean(values: Iterable[float], written: Callable[[float], str]) -> str:
    known = [value for value in values if not math.isnan(value)]
    return written(statistics.fmean(known)) if known else "–"


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _millions(count: float) -> str:
    return f"{count / 1e6:.2f} M"
