"""The report's diagrams, in one style: curves, matrices, bars by class, bars by group of runs.

Those of a page are drawn twice: wide, and `narrow` for the width of a phone, where panels stand below each other.
Scores come in as fractions and are drawn as percentages; None and nan mean "does not occur" and are left out.
Colours are Okabe & Ito's, which stay apart for colour-blind readers; a model or quantity keeps its colour everywhere.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator
from numpy.typing import NDArray

from des4.report.inside import BINS_A_ZONE, Zones

Panels = Mapping[str, Mapping[str, tuple[list[float], list[float]]]]
"""Title of a panel -> name of a line -> its steps and values."""

Scores = Mapping[str, float | None]
"""Class name -> a fraction in [0, 1], or None where the class does not occur."""

BLUE, ORANGE, GREEN, PURPLE, AMBER, SKY, INK = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#30363D"
)  # fmt: skip
GREY, PALE, TAIL = "#6E7781", "#E4E8EC", "#FDF3DC"
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, AMBER, SKY, INK)
FIXED = {
    "teacher": BLUE, "student": ORANGE, "precision": GREEN, "coverage": PURPLE,
    "mIoU": BLUE, "tail mIoU": AMBER, "loss": INK,
}  # fmt: skip

WIDTH, NARROW = 9.6, 4.6
"""Width of a figure in inches; the page shows an inch as 100 CSS pixels, so 10 points are 14 pixels. A phone shows a
narrow one at three quarters of that."""

DPI, NARROW_DPI = 160, 130

Target = Path | IO[bytes]
"""Where a PNG goes."""

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so a report looks the same everywhere
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,  # a class may be called "$5 note"
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.labelcolor": GREY,
    "axes.labelsize": 9,
    "axes.edgecolor": "#C4CBD2",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": PALE,
    "grid.linewidth": 0.8,
    "xtick.color": "#C4CBD2",
    "ytick.color": "#C4CBD2",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 9,
}

_SEQUENTIAL = LinearSegmentedColormap.from_list("paper to blue", ["#F6F9FB", "#9CCAE6", BLUE, "#002F4A"])
_DIVERGING = LinearSegmentedColormap.from_list("orange to blue", [ORANGE, "#F3C6AE", "#F6F9FB", "#9CCAE6", BLUE])
BEYOND = 50
"""Ratios of shares are drawn between 1/50 and 50."""

_NO_STATS = {"step", "lr", "loss", "seconds", "images_per_second"}


def percent(value: float | None, digits: int = 1) -> str:
    """Write a fraction as a percentage without its sign, and what does not occur as a dash."""
    return "–" if value is None or math.isnan(value) else f"{100 * value:.{digits}f}"


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
    drawn = {name: _class_mean(metrics, f"pseudo/{name}/") for name in quality}
    panels = {
        "Loss": {key.removeprefix("loss/"): series_of(metrics, key) for key in _keys(metrics, r"loss(/.+)?")},
        "mIoU on the validation list, %": {
            model + name: series_of(metrics, f"val/{model}/{key}", 100)
            for model in dict.fromkeys(key.split("/")[1] for key in _keys(metrics, r"val/[^/]+/miou"))
            for name, key in (("", "miou"), (" (tail classes)", "tail_miou"))
        },
        "mIoU on labeled images held out, %": {
            model + name: series_of(metrics, f"held_out/{model}/{key}", 100)
            for model in dict.fromkeys(key.split("/")[1] for key in _keys(metrics, r"held_out/[^/]+/miou"))
            for name, key in (("", "miou"), (" (tail classes)", "tail_miou"))
        },
        "Learning rate": {"lr": series_of(metrics, "lr")},
        "Pseudo-labels, mean over classes, %": {name: points for name, points in drawn.items() if points[0]},
    }
    filled = {title: lines for title, lines in panels.items() if lines and any(p[0] for p in lines.values())}
    _line_panels(filled, path, narrow)


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
    columns = _name_columns(names)
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
            values = _running_mean(ratios) if len(ratios) > 40 else ratios
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
            values = _running_mean(found[1]) if len(found[1]) > 40 else found[1]
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
    _line_panels(_quality_panels(metrics, source, names), path, narrow)


def has_quality(metrics: Sequence[Mapping[str, Any]], source: str) -> bool:
    """Say whether there is a course of precision or coverage to be drawn: two measurements at least."""
    panels = _quality_panels(metrics, source)
    return any(len(steps) > 1 for lines in panels.values() for steps, _ in lines.values())


def _quality_panels(metrics: Sequence[Mapping[str, Any]], source: str, names: Sequence[str] | None = None) -> Panels:
    """Return precision and coverage of the classes named, or of all."""
    panels = {}
    for kind in ("precision", "coverage"):
        found = [key.removeprefix(f"{source}/{kind}/") for key in _keys(metrics, rf"{source}/{kind}/.+")]
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
    _line_panels({titles[key].replace("_", " "): lines for key, lines in panels.items()}, path, narrow)


def confusion(matrix: NDArray[np.int64], classes: Sequence[str], path: Target, narrow: bool = False) -> None:
    """Draw the confusion matrix, (C, C) counts with truth in rows, each row as percentages of its own pixels.

    Rows of classes without a pixel are grey. Up to 21 classes, cells carry their number unless it rounds to 0.
    """
    total = matrix.sum(1, keepdims=True)
    share = np.where(total > 0, 100 * matrix / np.maximum(total, 1), np.nan)
    with _matrix(classes, path, narrow) as (axes, size):
        axes.imshow(np.ma.masked_invalid(share), cmap=_SEQUENTIAL, vmin=0, vmax=100)
        axes.set_xlabel("prediction")
        axes.xaxis.set_label_position("top")
        axes.set_ylabel("truth")
        if len(classes) <= 21:
            for (row, column), value in np.ndenumerate(share):
                if value >= 0.5:  # a field of zeros would hide what matters; nan compares false
                    colour = "white" if value > 55 else INK
                    axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=size)


def cosines(matrix: NDArray[np.float64], classes: Sequence[str], path: Target, narrow: bool = False) -> None:
    """Draw the cosine of each prototype to each other, (C, C) in [-1, 1]; nan, of a class never seen, is grey."""
    with _matrix(classes, path, narrow) as (axes, size):
        axes.imshow(np.ma.masked_invalid(matrix), cmap=_DIVERGING, vmin=-1, vmax=1)
        if len(classes) <= 21:
            for (row, column), value in np.ndenumerate(matrix):
                if row != column and not math.isnan(value):
                    colour = "white" if abs(value) > 0.75 else INK
                    text = f"{value:.1f}".replace("-0.0", "0.0").replace("-", "−")
                    axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=0.85 * size)


@contextmanager
def _matrix(classes: Sequence[str], path: Target, narrow: bool) -> Iterator[tuple[Axes, float]]:
    """Lend axes with a row and a column for each class, and the size of text that fits a cell."""
    count = len(classes)
    side = min(NARROW if narrow else WIDTH, 2.6 + 0.44 * max(count, 4))
    cell = (side - 1.9) * 72 / max(count, 4)  # points; what is left beside the names
    size = min(9.5, max(4.0, 0.42 * cell if count <= 21 else 0.9 * cell))
    with canvas(path, side, side) as figure:
        axes = figure.add_subplot()
        axes.grid(False)
        axes.set_facecolor(PALE)
        axes.set_xticks(range(count), classes, rotation=90 if count > 6 or narrow else 0)
        axes.set_yticks(range(count), classes)
        axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
        axes.tick_params(labelsize=min(9.5, max(4.0, 0.75 * cell)))
        axes.set_xticks(np.arange(1, count) - 0.5, minor=True)
        axes.set_yticks(np.arange(1, count) - 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=min(1, 0.06 * cell))
        axes.tick_params(which="minor", length=0)
        axes.spines[:].set_visible(False)
        yield axes, size


def zones(watched: Mapping[str, Zones], classes: Sequence[str], path: Target, narrow: bool = False) -> None:
    """Draw for each class how its labeled pixels spread over the entropy, and how those do that were sampled.

    classes: those to draw, in order. The borders of zones are lines.
    """
    columns = 2 if narrow else 4
    rows = math.ceil(len(classes) / columns)
    with canvas(path, NARROW if narrow else WIDTH, 0.5 + 1.75 * rows) as figure:
        for place, name in enumerate(classes, 1):
            found = watched[name]
            edges = np.linspace(found.low, max(found.high, found.low + 1e-3), len(found.pixels) + 1)
            axes = figure.add_subplot(rows, columns, place)
            there, taken = (100 * each / max(each.sum(), 1) for each in (found.pixels, found.taken))
            axes.stairs(there, edges, fill=True, color=GREY, alpha=0.45, label="labeled pixels")
            axes.stairs(taken, edges, color=BLUE, linewidth=1.6, label="sampled ones")
            for border in edges[BINS_A_ZONE:-1:BINS_A_ZONE]:
                axes.axvline(border, color=AMBER, linewidth=0.9, linestyle=(0, (3, 2)))
            counts = f"{_number(found.taken.sum())} of {_number(found.pixels.sum())}"
            axes.set_title(f"{_short(name)}  {counts}", fontsize=8.5)
            axes.tick_params(labelsize=7.5)
            axes.xaxis.set_major_locator(MaxNLocator(3))
            axes.yaxis.set_major_locator(MaxNLocator(3))
            axes.grid(False)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2)
        figure.supxlabel("entropy, nats; dashed: the borders of the zones", fontsize=8.5, color=GREY)
        figure.supylabel("% of the class's pixels", fontsize=8.5, color=GREY)


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
    _line_panels({"Turned since the validation before, °": lines}, path, narrow)


def distribution(
    truth: Mapping[str, float],
    groups: Mapping[str, Mapping[str, float]],
    order: Sequence[str],
    path: Target,
    narrow: bool = False,
) -> None:
    """Draw the shares of the classes in truth and pseudo-labels, on a logarithmic axis (figure 3 of DeS4).

    truth: class -> fraction. groups: label -> class -> fraction; those without pseudo-labels are empty, and keep their
    colour. order: of the classes, from above.
    """
    colours = {"truth": INK} | {label: CYCLE[index % (len(CYCLE) - 1)] for index, label in enumerate(groups)}
    series = {"truth": truth} | {label: shares for label, shares in groups.items() if shares}
    thick = 0.8 / len(series)
    least = min((v for shares in series.values() for v in shares.values() if v > 0), default=1e-4)
    floor = max(1e-6, 10 ** math.floor(math.log10(least)))
    with canvas(path, NARROW if narrow else WIDTH, 1.0 + len(order) * (0.12 + 0.15 * len(series))) as figure:
        axes = figure.add_subplot()
        for offset, (label, shares) in enumerate(series.items()):
            at = np.arange(len(order)) - 0.4 + thick * (offset + 0.5)
            values = [100 * shares.get(name, 0.0) for name in order]
            left = 100 * floor
            axes.barh(at, [max(v - left, 0) for v in values], thick * 0.9, left=left, color=colours[label], label=label)
            for place, value in zip(at, values, strict=True):
                text = f"{value:.2g}" if 0 < value < 1 else f"{value:.1f}" if value else "0"
                axes.text(max(value, left) * 1.06, place, text, va="center", fontsize=7.5, color=GREY)
        axes.set_xscale("log")
        axes.set_xlim(100 * floor, 260)
        ticks = [t for t in (1e-4, 1e-3, 1e-2, 0.1, 1, 10, 100) if t >= 100 * floor]
        axes.set_xticks(ticks, [f"{t:g} %" for t in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_yticks(range(len(order)), order)
        axes.set_ylim(len(order) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.tick_params(length=0)
        _legend(figure, axes, narrow)


def runs_over_time(
    groups: Mapping[str, Sequence[Mapping[str, tuple[list[float], list[float]]]]], path: Target, narrow: bool = False
) -> None:
    """Draw mIoU and tail mIoU of runs over the steps; runs of a group share a colour, their mean is not drawn.

    groups: label -> its runs, each score name -> (steps, fractions).
    """
    titles = {"miou": "mIoU on the validation list, %", "tail_miou": "Tail mIoU on the validation list, %"}
    with canvas(path, NARROW if narrow else WIDTH, 0.3 * (1 + len(groups) // 3) + 3.1 * (2 if narrow else 1)) as figure:
        for place, (key, title) in enumerate(titles.items(), 1):
            axes = figure.add_subplot(2 if narrow else 1, 1 if narrow else 2, place)
            axes.set_title(title)
            axes.set_xlabel("step")
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            for index, (label, runs) in enumerate(groups.items()):
                for number, run in enumerate(runs):
                    steps, values = run.get(key, ([], []))
                    percentages, name = [100 * value for value in values], label if number == 0 else None
                    colour = CYCLE[index % len(CYCLE)]
                    axes.plot(steps, percentages, color=colour, marker="o", ms=3, linewidth=1.4, label=name)
            axes.set_ylim(0, None)
            axes.set_xlim(0, None)
        _legend(figure, axes, narrow)


def class_bars(
    series: Mapping[str, Scores],
    share: Mapping[str, float],
    tail: Sequence[str],
    path: Target,
    narrow: bool = False,
    said: str = "",
) -> None:
    """Draw one bar a class and series (teacher and student, or precision and coverage), side by side.

    share: fraction of the labeled pixels of each class that is drawn; it orders them, most frequent on top. Classes in
    `tail` stand on a tinted band. said: what stands below.
    """
    classes = sorted(share, key=lambda name: -share[name])
    thick = 0.78 / len(series)
    with canvas(path, NARROW if narrow else WIDTH, 0.95 + len(classes) * (0.16 + 0.15 * len(series))) as figure:
        axes = figure.add_subplot()
        for row, name in enumerate(classes):
            if name in tail:
                axes.axhspan(row - 0.5, row + 0.5, color=TAIL, linewidth=0, zorder=0)
            for offset, scores in enumerate(series.values()):
                value = scores.get(name)
                middle = row - 0.39 + thick * (offset + 0.5)
                axes.text(_percentage(value) + 0.8, middle, percent(value), va="center", fontsize=8, color=GREY)
        for offset, (label, scores) in enumerate(series.items()):
            at = np.arange(len(classes)) - 0.39 + thick * (offset + 0.5)
            values = [_percentage(scores.get(name)) for name in classes]
            axes.barh(at, values, thick * 0.9, color=_colour(label, offset), label=label)
        if tail:
            axes.bar(0, 0, color=TAIL, label="tail class", edgecolor="#E8D5A3", linewidth=0.8)
        axes.set_yticks(range(len(classes)), [f"{name}  {_share(share[name])}" for name in classes])
        axes.set_ylim(len(classes) - 0.5, -0.5)
        _percent_axis(axes)
        axes.set_xlabel(said)
        _legend(figure, axes, narrow)


def group_bars(groups: Mapping[str, Mapping[str, Sequence[float]]], path: Target, narrow: bool = False) -> None:
    """Draw each group's mean of each score with its standard deviation (n - 1) and every run as a dot.

    groups: label -> score name -> the fractions of its runs.
    """
    with _bars(groups, path, narrow) as axes:
        _percent_axis(axes)
        if narrow:
            axes.set_xlim(0, 130)  # for the figures beside the bars


def paired(
    groups: Mapping[str, Mapping[str, Sequence[float]]], reference: str, path: Target, narrow: bool = False
) -> None:
    """Draw each method's differences to a reference: their mean and standard deviation (n - 1), every pair as a dot.

    groups: method -> score name -> the differences of its pairs, as fractions.
    """
    with _bars(groups, path, narrow) as axes:
        axes.axvline(0, color=INK, linewidth=1)
        axes.margins(x=0.4 if narrow else 0.12)  # for the figures beside the bars
        axes.set_xlabel(f"points minus {reference}{'' if narrow else ', pairs with the same lists and seed'}")
        axes.grid(axis="y", visible=False)


@contextmanager
def _bars(groups: Mapping[str, Mapping[str, Sequence[float]]], path: Target, narrow: bool = False) -> Iterator[Axes]:
    """Draw a row a group, with a bar a score; lend the axes for what remains."""
    names = list(next(iter(groups.values())))
    thick = 0.76 / len(names)
    wrapped = [_wrapped(label, 16 if narrow else 36) for label in groups]
    lines = max(label.count("\n") + 1 for label in wrapped)
    height = max(0.2 + 0.24 * len(names), 0.1 + 0.16 * lines)
    with canvas(path, NARROW if narrow else WIDTH, 1.0 + len(groups) * height) as figure:
        axes = figure.add_subplot()
        named: set[str] = set()
        for offset, name in enumerate(names):
            for row, scores in enumerate(groups.values()):
                every = 100 * np.array(scores[name], dtype=float)
                values, at = every[~np.isnan(every)], row - 0.38 + thick * (offset + 0.5)
                if not len(values):
                    continue
                mean, spread = float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0
                label = None if name in named else name
                named.add(name)
                axes.barh(at, mean, thick * 0.9, color=_colour(name, offset), label=label)
                axes.plot(values, np.full(len(values), at), "o", ms=4, mfc="white", mec=INK, mew=0.9, zorder=4)
                if spread:
                    axes.errorbar(mean, at, xerr=spread, color=INK, capsize=3.5, linewidth=1.2, zorder=3)
                text = f"{mean:.2f}" + (f" ± {spread:.2f}" if spread else "")
                place, shift = (max(values.max(), mean + spread, 0.0), at), (8, 0)
                axes.annotate(text, place, shift, textcoords="offset points", va="center", fontsize=8.5, color=GREY)
        axes.set_yticks(range(len(groups)), wrapped)
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(names), borderaxespad=0.3)
        yield axes


def learning_curve(
    panels: Mapping[str, Mapping[str, Mapping[int, Sequence[float]]]], path: Target, narrow: bool = False
) -> None:
    """Draw figures over the number of masks, a panel each: a dot a run, the mean as a line, its deviation as a band.

    panels: name of the figure -> method -> number of masks -> the fractions of its runs.
    """
    rows, columns = (len(panels), 1) if narrow else (1, len(panels))
    with canvas(path, NARROW if narrow else WIDTH, 3.6 * rows) as figure:
        for place, (name, curves) in enumerate(panels.items(), 1):
            axes = figure.add_subplot(rows, columns, place)
            ticks = sorted({n for points in curves.values() for n in points})
            for index, (method, points) in enumerate(curves.items()):
                colour = CYCLE[index % len(CYCLE)]
                means, spreads = [], []
                for masks, values in points.items():
                    present = [100 * value for value in values if not math.isnan(value)]
                    means.append(float(np.mean(present)) if present else math.nan)
                    spreads.append(float(np.std(present, ddof=1)) if len(present) > 1 else 0.0)
                    axes.plot([masks] * len(present), present, "o", ms=4, mfc="white", mec=colour, mew=0.9, zorder=4)
                low, high = np.array(means) - spreads, np.array(means) + spreads
                axes.fill_between(list(points), low, high, color=colour, alpha=0.15, linewidth=0)
                axes.plot(list(points), means, color=colour, linewidth=1.8, label=method)
            axes.set_xscale("log")
            axes.set_xticks(ticks, [str(n) for n in ticks])
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xlabel("labeled images")
            axes.set_ylabel(f"{name} %")
            if place == 1:
                _legend(figure, axes, narrow)


def sizes(counts: Sequence[Mapping[str, int]], path: Target, narrow: bool = False) -> None:
    """Draw how many images have which width and which height. counts: `width`, `height` and `images` of each size."""
    images = [size["images"] for size in counts]
    sides = {side: [size[side] for size in counts] for side in ("width", "height")}
    low, high = min(map(min, sides.values())), max(map(max, sides.values()))
    edges = np.linspace(low - 0.5, high + 0.5, 1 + min(40, high - low + 1)).tolist()
    with canvas(path, NARROW if narrow else WIDTH, 2.6) as figure:
        axes = figure.add_subplot()
        for (side, values), colour in zip(sides.items(), (BLUE, ORANGE), strict=True):
            axes.hist(values, edges, weights=images, color=colour, alpha=0.55, label=side)
        axes.set_xlabel("pixels")
        axes.set_ylabel("images")
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.3)


@contextmanager
def canvas(path: Target, width: float, height: float) -> Iterator[Figure]:
    """Lend a figure of the given size in inches, drawn in the house style, and write it to `path` as PNG."""
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained", dpi=DPI if width > NARROW else NARROW_DPI)
        agg = FigureCanvasAgg(figure)
        yield figure
        agg.print_png(path)  # `savefig` would lay it out, draw it, and draw it once more


def _legend(figure: Figure, axes: Axes, narrow: bool) -> None:
    """Put a legend above, in as many columns as its names leave room for; long ones take several lines."""
    handles, labels = axes.get_legend_handles_labels()
    wrapped = [_wrapped(label, 44) for label in labels]
    longest = max(min(len(label), 44) for label in labels)
    columns = max(1, (62 if narrow else 130) // (longest + 8))
    figure.legend(handles, wrapped, loc="outside upper left", ncols=min(columns, len(labels)))


def _wrapped(label: str, width: int) -> str:
    """Break a label into lines, after `_`, `=` and `/` where a word is too long for one."""
    lines = [""]
    for piece in re.findall(r"[^ _=/]*[ _=/]?", label):
        if lines[-1] and len(lines[-1] + piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(part for line in lines for part in textwrap.wrap(line, width))


def _line_panels(panels: Panels, path: Target, narrow: bool = False) -> None:
    """Draw panels, two in a row or, in a narrow figure, one."""
    if not panels:
        raise ValueError("no values to draw")
    columns = 1 if narrow else min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    many = [lines for lines in panels.values() if len(lines) > 6]
    below_names = max((0.16 * math.ceil(len(lines) / _name_columns(lines)) for lines in many), default=0.0)
    with canvas(path, NARROW if narrow else WIDTH, (3.1 + below_names) * rows) as figure:
        for place, (title, lines) in enumerate(panels.items(), 1):
            axes = figure.add_subplot(rows, columns, place)
            axes.set_title(title)
            axes.set_xlabel("step")
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            axes.set_xlim(0, 1.02 * max([1, *(step for steps, _ in lines.values() for step in steps)]))
            few = len(lines) <= 6
            for i, (name, (steps, values)) in enumerate(lines.items()):
                base = name.removesuffix(" (tail classes)")
                colour = _colour(base, i)
                if len(values) > 40 and name != "lr":  # training is noisy: the running mean is what one reads
                    if few:
                        axes.plot(steps, values, color=colour, alpha=0.22, linewidth=0.9)
                    values = _running_mean(values)
                style = "--" if base != name else ("-", "-.", ":")[i // len(CYCLE) % 3]
                marker = "o" if len(values) <= 40 else None
                axes.plot(steps, values, style, color=colour, label=name, marker=marker, ms=3.5)
            if title.endswith(("%", "°")):
                axes.set_ylim(0, None)
            if len(lines) > 1:
                below: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0, -0.2), "fontsize": 7.5,
                                         "ncols": _name_columns(lines)}  # fmt: skip
                axes.legend(**({} if few else below))


def _name_columns(names: Iterable[str]) -> int:
    """Return how many columns of a legend's small print fit below a panel, which is as wide on a phone as elsewhere."""
    longest = max(map(len, names), default=0)
    return max(1, min(4, int(4.2 / (0.4 + 0.058 * longest))))  # inches: of a panel, of a line's sample, of a letter


