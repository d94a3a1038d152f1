"""Tables of a campaign: scores, paired differences, IoU by class, and what the runs took.

Runs of earlier versions have not noted all of it; a dash stands for what is not known.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from des4.report.campaign_scores import SCORES, CampaignScores, Finished, mean_of_known
from des4.report.compare import Rows, Score
from des4.report.plots import percent
from des4.report.templates import duration

if TYPE_CHECKING:
    from des4.runlog import RunFolder

EVERY_LIST = "every list"
MOST_COLUMNS = 4
"""Methods that stand side by side on any terminal."""


def scores_by_list(report: CampaignScores, name: str) -> Rows:
    """Return the scores, a row a list and a column a method; the other way round where there are more methods."""

    def cell(method: str, lists: str) -> str:
        score = report.scores(method, lists, name)
        return str(score) if score.values else "–"

    title = f"{SCORES[name]} %"
    if len(report.methods) > max(len(report.lists), MOST_COLUMNS):
        rows = [[method, *(cell(method, lists) for lists in report.lists)] for method in report.methods]
        return [[title, *report.lists], *rows]
    rows = [[lists, *(cell(method, lists) for method in report.methods)] for lists in report.lists]
    return [[title, *report.methods], *rows]


def paired_differences(report: CampaignScores) -> Rows:
    """Differences to the reference in points: mean ± sd, pairs, and the share of the headroom that is closed.

    The last row of a method is over all lists but that with every mask, where there is nothing to close.
    """
    others = [m for m in report.methods if m != report.reference]
    heading = [f"minus {report.reference}", "lists", "pairs", *SCORES.values(), "headroom", "closed"]
    rows = [heading]
    for method in others:
        for lists in [*report.lists, None]:
            wanted = [each for each in report.lists if each != report.full] if lists is None else [lists]
            miou, tail = (report.differences(method, name, wanted) for name in SCORES)
            if not miou.values:
                continue
            # of each pair the headroom of its list, so that the share is of the same pairs on both sides
            rooms = [
                (report.headroom(each), len(report.differences(method, "miou", [each]).present)) for each in wanted
            ]
            room = mean_of_known(each for each, pairs in rooms for _ in range(pairs))
            closed = miou.mean / room if room > 0 else math.nan
            share = "–" if math.isnan(closed) else f"{100 * closed:.0f} %"
            scores = [_points(miou), _points(tail), percent(room, 2), share]
            rows.append([method, lists or EVERY_LIST, str(len(miou.present)), *scores])
    return rows


def few_masks(report: CampaignScores, method: str) -> list[Finished]:
    """Return a method's runs with few masks; all of them where it has no others."""
    own = [one for one in report.runs if one.method == method]
    return [one for one in own if one.lists != report.full] or own


def iou_of(report: CampaignScores) -> dict[str, dict[str, Score]]:
    """Method → class → IoU over all of its lists with few masks and seeds."""
    found: dict[str, dict[str, Score]] = {}
    for method in report.methods:
        every = [one.results["iou"] for one in few_masks(report, method)]
        names = dict.fromkeys(name for iou in every for name in iou)
        found[method] = {name: Score(tuple(_number(iou.get(name)) for iou in every)) for name in names}
    return found


def by_class(report: CampaignScores) -> Rows:
    """IoU by class, the most frequent first, marked where they are rare, which lists may see differently."""
    iou, share, tails = iou_of(report), shares_of_labels(report), tails_by_list(report)
    rows = [["IoU %", *report.methods]]
    for name in sorted(share, key=lambda name: -share[name]):
        cells = [str(scores[name]) if name in scores else "–" for scores in iou.values()]
        count = sum(name in tail for tail in tails.values())
        mark = " (tail)" if count == len(tails) else f" (tail of {count} of {len(tails)} lists)" if count else ""
        rows.append([name + mark, *cells])
    return rows if len(rows) > 1 else []


def shares_of_labels(report: CampaignScores) -> Mapping[str, float]:
    """Pixel shares of the first run that says so."""
    told: Iterable[Mapping[str, float]] = (one.results.get("pixel_share") or {} for one in report.runs)
    return next(filter(None, told), {})


def tails_by_list(report: CampaignScores) -> dict[str, Sequence[str]]:
    """List → its rare classes; of few masks, where there are such lists."""
    found = {one.lists: one.results.get("tail_classes", ()) for one in report.runs}
    return {lists: tail for lists, tail in found.items() if lists != report.full} or found


def cost(report: CampaignScores) -> Rows:
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


def _points(score: Score) -> str:
    """A difference in points of a percentage, with its sign."""
    spread = "" if math.isnan(score.sd) else f" ± {100 * score.sd:.2f}"
    return "–" if math.isnan(score.mean) else f"{100 * score.mean:+.2f}{spread}"
