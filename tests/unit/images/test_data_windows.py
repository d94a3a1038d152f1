from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from des4.images import windows
from des4.images.pictures import read_image
from des4.images.windows import Decoded, Streamed, open_windows
from des4.types import DataError

SIZE = (90, 130)


@pytest.fixture
def by_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file counts as large."""
    pytest.importorskip("pyvips")
    monkeypatch.setattr(windows, "WINDOWS_FROM", 0)


def picture(mode: str = "RGB") -> Image.Image:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    pixels = np.stack([rows * 2, columns, (rows + columns) % 256], -1).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


FILES = {
    "a.png": {},
    "a.tif": {},
    "deflate.tif": {"compression": "tiff_adobe_deflate"},
    "lzw.tif": {"compression": "tiff_lzw"},
    "a.webp": {"lossless": True},
    "a.jpg": {"quality": 95, "subsampling": 0},
    "progressive.jpg": {"quality": 95, "progressive": True, "subsampling": 0},
}


@pytest.mark.usefixtures("by_windows")
@pytest.mark.parametrize("name", FILES)
def test_windows_hold_the_pixels_of_the_file(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / name, picture(), **FILES[name])
    whole = read_image(path).permute(1, 2, 0).numpy()
    image = open_windows(path)
    assert isinstance(image, Streamed)
    assert image.size == SIZE
    tolerance = 2 if path.suffix == ".jpg" else 0  # two builds of libjpeg
    for top, left, height, width in ((0, 0, 40, 50), (0, 40, 40, 90), (30, 0, 40, 50), (30, 3, 20, 9), (60, 0, 30, 130),
                                     (10, 5, 7, 8)):  # fmt: skip
        part = image.read(top, left, height, width)
        expected = whole[top : top + height, left : left + width]
        assert part.shape == expected.shape
        assert np.abs(part.astype(int) - expected).max() <= tolerance


@pytest.mark.usefixtures("by_windows")
def test_no_more_rows_are_kept_than_asked_for(tmp_path: Path) -> None:
    image = open_windows(save(tmp_path / "a.png", picture()))
    assert isinstance(image, Streamed)
    for top in range(0, 81, 5):
        image.read(top, 0, 10, SIZE[1])
        assert len(image._rows) <= 10


@pytest.mark.usefixtures("by_windows")
@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_all_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    path = save(tmp_path / "a.png", picture(mode))
    part = open_windows(path).read(0, 0, *SIZE)
    assert part.shape == (*SIZE, 3)
    assert (part == read_image(path).permute(1, 2, 0).numpy()).all()


@pytest.mark.usefixtures("by_windows")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.jpg", picture(), exif=exif, quality=95, subsampling=0)
    whole = read_image(path).permute(1, 2, 0).numpy()
    image = open_windows(path)
    assert image.size == whole.shape[:2]
    assert np.abs(image.read(20, 10, 30, 40).astype(int) - whole[20:50, 10:50]).max() <= 2


@pytest.mark.usefixtures("by_windows")
def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    deep = tmp_path / "deep.png"
    Image.fromarray(np.zeros(SIZE, np.uint16)).save(deep)
    with pytest.raises(DataError, match=r"deep\.png: holds more than 8 bits"):
        open_windows(deep)
    frames = save(tmp_path / "frames.tif", picture(), save_all=True, append_images=[picture()])
    with pytest.raises(DataError, match="holds several frames"):
        open_windows(frames)
    pyramid = save(tmp_path / "pyramid.tif", picture(), save_all=True, append_images=[picture().reduce(2)])
    assert open_windows(pyramid).size == SIZE
    torn = save(tmp_path / "torn.png", Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300), np.uint8)))
    torn.write_bytes(torn.read_bytes()[:30_000])
    image = open_windows(torn)
    with pytest.raises(DataError, match=r"torn\.png: cannot be read as an image"):
        image.read(0, 0, 300, 300)
    (tmp_path / "none.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"none\.jpg: cannot be read as an image"):
        open_windows(tmp_path / "none.jpg")
    with pytest.raises(DataError, match="no such file"):
        open_windows(tmp_path / "missing.jpg")


def test_small_files_are_decoded_whole(tmp_path: Path) -> None:
    image = open_windows(save(tmp_path / "a.png", picture()))
    assert isinstance(image, Decoded)
    assert (image.read(3, 4, 5, 6) == np.asarray(picture())[3:8, 4:10]).all()


@pytest.mark.usefixtures("by_windows")
@pytest.mark.parametrize("name", ["inks.jpg", "inks.tif", "a.bmp"])
def test_what_libvips_reads_in_another_way_is_decoded_whole(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / name, picture("CMYK" if "inks" in name else "RGB"))
    image = open_windows(path)
    assert isinstance(image, Decoded)
    assert np.array_equal(image.pixels, read_image(path).permute(1, 2, 0).numpy())


def test_without_libvips_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyvips", None)
    monkeypatch.setattr(windows, "WINDOWS_FROM", 1000)
    path = save(tmp_path / "a.png", picture())
    assert isinstance(open_windows(path), Decoded)
    monkeypatch.setattr(windows, "MAX_PIXELS", 10_000)
    with pytest.raises(DataError, match=r'a\.png: has more than 10000 pixels; pip install "des4\[large\]"'):
        open_windows(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)  # Pillow opens no file of twice as many
    with pytest.raises(DataError, match=r"des4\[large\]"):
        open_windows(path)
