"""`report.html`: one page that holds a run's figures, pictures and everything needed to repeat it.

The page stands alone: pictures are inlined, it needs no script, no font and no network.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from des4.report import plots
from des4.report.templates import inline, template

if TYPE_CHECKING:
    from des4.runlog import RunFolder

SAMPLE_TITLES = {"samples": "Samples of the validation list", "worst": "Worst predictions"}
"""Headings of the picture grids that others leave in `plots/`; further PNGs are shown under their file name."""


def write_report(run: RunFolder) -> Path:
    """Draw the run's diagrams into `plots/`, write `report.html` and return its path.

    Raises RunError where the run has no results yet.
    """
    results, metrics = run.results(), run.metrics()
    run.plots.mkdir(exist_ok=True)
    drawn = _draw(results, metrics, run.plots)
    grids = sorted(
        (path for path in run.plots.glob("*.png") if path not in drawn),
        key=lambda path: (path.stem not in SAMPLE_TITLES, path.stem),
    )
    place = run.path if run.path.name else run.path.resolve()
    page = template("page.html").render(
        name=place.resolve().name,
        place=place,
        results=results,
        models=results["models"],
        drift=results.get("drift") or {},
        truth=results.get("truth"),
        classes=sorted(results["pixel_share"], key=lambda name: -results["pixel_share"][name]),
        figures={path.stem: inline(path) for path in drawn},
        grids={SAMPLE_TITLES.get(path.stem, path.stem.replace("_", " ")): inline(path) for path in grids},
        config=yaml.safe_dump(run.config(), sort_keys=False, allow_unicode=True),
        env=flatten(run.env()),
    )
    run.write_page(page)
    return run.report


def _draw(results: Mapping[str, Any], metrics: list[dict[str, Any]], folder: Path) -> list[Path]:
    """Draw every diagram for which the run holds numbers; return the files."""
    share, tail = results["pixel_share"], results["tail_classes"]
    models, quality = results["models"], results["pseudo_labels"]
    drawn = []

    def new(name: str) -> Path:
        drawn.append(folder / f"{name}.png")
        return drawn[-1]

    if models:
        plots.class_bars({name: scores["iou"] for name, scores in models.items()}, share, tail, new("iou"))
        plots.confusion(np.array(models[results["evaluated"]]["confusion"]), list(share), new("confusion"))
    measured = pseudo_label_figures(quality)
    if quality:
        plots.class_bars({key: quality[key] for key in measured}, share, tail, new("pseudo_labels"))
    if metrics:
        plots.curves(metrics, new("curves"), measured)
    if any(row.get("drift/shares") for row in metrics):
        plots.drift(metrics, share, (results.get("drift") or {}).get("factor"), new("drift"))
    if unlabelled := results.get("truth"):
        bars = {key: unlabelled[key] for key in pseudo_label_figures(unlabelled)}
        plots.class_bars(bars, share, tail, new("truth"))
        if any(value is not None for row in metrics for key, value in row.items() if key.startswith("truth/precision")):
            plots.truth(metrics, new("truth_over_time"))
    if plots.has_stats(metrics):
        plots.stats(metrics, list(share), new("stats"))
    return drawn


def pseudo_label_figures(quality: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Name what there is to see of pseudo-labels: without a threshold all pixels are covered, and nothing is to be."""
    return ("precision", "coverage") if quality and quality["threshold"] else ("precision",)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested mappings into dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
