"""The page of `des4 compare --html`: tables, curves, classes, pseudo-labels and pictures of runs side by side.

It stands alone, as `report.html` does, and leads with what makes the comparison unfair.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from des4.report import classes, plots
from des4.report.compare import MARK, OTHER_LISTS, Comparison, Rows, RunGroup
from des4.report.templates import Drawn, diagram, fit, photographs, render

if TYPE_CHECKING:
    from des4.runlog import RunFolder

LAST_PART = 4
"""The shares of pseudo-labels are those of the last quarter of the log lines."""
MOST_BARS = 8
"""Groups that bars by class are drawn for; more of them cannot be told apart."""
MOST_PICTURED = 6
"""Groups in a picture; with more, cells are too small to see anything."""


@dataclass(frozen=True)
class Pictures:
    """A family's picture of images, truth and predictions: its file, or why there is none."""

    path: Path | None
    missing: str = ""


@dataclass(frozen=True)
class Shares:
    """Shares of the classes (figure 3 of the paper). truth: by class. told: where the truth is from. groups: of the
    pseudo-labels of each group that has some.
    """

    truth: Mapping[str, float]
    told: str
    groups: Mapping[str, Mapping[str, float]]

    @property
    def shown(self) -> list[str]:
        """The classes that the diagram shows."""
        return classes.shown(self.truth)

    @property
    def drawn(self) -> str:
        """Which these are; empty if they are all."""
        return classes.told(self.truth)

    @property
    def rows(self) -> Rows:
        """A table: share of the truth, and of each group's pseudo-labels with the factor between the two, in %."""
        order = sorted(self.truth, key=lambda name: -self.truth[name])
        rows = [["% of the pixels", "truth", *self.groups]]
        for name in order:
            beside = (_beside(shares.get(name), self.truth[name]) for shares in self.groups.values())
            rows.append([name, f"{100 * self.truth[name]:.2f}", *beside])
        return rows


def compare_page(
    comparison: Comparison, pictures: Mapping[str, Pictures] | None = None, about: Mapping[str, str] | None = None
) -> str:
    """Write the page.

    pictures: by family. about: what the reader should know of what is compared, name → text. Raises RunError.
    """
    files = {family: found.path for family, found in (pictures or {}).items() if found.path}
    every = {family: class_shares(groups) for family, groups in comparison.families.items()}
    fitted = fit([_draw(groups, every[family]) for family, groups in comparison.families.items()])
    addresses = photographs(files, fitted.room)
    families = []
    for figures, (family, groups), (title, *tables) in zip(
        fitted.figures, comparison.families.items(), comparison.sections(), strict=True
    ):
        found = (pictures or {}).get(family)
        families.append(
            {
                "title": title or (OTHER_LISTS if len(comparison.families) > 1 else ""),
                "groups": groups,
                "tables": tables,
                "shares": every[family],
                "figures": figures,
                "drawn": classes.told(groups[0].runs[0].results()["pixel_share"]),
                "picture": addresses.get(family),
                "missing": found.missing if found else "",
            }
        )
    return render(
        "compare.html",
        mark=MARK,
        count=sum(len(group.runs) for group in comparison.groups),
        families=families,
        warnings=comparison.warnings,
        about=about or {},
        fitted=fitted.said,
        most=MOST_PICTURED,
    )


def class_shares(groups: Sequence[RunGroup]) -> Shares | None:
    """Collect the shares of the classes among the pseudo-labels that runs learnt from; None if none learnt from any.

    The truth is that of the unlabeled images whose masks a run was allowed to open, or else of the labeled images.
    """
    found = {group.label: shares for group in groups if (shares := _of_group(group))}
    if not found:
        return None
    results = [run.results() for group in groups for run in group.runs]
    for one in results:
        if share := (one.get("truth") or {}).get("share"):
            return Shares(share, f"{one['truth']['images']} unlabeled images, whose masks were opened", found)
    return Shares(
        results[0]["pixel_share"], "the labeled images, for the masks of unlabeled ones were not opened", found
    )


def _of_group(group: RunGroup) -> dict[str, float]:
    """Mean of the group's runs, each of them the mean of its last log lines; empty without pseudo-labels."""
    runs = []
    for run in group.runs:
        names = list(run.results()["pixel_share"])
        lines = [row["drift/shares"] for row in run.metrics() if row.get("drift/shares") and any(row["drift/shares"])]
        if lines:
            last = lines[-max(1, len(lines) // LAST_PART) :]
            runs.append({name: statistics.fmean(line[index] for line in last) for index, name in enumerate(names)})
    return {name: statistics.fmean(shares[name] for shares in runs) for name in runs[0]} if runs else {}


def _draw(groups: Sequence[RunGroup], shares: Shares | None) -> Drawn:
    """Draw the diagrams of a family."""
    scores = {g.label: {"mIoU": g.miou.values, "tail mIoU": g.tail_miou.values} for g in groups}
    drawn = {"scores": diagram(partial(plots.group_bars, scores))}
    courses = {g.label: [course(run) for run in g.runs] for g in groups}
    if any(len(run["miou"][0]) > 1 for runs in courses.values() for run in runs):
        drawn["curves"] = diagram(partial(plots.runs_over_time, courses))
    results = groups[0].runs[0].results()
    iou = {g.label: {name: score.mean for name, score in g.iou.items()} for g in groups}
    if len(groups) <= MOST_BARS and any(iou.values()):
        share = results["pixel_share"]
        some = {name: share[name] for name in classes.shown(share)}
        drawn["classes"] = diagram(partial(plots.class_bars, iou, some, results["tail_classes"]))
    if shares and len(shares.groups) <= MOST_BARS:
        every = {group.label: shares.groups.get(group.label, {}) for group in groups}
        drawn["shares"] = diagram(partial(plots.distribution, shares.truth, every, shares.shown))
    return drawn


def course(run: RunFolder) -> dict[str, tuple[list[float], list[float]]]:
    """Return the steps and values of a run's scores, of the model that it is judged by."""
    metrics, model = run.metrics(), run.results()["evaluated"]
    return {key: plots.series_of(metrics, f"val/{model}/{key}") for key in ("miou", "tail_miou")}


def _beside(share: float | None, truth: float) -> str:
    """A share and what it is of the truth: `12.50 (×0.83)`; a dash for a class that other data do not have."""
    if share is None:
        return "–"
    return f"{100 * share:.2f} (×{share / truth:.2g})" if truth else f"{100 * share:.2f}"
