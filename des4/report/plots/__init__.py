"""The diagrams of reports and pages, in one style.

`over_time` draws what one run logged, `classes` its classes beside each other, `groups` several runs, `image_sizes` a
dataset; they draw on the canvas of `style`, with the `axes` that several of them need, `series` of numbers, and the
`wording` of what is written.

Those of a page are drawn twice: wide, and `narrow` for the width of a phone, where panels stand below each other.
Scores come in as fractions and are drawn as percentages; None and nan mean "does not occur" and are left out.
"""

from des4.report.plots.classes import class_bars, confusion, cosines, distribution, zones
from des4.report.plots.groups import group_bars, learning_curve, list_by_list, paired, runs_over_time
from des4.report.plots.image_sizes import sizes
from des4.report.plots.over_time import curves, drift, has_quality, has_stats, moved, quality_over_time, stats
from des4.report.plots.series import series_of
from des4.report.plots.style import BLUE, GREY, NARROW, ORANGE, WIDTH, Target, canvas
from des4.report.plots.wording import percent

__all__ = [
    "BLUE",
    "GREY",
    "NARROW",
    "ORANGE",
    "WIDTH",
    "Target",
    "canvas",
    "class_bars",
    "confusion",
    "cosines",
    "curves",
    "distribution",
    "drift",
    "group_bars",
    "has_quality",
    "has_stats",
    "learning_curve",
    "list_by_list",
    "moved",
    "paired",
    "percent",
    "quality_over_time",
    "runs_over_time",
    "series_of",
    "sizes",
    "stats",
    "zones",
]
