"""How pages are made: templates that escape whatever they show, pictures that lie inside the page, and its contents.

A page stands alone: it needs no script, no font and no network. It follows the reader's light or dark setting, and fits
a phone: a diagram is there twice, wide and narrow, and the browser shows the one that fits.
"""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from des4.report import plots

Address = str
"""Of a picture that lies inside the page."""

PHOTOGRAPHS = 1_600_000
"""Bytes that the photographs of a page may take, so that it stays below 3 MB, in which a picture grows by a third."""
SIZES = ((1.0, 82), (0.8, 78), (0.66, 74), (0.5, 68), (0.4, 60))
"""Scale and quality of photographs, tried one after the other until they fit."""
CONTENTS = "<!-- contents -->"
"""Where a page has its table of contents."""


def render(file: str, **values: Any) -> str:
    """Fill a template that lies beside this file; the headings with an id make the table of contents."""
    page = _template(file).render(**values)
    found = re.findall(r'<h2 id="([^"]+)">(.*?)</h2>', page)
    links = " ".join(f'<a href="#{place}">{title}</a>' for place, title in found)
    return page.replace(CONTENTS, f'<nav class="contents" aria-label="Contents">{links}</nav>' if links else "")


def _template(name: str) -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    env = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    env.filters["percent"] = plots.percent
    env.filters["duration"] = duration
    env.filters["quote"] = lambda value: shlex.quote(str(value))
    env.filters["pieces"] = pieces
    return env.get_template(name)


def pieces(text: str) -> list[str]:
    """Cut names of settings and paths where a reader would break them, which a browser would do in a word's middle."""
    return re.split(r"(?<=[_=/])(?=\w)|(?<=\.)(?=[a-z])", text)


def diagram(draw: Callable[..., None], path: Path | None = None, narrow: bool = True) -> dict[str, Address]:
    """Draw a diagram wide and narrow; return the addresses under `wide` and `narrow`.

    draw: takes a path or a file, and `narrow`. path: a file to keep the wide one in. narrow: False where the wide one
    is small enough.
    """
    found = {}
    for name in ("wide", "narrow") if narrow else ("wide",):
        file = BytesIO()
        draw(file, narrow=name == "narrow")
        if path is not None and name == "wide":
            path.write_bytes(file.getvalue())
        flat = Image.open(file).convert("RGB").quantize(128, dither=Image.Dither.NONE)  # a third of the bytes
        small = BytesIO()
        flat.save(small, format="PNG", optimize=True)
        found[name] = _address("png", small.getvalue())
    return found


def photographs(paths: Mapping[str, Path], most: int = PHOTOGRAPHS) -> dict[str, Address]:
    """Return pictures that hold photographs as addresses, all of them in so few bytes; name -> file.

    They lose as much size and quality as they have to.
    """
    files: dict[str, bytes] = {}
    for scale, quality in SIZES:
        files = {name: _photograph(path, scale, quality) for name, path in paths.items()}
        if sum(map(len, files.values())) <= most:
            break
    return {name: _address("webp", data) for name, data in files.items()}


def _photograph(path: Path, scale: float, quality: int) -> bytes:
    file = BytesIO()
    with Image.open(path) as picture:
        # the format ends at 16383 pixels a side
        scale = min(scale, 16000 / max(picture.size))
        size = (max(1, round(scale * picture.width)), max(1, round(scale * picture.height)))
        picture.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(file, "WEBP", quality=quality)
    return file.getvalue()


def _address(kind: str, data: bytes) -> Address:
    return f"data:image/{kind};base64," + base64.b64encode(data).decode()


def duration(seconds: float) -> str:
    """Write a duration with its two largest units."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
