"""The page of a campaign: its protocol and lists, scores, paired differences, classes, cost, curves and pictures.

It stands alone, as `report.html` does, and leads with what limits what may be concluded. Runs of earlier versions have
not noted all that it shows; a dash stands for what is not known.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from des4.report import classes, plots
from des4.report.campaign import SCORES, CampaignReport, Finished
from des4.report.compare import PROTOCOL, Rows, Score, compare
from des4.report.compare_page import MARK, MOST_BARS, Pictures, Shares, class_shares, course
from des4.report.data_table import plural
from des4.report.page import flatten
from des4.report.templates import Drawn, diagram, duration, fit, photographs, render

if TYPE_CHECKING:
    from des4.runlog import RunFolder

KINDS = ("labelled", "unlabelled", "val")
HASH = 16
"""Digits of a list's hash that are shown; results.json has all of them."""


def shown_list(report: CampaignReport) -> str:
    """Return the list whose pseudo-labels and predictions are shown: of few masks, and of most methods."""
    few = [lists for lists in report.lists if lists != report.full] or report.lists
    return max(few, key=lambda lists: len(first_runs(report, lists)))


def first_runs(report: CampaignReport, lists: str) -> dict[str, RunFolder]:
    """Return the first run of each method with a list, by method."""
    found: dict[str, RunFolder] = {}
    for one in report.runs:
        if one.lists == lists and one.run is not None:
            found.setdefault(one.method, one.run)
    return found


def campaign_page(report: CampaignReport, name: str, pictures: Pictures | None = None) -> str:
    """Write the page. name: of the campaign. pictures: of the runs of `shown_list`. Raises RunError."""
    lists = shown_list(report)
    shares = _shares(report, lists)
    fitted = fit([_draw(report, shares)])
    seeds = sorted({one.seed for one in report.runs})
    counted: list[tuple[Sequence[Any], str]] = [(report.methods, "method"), (report.lists, "list"), (seeds, "seed")]
    return render(
        "campaign.html",
        mark=MARK,
        name=name,
        report=report,
        size=" × ".join(plural(len(every), word) for every, word in counted),
        seeds=seeds,
        protocol=_protocol(report),
        lists=_lists(report),
        scores=report.tables()[: len(SCORES)],
        differences=report.tables()[len(SCORES) :],
        classes=_by_class(report),
        cost=_cost(report),
        drawn=classes.told(_shares_of_labels(report)[0]),
        figures=fitted.figures[0],
        shares=shares,
        shown=lists,
        picture=photographs({"": pictures.path}, fitted.room)[""] if pictures and pictures.path else None,
        missing=pictures.missing if pictures else "",
        fitted=fitted.said,
        folders=[(f"{one.method} · {one.lists} · seed {one.seed}", one.run.path) for one in report.runs if one.run],
    )


def _facts(one: Finished) -> dict[str, str]:
    """Return what runs of one protocol share."""
    config = flatten(one.run.config()) if one.run else {}
    told = {key: _yaml(value) for key, value in config.items() if key.startswith("eval.") or key in PROTOCOL}
    scored = {"scored": f"the {one.results.get('evaluated', '–')} after the last step"}
    return {"steps": str(one.results["steps"]), **told, **scored}


