import io

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageOps

from des4.images import pictures as images
from des4.images.pictures import read_header, read_image, read_mask
from des4.types import DataError

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def saved(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp"])
def test_lossless_formats_come_back_exactly(tmp_path, suffix):
    path = saved(tmp_path / f"a.{suffix}", RGB, **({"lossless": True} if suffix == "webp" else {}))
    assert np.array_equal(read_image(path).permute(1, 2, 0).numpy(), RGB)


def test_jpeg_is_decoded_as_pillow_does(tmp_path):
    path = saved(tmp_path / "a.jpg", RGB, quality=95)
    with Image.open(path) as image:
        assert np.abs(read_image(path).permute(1, 2, 0).numpy().astype(int) - np.asarray(image).astype(int)).max() <= 2


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    image = Image.fromarray(RGB).convert(mode)
    image.save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png").permute(1, 2, 0).numpy(), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 20}])
def test_every_pixel_of_a_jpeg_is_pillow_s(tmp_path, mode, options):
    smooth = Image.fromarray(RGB).resize((67, 45), Image.Resampling.BICUBIC).convert(mode)
    smooth.save(tmp_path / "a.jpg", **options)
    with Image.open(tmp_path / "a.jpg") as image:
        assert np.array_equal(read_image(tmp_path / "a.jpg").permute(1, 2, 0).numpy(), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_images_keep_the_memory_they_were_decoded_into(tmp_path, suffix):
    assert read_image(saved(tmp_path / f"a.{suffix}", RGB)).permute(1, 2, 0).is_contiguous()


def test_cmyk_jpeg_is_read(tmp_path):
    Image.new("CMYK", (7, 5), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg").float().mean((1, 2)).tolist() == pytest.approx([255, 0, 0], abs=4)


@pytest.mark.parametrize("read", [read_image, read_mask, images.read_colours, read_header])
def test_postscript_is_a_program_and_not_run(tmp_path, monkeypatch, read):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *given, **named: pytest.fail("it is run"))
    Image.fromarray(RGB).save(tmp_path / "a.png", "EPS")
    with pytest.raises(DataError, match=r"a\.png: is PostScript"):
        read(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_exif_rotation_is_applied_to_images(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise
    path = saved(tmp_path / f"a.{suffix}", RGB, exif=exif)
    assert read_header(path).rotated
    assert read_header(path).size == (5, 7)
    assert read_image(path).shape == (3, 7, 5)
    if suffix == "png":
        assert np.array_equal(read_image(path).permute(1, 2, 0).numpy(), np.rot90(RGB, -1))


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_every_orientation_is_turned_upright_as_pillow_does(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / f"a.{suffix}", RGB, exif=exif)
    assert read_header(path).rotated == (orientation in range(2, 9))
    with Image.open(path) as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    assert read_header(path).upright == upright.shape[:2]
    assert np.array_equal(read_image(path).permute(1, 2, 0).numpy(), upright)


def test_unreadable_exif_asks_for_no_rotation(tmp_path):
    path = saved(tmp_path / "a.jpg", RGB, exif=b"Exif\x00\x00rubbish")
    assert not read_header(path).rotated
    assert read_image(path).shape == (3, 5, 7)


def broken_files(tmp_path):
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    (tmp_path / "truncated.png").write_bytes(buffer.getvalue()[:3000])
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG")
    (tmp_path / "truncated.jpg").write_bytes(buffer.getvalue()[:1500])
    for mode in ("RGB", "L", "CMYK"):  # an end mark in the middle: Pillow would fill the rest with grey
        buffer = io.BytesIO()
        Image.fromarray(noise).convert(mode).save(buffer, "JPEG")
        (tmp_path / f"shortened_{mode}.jpg").write_bytes(buffer.getvalue()[:1500] + b"\xff\xd9")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.png").write_text("not an image")
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.png")
    saved(tmp_path / "moving.webp", RGB, save_all=True, append_images=[Image.fromarray(255 - RGB)])
    return [*(path.name for path in tmp_path.iterdir()), "missing.jpg"]


def test_broken_images_are_named_in_one_line(tmp_path):
    names = broken_files(tmp_path)
    assert len(names) == 10
    for name in names:
        with pytest.raises(DataError) as error:
            read_image(tmp_path / name)
        assert name in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_too_large_an_image_is_refused_before_it_is_decoded(tmp_path, monkeypatch, suffix):
    path = saved(tmp_path / f"a.{suffix}", RGB)
    monkeypatch.setattr(images, "MAX_PIXELS", 34)
    monkeypatch.setattr(Image.Image, "load", None)
    monkeypatch.setattr(images.simplejpeg, "decode_jpeg", None)
    with pytest.raises(DataError, match=r"7×5 pixels exceed"):
        read_image(path)


def test_masks_are_indices_whatever_their_storage(tmp_path):
    index = np.array([[0, 1, 255], [2, 3, 4]], np.uint8)
    for name, image in {
        "grey": Image.fromarray(index),
        "palette": Image.fromarray(index).convert("P"),
        "deep": Image.fromarray(index.astype(np.uint16)),
    }.items():
        if name == "palette":
            image.putpalette([value % 256 for value in range(768)])
        image.save(tmp_path / f"{name}.png")
        assert np.array_equal(read_mask(tmp_path / f"{name}.png").numpy(), index), name


@pytest.mark.parametrize(
    ("array", "name", "reason"),
    [
        (RGB, "a.png", "in colour"),
        (RGB[..., 0], "a.bmp", "save masks as PNG"),
        (np.full((2, 2), 300, np.uint16), "a.png", "label 300"),
    ],
)
def test_a_mask_that_is_no_index_png_is_refused(tmp_path, array, name, reason):
    with pytest.raises(DataError, match=reason):
        read_mask(saved(tmp_path / name, array))
