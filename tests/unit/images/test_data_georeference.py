from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from des4.images.georeference import NOWHERE, Georeference, Located, locate

KEYS = (1, 1, 0, 2, 1025, 0, 1, 1, 3072, 0, 1, 32633)


def tiff(path: Path, **tags: tuple[float, ...]) -> Path:
    numbers = {"scale": 33550, "tie": 33922, "matrix": 34264, "rpc": 50844, "orientation": 274}
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for name, values in tags.items():
        info[numbers.get(name, 34735)] = values
        info.tagtype[numbers.get(name, 34735)] = 3 if name in ("keys", "orientation") else 12
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(path, tiffinfo=info)
    return path


def test_scale_and_tiepoint(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", scale=(0.5, 0.25, 0.0), tie=(0, 0, 0, 400_000.0, 5_000_000.0, 0), keys=KEYS)
    assert locate(path).place == Georeference(400_000.0, 0.5, 0, 5_000_000.0, 0, -0.25, 32633)


def test_a_projected_system_comes_before_the_geographic_one_that_it_is_built_on(tmp_path: Path) -> None:
    keys = (1, 1, 0, 3, 1025, 0, 1, 1, 2048, 0, 1, 4326, 3072, 0, 1, 32633)
    place = locate(tiff(tmp_path / "a.tif", scale=(1.0, 1.0, 0.0), tie=(0.0,) * 6, keys=keys)).place
    assert place is not None
    assert place.epsg == 32633


def test_a_tiepoint_elsewhere_and_pixels_that_are_points(tmp_path: Path) -> None:
    keys = (1, 1, 0, 2, 1025, 0, 1, 2, 2048, 0, 1, 4326)
    path = tiff(tmp_path / "a.tif", scale=(2.0, 2.0, 0.0), tie=(1, 2, 0, 10.0, 50.0, 0), keys=keys)
    assert locate(path).place == Georeference(7.0, 2, 0, 55.0, 0, -2, 4326)


def test_a_matrix_may_turn(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", matrix=(1, 2, 0, 10, 3, 4, 0, 20, 0, 0, 0, 0, 0, 0, 0, 1))
    assert locate(path).place == Georeference(10, 1, 2, 20, 3, 4, None)


def test_files_without_a_place_have_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert locate(tiff(tmp_path / "a.tif")) == NOWHERE
    assert locate(tmp_path / "a.png") == NOWHERE
    (tmp_path / "b.tif").write_bytes(b"nothing")
    assert locate(tmp_path / "b.tif") == NOWHERE
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3)  # the header of a large file is read all the same
    path = tiff(tmp_path / "c.tif", scale=(1.0, 1.0, 0.0), tie=(0, 0, 0, 0, 0, 0))
    assert locate(path).on_a_map


def test_what_lies_beside_a_png(tmp_path: Path) -> None:
    Georeference(400_000.0, 0.5, 0, 5_000_000.0, 0, -0.25, 32633).write_beside(tmp_path / "a.png")
    lines = [float(line) for line in (tmp_path / "a.pgw").read_text().split()]
    assert lines == [0.5, 0, 0, -0.25, 400_000.25, 4_999_999.875]
    page = ElementTree.fromstring((tmp_path / "a.png.aux.xml").read_text())  # noqa: S314
    assert page.findtext("SRS") == "EPSG:32633"
    assert [float(v) for v in page.findtext("GeoTransform").split(",")] == [400_000, 0.5, 0, 5_000_000, 0, -0.25]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("image", "world"),
    [("a.jpg", "a.jgw"), ("a.jpeg", "a.jgw"), ("a.png", "a.pgw"), ("a.tif", "a.tfw"), ("a.jpg", "a.jpgw"),
     ("b.c.jpg", "b.c.wld"), ("A.JPG", "A.JGW")],
)  # fmt: skip
def test_a_world_file_beside_an_image(tmp_path: Path, image: str, world: str) -> None:
    Image.new("RGB", (6, 4)).save(tmp_path / image)
    text = "0.5\n0\n0\n-0.25\n400000.25\n4999999.875\n"
    (tmp_path / world).write_text(text)
    found = locate(tmp_path / image)
    assert found == Located(Georeference(400_000.0, 0.5, 0, 5_000_000.0, 0, -0.25))
    assert found.place is not None
    found.place.write_beside(tmp_path / "out.png")
    assert list(map(float, (tmp_path / "out.pgw").read_text().split())) == list(map(float, text.split()))