def _keys(metrics: Sequence[Mapping[str, Any]], pattern: str) -> list[str]:
    """List the keys that match, in the order of their first appearance."""
    return list(dict.fromkeys(key for row in metrics for key in row if re.fullmatch(pattern, key)))


def _stat_keys(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        key
        for key in _keys(metrics, r"(?!loss/|val/|pseudo/|drift/|truth/|held_out/|inside/).+")
        if key not in _NO_STATS and all(isinstance(row.get(key, 0), int | float | list | None) for row in metrics)
    ]


def series_of(metrics: Sequence[Mapping[str, Any]], key: str, scale: float = 1) -> tuple[list[float], list[float]]:
    """Return the steps and the scaled values of the lines that hold a number under `key`."""
    points = [(float(row["step"]), scale * row[key]) for row in metrics if row.get(key) is not None]
    return [step for step, _ in points], [value for _, value in points]


def _class_mean(metrics: Sequence[Mapping[str, Any]], prefix: str) -> tuple[list[float], list[float]]:
    """Return the steps and the mean percentage over all keys with `prefix`, of the lines that hold one."""
    steps, means = [], []
    for row in metrics:
        if values := [v for key, v in row.items() if key.startswith(prefix) and v is not None]:
            steps.append(float(row["step"]))
            means.append(100 * sum(values) / len(values))
    return steps, means


