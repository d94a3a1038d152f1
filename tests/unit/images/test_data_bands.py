from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError

from des4.data_tools.checks.check import check, refuse_errors
from des4.data_tools.checks.summary import examples
from des4.data_tools.shard_writer import write_shards
from des4.datasets import Folder, FolderConfig
from des4.images import windows
from des4.images.bands import Chosen, UnlikeOthersError, choose, decode_bands, layout_of, measure, without_gaps
from des4.images.windows import Decoded, StreamedBands, open_windows, show
from des4.ops.pixels import picture, scaled, unit
from des4.types import Bands, DataError

tifffile = pytest.importorskip("tifffile")
imagecodecs = pytest.importorskip("imagecodecs")

SIZE = (24, 32)
BANDS = Bands(
    numbers=(3, 1), type="uint16", ranges=((100, 300), (0, 1000)), mean=(0.5, 0.2), std=(0.1, 0.3)
)  # fmt: skip


def values(seed: int = 0, bands: int = 4, dtype: Any = np.uint16) -> NDArray[Any]:
    drawn = np.random.default_rng(seed).integers(0, 200, (*SIZE, bands)) + 1000 * np.arange(1, bands + 1)
    return drawn.astype(dtype)


def tif(path: Path, array: NDArray[Any], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array, photometric="minisblack", planarconfig="contig", **options)
    return path


def png(path: Path, array: NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(imagecodecs.png_encode(array))
    return path


def folder(root: Path, write: Any = None, count: int = 5, labeled: int = 4) -> Path:
    """Lay out a data set of bands; images 3 and later may have no mask."""
    for number in range(count):
        if write is None:
            tif(root / "images" / f"{number}.tif", values(number))
        else:
            write(root / "images", number)
        if number < labeled:
            (root / "masks").mkdir(exist_ok=True)
            Image.fromarray((np.arange(SIZE[0] * SIZE[1]).reshape(SIZE) % 2).astype(np.uint8)).save(
                root / "masks" / f"{number}.png"
            )
    (root / "val.txt").write_text("3\n")
    return root


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("channels", "kept"), [(1, 1), (2, 1), (3, 3), (4, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_files_hold_what_was_written(tmp_path: Path, channels: int, kept: int, dtype: Any) -> None:
    array = values(0, channels).astype(dtype)
    path = png(tmp_path / "a.png", array if channels > 1 else array[..., 0])
    data = path.read_bytes()
    layout = layout_of(path, data)
    assert (layout.num_bands, layout.num_bands - len(layout.alpha), layout.type) == (
        channels,
        kept,
        np.dtype(dtype).name,
    )
    assert choose(path, data, None).numbers == tuple(range(1, kept + 1))
    every = tuple(range(channels, 0, -1))
    pixels = decode_bands(path, data, choose(path, data, every))
    assert pixels.permute(1, 2, 0).is_contiguous()
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), array[..., ::-1])


def test_photographs_have_bands_too(tmp_path: Path) -> None:
    array = values(0, 3).astype(np.uint8)
    for name, mode in (("a.jpg", "RGB"), ("b.jpg", "L"), ("c.png", "P"), ("d.png", "1"), ("e.bmp", "RGB")):
        image = Image.fromarray(array).convert(mode)
        image.save(tmp_path / name)
        data = (tmp_path / name).read_bytes()
        chosen = choose(tmp_path / name, data, None)
        assert chosen.type == "uint8"
        assert len(chosen.numbers) == (1 if mode in ("L", "1") else 3)
        back = np.array(Image.open(io.BytesIO(data)).convert("RGB" if len(chosen.numbers) == 3 else "L"))
        found = decode_bands(tmp_path / name, data, chosen).permute(1, 2, 0).numpy()
        assert np.array_equal(found if found.shape[2] == 3 else found[..., 0], back)


def test_turned_images_stand_upright(tmp_path: Path) -> None:
    array = values()
    path = tif(tmp_path / "a.tif", array, extratags=[(274, "H", 1, 6, True)])
    pixels = decode_bands(path, path.read_bytes(), Chosen((1, 2, 3, 4), "uint16")).permute(1, 2, 0).numpy()
    assert np.array_equal(pixels, np.rot90(array, -1))
    assert layout_of(path, path.read_bytes()).header.upright == SIZE[::-1]


def test_turned_images_are_decoded_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "WINDOWS_FROM", 0)
    array = values().astype(np.uint8)
    path = tif(tmp_path / "a.tif", array, extratags=[(274, "H", 1, 6, True)])
    bands = Bands(numbers=(1, 2), type="uint8", ranges=((0, 255),) * 2, mean=(0.5,) * 2, std=(0.1,) * 2)
    image = open_windows(path, bands)
    assert image.size == SIZE[::-1]
    assert np.array_equal(image.read(0, 0, *SIZE[::-1]), np.rot90(array, -1)[..., :2])


