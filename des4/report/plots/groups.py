"""Groups of runs beside each other: their means and deviations, paired differences, lists, learning curves, courses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullLocator

from des4.report.plots.axes import legend, percent_axis
from des4.report.plots.style import CYCLE, GREY, INK, NARROW, PALE, WIDTH, Target, canvas, colour_of
from des4.report.plots.wording import in_lines


def group_bars(groups: Mapping[str, Mapping[str, Sequence[float]]], path: Target, narrow: bool = False) -> None:
    """Draw each group's mean of each score with its standard deviation (n - 1) and every run as a dot.

    groups: label -> score name -> the fractions of its runs.
    """
    with _bars(groups, path, narrow) as axes:
        percent_axis(axes)
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
    wrapped = [in_lines(label, 16 if narrow else 36) for label in groups]
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
                axes.barh(at, mean, thick * 0.9, color=colour_of(name, offset), label=label)
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


def list_by_list(
    panels: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]],
    path: Target,
    narrow: bool = False,
    *,
    most: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """Draw how far each list of masks is moved: a row a list, a line from the reference to the other methods.

    panels: name of the figure -> list -> method -> the fractions of its runs; the first method is the reference, in
    grey, and with one other the points between the two stand above the line. most: name of the figure -> list -> what
    all masks give; a list without it has no such mark.
    """
    height = 0.9 + 0.36 * max(map(len, panels.values()))
    columns = 1 if narrow else min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    with canvas(path, NARROW if narrow else WIDTH, height * rows) as figure:
        for place, (name, lists) in enumerate(panels.items(), 1):
            axes = figure.add_subplot(rows, columns, place)
            for row, methods in enumerate(lists.values()):
                means = {method: _mean_of_present(values) for method, values in methods.items()}
                known = [mean for mean in means.values() if not math.isnan(mean)]
                if known:
                    axes.plot([min(known), max(known)], [row, row], color=PALE, linewidth=4, zorder=2)
                for index, (method, mean) in enumerate(means.items()):
                    colour = CYCLE[(index - 1) % len(CYCLE)] if index else GREY
                    axes.plot([mean], [row], "o", ms=7, color=colour, zorder=4, label=method if row == 0 else None)
                if len(known) == len(means) == 2:
                    axes.annotate(f"{known[1] - known[0]:+.1f}", (sum(known) / 2, row), (0, 5), ha="center",
                                  textcoords="offset points", fontsize=8.5, color=INK)  # fmt: skip
            bounds = (most or {}).get(name, {})
            reached = [(100 * bounds[label], row) for row, label in enumerate(lists) if label in bounds]
            if most:  # also where a panel has none of them: the legend is that of the first
                axes.plot(*np.reshape(reached, (-1, 2)).T, "|", ms=13, mew=2, color=INK, zorder=3, label="all masks")
            axes.set_yticks(range(len(lists)), [in_lines(label, 20) for label in lists])
            axes.set_ylim(len(lists) - 0.5, -0.5)
            axes.margins(x=0.14)
            axes.set_xlabel(f"{name} %")
            axes.tick_params(length=0)
            if place == 1:
                legend(figure, axes, narrow)


def _mean_of_present(values: Sequence[float]) -> float:
    """Mean of fractions in percent, of those that are defined."""
    present = [100 * value for value in values if not math.isnan(value)]
    return float(np.mean(present)) if present else math.nan


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
                    means.append(_mean_of_present(values))
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
                legend(figure, axes, narrow)


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
        legend(figure, axes, narrow)
