"""How pages are made: templates that escape whatever they show, and pictures that lie inside the page."""

from __future__ import annotations

import base64
import shlex
from pathlib import Path

import jinja2

from des4.report import plots


def template(name: str) -> jinja2.Template:
    """Load a template that lies beside this file."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    env = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    env.filters["percent"] = plots.percent
    env.filters["duration"] = _duration
    env.filters["quote"] = lambda value: shlex.quote(str(value))
    return env.get_template(name)


def inline(path: Path) -> str:
    """Return a PNG or JPEG as the address of an image."""
    kind = "png" if path.suffix == ".png" else "jpeg"
    return f"data:image/{kind};base64," + base64.b64encode(path.read_bytes()).decode()


def _duration(seconds: float) -> str:
    """Write a duration with its two largest units."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
