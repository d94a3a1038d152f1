"""Where on the Earth an image lies: read from its file and those beside it, kept beside a PNG as GIS programs read it.

A world file (`.pgw`) holds the affine map from pixels to coordinates; `.png.aux.xml`, GDAL's own, holds it once more
with the name of the coordinate system. The tags are those of GeoTIFF (OGC 19-008r4); they come before a world file, as
in GDAL. The last two numbers of a world file are the centre of the upper left pixel.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from numbers import Rational
from pathlib import Path
from typing import Any

from PIL import Image

from des4.images.tiff import is_tiff, read_tags

_SCALE, _TIEPOINT, _MATRIX, _KEYS, _IN_WORDS, _COEFFICIENTS = 33550, 33922, 34264, 34735, 34737, 50844
_ORIENTATION = 274
_RASTER_TYPE, _GEOGRAPHIC, _PROJECTED = 1025, 2048, 3072
_PIXEL_IS_POINT = 2
_NO_CODE = 32767  # the coordinate system is written out in full, which is not read here
_LONGEST = 2**16
"""Bytes of a file beside an image that are read; what is longer is no world file, and names no coordinate system."""


@dataclass(frozen=True)
class Georeference:
    """x = x0 + a·column + b·row, y = y0 + d·column + e·row, of the upper left corner of a pixel.

    epsg: code of the coordinate system; wkt: its description, of one that is known by no code.
    """

    x0: float
    a: float
    b: float
    y0: float
    d: float
    e: float
    epsg: int | None = None
    wkt: str | None = None

    def write_beside(self, png: Path) -> None:
        """Write `.pgw` and `.png.aux.xml` beside a PNG of the image's size."""
        x, y = self.x0 + (self.a + self.b) / 2, self.y0 + (self.d + self.e) / 2
        lines = "".join(f"{value:.15g}\n" for value in (self.a, self.d, self.b, self.e, x, y))
        png.with_suffix(".pgw").write_text(lines, encoding="ascii")
        transform = ", ".join(f"{value:.16g}" for value in (self.x0, self.a, self.b, self.y0, self.d, self.e))
        name = f"EPSG:{self.epsg}" if self.epsg else html.escape(self.wkt or "", quote=False)
        system = f"  <SRS>{name}</SRS>\n" if name else ""
        page = f"<PAMDataset>\n{system}  <GeoTransform>{transform}</GeoTransform>\n</PAMDataset>\n"
        png.with_name(f"{png.name}.aux.xml").write_text(page, encoding="utf-8")


@dataclass(frozen=True)
class Located:
    """What is known of where an image lies. lost: in words, what is said of it and is not kept."""

    place: Georeference | None = None
    lost: str | None = None

    @property
    def on_a_map(self) -> bool:
        """Whether anything is said."""
        return self.place is not None or self.lost is not None


NOWHERE = Located()


def locate(path: Path) -> Located:
    """Return where an image file lies: by the tags of a TIFF, by a world file beside it, or nowhere."""
    tags: dict[int, Any] = {}
    try:
        with path.open("rb") as file:
            if is_tiff(file.read(4)):
                file.seek(0)
                tags = read_tags(file)
    except Exception:  # whoever reads the pixels will say what is wrong
        return NOWHERE
    keys = _keys(_numbers(tags, _KEYS))
    code = keys.get(_PROJECTED) or keys.get(_GEOGRAPHIC)
    epsg = None if code == _NO_CODE else code
    lost = None
    if epsg is None and (code == _NO_CODE or _IN_WORDS in tags):
        lost = "its coordinate system is written out, without an EPSG code, and is not kept"
    affine = _of_tags(tags, centres=keys.get(_RASTER_TYPE) == _PIXEL_IS_POINT)
    if affine is None and (world := _world_file(path)) is not None:
        affine = _of_world_file(world)
        if affine is None:
            return Located(lost=f"{world.name} beside it does not hold the six numbers of a world file")
    if affine is None:
        return Located(lost=_unread(path, tags) or lost)
    if _turned(path, tags):
        return Located(lost="its place on the map is that of the image before its turn by EXIF, and is not kept")
    wkt = _description(path) if epsg is None else None
    return Located(Georeference(*affine, epsg, wkt), None if wkt else lost)


