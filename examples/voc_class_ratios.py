"""How imbalanced the published Pascal VOC lists are: class pixels and sampling ratios R of each.

python examples/voc_class_ratios.py MASKS LISTS [--out FOLDER]

MASKS: a folder with the masks of the 10,582 training and 1,449 val images, `<id>.png` (SegmentationClassAug).
LISTS: a folder with published lists, for instance clones of the repositories that `des4 data protocols` names; those
that it holds are counted. Into FOLDER, docs/results by default, go the tables of voc_class_ratios.md (what stands above
them is kept), voc_class_ratios.csv with every number, and voc_class_ratios.png.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.colors import LogNorm
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from des4.datasets.files import scan
from des4.datasets.lists import read_list, sample_name
from des4.datasets.masks import IndexMask
from des4.datasets.protocols import FAMILIES, PROTOCOLS, VAL_LISTS, find_all_lists, list_hash, read_lists
from des4.datasets.voc import CLASSES
from des4.ops.sampling import class_ratio
from des4.report.plots import canvas

NAME = "voc_class_ratios"
MARK = "<!-- from here on written by examples/voc_class_ratios.py -->"


@dataclass(frozen=True)
class Counted:
    """A list and the pixels of each class in it. kind: labeled, unlabeled, or empty for what is no such list."""

    name: str
    kind: str
    images: int
    pixels: NDArray[np.int64]

    @property
    def ratio(self) -> NDArray[np.float64]:
        """R of each class."""
        return class_ratio(torch.from_numpy(self.pixels)).numpy()

    @property
    def share(self) -> NDArray[np.float64]:
        """Share of each class in the pixels that have one."""
        return self.pixels / self.pixels.sum()

    @property
    def by_share(self) -> list[int]:
        """The classes that occur, rarest first."""
        return [c for c in np.argsort(self.pixels, kind="stable").tolist() if self.pixels[c]]

    @property
    def imbalance(self) -> float:
        """Pixels of the most frequent class over those of the rarest that occurs."""
        return float(self.pixels[self.by_share[-1]] / self.pixels[self.by_share[0]])


# ── counting ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def published_lists(folder: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Yield name, kind and sample names of each VOC list that is there, then of the pool they share and of val."""
    held = find_all_lists(folder)
    pool: set[str] = set()
    for name in (name for name in PROTOCOLS if name.startswith("voc/") and len(held.get(name, ())) == 2):
        pair = [[sample_name(entry) for entry, _ in read_list(held[name][kind])] for kind in ("labeled", "unlabeled")]
        pool = {*pair[0], *pair[1]}
        yield name, "labeled", pair[0]
        yield name, "unlabeled", pair[1]
    if not pool:
        raise SystemExit(f"{folder}: holds no published list of Pascal VOC; see docs/protocols.md")
    yield "all training images", "", sorted(pool)
    images, wanted = VAL_LISTS["voc"]
    val = next((names for _, names in read_lists(folder, [images]) if list_hash(names) == wanted), None)
    if val:
        yield "val", "", [sample_name(name) for name in val]


def count(masks: Mapping[str, Path], lists: Iterable[tuple[str, str, list[str]]]) -> list[Counted]:
    """Count every mask once, and add up the lists."""
    lists = list(lists)
    ids = sorted({sample_id for _, _, listed in lists for sample_id in listed})
    if missing := [sample_id for sample_id in ids if sample_id not in masks]:
        raise SystemExit(f"{missing[0]}.png: no such mask among those given ({len(missing)} are missing)")
    pixels = {
        sample_id: np.bincount(IndexMask(masks[sample_id]).read().numpy().ravel(), minlength=256)[: len(CLASSES)]
        for sample_id in track(ids, "counting masks")
    }
    return [Counted(name, kind, len(ids), np.sum([pixels[i] for i in ids], 0)) for name, kind, ids in lists]


# ── what is written ──────────────────────────────────────────────────────────────────────────────────────────────────


def tables(counted: Sequence[Counted]) -> str:
    """Write the tables of the page as Markdown."""
    labeled = [one for one in counted if one.kind == "labeled"]
    blocks = [
        "## Every list",
        "*Imbalance*: pixels of the most frequent class, which is background everywhere, over those of the rarest. "
        "*R*: of background, and the median over the classes.",
        summary(counted),
        "## Pixels and R of the labeled lists",
    ]
    for family in FAMILIES:
        if own := [one for one in labeled if one.name.startswith(f"{family}/")]:
            blocks += [f"### {family}", by_class(own)]
    return "\n\n".join(blocks) + "\n"


