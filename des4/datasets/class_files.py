"""Files that name classes, as people have them: names alone, names with colours, names with the numbers in the masks.

```
road                         classes.txt, class_names.txt: one name a line, in the order of the class indices
road 128 64 128              with the colour of each class, which may come first; tabs, commas or colons may divide
road #804080                 the same, as in a style sheet
name,r,g,b                   class_dict.csv: the same, with a heading
id,name,r,g,b                the same, with the number of each class in masks of one channel
road:128,64,128::            labelmap.txt, as CVAT writes it
Pixel Value, Class           _classes.csv: with the number of each class in the masks
```
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from des4.datasets.lists import read_lines, unquoted
from des4.datasets.masks import MAX_NUMBER, Colour
from des4.types import DataError

CLASS_FILES = (
    "classes.txt",
    "class_names.txt",
    "class_dict.csv",
    "classes.csv",
    "_classes.csv",
    "labelmap.txt",
    "label_colors.txt",
    "labels.txt",
)
"""Where classes are looked for in a data folder, in this order."""

_NAMED = frozenset({"class", "label", "name"})
_HEADINGS = _NAMED | frozenset(
    {"a", "alpha", "b", "blue", "color", "color_rgb", "colour", "g", "green", "id", "index", "pixel value", "r", "red"}
    | {"rgb", "value"}
)
_GAP = r"[\s,;:=]+"
_RGB = r"[(\[]?(?P<r>\d{1,3})\s*[\s,;]\s*(?P<g>\d{1,3})\s*[\s,;]\s*(?P<b>\d{1,3})[)\]]?"
_WITH_COLOUR = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?P<name>.+?):{_RGB}:[^:]*:[^:]*",
        rf"(?:(?P<number>\d+){_GAP})?(?P<name>.*\D.*?){_GAP}{_RGB}",
        rf"(?:(?P<number>\d+){_GAP})?{_RGB}{_GAP}(?P<name>\D.*)",
        rf"(?:(?P<number>\d+){_GAP})?(?P<name>.+?){_GAP}(?P<hex>#[0-9a-f]{{6}})",
        rf"(?P<hex>#[0-9a-f]{{6}}){_GAP}(?P<name>.+)",
    )
)
_OPAQUE = re.compile(rf"(?P<row>.*\D{_GAP}{_RGB}){_GAP}255")
_WITH_NUMBER = re.compile(r"\s*(\d{1,5})\s*,\s*(.+)")


@dataclass(frozen=True)
class ClassFile:
    """What a file says of the classes, by index. colours, numbers: in the masks; None where it says nothing of them."""

    path: Path
    names: tuple[str, ...]
    colours: tuple[Colour, ...] | None = None
    numbers: tuple[int, ...] | None = None


def find_classes(root: Path) -> ClassFile | None:
    """Read what a data folder says of its classes; colours may stand in another file than the names. Raises DataError.

    The first of CLASS_FILES that is there counts; the others may add colours to the names it has.
    """
    found = [read_classes(root / name) for name in CLASS_FILES if (root / name).is_file()]
    if not found:
        return None
    first = found[0]
    for other in found[1:]:
        if first.colours is None and other.colours and set(other.names) == set(first.names):
            colour_of = dict(zip(other.names, other.colours, strict=True))
            first = replace(first, colours=tuple(colour_of[name] for name in first.names))
    return first


def read_classes(path: Path) -> ClassFile:
    """Read a file of classes. Raises DataError if it names none, one twice, or gives colours to some of them alone."""
    lines = [unquoted(line) for line in read_lines(path, "one class")]
    rows = [line for line in lines if not re.match(r"#(?![0-9a-f]{6}\b)", line, re.IGNORECASE)]
    heading = bool(rows) and _is_heading(rows[0], path)
    if heading and (len(rows) > 1 or path.suffix == ".csv"):
        rows = rows[1:]
    if len(opaque := [found["row"] for row in rows if (found := _OPAQUE.fullmatch(row))]) == len(rows) > 1:
        rows = opaque
    coloured = [_coloured(row) for row in rows]
    with_colour = [pair for pair in coloured if pair]
    if len(with_colour) > 1 and len(with_colour) < len(rows):
        row = rows[coloured.index(None)]
        raise DataError(f"{path}: '{row}' gives its class no colour, other lines do; write: name red green blue")
    if with_colour and len(with_colour) == len(rows):
        return _checked(_with_colours(path, with_colour))
    numbered = [_WITH_NUMBER.fullmatch(row) for row in rows] if heading else []
    if numbered and None not in numbered:
        pairs = sorted((int(row[1]), row[2].strip()) for row in numbered if row)
        return _checked(ClassFile(path, tuple(name for _, name in pairs), numbers=tuple(number for number, _ in pairs)))
    return _checked(ClassFile(path, tuple(rows if heading else lines)))


def _is_heading(row: str, path: Path) -> bool:
    """Whether a line names columns. A class may be called `red` or `label`: one word alone is a heading of CSV only."""
    words = [word.strip().lower() for word in re.split("[,;\t]", row)]
    return set(words) <= _HEADINGS and not _NAMED.isdisjoint(words) and (len(words) > 1 or path.suffix == ".csv")


def _with_colours(path: Path, found: Sequence[tuple[int | None, str, Colour]]) -> ClassFile:
    """Return the classes of lines with colours; where all begin with a number, it is the class's in masks."""
    numbers = [number for number, _, _ in found if number is not None]
    if len(numbers) < len(found):  # those that there are belong to names, as in `4 wheels`
        names = tuple(name if number is None else f"{number} {name}" for number, name, _ in found)
        return ClassFile(path, names, tuple(colour for _, _, colour in found))
    found = sorted(found, key=lambda one: one[0] or 0)
    numbers.sort()
    return ClassFile(
        path,
        tuple(name for _, name, _ in found),
        tuple(colour for _, _, colour in found),
        tuple(numbers) if numbers != [*range(len(found))] else None,
    )


def _coloured(row: str) -> tuple[int | None, str, Colour] | None:
    """Return number, name and colour of a line; None if it holds no colour."""
    for pattern in _WITH_COLOUR:
        if found := pattern.fullmatch(row):
            if code := found.groupdict().get("hex"):
                red, green, blue = bytes.fromhex(code.removeprefix("#"))
            else:
                red, green, blue = (int(found[channel]) for channel in "rgb")
            name = found["name"].strip(" \t,;:=\"'")
            number = found.groupdict().get("number")
            held = name and max(red, green, blue) <= 255
            return (None if number is None else int(number), name, (red, green, blue)) if held else None
    return None


def _checked(classes: ClassFile) -> ClassFile:
    """Return it. Raises DataError if two classes share a name, a colour or a number, or no mask can hold a number."""
    if (largest := max(classes.numbers or (0,))) > MAX_NUMBER:
        raise DataError(f"{classes.path}: no mask can hold the number {largest}; write 0 to {MAX_NUMBER}")
    for what, values in (("name", classes.names), ("colour", classes.colours), ("number", classes.numbers)):
        if values and (twice := next((value for value in values if values.count(value) > 1), None)) is not None:
            raise DataError(f"{classes.path}: the {what} {twice!r} stands twice; give each class its own")
    return classes