_Affine = tuple[float, float, float, float, float, float]
"""x0, a, b, y0, d, e of `Georeference`."""


def _of_tags(tags: dict[int, Any], *, centres: bool) -> _Affine | None:
    """Return the map that a TIFF names; None if it names none. centres: it is of pixels' centres, not corners."""
    matrix, scale, tie = (_numbers(tags, tag) for tag in (_MATRIX, _SCALE, _TIEPOINT))
    if len(matrix) >= 8:
        a, b, _, x0, d, e, _, y0 = map(float, matrix[:8])
    elif len(scale) >= 2 and len(tie) == 6:
        a, b, d, e = float(scale[0]), 0.0, 0.0, -float(scale[1])
        x0, y0 = tie[3] - tie[0] * a, tie[4] - tie[1] * e
    else:
        return None
    return _of_centres(x0, a, b, y0, d, e) if centres else (x0, a, b, y0, d, e)


def _of_centres(x0: float, a: float, b: float, y0: float, d: float, e: float) -> _Affine:
    return x0 - (a + b) / 2, a, b, y0 - (d + e) / 2, d, e


def _world_file(path: Path) -> Path | None:
    """Return the world file beside an image: of `a.jpg` a.jgw, a.jpgw or a.wld, in small or in capital letters."""
    suffix = path.suffix[1:].lower()
    if not suffix:
        return None
    endings = (f"{suffix[0]}{suffix[-1]}w", f"{suffix}w", "wld")
    beside = (path.with_suffix(f".{written}") for one in endings for written in (one, one.upper()))
    return next((file for file in beside if file.is_file()), None)


def _of_world_file(file: Path) -> _Affine | None:
    try:
        a, d, b, e, x, y = map(float, _text(file).split())
    except ValueError:
        return None
    return _of_centres(x, a, b, y, d, e)


def _description(path: Path) -> str | None:
    """Return the coordinate system in the `.prj` file beside an image, as well-known text; None if there is none."""
    beside = (path.with_suffix(suffix) for suffix in (".prj", ".PRJ"))
    text = next((_text(file) for file in beside if file.is_file()), "").strip()
    return text if re.match(r"\w+\s*\[", text) else None


def _unread(path: Path, tags: dict[int, Any]) -> str | None:
    """Say how else the place of an image is given."""
    if points := len(_numbers(tags, _TIEPOINT)) // 6:
        given = f"{points} tie points" if points > 1 else "a tie point without a scale"
        return f"its place on the map is given by {given}, and is not kept; gdalwarp makes an image that has one"
    if _COEFFICIENTS in tags:
        return "its place on the map is given by RPC coefficients, and is not kept"
    aux = path.with_name(f"{path.name}.aux.xml")
    if aux.is_file() and re.search("<(GeoTransform|GCPList)", _text(aux)):
        remedy = "gdal_translate -co WORLDFILE=YES writes a world file"
        return f"its place on the map is in {aux.name}, which is not read, and is not kept; {remedy}"
    return None


def _turned(path: Path, tags: dict[int, Any]) -> bool:
    """Whether EXIF asks for a turn. tags: of a TIFF, of which nothing more is read."""
    try:
        if tags:
            return tags.get(_ORIENTATION) in range(2, 9)
        with Image.open(path) as image:
            return image.getexif().get(_ORIENTATION) in range(2, 9)
    except Exception:  # whoever reads the pixels will say what is wrong
        return False


def _text(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(_LONGEST).decode("utf-8", "replace")
    except OSError:
        return ""


def _numbers(tags: dict[int, Any], tag: int) -> tuple[Any, ...]:
    """Return the numbers of a tag; none where it is missing, or holds something else."""
    value = tags.get(tag, ())
    held = value if isinstance(value, tuple) else (value,)
    return held if all(isinstance(one, int | float | Rational) for one in held) else ()


def _keys(directory: tuple[int, ...]) -> dict[int, int]:
    """Read the geo keys that are plain numbers: after four numbers of head, (key, place, count, value) each."""
    rows = (directory[i : i + 4] for i in range(4, len(directory) - 3, 4))
    return {key: value for key, place, _, value in rows if place == 0}
