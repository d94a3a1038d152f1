"""The one style of the diagrams: colours, sizes, and the canvas that they are drawn on.

Colours are Okabe & Ito's, which stay apart for colour-blind readers; a model or quantity keeps its colour everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from PIL import Image

BLUE, ORANGE, GREEN, PURPLE, AMBER, SKY, INK = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#30363D"
)  # fmt: skip
GREY, PALE, TAIL = "#6E7781", "#E4E8EC", "#FDF3DC"
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, AMBER, SKY, INK)
FIXED = {
    "teacher": BLUE, "student": ORANGE, "precision": GREEN, "coverage": PURPLE,
    "mIoU": BLUE, "tail mIoU": AMBER, "loss": INK,
}  # fmt: skip

SEQUENTIAL = LinearSegmentedColormap.from_list("paper to blue", ["#F6F9FB", "#9CCAE6", BLUE, "#002F4A"])
DIVERGING = LinearSegmentedColormap.from_list("orange to blue", [ORANGE, "#F3C6AE", "#F6F9FB", "#9CCAE6", BLUE])

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


SOFTWARE = "des4"
"""What a PNG of ours says that it was made by."""


def is_ours(path: Path) -> bool:
    """Whether a file is a diagram that was drawn here."""
    try:
        with Image.open(path) as picture:
            return picture.info.get("Software") == SOFTWARE
    except (OSError, ValueError):
        return False


@contextmanager
def canvas(path: Target, width: float, height: float) -> Iterator[Figure]:
    """Lend a figure of the given size in inches, drawn in the house style, and write it to `path` as PNG."""
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained", dpi=DPI if width > NARROW else NARROW_DPI)
        agg = FigureCanvasAgg(figure)
        yield figure
        # `savefig` would lay it out, draw it, and draw it once more
        agg.print_png(path, metadata={"Software": SOFTWARE})


def colour_of(name: str, index: int) -> str:
    """Return the colour that a model or quantity has everywhere; what has none takes its turn in the cycle."""
    return FIXED.get(name, CYCLE[index % len(CYCLE)])
