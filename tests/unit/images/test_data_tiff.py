from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from des4.images.georeference import locate
from des4.images.pictures import read_header, read_image
from des4.images.tiff import is_picture, opened, tags_of
from des4.types import DataError

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("imagecodecs")

SHAPE = (40, 50, 5)
FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "big": {"byteorder": ">"},
    "bigtiff": {"bigtiff": True},
    "strips": {"rowsperstrip": 7, "compression": "zlib", "predictor": True},
    "lzw": {"compression": "lzw"},
    "zstd": {"compression": "zstd"},
    "tiles": {"tile": (16, 16), "compression": "zlib"},
    "planes": {"planarconfig": "separate"},
    "planes in tiles": {"planarconfig": "separate", "tile": (16, 32), "compression": "lzw"},
    "imagej": {"imagej": True, "metadata": {"axes": "CYX"}},
    "ome": {"ome": True, "metadata": {"axes": "CYX"}},
}


def values(dtype: Any = np.uint16) -> NDArray[Any]:
    drawn = np.random.default_rng(0).integers(0, 60_000, SHAPE)
    return (drawn / 7).astype(dtype) if np.dtype(dtype).kind == "f" else drawn.astype(dtype)


def write(path: Path, array: NDArray[Any], **options: Any) -> Path:
    """Write (H, W, bands), by planes or pages where the options ask for them."""
    first = options.get("planarconfig") == "separate" or "metadata" in options
    if "metadata" not in options:
        options = {"planarconfig": "contig", **options}
    array = np.ascontiguousarray(array.transpose(2, 0, 1)) if first else array
    tifffile.imwrite(path, array, photometric="minisblack", **options)
    return path


@pytest.mark.parametrize("form", FORMS)
def test_every_form_holds_the_same_values(tmp_path: Path, form: str) -> None:
    expected = values()
    path = write(tmp_path / "a.tif", expected, **FORMS[form])
    for data in (None, path.read_bytes()):
        with opened(path, data) as file:
            assert (file.size, file.num_bands, file.alpha) == (SHAPE[:2], 5, ())
            assert (file.read([1, 2, 3, 4, 5]) == expected).all()
            assert (file.read([4, 2]) == expected[..., [3, 1]]).all()
            assert (file.read([5, 1], 7, 33) == expected[7:33][..., [4, 0]]).all()
            assert not is_picture(tags_of(path.read_bytes()))
    assert read_header(path).size == SHAPE[:2]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32", "float64"])
def test_every_type_of_values(tmp_path: Path, dtype: str) -> None:
    expected = values(dtype)
    with opened(write(tmp_path / "a.tif", expected, compression="zlib")) as file:
        assert file.dtype == expected.dtype
        assert (file.read([1, 2, 3, 4, 5]) == expected).all()


def test_what_is_a_picture(tmp_path: Path) -> None:
    def of(name: str, array: NDArray[Any], **options: Any) -> bool:
        tifffile.imwrite(tmp_path / name, array, **options)
        return is_picture(tags_of((tmp_path / name).read_bytes()))

    byte = np.zeros((4, 6, 4), np.uint8)
    assert of("rgb", byte[..., :3], photometric="rgb")
    assert of("grey", byte[..., 0], photometric="minisblack")
    assert of("alpha", byte, photometric="rgb", extrasamples=["unassalpha"])
    assert of("premultiplied", byte, photometric="rgb", extrasamples=["assocalpha"])
    assert of("inks", byte, photometric="separated")
    assert not of("infrared", byte, photometric="rgb", extrasamples=["unspecified"])
    assert not of("four", byte, photometric="minisblack", planarconfig="contig")
    assert not of("deep", byte[..., 0].astype(np.uint16), photometric="minisblack")
    assert not of("signed", byte[..., 0].astype(np.int8), photometric="minisblack")


def test_slices_are_no_bands(tmp_path: Path) -> None:
    stack = write(tmp_path / "a.tif", values(), imagej=True, metadata={"axes": "ZYX"})
    with pytest.raises(DataError, match=r"a\.tif: holds several pictures along ZYX"), opened(stack):
        pass
    tifffile.imwrite(tmp_path / "b.tif", values().transpose(2, 0, 1), photometric="minisblack", metadata=None)
    with opened(tmp_path / "b.tif") as file:
        assert file.unnamed


