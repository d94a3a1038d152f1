"""The verb `des4 methods`. torch is imported inside it, so that --help is quick."""

from __future__ import annotations

import re
import sys
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

WIDE = 120
"""Columns of a terminal that holds a table with a line or two a method."""


def methods() -> None:
    """List the methods."""
    from des4.methods import METHODS

    console = Console()
    if console.width >= WIDE:
        table = Table("name", "method", "views", "paper", header_style="bold", border_style="dim")
        for name, cls in METHODS.items():
            table.add_row(name, *(Text(cell) for cell in (_summary(cls), _views(cls), _paper(cls))))
    else:  # one below the other, else the columns are a few words wide
        table = Table(Column(style="bold", no_wrap=True), Column(), box=None, show_header=False, pad_edge=False)
        for name, cls in METHODS.items():
            facts = " · ".join(cell for cell in (_paper(cls), f"views: {_views(cls)}") if cell != "–")
            table.add_row(name, Text(_summary(cls)) + Text(f"\n{facts}", style="dim"))
    console.print(table)


def _summary(cls: type) -> str:
    """Return the first line of the docstring of a method's module."""
    return _docstring(cls)[0].rstrip(".")


def _paper(cls: type) -> str:
    """Return authors and year, which open the second paragraph of that docstring where there is a paper."""
    text = " ".join(" ".join(_docstring(cls)[1:]).split())
    found = re.match(r'([\w&. ]+, )(?:"[^"]+", )?(\w+ \d{4})', text)
    return "".join(found.groups()) if found else "–"


def _docstring(cls: type) -> list[str]:
    return (sys.modules[cls.__module__].__doc__ or "").strip().split("\n\n")


def _views(cls: Any) -> str:
    strong = cls.VIEWS.strong
    return f"weak, {strong} strong" if strong else "labeled only"