def test_a_coordinate_system_beside_an_image(tmp_path: Path) -> None:
    Image.new("RGB", (6, 4)).save(tmp_path / "a.jpg")
    (tmp_path / "a.jgw").write_text("1 0 0 -1 10.5 19.5")
    (tmp_path / "a.prj").write_text('PROJCS["A & B", GEOGCS["<C>"]]\n')
    place = locate(tmp_path / "a.jpg").place
    assert place == Georeference(10, 1, 0, 20, 0, -1, None, 'PROJCS["A & B", GEOGCS["<C>"]]')
    assert place is not None
    place.write_beside(tmp_path / "out.png")
    page = ElementTree.fromstring((tmp_path / "out.png.aux.xml").read_text())  # noqa: S314
    assert page.findtext("SRS") == place.wkt
    (tmp_path / "a.prj").write_text("no description")
    assert locate(tmp_path / "a.jpg") == Located(Georeference(10, 1, 0, 20, 0, -1))


def test_the_tags_of_a_tiff_come_before_a_world_file(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", scale=(0.5, 0.25, 0.0), tie=(0, 0, 0, 1.0, 2.0, 0), keys=KEYS)
    path.with_suffix(".tfw").write_text("9 0 0 -9 0 0")
    assert locate(path) == Located(Georeference(1, 0.5, 0, 2, 0, -0.25, 32633))
    path = tiff(tmp_path / "b.tif", keys=KEYS)
    path.with_suffix(".tfw").write_text("2 0 0 -2 1 -1")
    assert locate(path) == Located(Georeference(0, 2, 0, 0, 0, -2, 32633))


def test_what_is_not_kept_is_named(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", tie=(0, 0, 0, 1, 2, 0) * 3)
    assert "is given by 3 tie points, and is not kept" in str(locate(path).lost)
    assert "a tie point without a scale" in str(locate(tiff(tmp_path / "b.tif", tie=(0, 0, 0, 1, 2, 0))).lost)
    assert "RPC coefficients" in str(locate(tiff(tmp_path / "c.tif", rpc=(0.0,) * 92)).lost)
    full = (1, 1, 0, 2, 1025, 0, 1, 1, 3072, 0, 1, 32767)
    found = locate(tiff(tmp_path / "d.tif", matrix=(1, 2, 0, 10, 3, 4, 0, 20, *(0,) * 7, 1), keys=full))
    assert found.place == Georeference(10, 1, 2, 20, 3, 4, None)
    assert found.lost == "its coordinate system is written out, without an EPSG code, and is not kept"
    photo = tmp_path / "e.jpg"
    Image.new("RGB", (6, 4)).save(photo)
    photo.with_name("e.jpg.aux.xml").write_text("<PAMDataset><Metadata/></PAMDataset>")
    assert locate(photo) == NOWHERE
    photo.with_name("e.jpg.aux.xml").write_text("<PAMDataset><GeoTransform>0, 1</GeoTransform></PAMDataset>")
    assert "is in e.jpg.aux.xml, which is not read" in str(locate(photo).lost)
    photo.with_suffix(".jgw").write_text("1 2 3")
    assert locate(photo).lost == "e.jgw beside it does not hold the six numbers of a world file"


def test_tags_that_are_no_directory_say_nothing(tmp_path: Path) -> None:
    assert locate(tiff(tmp_path / "a.tif", scale=(2.0,), tie=(1.0,), keys=(1,))) == NOWHERE
    assert locate(tiff(tmp_path / "b.tif", matrix=(2.0,))) == NOWHERE


def test_a_coordinate_system_may_be_of_any_language(tmp_path: Path) -> None:
    Georeference(0, 1, 0, 0, 0, -1, wkt='PROJCS["Réunion 1947"]').write_beside(tmp_path / "a.png")
    page = ElementTree.fromstring((tmp_path / "a.png.aux.xml").read_bytes())  # noqa: S314
    assert page.findtext("SRS") == 'PROJCS["Réunion 1947"]'


def test_an_image_that_is_turned_loses_its_place(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (6, 4)).save(tmp_path / "a.jpg", exif=exif)
    (tmp_path / "a.jgw").write_text("1 0 0 -1 10.5 19.5")
    found = locate(tmp_path / "a.jpg")
    assert found.place is None
    assert "before its turn by EXIF" in str(found.lost)
    path = tiff(tmp_path / "b.tif", scale=(1.0, 1.0, 0.0), tie=(0.0,) * 6, orientation=(2,))
    assert locate(path).place is None
    assert "before its turn by EXIF" in str(locate(path).lost)