def _yaml(value: Any) -> str:
    """Write a value as a config file has it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _protocol(report: CampaignReport) -> list[tuple[str, str]]:
    """Say what all runs share and, where they do not, what each method has."""
    of_method = {method: [_facts(one) for one in report.runs if one.method == method] for method in report.methods}
    rows = []
    for key in dict.fromkeys(key for facts in of_method.values() for fact in facts for key in fact):
        told = {m: " / ".join(dict.fromkeys(fact.get(key, "–") for fact in facts)) for m, facts in of_method.items()}
        values = list(dict.fromkeys(told.values()))
        rows.append((key, values[0] if len(values) == 1 else "; ".join(f"{m} {value}" for m, value in told.items())))
    return rows


def _lists(report: CampaignReport) -> Rows:
    """Images and hashes of the lists; where runs with one list differ in them, each is named."""
    rows = [["list", "protocol", *(f"{kind}, hash" for kind in KINDS)]]
    for lists in report.lists:
        data = [one.results["data"] for one in report.runs if one.lists == lists]
        cells = [_told(f"{each[kind]}, {each[f'{kind}_hash'][:HASH]}" for each in data) for kind in KINDS]
        rows.append([lists, _told(each.get("protocol") or "none" for each in data), *cells])
    return rows


def _told(values: Iterable[str]) -> str:
    return " / ".join(dict.fromkeys(values))


def _few(report: CampaignReport, method: str) -> list[Finished]:
    """Return a method's runs with few masks; all of them where it has no others."""
    own = [one for one in report.runs if one.method == method]
    return [one for one in own if one.lists != report.full] or own


def _iou(report: CampaignReport) -> dict[str, dict[str, Score]]:
    """Method → class → IoU over all of its lists with few masks and seeds."""
    found: dict[str, dict[str, Score]] = {}
    for method in report.methods:
        every = [one.results["iou"] for one in _few(report, method)]
        names = dict.fromkeys(name for iou in every for name in iou)
        found[method] = {name: Score(tuple(_number(iou.get(name)) for iou in every)) for name in names}
    return found


def _by_class(report: CampaignReport) -> Rows:
    """IoU by class, the most frequent first, the rare ones marked."""
    iou, (share, tail) = _iou(report), _shares_of_labels(report)
    rows = [["IoU %", *report.methods]]
    for name in sorted(share, key=lambda name: -share[name]):
        cells = [str(scores[name]) if name in scores else "–" for scores in iou.values()]
        rows.append([f"{name} (tail)" if name in tail else name, *cells])
    return rows if len(rows) > 1 else []


def _shares_of_labels(report: CampaignReport) -> tuple[Mapping[str, float], Sequence[str]]:
    """Pixel shares and rare classes of the first run that says so."""
    told = next((one.results for one in report.runs if one.results.get("pixel_share")), {})
    return told.get("pixel_share", {}), told.get("tail_classes", ())


def _cost(report: CampaignReport) -> Rows:
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


def _shares(report: CampaignReport, lists: str) -> Shares | None:
    """Shares of the classes among pseudo-labels, by method, of the runs with a list; None without any."""
    chosen = [one for one in report.runs if one.lists == lists and one.run is not None]
    if not chosen:
        return None
    comparison = compare([one.run for one in chosen if one.run], [one.method for one in chosen])
    return class_shares(comparison.groups)


def _draw(report: CampaignReport, shares: Shares | None) -> Drawn:
    drawn = {"scores": diagram(partial(plots.group_bars, report.score_values()))}
    if report.reference is not None and (differences := report.difference_values()):
        drawn["differences"] = diagram(partial(plots.paired, differences, report.reference))
    if masks := report.curve_values():
        drawn["masks"] = diagram(partial(plots.learning_curve, masks))
    share, tail = _shares_of_labels(report)
    iou = {method: {name: score.mean for name, score in scores.items()} for method, scores in _iou(report).items()}
    if share and len(report.methods) <= MOST_BARS:
        some = {name: share[name] for name in classes.shown(share)}
        drawn["classes"] = diagram(partial(plots.class_bars, iou, some, tail))
    courses = {m: [course(o.run) for o in _few(report, m) if o.run is not None] for m in report.methods}
    if any(len(run["miou"][0]) > 1 for runs in courses.values() for run in runs):
        drawn["curves"] = diagram(partial(plots.runs_over_time, courses))
    if shares and len(shares.groups) <= MOST_BARS:
        every = {method: shares.groups.get(method, {}) for method in report.methods}
        drawn["shares"] = diagram(partial(plots.distribution, shares.truth, every, shares.shown))
    return drawn
