"""The sizes of a dataset's images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from des4.report.plots.style import BLUE, NARROW, ORANGE, WIDTH, Target, canvas


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
