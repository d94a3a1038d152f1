"""What a run logged, over its steps: losses, scores, drift and quality of pseudo-labels, the method's own numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.ticker import MaxNLocator, NullLocator

from des4.report.plots.axes import Panels, line_panels, name_columns
from des4.report.plots.series import class_mean, keys_like, running_mean, series_of
from des4.report.plots.style import CYCLE, INK, NARROW, PALE, WIDTH, Target, canvas

BEYOND = 50
"""Ratios of shares are drawn between 1/50 and 50."""

_NO_STATS = {"step", "lr", "loss", "seconds", "images_per_second"}


def curves(
    metrics: Sequence[Mapping[str, Any]],
    path: Target,
    quality: Sequence[str] = ("precision", "coverage"),
    narrow: bool = False,
) -> None:
    """Draw the loss and its terms, the learning rate, each model's mIoU, and the quality of the pseudo-labels.

    metrics: the lines of metrics.jsonl. quality: what is drawn of the pseudo-labels. A panel without values is left
    out; no values at all raise ValueError.
    """
    drawn = {name: class_mean(metrics, f"pseudo/{name}/") for name in quality}
    panels = {
        "Loss": {key.removeprefix("loss/"): series_of(metrics, key) for key in keys_like(metrics, r"loss(/.+)?")},
        "mIoU on the validation list, %": {
            model + name: series_of(metrics, f"val/{model}/{key}", 100)
            for model in dict.fromkeys(key.split("/")[1] for key in keys_like(metrics, r"val/[^/]+/miou"))
            for name, key in (("", "miou"), (" (tail classes)", "tail_miou"))
        },
        "mIoU on labeled images held out, %": {
            model + name: series_of(metrics, f"held_out/{model}/{key}", 100)
            for model in dict.fromkeys(key.split("/")[1] for key in keys_like(metrics, r"held_out/[^/]+/miou"))
            for name, key in (("", "miou"), (" (tail classes)", "tail_miou"))
        },
        "Learning rate": {"lr": series_of(metrics, "lr")},
        "Pseudo-labels, mean over classes, %": {name: points for name, points in drawn.items() if points[0]},
    }
    filled = {title: lines for title, lines in panels.items() if lines and any(p[0] for p in lines.values())}
    line_panels(filled, path, narrow)


def drift(
    metrics: Sequence[Mapping[str, Any]],
    share: Mapping[str, float],
    shown: Sequence[str],
    factor: float | None,
    path: Target,
    narrow: bool = False,
) -> None:
    """Draw how pseudo-labels moved: each class's share over its labeled share, and what is said of all of them.

    metrics: lines with `drift/…`. share: of the labeled pixels, by class. shown: the classes to draw; those without a
    labeled pixel are not. factor: beyond which a share is warned of.
    """
    rows = [row for row in metrics if row.get("drift/shares")]
    steps = [float(row["step"]) for row in rows]
    names = [name for name in share if share[name] and name in shown]
    columns = name_columns(names)
    rows_of_names = math.ceil(len(names) / columns)
    height = 3.4 + 0.16 * rows_of_names
    with canvas(path, NARROW if narrow else WIDTH, height + 3.2 * narrow) as figure:
        grid = (2, 1) if narrow else (1, 2)
        left, right = figure.add_subplot(*grid, 1), figure.add_subplot(*grid, 2)
        places = {name: place for place, name in enumerate(share)}
        for index, name in enumerate(names):
            ratios = [row["drift/shares"][places[name]] / share[name] for row in rows]
            ratios = [min(max(ratio, 1 / BEYOND), BEYOND) for ratio in ratios]
            style = ("-", "-.", ":")[index // len(CYCLE) % 3]
            values = running_mean(ratios) if len(ratios) > 40 else ratios
            left.plot(steps, values, style, color=CYCLE[index % len(CYCLE)], label=name)
        left.set_title(
            "Share of pseudo-labels / of labels" if narrow else "Share of the pseudo-labels over share of the labels"
        )
        left.set_yscale("log")
        ticks = [1 / 50, 0.1, 0.5, 1, 2, 10, 50]
        left.set_yticks(ticks, ["≤ 1/50", "1/10", "1/2", "1", "2", "10", "≥ 50"])
        left.yaxis.set_minor_locator(NullLocator())
        left.axhline(1, color=INK, linewidth=1)
        if factor is not None:
            left.axhspan(1 / factor, factor, color=PALE, linewidth=0, zorder=0)
        left.legend(loc="upper left", bbox_to_anchor=(0, -0.14), ncols=columns, fontsize=7.5)
        right.set_title("Pseudo-labels, %")
        for index, name in enumerate(("confidence", "agreement", "kept")):
            found = series_of(rows, f"drift/{name}", 100)
            if name == "kept" and all(value == 100 for value in found[1]):  # there is no threshold
                continue
            values = running_mean(found[1]) if len(found[1]) > 40 else found[1]
            right.plot(found[0], values, color=CYCLE[index], label=name)
        right.set_ylim(0, 103)
        right.legend(loc="upper left", bbox_to_anchor=(0, -0.14), ncols=3, fontsize=7.5)
        for axes in (left, right):
            axes.set_xlabel("step")
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def quality_over_time(
    metrics: Sequence[Mapping[str, Any]], source: str, names: Sequence[str], path: Target, narrow: bool = False
) -> None:
    """Draw precision and coverage of pseudo-labels over the steps, a line a class; one that is 100 % throughout is left
    out.

    source: `truth`, measured on unlabeled images, or `pseudo`, on the validation list. names: the classes to draw, in
    order.
    """
    line_panels(_quality_panels(metrics, source, names), path, narrow)


def has_quality(metrics: Sequence[Mapping[str, Any]], source: str) -> bool:
    """Say whether there is a course of precision or coverage to be drawn: two measurements at least."""
    panels = _quality_panels(metrics, source)
    return any(len(steps) > 1 for lines in panels.values() for steps, _ in lines.values())


def _quality_panels(metrics: Sequence[Mapping[str, Any]], source: str, names: Sequence[str] | None = None) -> Panels:
    """Return precision and coverage of the classes named, or of all."""
    panels = {}
    for kind in ("precision", "coverage"):
        found = [key.removeprefix(f"{source}/{kind}/") for key in keys_like(metrics, rf"{source}/{kind}/.+")]
        ordered = found if names is None else [name for name in names if name in found]
        lines = {name: series_of(metrics, f"{source}/{kind}/{name}", 100) for name in ordered}
        lines = {name: points for name, points in lines.items() if points[0]}
        if lines and any(value < 100 for _, values in lines.values() for value in values):
            panels[f"{kind.capitalize()} by class, %"] = lines
    return panels


def has_stats(metrics: Sequence[Mapping[str, Any]]) -> bool:
    """Say whether the method logged numbers of its own, which `stats` would draw."""
    return bool(_stat_keys(metrics))


def stats(
    metrics: Sequence[Mapping[str, Any]],
    classes: Sequence[str],
    shown: Sequence[str],
    path: Target,
    narrow: bool = False,
) -> None:
    """Draw what the method itself logged, a panel for each first part of the key (`entropy/low`, `entropy/high`).

    A list of numbers becomes one line an entry. Where its length is the number of classes it is named by class, and of
    these only those that are `shown` are drawn.
    """
    panels: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for key in _stat_keys(metrics):
        group, _, name = key.partition("/")
        rows = [row for row in metrics if row.get(key) is not None]
        if not isinstance(rows[0][key], list):
            panels.setdefault(group if name else key, {})[name or key] = series_of(metrics, key)
            continue
        width = len(rows[0][key])
        names = classes if width == len(classes) else [str(i) for i in range(width)]
        panels[key] = {
            n: series_of([{"step": row["step"], n: row[key][i]} for row in rows], n)
            for i, n in enumerate(names)
            if names is not classes or n in shown
        }
    titles = {key: f"{key}/{next(iter(lines))}" if len(lines) == 1 and [*lines] != [key] else key
              for key, lines in panels.items()}  # fmt: skip
    line_panels({titles[key].replace("_", " "): lines for key, lines in panels.items()}, path, narrow)


def _stat_keys(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        key
        for key in keys_like(metrics, r"(?!loss/|val/|pseudo/|drift/|truth/|held_out/|inside/).+")
        if key not in _NO_STATS and all(isinstance(row.get(key, 0), int | float | list | None) for row in metrics)
    ]


def moved(
    steps: Sequence[int],
    degrees: Sequence[Sequence[float | None]],
    classes: Sequence[str],
    shown: Sequence[str],
    path: Target,
    narrow: bool = False,
) -> None:
    """Draw by how many degrees prototypes moved from one validation to the next.

    degrees: a row a step, a column a class. shown: the classes to draw.
    """
    lines = {}
    for index, name in enumerate(classes):
        if name not in shown:
            continue
        points = [(float(s), row[index]) for s, row in zip(steps, degrees, strict=True) if row[index] is not None]
        if points:
            lines[name] = [s for s, _ in points], [float(d or 0) for _, d in points]
    line_panels({"Turned since the validation before, °": lines}, path, narrow)
