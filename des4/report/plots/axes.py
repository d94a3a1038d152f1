"""What several diagrams do with their axes: legends, percentages, panels of lines."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from des4.report.plots.series import running_mean
from des4.report.plots.style import CYCLE, NARROW, WIDTH, Target, canvas, colour_of
from des4.report.plots.wording import in_lines

Panels = Mapping[str, Mapping[str, tuple[list[float], list[float]]]]
"""Title of a panel -> name of a line -> its steps and values."""


def legend(figure: Figure, axes: Axes, narrow: bool) -> None:
    """Put a legend above, in as many columns as its names leave room for; long ones take several lines."""
    handles, labels = axes.get_legend_handles_labels()
    wrapped = [in_lines(label, 44) for label in labels]
    longest = max(min(len(label), 44) for label in labels)
    columns = max(1, (62 if narrow else 130) // (longest + 8))
    figure.legend(handles, wrapped, loc="outside upper left", ncols=min(columns, len(labels)))


def name_columns(names: Iterable[str]) -> int:
    """Return how many columns of a legend's small print fit below a panel, which is as wide on a phone as elsewhere."""
    longest = max(map(len, names), default=0)
    return max(1, min(4, int(4.2 / (0.4 + 0.058 * longest))))  # inches: of a panel, of a line's sample, of a letter


def percent_axis(axes: Axes) -> None:
    """Let bars run from 0 to 100 %."""
    axes.set_xlim(0, 106)
    axes.set_xticks(range(0, 101, 20), [f"{x} %" for x in range(0, 101, 20)])
    axes.grid(axis="y", visible=False)
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)


def line_panels(panels: Panels, path: Target, narrow: bool = False) -> None:
    """Draw panels, two in a row or, in a narrow figure, one. Without any: ValueError."""
    if not panels:
        raise ValueError("no values to draw")
    columns = 1 if narrow else min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    many = [lines for lines in panels.values() if len(lines) > 6]
    below_names = max((0.16 * math.ceil(len(lines) / name_columns(lines)) for lines in many), default=0.0)
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
                colour = colour_of(base, i)
                if len(values) > 40 and name != "lr":  # training is noisy: the running mean is what one reads
                    if few:
                        axes.plot(steps, values, color=colour, alpha=0.22, linewidth=0.9)
                    values = running_mean(values)
                style = "--" if base != name else ("-", "-.", ":")[i // len(CYCLE) % 3]
                marker = "o" if len(values) <= 40 else None
                axes.plot(steps, values, style, color=colour, label=name, marker=marker, ms=3.5)
            if title.endswith(("%", "°")):
                axes.set_ylim(0, None)
            if len(lines) > 1:
                below: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0, -0.2), "fontsize": 7.5,
                                         "ncols": name_columns(lines)}  # fmt: skip
                axes.legend(**({} if few else below))
