"""Label maps made visible: class colours, overlays, and grids of image, truth and predictions.

Colours belong to the data set: `palette` is its tuple of C RGB triples, 0 to 255.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from matplotlib import get_data_path
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Palette = Sequence[tuple[int, int, int]]
Pixels = NDArray[np.uint8]

NEUTRAL = (255, 255, 255)
"""The colour of every label outside the palette, of which 255 (ignored) is the usual one."""

CELL, GAP, TEXT = 360, 12, 22  # pixels; the page shows four columns at two thirds of it: 14-pixel text
INK, GREY, FRAME = (48, 54, 61), (95, 104, 113), (208, 214, 220)


def colourise(label: NDArray[Any], palette: Palette) -> Pixels:
    """Turn a label map, (H, W) integers, into RGB, (H, W, 3) uint8. Labels outside the palette become NEUTRAL."""
    colours = np.array([*palette, NEUTRAL], dtype=np.uint8)
    known = (label >= 0) & (label < len(palette))
    return colours[np.where(known, label, len(palette))]


def overlay(image: Pixels, label: NDArray[Any], palette: Palette, alpha: float = 0.5) -> Pixels:
    """Lay class colours over an image, both H×W; `alpha` in [0, 1] is the colour's part.

    Pixels labeled outside the palette show the bare image.
    """
    known = ((label >= 0) & (label < len(palette)))[..., None]
    blend = (1 - alpha) * image + alpha * colourise(label, palette).astype(float)
    return np.where(known, blend.round(), image).astype(np.uint8)


def grid(
    rows: Sequence[Sequence[NDArray[Any]]],
    columns: Sequence[str],
    palette: Palette,
    classes: Sequence[str],
    path: Path | IO[bytes],
    captions: Sequence[str] = (),
) -> None:
    """Write a grid of pictures with column headings and a legend of the classes that occur in it, as PNG.

    rows: a row is a sample: its image (H, W, 3) uint8, then label maps (H, W): truth and predictions.
    captions: one line of text above each row, such as its id and IoU; none by default.
    """
    if not rows or any(len(row) != len(columns) for row in rows):
        raise ValueError(f"a grid needs rows of {len(columns)} pictures ({', '.join(columns)})")
    if captions and len(captions) != len(rows):
        raise ValueError(f"{len(captions)} captions for {len(rows)} rows")
    regular, bold = (font(name) for name in ("DejaVuSans", "DejaVuSans-Bold"))
    pictures = [[_fit(cell, palette) for cell in row] for row in rows]
    width = GAP + len(columns) * (CELL + GAP)
    present = set().union(*(np.unique(cell).tolist() for row in rows for cell in row if cell.ndim == 2))
    legend = [(classes[i], palette[i]) for i in range(len(classes)) if i in present]
    if present - set(range(len(classes))):
        legend.append(("not labeled", NEUTRAL))
    places, legend_height = _flow([int(regular.getlength(name)) for name, _ in legend], width)

    line = TEXT + GAP
    heights = [max(cell.height for cell in row) + GAP + (line if captions else 0) for row in pictures]
    sheet = Image.new("RGB", (width, line + GAP + sum(heights) + GAP + legend_height + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for i, heading in enumerate(columns):
        draw.text((GAP + i * (CELL + GAP), GAP), heading, INK, bold)
    top = line + GAP
    for r, row in enumerate(pictures):
        below = top
        if captions:
            draw.text((GAP, top), captions[r], GREY, regular)
            below += line
        for i, cell in enumerate(row):
            left = GAP + i * (CELL + GAP)
            sheet.paste(cell, (left, below))
            draw.rectangle((left - 1, below - 1, left + cell.width, below + cell.height), outline=FRAME)
        top += heights[r]
    top += GAP
    for (name, colour), (x, y) in zip(legend, places, strict=True):
        draw.rounded_rectangle((x, top + y, x + TEXT, top + y + TEXT), 4, colour, FRAME)
        draw.text((x + TEXT + 8, top + y + TEXT // 2), name, INK, regular, anchor="lm")
    sheet.save(path, format="PNG")


def _fit(picture: NDArray[Any], palette: Palette) -> Image.Image:
    """Scale an image or label map into a CELL×CELL square; labels keep hard edges."""
    is_label = picture.ndim == 2
    image = Image.fromarray(colourise(picture, palette) if is_label else picture)
    scale = CELL / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.NEAREST if is_label else Image.Resampling.LANCZOS)


def _flow(lengths: Sequence[int], width: int) -> tuple[list[tuple[int, int]], int]:
    """Place swatches with names of the given lengths in lines of `width`; return the places and the height."""
    places, x, y = [], GAP, 0
    for length in lengths:
        step = TEXT + 8 + length + 2 * GAP
        if x > GAP and x + step > width:
            x, y = GAP, y + TEXT + GAP
        places.append((x, y))
        x += step
    return places, y + TEXT


def font(name: str) -> ImageFont.FreeTypeFont:
    """Load the face of the diagrams, which comes with matplotlib."""
    return ImageFont.truetype(str(Path(get_data_path(), "fonts", "ttf", f"{name}.ttf")), TEXT)
