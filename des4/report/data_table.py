"""What `des4 data check` prints: the classes, the sizes, and the findings by kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import PurePath
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from des4.report.plots import percent

COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}
MOST = 5
"""Findings of a kind that are printed; all are in the JSON."""

BAR = 16
"""Width of the longest bar, in characters."""

Summary = Mapping[str, Any]
"""The JSON of `des4 data check`."""


def overview(summary: Summary) -> RenderableType:
    """Lay out what the data hold: counts, classes, sizes."""
    return Group(*_overview(summary))


def findings(summary: Summary) -> RenderableType:
    """Lay out the findings by kind, worst last, so that they stand next to the prompt, and the verdict."""
    kinds = [list(group) for _, group in groupby(summary["findings"], lambda f: (f["severity"], f["code"]))]
    return Group(*(_kind(group, summary["root"]) for group in reversed(kinds)), verdict(summary))


def verdict(summary: Summary) -> Text:
    """Count the findings in a line."""
    counts = [(severity, summary[f"{severity}s"]) for severity in COLOURS]
    parts = [Text(plural(count, severity), style=COLOURS[severity]) for severity, count in counts if count]
    return Text(" · ").join(parts) if parts else Text("nothing to complain of", style="green")


def plural(count: int, noun: str) -> str:
    """Write a count with its noun."""
    return f"{count} {noun}" + ("s" if count != 1 else "")


def share(value: float) -> str:
    """Write a pixel share in %, so that a rare class does not read as none."""
    return "<0.01" if 0 < value < 0.5e-4 else percent(value, 2)


def in_root(path: str, root: str) -> str:
    """Shorten a path inside the data folder."""
    inside = PurePath(path).is_relative_to(root) and path != root
    return str(PurePath(path).relative_to(root)) if inside else path


def by_share(classes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Sort classes by their share of the labeled pixels, most frequent first."""
    return sorted(classes, key=lambda c: (-c["labeled"]["pixels"], -c["val"]["pixels"]))


def sizes_line(sizes: Sequence[Mapping[str, int]]) -> str:
    """Say in a line which sizes images have. sizes: most frequent first."""
    if not sizes:
        return "no image could be read"
    first = f"{sizes[0]['width']}×{sizes[0]['height']}"
    if len(sizes) == 1:
        return f"all images are {first} pixels"
    total = sum(size["images"] for size in sizes)
    wide, high = ([size[side] for size in sizes] for side in ("width", "height"))
    return (
        f"{len(sizes)} sizes, {first} the most frequent ({percent(sizes[0]['images'] / total, 0)} % of the images); "
        f"width {min(wide)}–{max(wide)}, height {min(high)}–{max(high)} pixels"
    )


def imbalance_line(summary: Summary) -> str:
    """Say in a line how unequal the classes are."""
    present = [c for c in by_share(summary["classes"]) if c["labeled"]["pixels"]]
    ignored = f"{percent(summary['ignored_share'])} % of the labeled images' pixels are ignored"
    if summary["imbalance"] is None:
        return ignored
    times = f"{summary['imbalance']:,.0f}" if summary["imbalance"] >= 10 else f"{summary['imbalance']:.1f}"
    return f"{present[0]['name']} has {times} times the pixels of {present[-1]['name']}; {ignored}"


def _overview(summary: Summary) -> Iterator[RenderableType]:
    images = summary["images"]
    counts = " · ".join(f"{images[role]} {role}" for role in ("labeled", "unlabeled", "val") if any(images.values()))
    yield Text(" · ".join(filter(None, (summary["root"], summary["format"], counts))), style="bold")
    if not counts:
        yield Text("the layout comes first; no file has been opened\n")
        return
    if images["unread"]:
        yield Text(f"{images['unread']} unlabeled images were not opened (--quick)", style="yellow")
    if summary["classes"]:
        yield Padding(_class_table(summary["classes"]), (1, 0))
        yield Text(imbalance_line(summary))
    yield Text(sizes_line(summary["sizes"]))
    yield Text()


def _class_table(classes: Sequence[Mapping[str, Any]]) -> Table:
    columns = (Column(name, justify="right") for name in ("labeled %", "images", "val %", "images"))
    table = Table(
        Column("class", no_wrap=True), Column("", width=BAR), *columns, header_style="bold", border_style="dim"
    )
    ordered = by_share(classes)
    longest = max(c["labeled"]["share"] for c in ordered) or 1.0
    for c in ordered:
        name = Text(c["name"] + (" (tail)" if c["tail"] else ""))
        bar = Text("█" * round(BAR * c["labeled"]["share"] / longest) or "▏", style="yellow" if c["tail"] else "blue")
        cells = (cell for role in ("labeled", "val") for cell in (share(c[role]["share"]), str(c[role]["images"])))
        table.add_row(name, bar if c["labeled"]["pixels"] else "", *cells)
    return table


def _kind(group: Sequence[Mapping[str, Any]], root: str) -> RenderableType:
    """Lay out the findings of one kind; a remedy that they share is given once."""
    first = group[0]
    colour = COLOURS[first["severity"]]
    count = f" ({len(group)})" if len(group) > 1 else ""
    head = Text.assemble((first["severity"], f"bold {colour}"), f"  {first['kind']}{count}  ", (first["code"], "dim"))
    remedies = {finding["remedy"] for finding in group[:MOST]}
    lines = []
    for finding in group[:MOST]:
        lines.append(Text.assemble((in_root(finding["path"], root), "bold"), f": {finding['message']}"))
        if len(remedies) > 1 and finding["remedy"]:
            lines.append(Text(f"→ {finding['remedy']}", style="dim"))
    if len(group) > MOST:
        lines.append(Text(f"… and {len(group) - MOST} more, which --json lists", style="dim"))
    if len(remedies) == 1 and first["remedy"]:
        lines.append(Text(f"→ {first['remedy']}", style="dim"))
    return Group(head, Padding(Group(*lines), (0, 0, 1, 2)))
