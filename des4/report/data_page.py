"""The page of `des4 data check`: findings, classes, sizes, samples with their masks, and the suggested config.

It stands alone, as `report.html` does: pictures are inlined, it needs no script, no font and no network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from des4.report import plots
from des4.report.data_table import by_share, imbalance_line, in_root, plural, share, sizes_line
from des4.report.pictures import Palette, grid, overlay
from des4.report.templates import diagram, photographs, render

Sample = tuple[str, NDArray[np.uint8], NDArray[np.uint8]]
"""Caption, image (H, W, 3) and mask (H, W)."""

MOST = 200
"""Findings of a kind that the page lists."""
SAMPLES = 1_400_000
"""Bytes of the samples, beside a long list of findings."""

MARK = '<meta name="generator" content="des4 data check">'
"""By this a page is known as ours, so that a later check may replace it."""


def data_page(summary: Mapping[str, Any], config: str, samples: Sequence[Sample], palette: Palette) -> str:
    """Write the page.

    summary: the JSON of `des4 data check`. config: the suggested one, as YAML; empty if there is none. palette: RGB of
    the classes.
    """
    kinds = [list(group) for _, group in groupby(summary["findings"], lambda f: (f["severity"], f["code"]))]
    root = Path(summary["root"])
    return render(
        "data_page.html",
        mark=MARK,
        name=root.resolve().name or str(root),
        summary=summary,
        classes=by_share(summary["classes"]),
        tail=sum(c["tail"] for c in summary["classes"]),
        longest=max((c[role]["share"] for c in summary["classes"] for role in ("labeled", "val")), default=1.0) or 1.0,
        imbalance=imbalance_line(summary),
        sizes=sizes_line(summary["sizes"]),
        kinds=kinds,
        most=MOST,
        in_root=lambda path: in_root(path, summary["root"]),
        plural=plural,
        share=share,
        config=config,
        **_pictures(summary, samples, palette),
    )


def is_ours(path: Path) -> bool:
    """Whether the file at `path` is such a page."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return MARK in file.read(1024)


def _pictures(summary: Mapping[str, Any], samples: Sequence[Sample], palette: Palette) -> dict[str, Any]:
    """Draw the samples and the sizes; empty where there is nothing to draw."""
    drawn: dict[str, Any] = {"overlays": "", "histogram": None}
    if samples:
        rows = [[image, overlay(image, label, palette), label] for _, image, label in samples]
        names = [c["name"] for c in summary["classes"]]
        with TemporaryDirectory() as folder:
            sheet = Path(folder, "overlays.png")
            grid(rows, ["image", "mask over it", "mask"], palette, names, sheet, [caption for caption, *_ in samples])
            drawn["overlays"] = photographs({"overlays": sheet}, SAMPLES)["overlays"]
    if len(summary["sizes"]) > 1:
        drawn["histogram"] = diagram(partial(plots.sizes, summary["sizes"]))
    return drawn
