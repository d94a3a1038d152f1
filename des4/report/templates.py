"""How pages are made: templates that escape whatever they show, pictures that lie inside the page, and its contents.

A page stands alone: it needs no script, no font and no network. It follows the reader's light or dark setting, and fits
a phone: a diagram is there twice, wide and narrow, and the browser shows the one that fits.
"""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape
from PIL import Image

from des4.report import plots

Address = str
"""Of a picture that lies inside the page."""

Drawn = dict[str, dict[str, Address]]
"""Diagrams by name, each as `diagram` returns it."""

PICTURES = 2_000_000
"""Bytes of all pictures of a page, so that it stays below 3 MB: in it they grow by a third, and text comes on top."""
DIAGRAMS = 1_400_000
"""Bytes of them that diagrams may take; photographs get what these leave."""
SIZES = ((1.0, 82), (0.8, 78), (0.66, 74), (0.5, 68), (0.4, 60))
"""Scale and quality of photographs, tried one after the other until they fit."""
SHRINK, LEAST = 0.8, 0.02
"""What a scale is multiplied with where that was not enough, as often as it takes; and where that ends."""
LONGEST = 16_000
"""Pixels of a side that a WebP may have, nearly."""
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
    env.filters["code"] = code
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
        found[name] = _flat(Image.open(file))
    return found


def _flat(picture: Image.Image) -> Address:
    """Keep a diagram without loss but for rare shades, which is a quarter of the bytes of its PNG."""
    if max(picture.size) > LONGEST:
        picture = picture.convert("RGB").resize(_scaled(picture.size, LONGEST / max(picture.size)))
    few = picture.convert("RGB").quantize(128, dither=Image.Dither.NONE).convert("RGB")
    file = BytesIO()
    few.save(file, "WEBP", lossless=True, quality=50, method=2)  # more effort brings next to nothing
    return _address("webp", file.getvalue())


@dataclass(frozen=True)
class Fitted:
    """Diagrams that a page has room for. room: bytes left for photographs. said: what they lost; empty if nothing."""

    figures: list[Drawn]
    room: int
    said: str


def fit(figures: Sequence[Drawn], most: int = DIAGRAMS) -> Fitted:
    """Bring the diagrams of a page into so few bytes.

    Narrow copies go first, the largest before others, and if that is not enough, wide ones lose sharpness.
    """
    kept = [{name: dict(drawn) for name, drawn in each.items()} for each in figures]
    every = [drawn for each in kept for drawn in each.values()]
    lost, scale = 0, 1.0
    for drawn in sorted(every, key=lambda drawn: -len(drawn.get("narrow", ""))):
        if "narrow" in drawn and _bytes(every) > most:
            del drawn["narrow"]
            lost += 1
    wide = [drawn["wide"] for drawn in every]
    while _bytes(every) > most and scale > LEAST:
        scale *= SHRINK
        for drawn, address in zip(every, wide, strict=True):
            drawn["wide"] = _smaller(address, scale)
    said = []
    if lost:
        said.append(f"{lost} of the {len(every)} diagrams have no copy for the width of a phone")
    if scale < 1:
        said.append(f"diagrams have {scale:.0%} of their sharpness")
    told = f"So that this page stays below 3 MB, {' and '.join(said)}." if said else ""
    return Fitted(kept, PICTURES - _bytes(every), told)


def _bytes(diagrams: Sequence[Mapping[str, Address]]) -> int:
    return sum(len(address) * 3 // 4 for drawn in diagrams for address in drawn.values())


def _smaller(address: Address, scale: float) -> Address:
    with Image.open(BytesIO(base64.b64decode(address.partition(",")[2]))) as picture:
        return _flat(picture.resize(_scaled(picture.size, scale), Image.Resampling.LANCZOS))


def photographs(pictures: Mapping[str, Path | Image.Image], most: int = PICTURES) -> dict[str, Address]:
    """Return pictures that hold photographs as addresses, all of them in so few bytes; name -> file or image.

    They lose as much size and quality as they have to.
    """
    files: dict[str, bytes] = {}
    for scale, quality in _sizes():
        files = {name: _photograph(picture, scale, quality) for name, picture in pictures.items()}
        if sum(map(len, files.values())) <= most:
            break
    return {name: _address("webp", data) for name, data in files.items()}


def _sizes() -> Iterator[tuple[float, int]]:
    yield from SIZES
    scale, quality = SIZES[-1]
    while scale > LEAST:
        scale *= SHRINK
        yield scale, quality


def _photograph(picture: Path | Image.Image, scale: float, quality: int) -> bytes:
    """Return a picture as WebP. Raises RunError for a file that holds none."""
    file = BytesIO()
    try:
        with Image.open(picture) if isinstance(picture, Path) else nullcontext(picture) as opened:
            size = _scaled(opened.size, min(scale, LONGEST / max(opened.size)))
            opened.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(file, "WEBP", quality=quality)
    except (OSError, SyntaxError) as error:
        from des4.types import RunError  # imports torch, which a report does without

        raise RunError(f"{picture} cannot be read as a picture; remove it") from error
    return file.getvalue()


def _scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(1, round(scale * size[0])), max(1, round(scale * size[1]))


def _address(kind: str, data: bytes) -> Address:
    return f"data:image/{kind};base64," + base64.b64encode(data).decode()


def code(text: str) -> Markup:
    """Escape a text and set what stands between backticks, as a terminal shows it, as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped before


def duration(seconds: float) -> str:
    """Write a duration with its two largest units."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
