"""Draws the pictures of docs/results/few_masks.md from its figures.

python tools/draw_few_masks.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from des4.report.plots import learning_curve, list_by_list

PAGE = Path(__file__).parents[1] / "docs" / "results" / "few_masks"
SCORES = {"miou": "mIoU", "tail_miou": "tail mIoU"}
METHODS = ("supervised", "des4_committee")
RATE = 1e-3
"""Of the present recipe; recipe.json has other yardsticks too."""


def main() -> None:
    """Draw lists.png, what each list gains, and the curves: what more masks give supervised training."""
    rows = _rows("recipe")
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}  # the runs of all seeds
    for row in rows:
        if row["lr"] == RATE:
            found.setdefault((row["list"], row["method"]), []).append(row)
    lists = [name for name in dict.fromkeys(row["list"] for row in rows) if all((name, m) in found for m in METHODS)]
    kinds = ("clothing", "drive")  # which come last, behind the random lists of CamVid
    lists.sort(key=lambda name: (name.split("_")[0] in kinds, name.startswith("clothing"), len(name), name))
    every = {row["list"]: row["models"]["student"] for row in _rows("val")}
    clothing = [row for row in _rows("curve_clothing") if row["list"] == "all"]
    every["all masks of clothing"] = max(clothing, key=lambda row: int(row["steps"]))
    panels, most = {}, {}
    for where, told in (("unlabeled", "unlabeled images"), ("val", "unseen images")):
        for score, title in SCORES.items():
            panel = f"{told}, {title}"
            panels[panel] = {
                _told(name): {m: [_scores(row, where)[score] for row in found[name, m]] for m in METHODS}
                for name in lists
            }
            if where == "val":
                known = {name: every.get(_all_masks(name)) for name in lists}
                most[panel] = {_told(name): reached[score] for name, reached in known.items() if reached}
    list_by_list(panels, PAGE / "lists.png", most=most)
    for name in ("curve", "curve_clothing"):
        learning_curve(_curve(name), PAGE / f"{name}.png")


def _rows(name: str) -> list[dict[str, Any]]:
    """Read the figures of that name."""
    rows: list[dict[str, Any]] = json.loads((PAGE / "figures" / f"{name}.json").read_text())
    return rows


def _scores(row: dict[str, Any], where: str) -> dict[str, float]:
    """Scores of a row on its unlabeled images, or on val."""
    scores: dict[str, float] = row["unlabeled"] if where == "unlabeled" else row["models"]["student"]
    return scores


def _curve(name: str) -> dict[str, dict[str, dict[int, list[float]]]]:
    """Score -> length of the training -> number of masks -> what each draw of so many gives on val images."""
    points: dict[str, dict[str, dict[int, list[float]]]] = {title: {} for title in SCORES.values()}
    for row in _rows(name):
        for score, title in SCORES.items():
            by_masks = points[title].setdefault(f"supervised, {row['steps']} steps", {})
            by_masks.setdefault(row["masks"], []).append(row[score])
    return points


def _told(name: str) -> str:
    """Name a list as the page does."""
    return name.replace("_", " ")


def _all_masks(name: str) -> str:
    """Name the row that has learnt from the masks of all images of a list."""
    if name.startswith("clothing"):
        return "all masks of clothing"
    return f"all masks of {name}" if "_" in name else "all 367 masks"


if __name__ == "__main__":
    main()