def summary(counted: Sequence[Counted]) -> str:
    """Tabulate a line for each list."""
    head = [
        "list",
        "",
        "images",
        "largest share",
        "smallest share",
        "imbalance",
        "R, background",
        "R, median",
        "absent",
    ]
    rows = [
        [
            one.name,
            one.kind,
            str(one.images),
            f"{100 * one.share.max():.1f} %",
            f"{CLASSES[one.by_share[0]]} {100 * one.share[one.by_share[0]]:.2f} %",
            f"{one.imbalance:.0f}",
            f"{one.ratio[0]:.4f}",
            f"{np.median(one.ratio):.2f}",
            str(len(CLASSES) - len(one.by_share)),
        ]
        for one in counted
    ]
    return markdown(head, rows, left=2)


def by_class(lists: Sequence[Counted]) -> str:
    """Tabulate pixels and R of every class, two columns a list."""
    head = ["class", *(text for one in lists for text in (f"{one.images}: pixels", "R"))]
    rows = [
        [name, *(text for one in lists for text in (f"{one.pixels[c]:,}", f"{one.ratio[c]:.4f}"))]
        for c, name in enumerate(CLASSES)
    ]
    return markdown(head, rows)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Write a table whose columns from `left` on hold numbers."""
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def write_csv(path: Path, counted: Sequence[Counted]) -> None:
    """Write a line for each list and class."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["list", "kind", "images", "class", "pixels", "share", "ratio"])
        for one in counted:
            for c, name in enumerate(CLASSES):
                shown = [name, int(one.pixels[c]), f"{one.share[c]:.6f}", f"{one.ratio[c]:.6f}"]
                writer.writerow([one.name, one.kind, one.images, *shown])


def draw(path: Path, counted: Sequence[Counted]) -> None:
    """Draw R of every class and labeled list; classes by their share in all training images, lists by family."""
    lists = [one for one in counted if one.kind == "labeled"]
    everything = next(one for one in counted if not one.kind)
    order = everything.by_share[::-1]
    ratios = np.array([[one.ratio[c] for one in lists] for c in order])
    with canvas(path, 9, 7) as figure:
        axes = figure.add_subplot()
        axes.grid(False)
        axes.imshow(ratios, cmap="cividis", norm=LogNorm(0.001, 1), aspect="auto")
        for row, column in np.ndindex(*ratios.shape):
            value = ratios[row, column]
            text = f"{value:.3f}" if value < 0.01 else f"{value:.2f}"
            axes.text(
                column, row, text, ha="center", va="center", fontsize=7, color="white" if value < 0.05 else "black"
            )
        axes.set_xticks(range(len(lists)), [str(one.images) for one in lists])
        axes.set_yticks(range(len(order)), [f"{CLASSES[c]}  {100 * everything.share[c]:.1f} %" for c in order])
        axes.tick_params(length=0)
        axes.set_xlabel("labeled images")
        families = [one.name.split("/")[1] for one in lists]
        for column, family in enumerate(families):
            if column and family != families[column - 1]:
                axes.axvline(column - 0.5, color="white", linewidth=4)
            if family not in families[:column]:
                middle = column + (families.count(family) - 1) / 2
                axes.text(middle, -0.8, family, ha="center", weight="bold")
        axes.spines[:].set_visible(False)
    Image.open(path).quantize(128).save(path, optimize=True)


def main() -> None:
    """Count and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("masks", type=Path)
    parser.add_argument("lists", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = parser.parse_args()
    counted = count(scan(args.masks, {".png"}), published_lists(args.lists))
    args.out.mkdir(parents=True, exist_ok=True)
    page = args.out / f"{NAME}.md"
    above = page.read_text(encoding="utf-8").partition(MARK)[0] if page.exists() else ""
    page.write_text(f"{above}{MARK}\n\n{tables(counted)}", encoding="utf-8")
    write_csv(args.out / f"{NAME}.csv", counted)
    draw(args.out / f"{NAME}.png", counted)


if __name__ == "__main__":
    main()
