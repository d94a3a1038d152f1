"""Data as people have them: what nobody doubts is read, and what would be trained on wrongly is not."""

from __future__ import annotations

import io
import json
import os
import struct
import sys
import unicodedata
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from trees import encode, put, refusal_of, write_lines

from des4.data_tools.checks.check import check, refuse_errors
from des4.datasets import Folder, FolderConfig, recognise
from des4.datasets.class_files import find_classes, read_classes
from des4.datasets.coco import Coco, CocoConfig
from des4.datasets.files.roles import split_of
from des4.datasets.lists import read_list
from des4.types import DataError

LABELS = np.repeat(np.arange(3, dtype=np.uint8)[:, None], 4, 1).repeat(2, 0)
"""A mask of 6×4 pixels: three classes, two rows each."""


def photo(number: int = 0, **options: object) -> bytes:
    """Encode a picture of its own for each number, 6×4 pixels."""
    return encode(np.random.default_rng(number).integers(0, 256, (6, 4, 3), dtype=np.uint8), ".png", **options)


def fill(root: Path, names: Sequence[str] = ("a", "b", "c"), mask: bytes | None = None) -> Path:
    """Write images with masks, and one without."""
    for number, name in enumerate((*names, "u")):
        put(root / "images" / f"{name}.png", photo(number))
        if name in names:
            put(root / "masks" / f"{name}.png", encode(LABELS) if mask is None else mask)
    return root


def load(root: Path, **settings: object) -> Folder:
    return Folder(FolderConfig(root=root, **settings))


def first_label(root: Path, **settings: object) -> list[list[int]]:
    data = load(root, **settings)
    label: list[list[int]] = data.label(data.labeled[0]).tolist()
    return label