def test_where_there_are_no_data(tmp_path: Path) -> None:
    array = values()
    array[:3] = 0
    path = tif(tmp_path / "a.tif", array, extratags=[(42113, "s", 0, "0", True)])
    pixels = decode_bands(path, path.read_bytes(), Chosen((1, 2, 3, 4), "uint16"))
    assert pixels[:, :3].isnan().all()
    assert np.array_equal(pixels[:, 3:].permute(1, 2, 0).numpy(), array[3:])
    assert scaled(pixels.permute(1, 2, 0), [(1000, 5000)] * 4)[:3].eq(0).all()
    lowest = np.array([[-3.4028235e38, 1.0]], np.float32)
    assert np.isnan(without_gaps(lowest, -3.4028234663852886e38)).tolist() == [[True, False]]
    assert without_gaps(np.array([7], np.uint8), -9999.0).dtype == np.uint8


def test_bytes_without_data_are_0_and_stay_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = (values() % 200 + 1).astype(np.uint8)
    array[:3] = 255
    tags = [(42113, "s", 0, "255", True)]
    data = Folder(FolderConfig(root=folder(tmp_path, lambda at, n: tif(at / f"{n}.tif", array, extratags=tags))))
    expected = np.where(array == 255, 0, array)
    image = data.image("0")
    assert image.dtype == torch.uint8
    assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)
    assert data.bands is not None and data.bands.are_bytes
    path = tmp_path / "images" / "0.tif"
    for streamed in (0, 1 << 30):
        monkeypatch.setattr(windows, "WINDOWS_FROM", streamed)
        opened = open_windows(path, data.bands)
        assert isinstance(opened, Decoded if streamed else StreamedBands)
        assert np.array_equal(opened.read(0, 0, *SIZE), expected)


def test_bands_beside_transparency_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values(bands=5), photometric="rgb", planarconfig="contig", extrasamples=(2, 0))
    assert layout_of(path, path.read_bytes()).alpha == (4,)
    assert choose(path, path.read_bytes(), None).numbers == (1, 2, 3, 5)


def test_other_bands_are_refused(tmp_path: Path) -> None:
    path = tif(tmp_path / "a.tif", values(bands=2))
    data = path.read_bytes()
    with pytest.raises(UnlikeOthersError, match=r"a\.tif: holds uint16 values, where float is expected"):
        decode_bands(path, data, Chosen((1,), "float"))
    with pytest.raises(UnlikeOthersError, match="has 2 bands, and number 3 is to be read"):
        decode_bands(path, data, Chosen((1, 3), "uint16"))
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((4, 6), np.complex64), photometric="minisblack")
    with pytest.raises(UnlikeOthersError, match="holds complex64 values"):
        choose(tmp_path / "b.tif", (tmp_path / "b.tif").read_bytes(), None)
    tifffile.imwrite(tmp_path / "c.tif", values().transpose(2, 0, 1), photometric="minisblack", metadata=None)
    with pytest.raises(UnlikeOthersError, match=r"holds 4 pages.* data\.bands=1-4"):
        choose(tmp_path / "c.tif", (tmp_path / "c.tif").read_bytes(), None)
    assert choose(tmp_path / "c.tif", (tmp_path / "c.tif").read_bytes(), (2,)).numbers == (2,)


def test_too_many_values_are_refused_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("des4.images.bands.MAX_VALUES", 1000)
    path = tif(tmp_path / "a.tif", values())
    with pytest.raises(DataError, match=r"32×24 pixels of 4 bands exceed the limit of 1000 values; cut it into tiles"):
        decode_bands(path, path.read_bytes(), Chosen((1,), "uint16"))


