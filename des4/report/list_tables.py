"""What `des4 data splits` and `des4 data protocols` print, from plain facts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text


def draws_table(facts: Mapping[str, Any]) -> RenderableType:
    """Show how many labeled images of each draw show a class, and its share of their pixels in per cent.

    facts: what splits.json holds. Classes that a draw lacks are named below the table.
    """
    draws = facts["draws"]
    table = _table(
        Column("images %", overflow="fold"), *(Column(name, justify="right", no_wrap=True) for name in draws)
    )
    parts = [draw["classes"] for draw in draws.values()]
    for name in parts[0]:
        table.add_row(Text(name), *(_cell(**part[name]) for part in parts))
    table.add_section()
    table.add_row("labeled", *(str(draw["labeled"]["images"]) for draw in draws.values()))
    if all("fine" in draw["labeled"] for draw in draws.values()):
        table.add_row("finely annotated", *(str(draw["labeled"]["fine"]) for draw in draws.values()))
    table.add_row("unlabeled", *(str(draw["unlabeled"]["images"]) for draw in draws.values()))
    return Group(table, *(Text(f"! {text}", "yellow") for text in _absent(facts)))


def _absent(facts: Mapping[str, Any]) -> Iterator[str]:
    """Name the classes that no image to draw from shows, where all were looked at, and those that a draw lacks."""
    never = facts["never_shown"] or []
    if never:
        yield f"no image with a mask shows {', '.join(never)}"
    remedy = "draw more images" if facts["rule"] == "stratified" else "draw more images, or draw --stratified"
    for name, draw in facts["draws"].items():
        if absent := [c for c, part in draw["classes"].items() if not part["images"] and c not in never]:
            yield f"{name}: no labeled image shows {', '.join(absent)}; {remedy}"


def _cell(images: int, pixels: int, share: float) -> Text:
    """Write the two numbers short enough for five draws in 80 columns."""
    per_cent = 100 * share
    return Text(
        f"{images} {per_cent:5.1f}" if per_cent >= 10 else f"{images} {per_cent:5.2f}", "" if pixels else "yellow"
    )


def protocols_table(protocols: Iterable[Sequence[str]], sources: Mapping[str, str], found: bool) -> RenderableType:
    """Show published protocols, a section a family, and where their lists are published.

    protocols: of each its name, its fraction, its numbers of labeled, finely annotated and unlabeled images, and with
    `found` where its two lists are. sources: family → title and repositories.
    """
    numbers = (Column(name, justify="right") for name in ("fraction", "labeled", "fine", "unlabeled"))
    place = (Column("lists", overflow="fold"),) if found else ()
    table = _table(Column("protocol", no_wrap=True), *numbers, *place)
    family = None
    for name, *cells in protocols:
        if family not in (None, name.rpartition("/")[0]):
            table.add_section()
        family = name.rpartition("/")[0]
        table.add_row(*map(Text, (name, *cells)))
    return Group(table, *(Text.assemble((name, "bold"), f": {text}") for name, text in sources.items()))


def _table(*columns: Column | str) -> Table:
    return Table(*columns, box=SIMPLE_HEAD, pad_edge=False, header_style="bold", border_style="dim")
