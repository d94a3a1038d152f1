"""Numbers and names as diagrams, tables and pages write them."""

from __future__ import annotations

import math
import re
import textwrap


def percent(value: float | None, digits: int = 1) -> str:
    """Write a fraction as a percentage without its sign, and what does not occur as a dash."""
    return "–" if value is None or math.isnan(value) else f"{100 * value:.{digits}f}"


def bar_length(value: float | None) -> float:
    """Return the length of a bar: 0 for what does not occur, since its dash stands at the axis."""
    return 0.0 if value is None or math.isnan(value) else 100 * value


def share_of_pixels(value: float) -> str:
    """Write a pixel share so that a rare class does not read as 0."""
    return f"{100 * value:.1f} %" if value >= 0.001 or value == 0 else "< 0.1 %"


def short_number(value: float) -> str:
    """Write a count so that it takes little room."""
    return f"{value:.0f}" if value < 10_000 else f"{value / 1000:.0f}k" if value < 1_000_000 else f"{value / 1e6:.1f}M"


def short_name(name: str) -> str:
    """Cut a name that is too long for the title of a small panel."""
    return name if len(name) <= 14 else f"{name[:13]}…"


def in_lines(label: str, width: int) -> str:
    """Break a label into lines, after `_`, `=` and `/` where a word is too long for one."""
    lines = [""]
    for piece in re.findall(r"[^ _=/]*[ _=/]?", label):
        if lines[-1] and len(lines[-1] + piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(part for line in lines for part in textwrap.wrap(line, width))