def test_without_the_extra_deep_colours_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    colours = png(tmp_path / "a.png", values(0, 3))
    grey = png(tmp_path / "b.png", values(0, 1)[..., 0])
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(DataError, match=r'a\.png: .* needs imagecodecs; pip install "des4\[bands\]"'):
        decode_bands(colours, colours.read_bytes(), Chosen((1, 2, 3), "uint16"))
    assert decode_bands(grey, grey.read_bytes(), Chosen((1,), "uint16")).shape == (1, *SIZE)


# ── what values mean ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_ranges_become_0_to_1_and_what_is_outside_is_clipped() -> None:
    stored = torch.tensor([[100, 0], [300, 500], [200, 2000]], dtype=torch.int16)
    expected = torch.tensor([[0, 0], [1, 0.5], [0.5, 1]])
    assert scaled(stored, BANDS.ranges).equal(expected)
    assert scaled(torch.tensor([[torch.nan, torch.inf]]), BANDS.ranges).tolist() == [[0, 1]]
    byte = torch.tensor([0, 51, 255], dtype=torch.uint8)
    assert unit(byte).equal(byte.float() / 255)
    assert unit(expected) is expected


def test_ranges_are_percentiles_and_statistics_are_of_what_the_network_sees() -> None:
    rng = np.random.default_rng(0)
    stored = rng.uniform(1000, 2000, (2, 300, 300)).astype(np.float32)
    stored[1] *= 2
    stored[:, 0, :5], stored[1, 5] = 1e9, np.nan  # glints, and a row without data
    image = torch.from_numpy(stored)
    bands = measure(lambda _: image, (["a"], ["b", "c"]), Chosen((1, 2), "float"))
    (low, high), (low2, high2) = bands.ranges
    assert (low, high) == pytest.approx((1000, 2000), rel=0.01)
    assert (low2, high2) == pytest.approx((2000, 4000), rel=0.01)
    assert bands.mean == pytest.approx((0.5, 0.5), abs=0.03)
    assert bands.std == pytest.approx((0.289, 0.289), abs=0.02)
    given = measure(lambda _: image, (["a"],), Chosen((1, 2), "float"), [(0, 4000)])
    assert given.ranges == ((0, 4000), (0, 4000))
    assert given.mean[0] == pytest.approx(1500 / 4000, abs=0.01)
    with pytest.raises(DataError, match="has 3 ranges for 2 bands"):
        measure(lambda _: image, (["a"],), Chosen((1, 2), "float"), [(0, 1)] * 3)


def test_bytes_keep_their_range_and_a_constant_band_has_one() -> None:
    image = torch.full((1, 8, 8), 7, dtype=torch.uint8)
    bands = measure(lambda _: image, (["a"],), Chosen((1,), "uint8"))
    assert (bands.ranges, bands.std, bands.are_bytes) == (((0, 255),), (1.0,), True)
    deep = measure(lambda _: image.short(), (["a"],), Chosen((1,), "int16"))
    assert (deep.ranges, deep.mean, deep.std) == (((7, 8),), (0,), (1.0,))


def test_a_band_that_hardly_varies_is_constant() -> None:
    image = torch.tensor([[[0.4999, 0.5001]], [[0.4, 0.6]]])
    bands = measure(lambda _: image, (["a"],), Chosen((1, 2), "float"), [(0, 1)])
    assert bands.std == (1.0, 0.1)


def test_pixels_without_data_count_for_nothing() -> None:
    image = torch.tensor([[[0.7, torch.nan], [0.8, torch.nan]]])
    bands = measure(lambda _: image, (["a"],), Chosen((1,), "float"), [(0, 1)])
    assert (bands.mean, bands.std) == ((0.75,), (0.05,))


def test_the_images_measured_are_evenly_spaced() -> None:
    seen: list[str] = []

    def read(sample_id: str) -> torch.Tensor:
        seen.append(sample_id)
        return torch.ones(1, 4, 4)

    measure(read, ([str(number) for number in range(300)],), Chosen((1,), "float"))
    assert seen == [str(number) for number in range(0, 300, 3)]


