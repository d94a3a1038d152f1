"""Classes beside each other: confusion, similarity of prototypes, entropy zones, shares, and bars of scores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullLocator
from numpy.typing import NDArray

from des4.report.inside import BINS_A_ZONE, Zones
from des4.report.plots.axes import legend, percent_axis
from des4.report.plots.style import (
    AMBER,
    BLUE,
    CYCLE,
    DIVERGING,
    GREY,
    INK,
    NARROW,
    PALE,
    SEQUENTIAL,
    TAIL,
    WIDTH,
    Target,
    canvas,
    colour_of,
)
from des4.report.plots.wording import bar_length, percent, share_of_pixels, short_name, short_number

Scores = Mapping[str, float | None]
"""Class name -> a fraction in [0, 1], or None where the class does not occur."""


def confusion(matrix: NDArray[np.int64], classes: Sequence[str], path: Target, narrow: bool = False) -> None:
    """Draw the confusion matrix, (C, C) counts with truth in rows, each row as percentages of its own pixels.

    Rows of classes without a pixel are grey. Up to 21 classes, cells carry their number unless it rounds to 0.
    """
    total = matrix.sum(1, keepdims=True)
    share = np.where(total > 0, 100 * matrix / np.maximum(total, 1), np.nan)
    with _matrix(classes, path, narrow) as (axes, size):
        axes.imshow(np.ma.masked_invalid(share), cmap=SEQUENTIAL, vmin=0, vmax=100)
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
        axes.imshow(np.ma.masked_invalid(matrix), cmap=DIVERGING, vmin=-1, vmax=1)
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
            counts = f"{short_number(found.taken.sum())} of {short_number(found.pixels.sum())}"
            axes.set_title(f"{short_name(name)}  {counts}", fontsize=8.5)
            axes.tick_params(labelsize=7.5)
            axes.xaxis.set_major_locator(MaxNLocator(3))
            axes.yaxis.set_major_locator(MaxNLocator(3))
            axes.grid(False)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2)
        figure.supxlabel("entropy, nats; dashed: the borders of the zones", fontsize=8.5, color=GREY)
        figure.supylabel("% of the class's pixels", fontsize=8.5, color=GREY)


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
        legend(figure, axes, narrow)


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
                axes.text(bar_length(value) + 0.8, middle, percent(value), va="center", fontsize=8, color=GREY)
        for offset, (label, scores) in enumerate(series.items()):
            at = np.arange(len(classes)) - 0.39 + thick * (offset + 0.5)
            values = [bar_length(scores.get(name)) for name in classes]
            axes.barh(at, values, thick * 0.9, color=colour_of(label, offset), label=label)
        if tail:
            axes.bar(0, 0, color=TAIL, label="tail class", edgecolor="#E8D5A3", linewidth=0.8)
        axes.set_yticks(range(len(classes)), [f"{name}  {share_of_pixels(share[name])}" for name in classes])
        axes.set_ylim(len(classes) - 0.5, -0.5)
        percent_axis(axes)
        axes.set_xlabel(said)
        legend(figure, axes, narrow)