def png(path: Path, bits: int, colour: int, rows: Sequence[bytes], size: tuple[int, int]) -> Path:
    """Write a PNG of any depth, which Pillow cannot."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", size[1], size[0], bits, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return put(path, b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))


# ── masks ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("channels", ["RGB", "RGBA", "LA"])
def test_a_mask_with_equal_channels_is_one_of_indices(tmp_path: Path, channels: str) -> None:
    image = Image.fromarray(LABELS).convert(channels)
    fill(tmp_path)
    for name in "abc":
        image.save(tmp_path / "masks" / f"{name}.png")
    assert first_label(tmp_path) == LABELS.tolist()
    image.putpixel((1, 1), (9, 8, 7) if channels == "RGB" else (1, 1, 1, 9) if channels == "RGBA" else (1, 9))
    for name in "abc":
        image.save(tmp_path / "masks" / f"{name}.png")
    assert "in colour" in refusal_of(lambda: load(tmp_path))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_of_grey_are_read_as_they_are_stored(tmp_path: Path, bits: int) -> None:
    fill(tmp_path)
    values = np.arange(8) % (1 << bits)
    row = bytes(np.packbits(((values[:, None] >> np.arange(bits)[::-1]) & 1).astype(np.uint8).ravel()))
    for name in "abc":
        put(tmp_path / "images" / f"{name}.png", encode(np.zeros((2, 8, 3), np.uint8)))
        png(tmp_path / "masks" / f"{name}.png", bits, 0, [row] * 2, (2, 8))
    assert first_label(tmp_path) == [values.tolist()] * 2
    assert len(load(tmp_path).classes) == min(8, 1 << bits)


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("classes.txt", ["road 128 64 128", "traffic light\t0\t0\t0", "sky #ff0000"]),
        ("classes.txt", ["128 64 128 road", "0 0 0 traffic light", "#ff0000 sky"]),
        ("class_dict.csv", ["name,r,g,b", "road,128,64,128", "traffic light,0,0,0", "sky,255,0,0"]),
        ("class_dict.csv", ["name,r,g,b,a", "road,128,64,128,255", "traffic light,0,0,0,255", "sky,255,0,0,255"]),
        ("classes.csv", ["id,name,r,g,b", "2,sky,255,0,0", "0,road,128,64,128", "1,traffic light,0,0,0"]),
        ("labelmap.txt", ["# label:color_rgb:parts:actions", "road:128,64,128::", "traffic light:0,0,0::",
                          "sky:255,0,0::"]),
    ],
)  # fmt: skip
def test_colours_are_read_by_a_table(tmp_path: Path, name: str, lines: list[str]) -> None:
    colours = np.array([[128, 64, 128], [0, 0, 0], [255, 0, 0]], np.uint8)
    fill(tmp_path, mask=encode(colours[LABELS]))
    write_lines(tmp_path / name, lines)
    data = load(tmp_path)
    assert data.classes == ("road", "traffic light", "sky")
    assert data.palette == tuple(map(tuple, colours.tolist()))
    assert first_label(tmp_path) == LABELS.tolist()
    assert load(tmp_path, ignore=["sky"]).classes == ("road", "traffic light")
    assert first_label(tmp_path, ignore=["sky"]) == np.where(LABELS == 2, 255, LABELS).tolist()
    odd = colours.copy()
    odd[2] = 9
    put(tmp_path / "masks" / "a.png", encode(odd[LABELS]))
    put(tmp_path / "masks" / "b.png", encode(LABELS))  # indices may lie among the colours
    data = load(tmp_path, val=write_lines(tmp_path / "v.txt", ("c",)))
    assert data.label("b").tolist() == LABELS.tolist()
    with pytest.raises(DataError, match=r"a\.png: the colour \(9, 9, 9\) at row 4, column 0 stands for no class"):
        data.label("a")


def test_numbers_before_colours_are_those_in_masks(tmp_path: Path) -> None:
    fill(tmp_path, mask=encode(np.array([0, 7, 3], np.uint8)[LABELS]))
    write_lines(tmp_path / "classes.csv", ("id,name,r,g,b", "7,road,1,2,3", "3,sky,4,5,6", "0,ground,7,8,9"))
    data = load(tmp_path)
    assert (data.classes, data.palette) == (("ground", "sky", "road"), ((7, 8, 9), (4, 5, 6), (1, 2, 3)))
    assert first_label(tmp_path) == np.array([0, 2, 1])[LABELS].tolist()
    write_lines(tmp_path / "classes.csv", ("4 wheels 1 2 3", "sky 4 5 6"))
    assert read_classes(tmp_path / "classes.csv").names == ("4 wheels", "sky")


@pytest.mark.parametrize("first", ["red", "green", "blue", "class", "label", "index", "value", "name"])
def test_a_class_may_be_called_as_a_column(tmp_path: Path, first: str) -> None:
    names = (first, "yellow", "brown")
    write_lines(tmp_path / "classes.txt", names)
    assert read_classes(tmp_path / "classes.txt").names == names
    if first not in ("class", "label", "name"):  # which head a column of names in a CSV file
        write_lines(tmp_path / "classes.csv", names)
        assert read_classes(tmp_path / "classes.csv").names == names


def test_names_and_colours_may_stand_in_two_files(tmp_path: Path) -> None:
    fill(tmp_path, mask=encode(np.array([[1, 2, 3], [0, 0, 9], [8, 0, 0]], np.uint8)[LABELS]))
    write_lines(tmp_path / "classes.txt", ("sky", "road", "tree"))
    write_lines(tmp_path / "class_dict.csv", ("name,r,g,b", "tree,8,0,0", "road,0,0,9", "sky,1,2,3"))
    assert load(tmp_path).classes == ("sky", "road", "tree")
    assert first_label(tmp_path) == LABELS.tolist()


def test_colours_of_other_names_are_not_taken(tmp_path: Path) -> None:
    write_lines(tmp_path / "classes.txt", ("sky", "road"))
    write_lines(tmp_path / "class_dict.csv", ("name,r,g,b", "sky,1,2,3", "lane,0,0,9"))
    found = find_classes(tmp_path)
    assert found is not None
    assert (found.names, found.colours) == (("sky", "road"), None)


def test_a_table_of_greys_stands_for_numbers_too(tmp_path: Path) -> None:
    fill(tmp_path, mask=encode(np.where(LABELS > 0, 255, 0).astype(np.uint8)))
    write_lines(tmp_path / "classes.txt", ("background 0 0 0", "crack 255 255 255"))
    assert first_label(tmp_path) == (LABELS > 0).astype(int).tolist()


def test_a_table_that_is_none_is_refused(tmp_path: Path) -> None:
    for lines, reason in (
        (("road 1 2 3", "sky 4 5 6", "tree"), "'tree' gives its class no colour"),
        (("road 1 2 3", "sky 1 2 3"), "the colour (1, 2, 3) stands twice"),
    ):
        path = write_lines(tmp_path / "classes.txt", lines)
        assert reason in refusal_of(lambda path=path: read_classes(path))
    plain = read_classes(write_lines(tmp_path / "classes.txt", ("lane 1", "# hash", "a 300 2 3")))
    assert (plain.names, plain.colours) == (("lane 1", "# hash", "a 300 2 3"), None)


def test_numbers_of_ones_own_are_named(tmp_path: Path) -> None:
    fill(tmp_path, mask=encode(np.array([0, 255, 7], np.uint8)[LABELS]))
    assert "stands for no class" in refusal_of(lambda: load(tmp_path, values="0,255").label("a"))
    expected = np.array([0, 1, 255])[LABELS].tolist()
    assert first_label(tmp_path, values="0,255", ignore=7) == expected
    assert load(tmp_path, values="0,255", ignore=7).classes == ("class_0", "class_1")
    assert first_label(tmp_path, values=[0, 255, 7]) == LABELS.tolist()
    assert first_label(tmp_path, values=[0, 255, 7], ignore=7) == expected
    write_lines(tmp_path / "_classes.csv", ("Pixel Value, Class", "0, background", "255, crack", "7, stain"))
    assert load(tmp_path).classes == ("background", "stain", "crack")
    assert first_label(tmp_path) == np.array([0, 2, 1])[LABELS].tolist()
    assert "expected 2" in refusal_of(lambda: load(tmp_path, values="1-2"))


def test_numbers_of_sixteen_bits_may_stand_for_classes(tmp_path: Path) -> None:
    stored = np.array([0, 1000, 65535], np.uint16)[LABELS]
    fill(tmp_path, mask=encode(stored))
    assert "label 65535" in refusal_of(lambda: load(tmp_path))
    assert first_label(tmp_path, values="0,1000,65535") == LABELS.tolist()
    assert first_label(tmp_path, values="0,1000", ignore=65535) == np.where(LABELS == 2, 255, LABELS).tolist()
    assert "number 1000 at row 2" in refusal_of(lambda: first_label(tmp_path, values="0,65535"))
    write_lines(tmp_path / "_classes.csv", ("Pixel Value, Class", "65535, crack", "0, background", "1000, stain"))
    assert load(tmp_path).classes == ("background", "stain", "crack")
    assert first_label(tmp_path) == LABELS.tolist()
    write_lines(tmp_path / "_classes.csv", ("Pixel Value, Class", "70000, crack", "0, background"))
    assert "no mask can hold the number 70000" in refusal_of(lambda: load(tmp_path))
    for wrong in ({"values": "0,70000"}, {"values": "0-300"}, {"ignore": 70000}):
        with pytest.raises(ValidationError, match="0-65535"):
            FolderConfig(root=tmp_path, **wrong)


def test_a_list_of_classes_that_is_none_says_so_once(tmp_path: Path) -> None:
    path = fill(tmp_path) / "classes.txt"
    path.write_bytes("Grün\nHaus\nSonne\n".encode("cp1252"))
    told = "classes.txt: the list cannot be read: it is not UTF-8 text; give a text file in UTF-8 with one class a line"
    assert told in refusal_of(lambda: load(tmp_path))
    gone = refusal_of(lambda: load(tmp_path, classes=tmp_path / "gone.txt"))
    assert "gone.txt: the list cannot be read: No such file or directory; give" in gone
    write_lines(path, ("a", "a", "b"))
    (finding,) = check(FolderConfig(root=tmp_path)).findings
    assert (finding.code, finding.message) == ("layout", "the name 'a' stands twice")
    write_lines(path, ("a", '"b"', "c"))
    assert load(tmp_path).classes == ("a", "b", "c")
    told = refusal_of(lambda: load(tmp_path, ignore="a,b,c"))
    assert "classes.txt: data.ignore leaves 0 of its 3 classes, and two or more are needed; ignore fewer" in told


def test_a_suffix_that_all_masks_share_is_found(tmp_path: Path) -> None:
    fill(tmp_path, ("p1", "p10", "sub/p2"))
    for path in list((tmp_path / "masks").rglob("*.png")):
        path.rename(path.with_name(f"{path.stem}_mask.png"))
    data = load(tmp_path)
    assert sorted((*data.labeled, *data.val)) == ["p1", "p10", "sub/p2"]
    assert "masks: named as their images, with '_mask' at the end" in data.notes
    put(tmp_path / "masks" / "p1_edges.png", encode(LABELS))
    assert "no image belongs to the mask" in refusal_of(lambda: load(tmp_path))
    data = load(tmp_path, mask_suffix="_mask")
    assert sorted((*data.labeled, *data.val)) == ["p1", "p10", "sub/p2"]


def test_a_mask_of_its_images_name_goes_before_a_suffix(tmp_path: Path) -> None:
    fill(tmp_path, ("a", "a_mask", "b"))
    (tmp_path / "masks" / "a.png").unlink()
    (tmp_path / "masks" / "b.png").rename(tmp_path / "masks" / "b_mask.png")
    assert "no image belongs to the mask 'b_mask'" in refusal_of(lambda: load(tmp_path))


# ── folders ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("images", "masks"), [("JPEGImages", "SegmentationClass"), ("imgs", "masks"), ("images", "labels")]
)
def test_the_two_folders_may_have_other_names(tmp_path: Path, images: str, masks: str) -> None:
    fill(tmp_path)
    (tmp_path / "images").rename(tmp_path / images)
    (tmp_path / "masks").rename(tmp_path / masks)
    write_lines(tmp_path / "class_names.txt", ("_background_", "crop", "weed"))
    assert recognise(tmp_path) == "folder"
    data = load(tmp_path)
    assert (data.classes[0], len(data.labeled), data.unlabeled) == ("_background_", 2, ("u",))
    assert f"folders: images are in {images}/, masks in {masks}/" in data.notes
    listed = write_lines(tmp_path / "l.txt", (f"{images}/b.png {masks}/b.png",))
    assert load(tmp_path, labeled=listed, val=write_lines(tmp_path / "v.txt", ("a",))).labeled == ("b",)


def test_vocs_layout_with_names_like_vocs_is_ones_own_without_vocs_lists(tmp_path: Path) -> None:
    fill(tmp_path, ("2011_000000", "2011_000001", "2011_000002"))
    (tmp_path / "images").rename(tmp_path / "JPEGImages")
    (tmp_path / "masks").rename(tmp_path / "SegmentationClass")
    for path in (tmp_path / "JPEGImages").iterdir():
        path.rename(path.with_suffix(".jpg"))
    assert recognise(tmp_path) == "folder"
    lists = tmp_path / "ImageSets" / "Segmentation"
    write_lines(lists / "val.txt", ("2011_000001",))
    assert recognise(tmp_path) == "voc"
    write_lines(tmp_path / "class_names.txt", ("_background_", "crop", "weed"))
    assert recognise(tmp_path) == "folder"
    write_lines(lists / "test.txt", ("2011_000002",))
    data = load(tmp_path)
    assert (data.labeled, data.val, data.unlabeled) == (("2011_000000",), ("2011_000001",), ("u",))


def test_two_folders_that_could_hold_the_masks_are_a_question(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "masks").rename(tmp_path / "labels")
    put(tmp_path / "annotations" / "a.png", encode(LABELS))
    assert "could both be meant" in refusal_of(lambda: load(tmp_path))
    assert len(load(tmp_path, masks=tmp_path / "labels").labeled) == 2


def test_formats_that_have_to_be_imported_are_named(tmp_path: Path) -> None:
    for place, reason in (("annotations.xml", "has to be imported"), ("labels/a.txt", "need a data.yaml")):
        root = tmp_path / reason[:5]
        put(root / "images" / "a.png", photo())
        put(root / place, b"0 0.1 0.1 0.2 0.2 0.3 0.3")
        message = refusal_of(lambda root=root: load(root))
        assert reason in message
        assert "or put PNGs of class indices into" in message


def test_hidden_folders_are_no_data(tmp_path: Path) -> None:
    fill(tmp_path)
    for folder in (".ipynb_checkpoints", "@eaDir", "__MACOSX"):
        for side in ("images", "masks"):
            put(tmp_path / side / folder / "a.png", photo(7))
            put(tmp_path / side / "._a.png", b"nothing")
    data = load(tmp_path)
    assert sorted((*data.labeled, *data.val, *data.unlabeled)) == ["a", "b", "c", "u"]


def test_a_linked_folder_counts_once(tmp_path: Path) -> None:
    fill(tmp_path / "data", ("train/a", "train/b"))
    for side in ("images", "masks"):
        (tmp_path / "data" / side / "all").symlink_to(tmp_path / "data" / side / "train")
        (tmp_path / "data" / side / "round").symlink_to(tmp_path / "data")
    put(tmp_path / "elsewhere" / "x.png", photo(8))
    (tmp_path / "data" / "images" / "more").symlink_to(tmp_path / "elsewhere")
    data = load(tmp_path / "data")
    assert sorted((*data.labeled, *data.val, *data.unlabeled)) == ["more/x", "train/a", "train/b", "u"]


def test_test_folders_are_never_trained_on_and_valid_is_val(tmp_path: Path) -> None:
    fill(tmp_path, ("train/a", "train/b", "Valid/c", "test/d"))
    for number, name in enumerate(("test/e", "Valid/f", "train/g")):
        put(tmp_path / "images" / f"{name}.png", photo(20 + number))
    data = load(tmp_path)
    assert (data.labeled, data.val) == (("train/a", "train/b"), ("Valid/c",))
    assert data.unlabeled == ("train/g", "u")
    assert "left out: 2 images in test folders, for no list names them" in data.notes
    assert "left out: 1 images in val folders, for no list names them" in data.notes
    listed = write_lines(tmp_path / "l.txt", ("train/a", "test/d"))
    assert load(tmp_path, labeled=listed).labeled == ("train/a", "test/d")
    assert load(tmp_path, labeled=listed).unlabeled == ("train/b", "train/g", "u")
    only = fill(tmp_path / "only", ("test/a", "test/b"))
    assert "in val or test folders, which nothing is trained on" in refusal_of(lambda: load(only))


def test_a_test_folder_inside_val_is_of_the_test_split() -> None:
    assert [split_of(name) for name in ("val/test/a", "test/val/a", "val/a", "a")] == ["test", "test", "val", None]


# ── names and lists ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_accents_are_one_name_however_they_are_spelt(tmp_path: Path) -> None:
    name = "café"
    fill(tmp_path, (unicodedata.normalize("NFD", name), "b", "c"))
    path = tmp_path / "masks" / f"{unicodedata.normalize('NFD', name)}.png"
    path.rename(path.with_name(f"{unicodedata.normalize('NFC', name)}.png"))
    data = load(tmp_path, val=write_lines(tmp_path / "v.txt", (unicodedata.normalize("NFD", name),)))
    assert data.val == (unicodedata.normalize("NFC", name),)
    assert data.label(data.val[0]).shape == (6, 4)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are text there")
def test_a_name_that_is_no_text_is_named(tmp_path: Path) -> None:
    fill(tmp_path)
    os.rename(tmp_path / "images" / "u.png", os.fsencode(tmp_path / "images") + b"/caf\xe9.png")  # noqa: PTH104
    message = refusal_of(lambda: load(tmp_path))
    assert "caf\\xe9.png" in message
    assert "rename the file" in message
    message.encode()
    (found,) = (f for f in check(FolderConfig(root=tmp_path)).findings if f.code == "unwritable-name")
    assert found.severity == "error"


def test_lists_are_read_as_programs_of_all_kinds_write_them(tmp_path: Path) -> None:
    fill(tmp_path, ("my photo", "b", "train/c", "d", "e"))
    val = write_lines(tmp_path / "v.txt", ("d",))
    for text in (
        "\ufeffmy photo\r\nb\r\ntrain/c",
        "my photo.png\nb.png\ntrain\\c.png\n",
        "images/my photo.png masks/my photo.png\nimages/b.png,masks/b.png\nimages/train/c.png\tmasks/train/c.png",
        '"images/my photo.png" "masks/my photo.png"\nb\n"train/c"',
        f"{tmp_path}/images/my photo.png\n{tmp_path}/images/b.png\n{tmp_path}/images/train/c.png",
        "/home/me/photos/images/my photo.png\nC:\\photos\\images\\b.png\n/images/train/c.png",
        f"/x/{tmp_path.name}/images/my photo.png /x/{tmp_path.name}/masks/my photo.png\nb\ntrain/c",
    ):
        for encoding in ("utf-8", "utf-16"):
            path = put(tmp_path / "l.txt", text.removeprefix("\ufeff" * (encoding == "utf-16")).encode(encoding))
            data = load(tmp_path, labeled=path, val=val)
            assert data.labeled == ("my photo", "b", "train/c"), text
            assert data.label("my photo").shape == (6, 4)


def test_one_image_in_two_spellings_is_one_image(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "images")
    write_lines(tmp_path / "val.txt", ("a",))
    for name in ("images/a.png", f"{tmp_path}/images/a.png", "./images/../images/a.png", "link/a.png", "images\\a.png"):
        listed = write_lines(tmp_path / "labeled.txt", (f"{name} masks/a.png", "b"))
        assert "'a' is both labeled and val" in refusal_of(lambda listed=listed: load(tmp_path, labeled=listed)), name


def test_a_foreign_path_does_not_fall_back_on_a_file_that_only_shares_its_name(tmp_path: Path) -> None:
    fill(tmp_path)
    listed = write_lines(tmp_path / "l.txt", ("/home/me/other/a.png", "b"))
    assert "no image '/home/me/other/a.png'" in refusal_of(lambda: load(tmp_path, labeled=listed))


def test_of_a_foreign_path_counts_what_follows_the_folder_of_images(tmp_path: Path) -> None:
    fill(tmp_path, ("a", "b", "masks/images/a"))
    listed = write_lines(tmp_path / "l.txt", ("/home/me/masks/images/a.png", "b"))
    val = write_lines(tmp_path / "v.txt", ("masks/images/a",))
    assert load(tmp_path, labeled=listed, val=val).labeled == ("a", "b")


def test_labeled_may_be_spelt_with_two_ls(tmp_path: Path) -> None:
    fill(tmp_path)
    write_lines(tmp_path / "labelled.txt", ("b",))
    write_lines(tmp_path / "unlabelled.txt", ("u",))
    write_lines(tmp_path / "val.txt", ("c",))
    data = load(tmp_path)
    assert (data.labeled, data.unlabeled, data.val) == (("b",), ("u",), ("c",))
    write_lines(tmp_path / "labeled.txt", ("a",))
    assert load(tmp_path).labeled == ("a",)


def test_a_pair_of_names_with_spaces_is_taken_apart_by_the_suffix(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "l.txt", ("a b.jpg c d.png", "a b.png", "e f.png"))
    assert read_list(path) == (("a b.jpg", "c d.png"), ("a", "b.png"), ("e", "f.png"))
    whole = read_list(path, lambda line: line in ("a b.png", "e f.png"))
    assert whole == (("a b.jpg", "c d.png"), ("a b.png", None), ("e f.png", None))


# ── EXIF, MPO, depth ─────────────────────────────────────────────────────────────────────────────────────────────────


def turned(orientation: int, size: tuple[int, int] = (6, 4)) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.arange(size[0] * size[1] * 3, dtype=np.uint8).reshape(*size, 3)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", exif=exif.tobytes())
    return buffer.getvalue()


def test_sizes_say_whether_a_mask_follows_the_rotation(tmp_path: Path) -> None:
    fill(tmp_path)
    put(tmp_path / "images" / "a.png", turned(6))
    settings = {"val": write_lines(tmp_path / "v.txt", ("c",))}
    stored = load(tmp_path, **settings)
    assert stored.image("a").shape == (3, 4, 6)
    assert stored.label("a").tolist() == np.rot90(LABELS, -1).tolist()  # 6: turn clockwise
    put(tmp_path / "masks" / "a.png", encode(np.rot90(LABELS, -1).copy()))
    assert load(tmp_path, **settings).label("a").tolist() == np.rot90(LABELS, -1).tolist()
    for orientation, size in ((3, (6, 4)), (6, (4, 4))):
        put(tmp_path / "images" / "a.png", turned(orientation, size))
        mask = LABELS[: size[0]]
        put(tmp_path / "masks" / "a.png", encode(mask))
        assert "say data.exif=upright" in refusal_of(lambda: load(tmp_path, **settings).label("a"))
        assert load(tmp_path, exif="upright", **settings).label("a").tolist() == mask.tolist()
        turn = 2 if orientation == 3 else -1
        assert load(tmp_path, exif="stored", **settings).label("a").tolist() == np.rot90(mask, turn).tolist()


def test_of_a_phones_two_pictures_the_first_is_read(tmp_path: Path) -> None:
    fill(tmp_path)
    big, small = (Image.fromarray(np.full((size, size, 3), size, np.uint8)) for size in (24, 8))
    big.save(tmp_path / "images" / "m.jpg", format="MPO", save_all=True, append_images=[small])
    image = load(tmp_path).image("m")
    assert image.shape == (3, 24, 24)
    assert abs(int(image.float().mean()) - 24) <= 1


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_more_than_eight_bits_are_refused_in_every_mode(tmp_path: Path, colour: int, channels: int) -> None:
    fill(tmp_path)
    rows = [np.arange(4 * channels, dtype=">u2").tobytes()] * 6
    path = png(tmp_path / "images" / "a.png", 16, colour, rows, (6, 4))
    config = FolderConfig(root=tmp_path, val=write_lines(tmp_path / "v.txt", ("a",)))
    with pytest.raises(DataError, match="more than 8 bits a channel"):
        Folder(config).image("a")
    assert [f.path for f in check(config).findings if f.code == "deep-image"] == [path]
    with pytest.raises(DataError, match="more than 8 bits a channel"):
        refuse_errors(Folder(config), config, ("labeled", "val"))


# ── nothing in silence ───────────────────────────────────────────────────────────────────────────────────────────────


def test_what_the_check_calls_an_error_stops_a_training(tmp_path: Path) -> None:
    binary = encode(np.where(LABELS > 0, 255, 0).astype(np.uint8))
    fill(tmp_path, mask=binary)
    names = write_lines(tmp_path / "classes.txt", ("background", "crack"))

    def refusal(**settings: object) -> str:
        config = FolderConfig(root=tmp_path, **settings)
        return refusal_of(lambda: refuse_errors(Folder(config), config, ("labeled", "val")))

    assert "all masks hold 0 and 255 alone" in (message := refusal())
    assert "say data.values=0,255" in message
    config = FolderConfig(root=tmp_path, values="0,255")
    assert refuse_errors(Folder(config), config, ("labeled", "val")).counts["labeled"] == 2
    names.unlink()
    assert "say data.values=0,255" in refusal()
    fill(tmp_path, mask=encode(np.ones((6, 4), np.uint8)))
    write_lines(names, ("background", "crack"))
    assert "hold class 1 (crack) alone" in refusal()
    fill(tmp_path)
    write_lines(names, ("a", "b", "c"))
    put(tmp_path / "images" / "b.png", photo(0))
    assert "shows the same picture as" in refusal(val=write_lines(tmp_path / "v.txt", ("b",)))
    leaking = FolderConfig(root=tmp_path, val=tmp_path / "v.txt", allow_leak=True)
    assert refuse_errors(Folder(leaking), leaking, ("labeled", "val")).exit_code() == 0
    put(tmp_path / "images" / "b.png", photo(1)[:-30])
    put(tmp_path / "images" / "a.png", photo(0)[:-30])
    assert "cannot be read as an image" in (message := refusal(val=tmp_path / "v.txt"))
    assert f"(1 more: des4 data check {tmp_path})" in message
    forgiving = FolderConfig(root=tmp_path, skip_broken=True, val=tmp_path / "v.txt")
    assert "b.png" in refusal_of(lambda: refuse_errors(Folder(forgiving), forgiving, ("labeled", "val")))


def coco(root: Path, names: Sequence[str], annotations: Sequence[tuple[int, int, object, int]]) -> Coco:
    """Write and open a COCO file. annotations: place of the image, category, segmentation, iscrowd."""
    content = {
        "images": [{"id": i, "file_name": name, "height": 6, "width": 4} for i, name in enumerate(names)],
        "categories": [{"id": 1, "name": "road"}, {"id": 2, "name": "hole"}],
        "annotations": [
            {"id": 90 + n, "image_id": image, "category_id": category, "segmentation": region, "iscrowd": crowd}
            for n, (image, category, region, crowd) in enumerate(annotations)
        ],
    }
    put(root / "annotations" / "instances_default.json", json.dumps(content).encode())
    return Coco(CocoConfig(root=root))


def test_regions_that_nobody_sees_are_named(tmp_path: Path) -> None:
    for number, name in enumerate("ab"):
        put(tmp_path / "images" / f"{name}.png", photo(number))
    whole, outside = [[0, 0, 4, 0, 4, 6, 0, 6]], [[9, 9, 12, 9, 12, 12]]
    crowd = {"counts": [8, 2, 14], "size": [6, 4]}
    coco(tmp_path, ("a.png", "b.png"), [(0, 1, whole, 0), (0, 2, crowd, 1), (1, 1, whole, 0), (1, 1, outside, 0)])
    findings = {f.code: f for f in check(CocoConfig(root=tmp_path)).findings}
    assert "on a.png annotation 91, a crowd, is wholly covered" in findings["region-hidden"].message
    assert "on b.png annotation 93 covers no pixel" in findings["region-without-pixels"].message
    assert findings["region-hidden"].severity == findings["region-without-pixels"].severity == "warning"


def test_an_annotation_is_not_laid_on_an_image_of_another_folder(tmp_path: Path) -> None:
    for number, name in enumerate(("siteA/1", "siteA/2", "siteA/3")):
        put(tmp_path / "images" / f"{name}.png", photo(number))
    box = [[0, 0, 2, 0, 2, 2, 0, 2]]
    names = ("siteB/1.png", "siteA/2.png", "siteA/3.png")
    marks = [(0, 2, box, 0), (1, 1, box, 0), (2, 1, box, 0)]
    assert "no image belongs to the mask 'siteB/1'" in refusal_of(lambda: coco(tmp_path, names, marks))