def test_smaller_copies_are_passed_over(tmp_path: Path) -> None:
    whole = values()
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(whole, photometric="minisblack", planarconfig="contig", metadata=None)
        writer.write(whole[::2, ::2], photometric="minisblack", planarconfig="contig", subfiletype=1, metadata=None)
    with opened(tmp_path / "a.tif") as file:
        assert (file.read([3])[..., 0] == whole[..., 2]).all()


def test_where_bands_are_transparent_is_passed_over(tmp_path: Path) -> None:
    whole = values()
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(whole, photometric="minisblack", planarconfig="contig", metadata=None)
        writer.write(whole[..., 0] > 30_000, photometric="minisblack", subfiletype=4, metadata=None)
    with opened(tmp_path / "a.tif") as file:
        assert file.num_bands == 5
        assert (file.read([3])[..., 0] == whole[..., 2]).all()


@pytest.mark.parametrize(
    ("dtype", "nodata", "filled"),
    [("i2", "-9999", -9999), ("u1", "7", 7), ("f4", "-1.5", -1.5), ("u2", "-9999", 0), ("i4", "0.5", 0)],
)
def test_what_a_sparse_file_leaves_out_is_no_data(tmp_path: Path, dtype: str, nodata: str, filled: float) -> None:
    path = tmp_path / "a.tif"
    tiles = (np.full((16, 16), number, dtype) if number else None for number in (1, 0, 2, 3))
    tifffile.imwrite(path, tiles, shape=(32, 32), dtype=dtype, tile=(16, 16), compression="zlib",
                     photometric="minisblack", extratags=[(42113, "s", 0, nodata, True)])  # fmt: skip
    with opened(path) as file:
        found = file.read([1])[..., 0]
    assert (found[:16, 16:] == filled).all()
    assert [found[0, 0], found[16, 0], found[16, 16]] == [1, 2, 3]


@pytest.mark.parametrize(("kind", "size"), [(1, 20), (4, 40), (0, 20), (0, 40)])
def test_a_picture_may_have_smaller_copies(tmp_path: Path, kind: int, size: int) -> None:
    whole = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(whole, photometric="rgb", metadata=None)
        further = whole[:size, :size, 0] > 100 if kind == 4 else whole[:size, :size]
        photometric = "minisblack" if kind == 4 else "rgb"
        writer.write(further, photometric=photometric, subfiletype=kind, metadata=None)
    if kind:
        assert (read_image(tmp_path / "a.tif").permute(1, 2, 0).numpy() == whole).all()
        return
    with pytest.raises(DataError, match=r"a\.tif: holds several frames"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("form", ["plain", "strips", "tiles"])
def test_damage_is_named(tmp_path: Path, form: str) -> None:
    path = write(tmp_path / "a.tif", values(), **FORMS[form])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if form == "plain" else whole[:-800] + bytes(800))
    with pytest.raises(DataError, match=r"a\.tif: cannot be read as an image"), opened(path) as file:
        file.read([1, 2, 3, 4, 5])
    path.write_bytes(b"II*\x00nothing")
    with pytest.raises(DataError, match=r"a\.tif: holds no picture"), opened(path):
        pass


def test_without_the_extra_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.tif", values())
    monkeypatch.setitem(sys.modules, "tifffile", None)
    message = r'a\.tif: reading such a TIFF needs tifffile; pip install "des4\[bands\]"'
    with pytest.raises(DataError, match=message), opened(path):
        pass


def test_bands_have_their_place_on_earth(tmp_path: Path) -> None:
    tags = [(33550, "d", 3, (10.0, 10.0, 0.0)), (33922, "d", 6, (0, 0, 0, 500_000.0, 5_000_000.0, 0))]
    place = locate(write(tmp_path / "a.tif", values(), extratags=tags)).place
    assert place is not None
    assert (place.x0, place.a, place.y0, place.e) == (500_000, 10, 5_000_000, -10)
