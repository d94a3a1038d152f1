"""The page of `des4 next`: which images were picked, why, what the network sees in them, and a contact sheet.

It stands alone, as `report.html` does: pictures are inlined, it needs no script, no font and no network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from des4.report import plots
from des4.report.pictures import CELL, FRAME, GAP, GREY, INK, TEXT, Palette, font, overlay
from des4.report.templates import diagram, fit, photographs, render

MOST = 60
"""Picks that the page shows with pictures; the others are in its table alone, so that it stays a page to open."""
SIDE = 480
"""Pixels of the longer side of a picture on the page."""
_COLUMNS = 5


@dataclass(frozen=True)
class Card:
    """What is shown of a pick.

    name: of the image. image: (h, w, 3) uint8; labels: (h, w) class indices; entropy: (h, w) in [0, 1], the part of the
    most there can be; None where it was not kept. reasons: a sentence each. figures: title → number as text and the
    part of the images that are below. classes: (name, share of the pixels, RGB) of the largest.
    """

    name: str
    image: NDArray[np.uint8]
    labels: NDArray[Any]
    entropy: NDArray[np.float32] | None
    reasons: Sequence[str]
    figures: Mapping[str, tuple[str, float]]
    classes: Sequence[tuple[str, float, tuple[int, int, int]]]


@dataclass(frozen=True)
class Facts:
    """What is said above the cards.

    pool, labeled, skipped: numbers of images. rule, rule_text: its name, and what it does. classes: name, share of the
    labeled pixels, of those predicted in the pool, and in the picks. places: (N, 2) of images on a plane where like
    lies by like, and for each of them 0 = left, 1 = labeled, 2 = picked. train: the command for afterwards.
    """

    run: str
    pool: int
    labeled: int
    skipped: Mapping[str, str]
    rule: str
    rule_text: str
    classes: Sequence[tuple[str, float, float, float]]
    places: NDArray[np.float32]
    kinds: NDArray[np.int8]
    train: str
    notes: Sequence[str]


def next_page(facts: Facts, cards: Sequence[Card], palette: Palette) -> str:
    """Write the page."""
    plane = {"plane": diagram(partial(_plane, facts=facts))} if len(facts.places) > 2 else {}
    fitted = fit([plane])
    seen = [_pictures(card, palette) for card in cards[:MOST]]
    addresses = photographs(
        {f"{number} {title}": picture for number, each in enumerate(seen) for title, picture in each.items()},
        fitted.room,
    )
    return render(
        "next_page.html",
        facts=facts,
        cards=[
            {"card": card, "pictures": {title: addresses[f"{number} {title}"] for title in seen[number]}}
            for number, card in enumerate(cards[:MOST])
        ],
        others=[card.name for card in cards[MOST:]],
        longest=max((max(row[1:]) for row in facts.classes), default=1.0) or 1.0,
        plane=fitted.figures[0].get("plane"),
        fitted=fitted.said,
        scale=photographs({"": Image.fromarray(entropy_picture(np.linspace(0, 1, 256, dtype=np.float32)[None]))})[""],
    )


def contact_sheet(cards: Sequence[Card], palette: Palette, path: Path) -> None:
    """Write one PNG with all picks: each image, half of it under the colours of its classes."""
    regular = font("DejaVuSans")
    columns = min(_COLUMNS, len(cards))
    line, rows = TEXT + GAP, -(-len(cards) // columns)
    sheet = Image.new("RGB", (GAP + columns * (CELL + GAP), GAP + rows * (CELL + line + GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, card in enumerate(cards):
        left = GAP + number % columns * (CELL + GAP)
        top = GAP + number // columns * (CELL + line + GAP)
        under = overlay(card.image, card.labels, palette)
        half = card.image.shape[1] // 2
        picture = Image.fromarray(np.concatenate([card.image[:, :half], under[:, half:]], 1))
        picture = picture.resize(_fitted(picture.size, CELL), Image.Resampling.LANCZOS)
        sheet.paste(picture, (left, top + line))
        draw.rectangle((left - 1, top + line - 1, left + picture.width, top + line + picture.height), outline=FRAME)
        place, name = f"{number + 1}  ", card.name
        while len(name) > 2 and regular.getlength(place + name) > CELL:
            name = f"…{name[2:]}"
        draw.text((left, top), place, INK, font("DejaVuSans-Bold"))
        draw.text((left + font("DejaVuSans-Bold").getlength(place), top), name, GREY, regular)
    sheet.save(path, format="PNG")


def entropy_picture(entropy: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colour a map (h, w) of values in [0, 1], dark to bright: (h, w, 3)."""
    coloured: NDArray[np.uint8] = colormaps["magma"](np.clip(entropy, 0, 1), bytes=True)[..., :3]
    return coloured


def _pictures(card: Card, palette: Palette) -> dict[str, Image.Image]:
    """Return what is shown of a pick, no larger than the page shows it."""
    pictures = {"image": card.image, "prediction": overlay(card.image, card.labels, palette, 0.6)}
    if card.entropy is not None:
        pictures["entropy"] = entropy_picture(card.entropy)
    return {title: _small(Image.fromarray(pixels)) for title, pixels in pictures.items()}


def _small(picture: Image.Image) -> Image.Image:
    if max(picture.size) <= SIDE:
        return picture
    return picture.resize(_fitted(picture.size, SIDE), Image.Resampling.LANCZOS)


def _fitted(size: tuple[int, int], side: int) -> tuple[int, int]:
    scale = side / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _plane(file: plots.Target, narrow: bool, facts: Facts) -> None:
    """Draw the images on their plane."""
    looks = {0: ("left in the pool", plots.GREY, 9, 0.35), 1: ("labeled", plots.BLUE, 26, 0.8),
             2: ("picked", plots.ORANGE, 46, 1.0)}  # fmt: skip
    with plots.canvas(file, plots.NARROW if narrow else plots.WIDTH, 3.6) as figure:
        axes = figure.add_subplot()
        for kind, (name, colour, size, alpha) in looks.items():
            chosen = facts.places[facts.kinds == kind]
            if len(chosen):
                axes.scatter(chosen[:, 0], chosen[:, 1], s=size, c=colour, alpha=alpha, linewidths=0, label=name)
        picked = facts.places[facts.kinds == 2]
        for number, (x, y) in enumerate(picked[:MOST]):
            axes.annotate(str(number + 1), (x, y), (4, 4), textcoords="offset points", fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.3)
