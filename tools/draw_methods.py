"""Draws the picture of docs/results/methods/clothing.md from its figures: what becomes of rare classes, by method.

python tools/draw_methods.py
"""

from __future__ import annotations

import json
from pathlib import Path

from des4.report.plots.style import AMBER, BLUE, GREY, INK, WIDTH, canvas

PAGE = Path(__file__).parents[1] / "docs" / "results" / "methods"
CLASSES = ("legwear", "shorts")
"""Two rare classes of clothing that the network knows with which all runs begin."""
LEAST = 0.001
"""Smaller shares are drawn here."""
SUPERVISED = "supervised"


def main() -> None:
    """Draw, for two rare classes, their share of the pseudo-labels against their IoU at the end, a dot a method."""
    rows = json.loads((PAGE / "clothing.json").read_text())
    published = [row for row in rows if row["row"] == row["method"]]
    iou = {row["row"]: row["models"][row["evaluated"]]["iou"] for row in published}
    shares = {row["row"]: row["pseudo_share_over_labeled"] for row in published if row["pseudo_share_over_labeled"]}
    with canvas(PAGE / "rare_classes.png", WIDTH, 3.9) as figure:
        for axes, name in zip(figure.subplots(1, len(CLASSES)), CLASSES, strict=True):
            axes.set_title(name)
            axes.axhline(100 * iou[SUPERVISED][name], color=GREY, linestyle="--", linewidth=1.2)
            axes.text(LEAST, 100 * iou[SUPERVISED][name] + 0.4, SUPERVISED, color=GREY, fontsize=8.5)
            axes.axvline(1, color=GREY, linewidth=0.8)
            for method, share in shares.items():
                x, y = max(share[name], LEAST), 100 * iou[method][name]
                axes.scatter(x, y, s=34, color=AMBER if x < 0.3 else BLUE, edgecolors="white", linewidths=0.8, zorder=3)
                if x >= 0.3 or y > 4:
                    axes.annotate(method, (x, y), (5, 4), textcoords="offset points", fontsize=8, color=INK)
            axes.set_xscale("log")
            axes.set_xlim(LEAST * 0.7, 60)
            axes.set_xticks(*zip(*((10.0**n, f"{10.0**n:g}") for n in range(-3, 2)), strict=True))
            axes.minorticks_off()
            axes.set_ylim(-0.8, 22)
            axes.set_xlabel("share of the pseudo-labels / share of the labels")
            axes.set_ylabel("IoU on val, %")


if __name__ == "__main__":
    main()