def _running_mean(values: list[float]) -> list[float]:
    """Average each value with its neighbours, over a window of about a twentieth of the series, shorter at its ends."""
    half = max(1, len(values) // 40)
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def _percentage(value: float | None) -> float:
    """Return the length of a bar: 0 for what does not occur, since its dash stands at the axis."""
    return 0.0 if value is None or math.isnan(value) else 100 * value


def _short(name: str) -> str:
    return name if len(name) <= 14 else f"{name[:13]}…"


def _number(value: float) -> str:
    """Write a count so that it takes little room."""
    return f"{value:.0f}" if value < 10_000 else f"{value / 1000:.0f}k" if value < 1_000_000 else f"{value / 1e6:.1f}M"


def _share(value: float) -> str:
    """Write a pixel share so that a rare class does not read as 0."""
    return f"{100 * value:.1f} %" if value >= 0.001 or value == 0 else "< 0.1 %"


def _colour(name: str, index: int) -> str:
    return FIXED.get(name, CYCLE[index % len(CYCLE)])


def _percent_axis(axes: Axes) -> None:
    axes.set_xlim(0, 106)
    axes.set_xticks(range(0, 101, 20), [f"{x} %" for x in range(0, 101, 20)])
    axes.grid(axis="y", visible=False)
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)
