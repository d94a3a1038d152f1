"""`report.html`: one page that holds a run's figures, pictures and everything needed to repeat it.

The page stands alone: pictures are inlined, it needs no script, no font and no network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from des4.report import classes, plots
from des4.report.inside import Watched, watched
from des4.report.templates import Drawn, diagram, fit, photographs, render

if TYPE_CHECKING:
    from des4.runlog import RunFolder

SAMPLE_TITLES = {"samples": "Samples of the validation list", "worst": "Worst predictions"}
"""Headings of the picture grids that others leave in `plots/`; further PNGs are shown under their file name."""

IN_THE_TABLE = ("iou", "pseudo_labels")
"""Diagrams of `plots/` that the page has no need of: its table of the classes says the same."""
SMALL = 8
"""Classes up to which a matrix is not drawn narrow."""


def write_report(run: RunFolder) -> Path:
    """Draw the run's diagrams into `plots/`, write `report.html` and return its path.

    Raises RunError where the run has no results yet, and for a PNG in `plots/` that is no picture.
    """
    results, metrics = run.figures(), run.metrics()
    run.plots.mkdir(exist_ok=True)
    feeds = watched(metrics, list(results["pixel_share"]))
    figures = _draw(results, metrics, feeds, run.plots)
    grids = sorted(
        (path for path in run.plots.glob("*.png") if path.stem not in (*figures, *IN_THE_TABLE)),
        key=lambda path: (path.stem not in SAMPLE_TITLES, path.stem),
    )
    fitted = fit([figures])
    place = run.path if run.path.name else run.path.resolve()
    page = render(
        "page.html",
        name=place.resolve().name,
        place=place,
        results=results,
        models=results["models"],
        drift=results.get("drift") or {},
        truth=results.get("truth"),
        measured=pseudo_label_figures(results["pseudo_labels"]),
        of_truth=pseudo_label_figures(results.get("truth")),
        feeds=feeds,
        classes=_by_share(results),
        drawn=classes.told(results["pixel_share"]),
        figures=fitted.figures[0],
        grids=photographs(
            {SAMPLE_TITLES.get(path.stem, path.stem.replace("_", " ")): path for path in grids}, fitted.room
        ),
        fitted=fitted.said,
        config=yaml.safe_dump(run.config(), sort_keys=False, allow_unicode=True),
        env=flatten(run.env()),
    )
    run.write_page(page)
    return run.report


def _by_share(results: Mapping[str, Any]) -> list[str]:
    """Names of the classes, the most frequent first."""
    return sorted(results["pixel_share"], key=lambda name: -results["pixel_share"][name])


def _draw(
    results: Mapping[str, Any], metrics: list[dict[str, Any]], feeds: Mapping[str, Watched], folder: Path
) -> Drawn:
    """Draw every diagram for which the run holds numbers; those of earlier code that a run has no more are left."""
    share, tail = results["pixel_share"], results["tail_classes"]
    models, quality = results["models"], results["pseudo_labels"]
    names, order, shown = list(share), _by_share(results), classes.shown(share)
    some, said = {name: share[name] for name in shown}, classes.told(share)
    drawn: Drawn = {}

    small = len(names) <= SMALL  # a matrix, which a phone can show as it is

    def draw(name: str, function: Callable[..., None], *values: Any, narrow: bool = True) -> None:
        drawn[name] = diagram(partial(function, *values), folder / f"{name}.png", narrow)

    if models:
        iou = {name: scores["iou"] for name, scores in models.items()}
        plots.class_bars(iou, some, tail, folder / "iou.png", said=said)
        matrix = np.array(models[results["evaluated"]]["confusion"])
        draw("confusion", plots.confusion, matrix, names, narrow=not small)
    if quality:
        bars = {key: quality[key] for key in pseudo_label_figures(quality)}
        plots.class_bars(bars, some, tail, folder / "pseudo_labels.png", said=said)
    if metrics:
        draw("curves", _curves, metrics, pseudo_label_figures(quality))
    if any(row.get("drift/shares") for row in metrics):
        draw("drift", plots.drift, metrics, share, shown, (results.get("drift") or {}).get("factor"))
    if unlabeled := results.get("truth"):
        bars = {key: unlabeled[key] for key in pseudo_label_figures(unlabeled)}
        draw("truth", plots.class_bars, bars, some, tail)
    if plots.has_quality(metrics, "truth"):
        draw("truth_over_time", plots.quality_over_time, metrics, "truth", shown)
    elif plots.has_quality(metrics, "pseudo"):
        draw("pseudo_labels_over_time", plots.quality_over_time, metrics, "pseudo", shown)
    if plots.has_stats(metrics):
        draw("stats", plots.stats, metrics, names, shown)
    for feed, found in feeds.items():
        if found.zones:
            draw(f"{feed}_zones", plots.zones, found.zones, found.drawn(order))
        draw(f"{feed}_prototypes", plots.cosines, found.cosine, names, narrow=not small)
        if found.has_moved:
            draw(f"{feed}_moved", plots.moved, found.steps, found.moved, names, shown)
    return drawn


def _curves(metrics: list[dict[str, Any]], quality: Sequence[str], path: plots.Target, narrow: bool) -> None:
    plots.curves(metrics, path, quality, narrow)


def pseudo_label_figures(quality: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Name what there is to see of pseudo-labels: without a threshold all pixels are covered, and nothing is to be.

    Nor is it where a threshold held nothing back.
    """
    if not quality or not quality["threshold"]:
        return ("precision",)
    less = any(plots.percent(value) not in ("100.0", "–") for value in quality["coverage"].values())
    return ("precision", "coverage") if less else ("precision",)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested mappings into dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