def test_what_cannot_be_read_is_left_out_of_the_measuring() -> None:
    def read(sample_id: str) -> torch.Tensor:
        if sample_id == "bad":
            raise DataError("bad: is broken; mend it")
        return torch.ones(1, 4, 4)

    assert measure(read, (["bad", "good"], []), Chosen((1,), "float")).numbers == (1,)
    with pytest.raises(DataError, match="is broken"):
        measure(read, (["bad"],), Chosen((1,), "float"))


def test_people_are_shown_three_bands_or_grey() -> None:
    byte = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    assert picture(byte, None) is byte
    five = np.random.default_rng(0).random((4, 5, 5), np.float32)
    bands = BANDS.model_copy(update={"mean": (0.5,) * 5, "std": (0.1,) * 5})
    shown = picture(five, bands)
    assert (shown.shape, shown.dtype) == ((4, 5, 3), np.uint8)
    assert np.array_equal(shown, np.clip((five[..., :3] - 0.25) * 510, 0, 255).round().astype(np.uint8))
    grey = picture(five[..., :2], BANDS)
    assert (grey == grey[..., :1]).all()


# ── data sets ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_folder_of_bands(tmp_path: Path) -> None:
    data = Folder(FolderConfig(root=folder(tmp_path)))
    assert data.chosen == Chosen((1, 2, 3, 4), "uint16")
    assert "images: bands 1, 2, 3, 4 of uint16 values" in data.notes
    bands = data.bands
    assert bands is not None
    stored = data.stored_image("0")
    assert np.array_equal(stored.permute(1, 2, 0).numpy(), values(0))
    image = data.image("0")
    assert (image.dtype, image.shape) == (torch.float32, (4, *SIZE))
    assert image.permute(1, 2, 0).is_contiguous()
    assert image.equal(scaled(stored.permute(1, 2, 0), bands.ranges).permute(2, 0, 1))
    assert image.mean((1, 2)).tolist() == pytest.approx(bands.mean, abs=0.05)
    data.check_labeled()


def test_bands_are_chosen_in_an_order(tmp_path: Path) -> None:
    root = folder(tmp_path)
    data = Folder(FolderConfig.model_validate({"root": root, "bands": "4,2", "value_range": [0, 5000]}))
    assert data.bands is not None
    assert (data.bands.numbers, data.bands.ranges) == ((4, 2), ((0, 5000), (0, 5000)))
    expected = torch.from_numpy(values(0)[..., [3, 1]].astype(np.float32) / 5000).permute(2, 0, 1)
    assert torch.allclose(data.image("0"), expected)
    assert FolderConfig.model_validate({"root": root, "bands": "7, 1-3"}).bands == (7, 1, 2, 3)
    with pytest.raises(DataError, match="has 4 bands, and number 5"):
        Folder(FolderConfig(root=root, bands=(5,))).bands  # noqa: B018


@pytest.mark.parametrize(
    "given",
    [
        {"bands": "0"},
        {"bands": "4-2"},
        {"bands": "a"},
        {"bands": []},
        {"value_range": [5, 5]},
        {"value_range": []},
        {"value_range": [[0, float("inf")]]},
    ],
)
def test_settings_that_mean_nothing_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        FolderConfig.model_validate({"root": "r", **given})


def test_8_bit_pictures_are_what_they_were(tmp_path: Path) -> None:
    def write(images: Path, number: int) -> None:
        images.mkdir(exist_ok=True)
        mode = ("RGB", "L", "RGBA", "P", "RGB")[number]
        Image.fromarray(values(number, 3).astype(np.uint8)).convert(mode).save(images / f"{number}.png")

    data = Folder(FolderConfig(root=folder(tmp_path, write)))
    assert data.bands is None
    for number in range(5):
        rgb = np.asarray(Image.open(tmp_path / "images" / f"{number}.png").convert("RGB"))
        assert data.image(str(number)).dtype == torch.uint8
        assert np.array_equal(data.image(str(number)).permute(1, 2, 0).numpy(), rgb)


