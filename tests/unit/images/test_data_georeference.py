from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from des4.images.georeference import Georeference, read_georeference

KEYS = (1, 1, 0, 2, 1025, 0, 1, 1, 3072, 0, 1, 32633)


def tiff(path: Path, **tags: tuple[float, ...]) -> Path:
    numbers = {"scale": 33550, "tie": 33922, "matrix": 34264}
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for name, values in tags.items():
        info[numbers.get(name, 34735)] = values
        info.tagtype[numbers.get(name, 34735)] = 3 if name == "keys" else 12
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(path, tiffinfo=info)
    return path


def test_scale_and_tiepoint(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", scale=(0.5, 0.25, 0.0), tie=(0, 0, 0, 400_000.0, 5_000_000.0, 0), keys=KEYS)
    assert read_georeference(path) == Georeference(400_000.0, 0.5, 0, 5_000_000.0, 0, -0.25, 32633)


def test_a_tiepoint_elsewhere_and_pixels_that_are_points(tmp_path: Path) -> None:
    keys = (1, 1, 0, 2, 1025, 0, 1, 2, 2048, 0, 1, 4326)
    path = tiff(tmp_path / "a.tif", scale=(2.0, 2.0, 0.0), tie=(1, 2, 0, 10.0, 50.0, 0), keys=keys)
    assert read_georeference(path) == Georeference(7.0, 2, 0, 55.0, 0, -2, 4326)


def test_a_matrix_may_turn(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", matrix=(1, 2, 0, 10, 3, 4, 0, 20, 0, 0, 0, 0, 0, 0, 0, 1))
    assert read_georeference(path) == Georeference(10, 1, 2, 20, 3, 4, None)


def test_files_without_a_place_have_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_georeference(tiff(tmp_path / "a.tif")) is None
    assert read_georeference(tmp_path / "a.png") is None
    (tmp_path / "b.tif").write_bytes(b"nothing")
    assert read_georeference(tmp_path / "b.tif") is None
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3)  # the header of a large file is read all the same
    path = tiff(tmp_path / "c.tif", scale=(1.0, 1.0, 0.0), tie=(0, 0, 0, 0, 0, 0))
    assert read_georeference(path) is not None


def test_what_lies_beside_a_png(tmp_path: Path) -> None:
    Georeference(400_000.0, 0.5, 0, 5_000_000.0, 0, -0.25, 32633).write_beside(tmp_path / "a.png")
    lines = [float(line) for line in (tmp_path / "a.pgw").read_text().split()]
    assert lines == [0.5, 0, 0, -0.25, 400_000.25, 4_999_999.875]
    page = ElementTree.fromstring((tmp_path / "a.png.aux.xml").read_text())  # noqa: S314
    assert page.findtext("SRS") == "EPSG:32633"
    assert [float(v) for v in page.findtext("GeoTransform").split(",")] == [400_000, 0.5, 0, 5_000_000, 0, -0.25]  # type: ignore[union-attr]
