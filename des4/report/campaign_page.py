"""The page of a campaign: its protocol and lists, scores, paired differences, classes, cost, curves and pictures.

It stands alone, as `report.html` does, and leads with what limits what may be concluded. Runs of earlier versions have
not noted all that it shows; a dash stands for what is not known.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from des4.report import classes, plots
from des4.report.campaign import CampaignReport
from des4.report.campaign_scores import SCORES, Finished
from des4.report.campaign_tables import by_class, cost, few_masks, iou_of, shares_of_labels, tails_by_list
from des4.report.compare import KINDS, MARK, Rows, compare, is_shared
from des4.report.compare_page import MOST_BARS, MOST_PICTURED, Pictures, Shares, class_shares, course
from des4.report.data_table import plural
from des4.report.group_names import full
from des4.report.page import flatten
from des4.report.templates import Drawn, diagram, fit, photographs, render

if TYPE_CHECKING:
    from des4.runlog import RunFolder

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
        classes=by_class(report),
        cost=cost(report),
        drawn=classes.told(shares_of_labels(report)),
        figures=fitted.figures[0],
        shares=shares,
        shown=lists,
        picture=photographs({"": pictures.path}, fitted.room)[""] if pictures and pictures.path else None,
        missing=pictures.missing if pictures else "",
        most=MOST_PICTURED,
        fitted=fitted.said,
        folders=[(f"{one.method} · {one.lists} · seed {one.seed}", one.run.path) for one in report.runs if one.run],
    )


def _facts(one: Finished) -> dict[str, str]:
    """Return what runs of one protocol share."""
    config = flatten(one.run.config()) if one.run else {}
    told = {key: full(value) for key, value in config.items() if is_shared(key)}
    scored = {"scored": f"the {one.results.get('evaluated', '–')} after the last step"}
    return {"steps": str(one.results["steps"]), **told, **scored}


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


def _shares(report: CampaignReport, lists: str) -> Shares | None:
    """Shares of the classes among pseudo-labels, by method, of the runs with a list; None without any."""
    chosen = [one for one in report.runs if one.lists == lists and one.run is not None]
    if not chosen:
        return None
    comparison = compare([one.run for one in chosen if one.run], [one.method for one in chosen])
    return class_shares(comparison.groups)


def _most(report: CampaignReport, few: Collection[str]) -> dict[str, dict[str, float]]:
    """Score → list of few masks → what all masks give; nothing where they were not trained with."""
    reached = {label: {lists: report.with_all_masks(name, lists) for lists in few} for name, label in SCORES.items()}
    known = {label: {k: v for k, v in found.items() if not math.isnan(v)} for label, found in reached.items()}
    return {label: found for label, found in known.items() if found}


def _draw(report: CampaignReport, shares: Shares | None) -> Drawn:
    drawn = {"scores": diagram(partial(plots.group_bars, report.score_values()))}
    if report.reference is not None and (differences := report.difference_values()):
        drawn["differences"] = diagram(partial(plots.paired, differences, report.reference))
        few = (values := report.list_values())["mIoU"]
        if len(few) > 1 and len(next(iter(few.values()))) <= MOST_BARS:
            drawn["lists"] = diagram(partial(plots.list_by_list, values, most=_most(report, few)))
    if masks := report.curve_values():
        drawn["masks"] = diagram(partial(plots.learning_curve, masks))
    share, tails = shares_of_labels(report), tails_by_list(report).values()
    tail = [name for name in share if all(name in rare for rare in tails)]
    iou = {method: {name: score.mean for name, score in scores.items()} for method, scores in iou_of(report).items()}
    if share and len(report.methods) <= MOST_BARS:
        some = {name: share[name] for name in classes.shown(share)}
        drawn["classes"] = diagram(partial(plots.class_bars, iou, some, tail))
    courses = {m: [course(o.run) for o in few_masks(report, m) if o.run is not None] for m in report.methods}
    if any(len(run["miou"][0]) > 1 for runs in courses.values() for run in runs):
        drawn["curves"] = diagram(partial(plots.runs_over_time, courses))
    if shares and len(shares.groups) <= MOST_BARS:
        every = {method: shares.groups.get(method, {}) for method in report.methods}
        drawn["shares"] = diagram(partial(plots.distribution, shares.truth, every, shares.shown))
    return drawn