def test_8_bit_bands_stay_bytes(tmp_path: Path) -> None:
    def write(images: Path, number: int) -> None:
        tif(images / f"{number}.tif", values(number).astype(np.uint8))

    data = Folder(FolderConfig(root=folder(tmp_path, write)))
    assert data.bands is not None
    assert data.bands.are_bytes
    assert data.image("1").dtype == torch.uint8
    assert np.array_equal(data.image("1").permute(1, 2, 0).numpy(), values(1).astype(np.uint8))


def test_one_deep_image_among_pictures_is_refused_and_one_picture_makes_no_bands(tmp_path: Path) -> None:
    def write(images: Path, number: int) -> None:
        images.mkdir(exist_ok=True)
        if number == 0:
            tif(images / "0.tif", values())
        else:
            Image.fromarray(values(number, 3).astype(np.uint8)).save(images / f"{number}.png")

    config = FolderConfig(root=folder(tmp_path, write))
    data = Folder(config)
    assert data.bands is None
    with pytest.raises(DataError, match=r"0\.tif: holds more than 8 bits a channel \(16\); convert it"):
        data.image("0")
    assert [f.code for f in check(config).findings if f.severity == "error"] == ["deep-image"]


def test_one_picture_to_score_on_makes_no_bands(tmp_path: Path) -> None:
    def write(images: Path, number: int) -> None:
        if number == 3:  # the only val image
            Image.fromarray(values(number, 3).astype(np.uint8)).save(images / f"{number}.png")
        else:
            tif(images / f"{number}.tif", values(number))

    assert Folder(FolderConfig(root=folder(tmp_path, write))).chosen is None


def test_a_check_names_what_is_unlike_the_others(tmp_path: Path) -> None:
    config = FolderConfig(root=folder(tmp_path))
    assert [f for f in check(config).findings if f.severity == "error"] == []
    assert any("bands 1, 2, 3, 4 of uint16 values" in f.message for f in check(config).findings)
    ((_, shown, _), *_) = examples(check(config))
    assert (shown.shape, shown.dtype) == ((*SIZE, 3), np.uint8)
    tif(tmp_path / "images" / "2.tif", values(2).astype(np.float32))
    assert [(f.code, f.path.name) for f in check(config).findings if f.severity == "error"] == [
        ("other-bands", "2.tif")
    ]
    with pytest.raises(DataError, match=r"2\.tif: holds float values, where uint16 is expected"):
        refuse_errors(Folder(config), config, ("labeled", "val"))
    tif(tmp_path / "images" / "2.tif", values(0))
    assert "duplicate" in [f.code for f in check(config).findings]
    tif(tmp_path / "images" / "2.tif", np.ones_like(values()))
    assert "blank-image" in [f.code for f in check(config).findings]


def test_images_are_read_as_those_of_another_data_set(tmp_path: Path) -> None:
    root = folder(tmp_path)
    data = Folder(FolderConfig(root=root))
    data.read_as(BANDS)
    assert data.image("0").equal(scaled(torch.from_numpy(values(0)[..., [2, 0]]), BANDS.ranges).permute(2, 0, 1))
    other = Folder(FolderConfig(root=root, bands=(1, 3)))  # files with another order of bands
    other.read_as(BANDS)
    assert other.image("0").equal(scaled(torch.from_numpy(values(0)[..., [0, 2]]), BANDS.ranges).permute(2, 0, 1))
    with pytest.raises(DataError, match="names 1 bands, and the network was trained on 2"):
        Folder(FolderConfig(root=root, bands=(1,))).read_as(BANDS)
    data.read_as(None)
    with pytest.raises(DataError, match="more than 8 bits"):
        data.image("0")


def test_stored_values_are_cached(tmp_path: Path) -> None:
    root = folder(tmp_path / "data")
    config = FolderConfig(root=root, cache=0.01, cache_dir=tmp_path / "cache")
    first, again = Folder(config), Folder(config)
    before = first.image("0")
    assert again.image("0").equal(before)
    assert again.stored_image("0").dtype == torch.uint16
    other = Folder(config.model_copy(update={"bands": (2,)}))
    assert np.array_equal(other.stored_image("0")[0].numpy(), values(0)[..., 1])
    assert again.image("0").equal(before)
    assert len([path for path in (tmp_path / "cache").rglob("*") if len(path.name) == 30]) == 4 + 1


