"""Where on the Earth an image lies: read from a GeoTIFF's header, kept beside a PNG in files that GIS programs read.

A world file (`.pgw`) holds the affine map from pixels to coordinates; `.png.aux.xml`, GDAL's own, holds it once more
with the name of the coordinate system. The tags are those of GeoTIFF (OGC 19-008r4). The last two numbers of a world
file are the centre of the upper left pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from des4.images.tiff import read_tags

_SCALE, _TIEPOINT, _MATRIX, _KEYS = 33550, 33922, 34264, 34735
_RASTER_TYPE, _GEOGRAPHIC, _PROJECTED = 1025, 2048, 3072
_PIXEL_IS_POINT = 2
_NO_CODE = 32767  # the coordinate system is written out in full, which is not read here


@dataclass(frozen=True)
class Georeference:
    """x = x0 + a·column + b·row, y = y0 + d·column + e·row, of the upper left corner of a pixel; and an EPSG code."""

    x0: float
    a: float
    b: float
    y0: float
    d: float
    e: float
    epsg: int | None = None

    def write_beside(self, png: Path) -> None:
        """Write `.pgw` and `.png.aux.xml` beside a PNG of the image's size."""
        x, y = self.x0 + (self.a + self.b) / 2, self.y0 + (self.d + self.e) / 2
        lines = "".join(f"{value:.12g}\n" for value in (self.a, self.d, self.b, self.e, x, y))
        png.with_suffix(".pgw").write_text(lines, encoding="ascii")
        transform = ", ".join(f"{value:.16g}" for value in (self.x0, self.a, self.b, self.y0, self.d, self.e))
        system = f"  <SRS>EPSG:{self.epsg}</SRS>\n" if self.epsg else ""
        page = f"<PAMDataset>\n{system}  <GeoTransform>{transform}</GeoTransform>\n</PAMDataset>\n"
        png.with_name(f"{png.name}.aux.xml").write_text(page, encoding="ascii")


def read_georeference(path: Path) -> Georeference | None:
    """Return where a TIFF lies; None for other files, and for those that do not say so by an affine map."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        return None
    try:
        with path.open("rb") as file:
            tags = read_tags(file)
    except Exception:  # whoever reads the pixels will say what is wrong
        return None
    keys = _keys(tags.get(_KEYS, ()))
    matrix, scale, tie = tags.get(_MATRIX, ()), tags.get(_SCALE, ()), tags.get(_TIEPOINT, ())
    if len(matrix) >= 8:
        a, b, _, x0, d, e, _, y0 = map(float, matrix[:8])
    elif len(scale) >= 2 and len(tie) == 6:
        a, b, d, e = float(scale[0]), 0.0, 0.0, -float(scale[1])
        x0, y0 = tie[3] - tie[0] * a, tie[4] - tie[1] * e
    else:
        return None
    if keys.get(_RASTER_TYPE) == _PIXEL_IS_POINT:  # then the map is of centres
        x0, y0 = x0 - (a + b) / 2, y0 - (d + e) / 2
    epsg = keys.get(_PROJECTED) or keys.get(_GEOGRAPHIC)
    return Georeference(x0, a, b, y0, d, e, None if epsg == _NO_CODE else epsg)


def _keys(directory: tuple[int, ...]) -> dict[int, int]:
    """Read the geo keys that are plain numbers: after four numbers of head, (key, place, count, value) each."""
    rows = (directory[i : i + 4] for i in range(4, len(directory) - 3, 4))
    return {key: value for key, place, _, value in rows if place == 0}