def test_bands_in_shards(tmp_path: Path) -> None:
    folder(tmp_path / "data")
    for number in range(6, 9):
        tif(tmp_path / "more" / f"{number}.tif", values(number))
    write_shards(tmp_path / "more", tmp_path / "shards", 10**9)
    data = Folder(FolderConfig(root=tmp_path / "data", shards=tmp_path / "shards", cache_dir=tmp_path / "cache"))
    sample_id = next(i for i in data.unlabeled if i.endswith("/7"))
    assert np.array_equal(data.stored_image(sample_id).permute(1, 2, 0).numpy(), values(7))


def test_settings_of_bands_are_not_passed_over_in_silence(tmp_path: Path) -> None:
    def write(images: Path, number: int) -> None:
        images.mkdir(exist_ok=True)
        Image.fromarray(values(number, 3).astype(np.uint8)).save(images / f"{number}.png")

    root = folder(tmp_path, write)
    with pytest.raises(DataError, match=r"data\.value_range is for images of bands"):
        Folder(FolderConfig(root=root, value_range=((0, 100),))).image("0")
    chosen = Folder(FolderConfig(root=root, value_range=((0, 100),), bands=(2,)))
    assert torch.allclose(
        chosen.image("0")[0], torch.from_numpy(values(0, 3).astype(np.uint8)[..., 1] / 100).clamp(max=1).float()
    )
    with pytest.raises(DataError, match="trained on 8-bit pictures"):
        chosen.read_as(None)


def test_without_the_extra_a_folder_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = FolderConfig(root=folder(tmp_path))
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(DataError, match=r'needs tifffile; pip install "des4\[bands\]"'):
        Folder(config).image("0")
    with pytest.raises(DataError, match=r'needs tifffile; pip install "des4\[bands\]"'):
        check(config)


# ── windows ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("options", [{}, {"rowsperstrip": 5, "compression": "lzw"}, {"tile": (16, 16)}])
def test_windows_hold_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    array = np.random.default_rng(0).integers(0, 1000, (90, 130, 3)).astype(np.uint16)
    path = tif(tmp_path / "a.tif", array, **options)
    whole = open_windows(path, BANDS)
    assert isinstance(whole, Decoded)
    pixels = whole.read(0, 0, *whole.size)
    assert np.array_equal(pixels, scaled(torch.from_numpy(array[..., [2, 0]]), BANDS.ranges).numpy())
    monkeypatch.setattr(windows, "WINDOWS_FROM", 0)
    image = open_windows(path, BANDS)
    assert isinstance(image, StreamedBands)
    assert image.size == (90, 130)
    for top, left, height, width in ((0, 0, 40, 50), (0, 40, 40, 90), (30, 0, 40, 50), (30, 3, 20, 9), (60, 0, 30, 130),
                                     (10, 5, 7, 8)):  # fmt: skip
        part = image.read(top, left, height, width)
        assert np.array_equal(part, pixels[top : top + height, left : left + width])
        assert len(image._rows) <= 60
    assert show(image, 0, 0, 5, 6).shape == (5, 6, 3)


def test_windows_refuse_what_the_network_does_not_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(values(0, 3).astype(np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: holds uint8 values, where uint16 is expected"):
        open_windows(tmp_path / "a.png", BANDS)
    with pytest.raises(DataError, match="no such file"):
        open_windows(tmp_path / "none.tif", BANDS)
    with pytest.raises(DataError, match=r"b\.tif: holds more than 8 bits"):
        open_windows(tif(tmp_path / "b.tif", values()))
    with pytest.raises(DataError, match=r"c\.tif: holds bands, and is no picture in RGB"):
        open_windows(tif(tmp_path / "c.tif", values(bands=5).astype(np.uint8)))
    monkeypatch.setattr(windows, "WINDOWS_FROM", 0)
    monkeypatch.setattr(windows, "MAX_VALUES", 100)
    with pytest.raises(DataError, match="stored in one piece too large to decode; save it in tiles"):
        open_windows(tif(tmp_path / "d.tif", values(), compression="zlib", rowsperstrip=SIZE[0]), BANDS)
