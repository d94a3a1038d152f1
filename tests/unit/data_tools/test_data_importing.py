"""Other programs' formats, written as folders: what each annotation becomes, what is lost, and what goes wrong."""

from __future__ import annotations

import errno
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from trees import encode, put, refusal_of, write_lines
from typer.testing import CliRunner

from des4 import build, cli
from des4.config import load_config
from des4.data_tools.foreign import Foreign, Item
from des4.data_tools.importing import import_folder, prepared
from des4.datasets import Folder, FolderConfig
from des4.images.tiff import MissingExtraError
from des4.types import RunError

HEIGHT, WIDTH = 12, 16


def photo(number: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)) -> bytes:
    return encode(np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8))


def labels(*boxes: tuple[int, int, int, int, int], start: int = 0) -> NDArray[np.uint8]:
    """Paint boxes (label, x, y, x end, y end) in their order."""
    canvas = np.full((HEIGHT, WIDTH), start, np.uint8)
    for label, x, y, right, bottom in boxes:
        canvas[y:bottom, x:right] = label
    return canvas


def read(path: Path) -> NDArray[np.uint8]:
    return np.array(Image.open(path))


def classes(folder: Path) -> list[str]:
    return (folder / "classes.txt").read_text().splitlines()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "source"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "des4" / "imported"


# ── YOLO ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def yolo(root: Path, lines: dict[str, Sequence[str] | None], description: str = "") -> Path:
    """Write YOLO's layout. lines: of the text file of each image, by split/name; None: without one."""
    for number, (name, text) in enumerate(lines.items()):
        put(root / "images" / f"{name}.png", photo(number))
        if text is not None:
            write_lines(root / "labels" / f"{name}.txt", text)
    put(root / "data.yaml", (description or "train: images/train\nval: images/val\nnames: [crop, weed]\n").encode())
    (root / "images" / "val").mkdir(exist_ok=True)
    return root


def box_outline(label: int, x: int, y: int, right: int, bottom: int) -> str:
    corners = ((x, y), (right, y), (right, bottom), (x, bottom))
    return " ".join([str(label), *(f"{x / WIDTH} {y / HEIGHT}" for x, y in corners)])


CROP, WEED = box_outline(0, 2, 2, 10, 8), box_outline(1, 6, 4, 14, 10)


@pytest.fixture
def labelformat() -> None:
    pytest.importorskip("labelformat")


@pytest.mark.usefixtures("labelformat")
def test_yolo_polygons_become_masks_and_images_links(root: Path, out: Path) -> None:
    yolo(root, {"train/a": [CROP, WEED], "train/u": None, "train/empty": [], "val/b": [WEED, CROP]})
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    done = import_folder(root, out)
    assert (done.format, dict(done.images)) == ("YOLO segmentation", {"train": 3, "val": 1})
    assert (done.masks, done.unlabeled) == (3, 1)
    assert classes(out) == ["background", "crop", "weed"]
    first, second = (1, 2, 2, 10, 8), (2, 6, 4, 14, 10)
    assert (read(out / "masks/train/a.png") == labels(first, second)).all()
    assert (read(out / "masks/val/b.png") == labels(second, first)).all()
    assert not read(out / "masks/train/empty.png").any()
    assert (out / "images/train/a.png").is_symlink()
    assert (out / "images/train/a.png").read_bytes() == (root / "images/train/a.png").read_bytes()
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    data = Folder(FolderConfig(root=out))
    assert (data.labeled, data.unlabeled, data.val) == (("train/a", "train/empty"), ("train/u",), ("val/b",))
    assert json.loads((out / "import.json").read_text())["classes"] == ["background", "crop", "weed"]


@pytest.mark.usefixtures("labelformat")
def test_yolo_boxes_are_lost_and_leave_their_image_unlabeled(root: Path, out: Path) -> None:
    yolo(root, {"train/a": [CROP, "1 0.5 0.5 0.2 0.2"], "train/b": ["0 0.5 0.5 0.2 0.2", "0 0.5 0.5 0.2 0.2 0.9"]})
    done = import_folder(root, out)
    assert (done.lost, done.masks, done.unlabeled) == ({"boxes": 3}, 1, 1)
    assert "lost     3 boxes" in list(done.lines())
    assert not (out / "masks/train/b.png").exists()


@pytest.mark.usefixtures("labelformat")
def test_yolo_of_boxes_alone_is_refused_and_nothing_is_left(root: Path, out: Path) -> None:
    yolo(root, {"train/a": ["0 0.5 0.5 0.2 0.2"]})
    assert "no image has an area that is annotated, only 1 boxes" in refusal_of(lambda: import_folder(root, out))
    assert [path.name for path in out.parent.iterdir()] == ["source"]


@pytest.mark.usefixtures("labelformat")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ([CROP, "7 0 0 1 0 1 1"], "names the class 7"),
        ([CROP, "", CROP], "has an empty line"),
        ([CROP, "crop 0 0 1 0 1 1"], "cannot be read as YOLO segmentation"),
        (["0 0 0 1 0 x 1"], "cannot be read as YOLO segmentation"),
    ],
)
def test_yolo_text_files_that_cannot_be_read_are_named(
    root: Path, out: Path, text: Sequence[str], message: str
) -> None:
    yolo(root, {"train/a": text})
    refusal = refusal_of(lambda: import_folder(root, out))
    assert message in refusal
    assert f"{root}/labels/train/a.txt" in refusal


@pytest.mark.usefixtures("labelformat")
@pytest.mark.parametrize(
    "description",
    [
        "path: /home/another/machine\ntrain: images/train\nval: images/val\nnames: {0: crop, 1: weed}\n",
        "path: ../field\ntrain: images/train\nval: images/train\ntest: images/test\nnames: {1: weed, 0: crop}\n",
    ],
)
def test_yolo_descriptions_of_other_machines_are_understood(root: Path, out: Path, description: str) -> None:
    yolo(root, {"train/a": [CROP], "train/b": [WEED]}, description)
    assert dict(import_folder(root, out).images) == {"train": 2}
    assert (read(out / "masks/train/b.png") == labels((2, 6, 4, 14, 10))).all()


@pytest.mark.usefixtures("labelformat")
def test_roboflow_has_the_split_above_the_images(root: Path, out: Path) -> None:
    for split in ("train", "valid"):
        put(root / split / "images" / f"{split}.jpg.rf.1.png", photo())
        write_lines(root / split / "labels" / f"{split}.jpg.rf.1.txt", [CROP])
    put(root / "data.yaml", b"train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['crop', 'weed']\n")
    import_folder(root, out)
    assert sorted(path.parent.name for path in (out / "masks").rglob("*.png")) == ["train", "val"]


@pytest.mark.usefixtures("labelformat")
def test_roboflow_means_its_own_folder_and_not_the_one_beside_it(root: Path, out: Path) -> None:
    for place, box in ((root, CROP), (root.parent, WEED)):
        put(place / "train/images/a.png", photo())
        write_lines(place / "train/labels/a.txt", [box])
    put(root / "data.yaml", b"train: ../train/images\nval: ../valid/images\nnames: ['crop', 'weed']\n")
    (root / "valid/images").mkdir(parents=True)
    import_folder(root, out)
    assert (out / "images/train/a.png").resolve() == (root / "train/images/a.png").resolve()
    assert (read(out / "masks/train/a.png") == labels((1, 2, 2, 10, 8))).all()


@pytest.mark.usefixtures("labelformat")
@pytest.mark.parametrize(
    ("images", "texts"),
    [
        ("drone_images/images/train", "drone_images/labels/train"),
        ("images/train/images", "images/train/labels"),
        ("images/train/images", "labels/train/images"),
        ("my_images/train", "my_labels/train"),
    ],
)
def test_yolo_text_files_are_found_where_they_are(root: Path, out: Path, images: str, texts: str) -> None:
    put(root / images / "a.png", photo())
    write_lines(root / texts / "a.txt", [WEED])
    put(root / "data.yaml", f"train: {images}\nnames: [crop, weed]\n".encode())
    import_folder(root, out)
    assert (read(out / "masks/train/a.png") == labels((2, 6, 4, 14, 10))).all()


@pytest.mark.usefixtures("labelformat")
@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("train: labels/train\nnames: [crop, weed]\n", "train: labels/train lies in no folder called images"),
        ("train: images/train\nnames: {1: crop, 2: weed}\n", "does not number its classes 0, 1"),
        ("train: images/gone\nnames: [crop, weed]\n", "is no folder under"),
        ("train: images/train\nval: [images/a, images/b]\nnames: [crop, weed]\n", "names several places"),
    ],
)
def test_yolo_descriptions_that_cannot_be_followed_are_refused(
    root: Path, out: Path, description: str, message: str
) -> None:
    yolo(root, {"train/a": [CROP]}, description)
    assert message in refusal_of(lambda: import_folder(root, out))


@pytest.mark.usefixtures("labelformat")
@pytest.mark.parametrize(("orientation", "size"), [(6, (WIDTH, HEIGHT)), (3, (HEIGHT, WIDTH))])
def test_masks_lie_on_upright_pictures(
    root: Path, out: Path, cache: Path, orientation: int, size: tuple[int, int]
) -> None:
    """YOLO's numbers are of the picture as viewers show it, HEIGHT × WIDTH here, however its pixels are stored."""
    yolo(root, {"train/a": [CROP], "train/b": [WEED]})
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in "ab":
        buffer = io.BytesIO()
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(buffer, "JPEG", exif=exif)
        (root / f"images/train/{name}.png").unlink()
        put(root / f"images/train/{name}.jpg", buffer.getvalue())
    done = import_folder(root, out)
    assert done.turned == (2 if orientation == 3 else 0)
    assert (read(out / "masks/train/a.png") == labels((1, 2, 2, 10, 8))).all()
    for config in (FolderConfig(root=out, exif="upright"), prepared(FolderConfig(root=root), lambda line: None)):
        data = Folder(config)
        for name in (*data.labeled, *data.val):
            assert data.image(name).shape[1:] == data.label(name).shape == (HEIGHT, WIDTH)


# ── places ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("labelformat")
def test_nothing_is_overwritten(root: Path, out: Path) -> None:
    yolo(root, {"train/a": [CROP]})
    put(out / "mine.txt", b"mine")
    with pytest.raises(RunError, match="is there already"):
        import_folder(root, out)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    with pytest.raises(RunError, match="into which nothing is written"):
        import_folder(root, root / "out")
    (out / "mine.txt").unlink()
    import_folder(root, out)  # an empty folder is free


@pytest.mark.usefixtures("labelformat")
def test_the_folder_one_is_in_is_not_replaced_and_a_link_to_an_empty_one_stays(
    root: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    yolo(root, {"train/a": [CROP]})
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(RunError, match=r"^\.: is the folder you are in"):
        import_folder(root, Path())
    out.symlink_to(tmp_path / "there")
    assert import_folder(root, out).masks == 1
    assert out.is_symlink() and (tmp_path / "there/masks/train/a.png").is_file()


@pytest.mark.usefixtures("labelformat")
def test_a_full_disk_names_the_place_and_leaves_nothing(root: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")  # as a write says it, without a name

    yolo(root, {"train/a": [CROP]})
    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space left") as error:
        import_folder(root, out)
    assert error.value.filename == str(out.resolve())
    assert [path.name for path in out.parent.iterdir()] == ["source"]
    result = CliRunner().invoke(cli.app, ["data", "import", str(root), "--out", str(out)])
    assert result.exit_code == 2
    assert "No space left on device; mend its rights, free some disk space" in result.stderr


@pytest.mark.usefixtures("labelformat")
def test_images_are_copied_where_links_cannot_be_made(root: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    yolo(root, {"train/a": [CROP]})
    monkeypatch.setattr(Path, "symlink_to", refuse)
    done = import_folder(root, out)
    assert done.copied == 1
    assert "copied   1 images, for links cannot be made here" in list(done.lines())
    assert not (out / "images/train/a.png").is_symlink()


def test_what_needs_no_import_and_what_is_nothing_is_said(root: Path, out: Path) -> None:
    put(root / "images" / "a.png", photo())
    put(root / "masks" / "a.png", encode(labels((1, 0, 0, 2, 2))))
    assert "needs no import" in refusal_of(lambda: import_folder(root, out))
    assert "no such folder" in refusal_of(lambda: import_folder(root / "gone", out))
    (root / "empty").mkdir()
    assert "holds no files" in refusal_of(lambda: import_folder(root / "empty", out))


@pytest.mark.usefixtures("labelformat")
def test_two_formats_in_one_folder_are_a_question(root: Path, out: Path) -> None:
    yolo(root, {"train/a": [CROP]})
    put(root / "annotations.xml", b"<annotations><meta/></annotations>")
    refusal = refusal_of(lambda: import_folder(root, out))
    assert "could be YOLO segmentation (yolo_segmentation) or CVAT for images (cvat)" in refusal
    assert import_folder(root, out, format="yolo_segmentation").masks == 1


@pytest.mark.usefixtures("labelformat")
def test_names_of_classes_that_would_be_misread_are_refused(root: Path, out: Path) -> None:
    yolo(root, {"train/a": [CROP]}, "train: images/train\nnames: ['lane 10 20 30', 'lane 1 2 3', 'background']\n")
    refusal = refusal_of(lambda: import_folder(root, out))
    assert refusal == f"{root}: the class 'lane 10 20 30' would be misread in classes.txt; rename it there"


# ── data=FOLDER ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("labelformat")
def test_a_folder_is_imported_once_and_again_when_it_changes(root: Path, cache: Path) -> None:
    yolo(root, {"train/a": [CROP], "train/b": [WEED], "val/c": [CROP]})
    said: list[str] = []
    config = FolderConfig(root=root)
    first = prepared(config, said.append)
    assert first.root.parent == cache
    assert len(said) == 1
    assert "YOLO segmentation, imported into" in said[0]
    assert prepared(config, said.append) == first
    assert len(said) == 1
    write_lines(root / "labels/train/b.txt", [CROP, WEED])
    second = prepared(config, said.append)
    assert second.root != first.root
    assert len(said) == 2
    assert (read(first.root / "masks/train/b.png") == labels((2, 6, 4, 14, 10))).all()
    assert config == FolderConfig(root=root)


@pytest.mark.usefixtures("labelformat")
def test_files_outside_of_the_folder_make_an_import_anew_too(root: Path, cache: Path, tmp_path: Path) -> None:
    elsewhere = yolo(tmp_path / "elsewhere", {"train/a": [CROP], "val/c": [CROP]})
    put(root / "data.yaml", f"path: {elsewhere}\ntrain: images/train\nval: images/val\nnames: [a, b]\n".encode())
    config = FolderConfig(root=root)
    first = prepared(config, lambda _: None)
    assert prepared(config, lambda _: None) == first
    write_lines(elsewhere / "labels/train/a.txt", [CROP, WEED])
    second = prepared(config, lambda _: None)
    assert second.root != first.root
    put(elsewhere / "images/train/new.png", photo(5))
    assert prepared(config, lambda _: None).root != second.root


@pytest.mark.usefixtures("labelformat")
def test_a_training_reads_the_import_and_keeps_the_name_of_the_source(root: Path, cache: Path) -> None:
    yolo(root, {"train/a": [CROP, WEED], "train/b": [WEED], "train/u": None, "val/c": [CROP]})
    write_lines(root / "labeled.txt", ["train/b"])
    config = load_config({"method": "supervised", "data": str(root), "steps": 1})
    data = build.dataset(config)
    assert (data.labeled, data.unlabeled, data.val) == (("train/b",), ("train/a", "train/u"), ("val/c",))
    assert data.classes == ("background", "crop", "weed")
    assert config.data.root == root
    assert data.notes[0].startswith(f"imported: {cache}/source-")
    wrong = config.data.model_copy(update={"labeled": root / "gone.txt"})
    assert "the list cannot be read" in refusal_of(lambda: build.dataset(config.model_copy(update={"data": wrong})))


@pytest.mark.usefixtures("labelformat")
def test_another_process_may_be_quicker(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    yolo(root, {"train/a": [CROP]})
    config, said = FolderConfig(root=root), []

    def meanwhile(root: Path) -> list[str]:
        monkeypatch.undo()
        monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parents[1]))
        prepared(config, said.append)
        return ["yolo_segmentation"]

    monkeypatch.setattr("des4.data_tools.importing.recognise_foreign", meanwhile)
    assert (prepared(config, said.append).root / "masks/train/a.png").is_file()
    assert len(said) == 1
    assert len(list(cache.iterdir())) == 1


@pytest.mark.usefixtures("labelformat")
def test_a_cache_that_cannot_be_written_is_named(root: Path, cache: Path) -> None:
    yolo(root, {"train/a": [CROP]})
    put(cache.parent, b"a file where the cache should be")
    refusal = refusal_of(lambda: prepared(FolderConfig(root=root)))
    assert f"{root} cannot be imported there" in refusal
    assert "data.cache_dir" in refusal


def test_folders_of_the_projects_own_are_left_alone(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("des4.data_tools.importing.recognise_foreign", lambda root: pytest.fail("nobody asked"))
    put(root / "images" / "a.png", photo())
    put(root / "other" / "a.png", photo())
    listed = write_lines(root / "labeled.txt", ["images/a.png other/a.png"])
    for config in (FolderConfig(root=root), FolderConfig(root=root, labeled=listed), FolderConfig(root=root / "gone")):
        assert prepared(config) is config
    listed.unlink()
    put(root / "annotations" / "sub" / "a.png", encode(labels()))
    assert prepared(FolderConfig(root=root)) == FolderConfig(root=root)
    assert not cache.exists()


def test_without_the_extra_one_line_says_what_to_install(
    root: Path, out: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("datumaro", "labelformat", "labelformat.formats"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    yolo(root / "yolo", {"train/a": [CROP]})
    put(root / "cvat" / "annotations.xml", b"<annotations><meta/></annotations>")
    put(root / "odd" / "notes.txt", b"nothing that is known")
    for name, title in (("yolo", "YOLO segmentation"), ("cvat", "CVAT for images")):
        for call in (lambda: prepared(FolderConfig(root=root / name)), lambda: import_folder(root / name, out)):  # noqa: B023
            with pytest.raises(MissingExtraError, match=rf'is {title}, which needs \w+; pip install "des4\[formats\]"'):
                call()
    with pytest.raises(MissingExtraError, match="looking for its format needs datumaro"):
        import_folder(root / "odd", out)
    assert prepared(FolderConfig(root=root / "odd")) == FolderConfig(root=root / "odd")


# ── CVAT ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

CVAT_LABELS = ("crop", "weed")


def cvat(root: Path, images: dict[str, str], names: Sequence[str] = CVAT_LABELS, meta: str = "task") -> Path:
    """Write 'CVAT for images 1.1'. images: what stands inside of the element of each image, by its name."""
    listed = "".join(f"<label><name>{name}</name><attributes/></label>" for name in names)
    elements = []
    for number, (name, shapes) in enumerate(images.items()):
        put(root / "images" / name, photo(number))
        elements.append(f'<image id="{number}" name="{name}" width="{WIDTH}" height="{HEIGHT}">{shapes}</image>')
    text = (
        f"<annotations><version>1.1</version><meta><{meta}><labels>{listed}</labels></{meta}></meta>{''.join(elements)}"
    )
    put(root / "annotations.xml", f'<?xml version="1.0" encoding="utf-8"?>{text}</annotations>'.encode())
    return root


def polygon(label: str, x: int, y: int, right: int, bottom: int, z_order: int = 0) -> str:
    points = ";".join(f"{a:.2f},{b:.2f}" for a, b in ((x, y), (right, y), (right, bottom), (x, bottom)))
    return f'<polygon label="{label}" source="manual" occluded="0" points="{points}" z_order="{z_order}"/>'


@pytest.fixture
def datumaro() -> None:
    pytest.importorskip("datumaro")


@pytest.mark.usefixtures("datumaro")
def test_cvat_paints_by_z_order_and_equals_in_the_order_of_the_file(root: Path, out: Path) -> None:
    crop, weed = (2, 2, 10, 8), (6, 4, 14, 10)
    cvat(root, {
        "a.png": polygon("crop", *crop, z_order=1) + polygon("weed", *weed, z_order=0),
        "sub/b.png": polygon("crop", *crop) + polygon("weed", *weed),
        "u.png": "",
    })  # fmt: skip
    done = import_folder(root, out)
    assert (done.format, done.masks, done.unlabeled) == ("CVAT for images", 2, 1)
    assert classes(out) == ["background", "crop", "weed"]
    assert (read(out / "masks/a.png") == labels((2, *weed), (1, *crop))).all()
    assert (read(out / "masks/sub/b.png") == labels((1, *crop), (2, *weed))).all()


@pytest.mark.usefixtures("datumaro")
def test_cvat_brush_masks_keep_their_holes(root: Path, out: Path) -> None:
    """A ring of 4×3 pixels at (5, 2): counts row by row inside of its box, the first of pixels that are not in it."""
    ring = '<mask label="weed" rle="0, 5, 2, 5" left="5" top="2" width="4" height="3" z_order="0"/>'
    cvat(root, {"a.png": ring, "b.png": polygon("crop", 0, 0, 16, 12) + ring.replace('z_order="0"', 'z_order="3"')})
    import_folder(root, out)
    assert (read(out / "masks/a.png") == labels((2, 5, 2, 9, 5), (0, 6, 3, 8, 4))).all()
    assert (read(out / "masks/b.png") == labels((1, 0, 0, 16, 12), (2, 5, 2, 9, 5), (1, 6, 3, 8, 4))).all()


@pytest.mark.usefixtures("datumaro")
def test_cvat_says_what_is_lost(root: Path, out: Path) -> None:
    box = '<box label="crop" occluded="0" xtl="1" ytl="1" xbr="5" ybr="5" z_order="0"/>'
    line = '<polyline label="crop" occluded="0" points="1,1;5,5;6,6" z_order="0"/>'
    tag = '<tag label="crop" source="manual"></tag>'
    cuboid = '<cuboid label="crop" occluded="0" xtl1="1" ytl1="1"/>'
    cvat(root, {
        "a.png": polygon("crop", 2, 2, 10, 8) + polygon("alien", 6, 4, 14, 10) + box + line + tag + cuboid,
        "boxes.png": box,
    })  # fmt: skip
    done = import_folder(root, out)
    unknown = "areas of a class that is not named, which are 255 in the masks"
    assert done.lost == {"boxes": 2, "lines": 1, "labels of images": 1, "cuboids": 1, unknown: 1}
    assert (read(out / "masks/a.png") == labels((1, 2, 2, 10, 8), (255, 6, 4, 14, 10))).all()
    assert (done.masks, done.unlabeled) == (1, 1)


@pytest.mark.usefixtures("datumaro")
def test_a_background_is_added_only_where_there_is_any(root: Path, out: Path, tmp_path: Path) -> None:
    full = polygon("crop", 0, 0, 16, 12) + polygon("weed", 2, 2, 5, 5)
    cvat(root, {"a.png": full})
    import_folder(root, out)
    assert classes(out) == ["crop", "weed"]
    assert (read(out / "masks/a.png") == labels((1, 2, 2, 5, 5))).all()
    cvat(root, {"a.png": polygon("crop", 2, 2, 5, 5)}, ("crop", "background"))
    import_folder(root, tmp_path / "named")
    assert classes(tmp_path / "named") == ["crop", "background"]
    assert (read(tmp_path / "named/masks/a.png") == labels((0, 2, 2, 5, 5), start=1)).all()
    import_folder(root, tmp_path / "ignored", uncovered="ignore")
    assert (read(tmp_path / "ignored/masks/a.png") == labels((0, 2, 2, 5, 5), start=255)).all()


@pytest.mark.usefixtures("datumaro")
def test_cvat_is_refused_where_masks_would_be_wrong(root: Path, out: Path) -> None:
    ellipse = '<ellipse label="crop" occluded="0" cx="5" cy="5" rx="2" ry="2" z_order="0"/>'
    cvat(root / "ellipse", {"a.png": polygon("crop", 2, 2, 10, 8) + ellipse})
    assert "holds 1 ellipses" in refusal_of(lambda: import_folder(root / "ellipse", out))
    cvat(root / "gone", {"a.png": polygon("crop", 2, 2, 10, 8)})
    (root / "gone/images/a.png").unlink()
    refusal = refusal_of(lambda: import_folder(root / "gone", out))
    assert "a.png" in refusal
    assert "CVAT for images" in refusal
    cvat(root / "beside", {"a.png": polygon("crop", 2, 2, 10, 8)})
    (root / "beside/images/a.png").rename(root / "beside/a.png")
    (root / "beside/images").rmdir()
    assert "has no images/ beside it" in refusal_of(lambda: import_folder(root / "beside", out))
    cvat(root / "small", {"a.png": polygon("crop", 2, 2, 10, 8)})
    put(root / "small/images/a.png", photo(0, (6, 8)))
    assert "is 8×6 pixels, and annotated as 16×12" in refusal_of(lambda: import_folder(root / "small", out))
    put(root / "broken/annotations.xml", b"<annotations><meta>")
    (root / "broken/images").mkdir()
    assert "cannot be read as CVAT for images" in refusal_of(lambda: import_folder(root / "broken", out))
    assert not out.exists()


@pytest.mark.parametrize("name", ["../away", "/away", "a/../../away", "..\\away", "C:/away", "a\nb", ""])
def test_names_that_lead_out_of_the_folder_are_refused(
    root: Path, out: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """datumaro has a guard of its own; other readers, or other versions, may have none."""
    picture = put(root / "a.png", photo())
    data = Foreign("odd", "odd 1", ("crop", "weed"), "class", [Item(name, "", picture, None, (), True)], 1)
    monkeypatch.setattr("des4.data_tools.importing.open_foreign", lambda source, format: data)
    assert "is no name that an image can be given" in refusal_of(lambda: import_folder(root, out, format="odd"))
    assert [path.name for path in out.parent.iterdir()] == ["source"]


@pytest.mark.usefixtures("datumaro")
def test_cvat_exports_of_projects_and_of_jobs(root: Path, out: Path) -> None:
    cvat(root / "job", {"a.png": polygon("crop", 2, 2, 10, 8)}, meta="job")
    import_folder(root / "job", out)
    assert (read(out / "masks/a.png") == labels((1, 2, 2, 10, 8))).all()
    cvat(root / "all", {"a.png": polygon("crop", 2, 2, 10, 8), "b.png": polygon("weed", 6, 4, 14, 10)}, meta="project")
    text = (root / "all/annotations.xml").read_text().replace('name="a.png"', 'name="a.png" subset="Train"')
    text = text.replace('name="b.png"', 'name="b.png" subset="Validation"')
    subsets = "<subsets><subset>Train</subset><subset>Validation</subset></subsets>"
    (root / "all/annotations.xml").write_text(text.replace("</labels>", f"</labels>{subsets}"))
    for name, subset in (("a", "Train"), ("b", "Validation")):
        put(root / f"all/images/{subset}/{name}.png", (root / f"all/images/{name}.png").read_bytes())
        (root / f"all/images/{name}.png").unlink()
    done = import_folder(root / "all", out.with_name("all"))
    assert dict(done.images) == {"train": 1, "val": 1}
    assert (read(out.with_name("all") / "masks/val/b.png") == labels((2, 6, 4, 14, 10))).all()


@pytest.mark.usefixtures("datumaro")
def test_shapes_outside_of_a_frame_are_not_there(root: Path, out: Path) -> None:
    """'CVAT for video': a track has a shape in every frame, and `outside` where the thing has left the picture."""
    points = "2,2;10,2;10,8;2,8"
    frames = "".join(
        f'<polygon frame="{n}" keyframe="1" outside="{n}" occluded="0" points="{points}" z_order="0"/>' for n in (0, 1)
    )
    still = f'<polygon frame="1" keyframe="1" outside="0" occluded="0" points="{points}"/>'
    cvat(root, {"frame_000000.png": "", "frame_000001.png": ""})
    text = (root / "annotations.xml").read_text().partition("<image")[0]
    more = f'<track id="1" label="weed">{still}</track>'
    size = f"<original_size><width>{WIDTH}</width><height>{HEIGHT}</height></original_size>"
    text = text.replace("</labels>", f"</labels>{size}")
    (root / "annotations.xml").write_text(f'{text}<track id="0" label="crop">{frames}</track>{more}</annotations>')
    import_folder(root, out)
    assert (read(out / "masks/frame_000000.png") == labels((1, 2, 2, 10, 8))).all()
    assert (read(out / "masks/frame_000001.png") == labels((2, 2, 2, 10, 8))).all()


# ── datumaro's other readers ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("datumaro")
def test_kitti_is_read_by_the_numbers_of_its_instances(root: Path, out: Path) -> None:
    """The upper byte of a pixel is its class, in KITTI's order of 34; the lower one tells instances apart."""
    road, car = 7, 26
    ids = labels(start=road).astype(np.uint16) << 8
    ids[2:5, 3:9] = car << 8 | 1
    ids[2:5, 9:12] = car << 8 | 2
    put(root / "training/image_2/000000_10.png", photo())
    put(root / "training/instance/000000_10.png", encode16(ids))
    done = import_folder(root, out)
    assert done.format == "KITTI segmentation"
    names = classes(out)
    label = read(out / "masks/train/000000_10.png")
    assert {names[number] for number in np.unique(label)} == {"road", "car"}
    assert (label == np.where(ids >> 8 == car, names.index("car"), names.index("road"))).all()


@pytest.mark.usefixtures("datumaro")
@pytest.mark.parametrize("edition", ["v2.0", "v1.2"])
def test_mapillary_is_read_in_both_editions(root: Path, out: Path, edition: str) -> None:
    names = ("animal--bird", "road", "void--unlabeled")
    described = [{"name": name, "color": [number, 1, 2]} for number, name in enumerate(names)]
    put(root / f"config_{edition}.json", json.dumps({"labels": described}).encode())
    ids = labels((0, 0, 0, 4, 4), start=1).astype(np.uint16) << 8
    for split in ("training", "validation"):
        put(root / split / "images" / f"{split}.jpg", encode(np.zeros((HEIGHT, WIDTH, 3), np.uint8), ".jpg"))
        put(root / split / edition / "instances" / f"{split}.png", encode16(ids))
    done = import_folder(root, out)
    assert (done.format, dict(done.images)) == ("Mapillary Vistas", {"train": 1, "val": 1})
    assert classes(out) == list(names)
    assert (read(out / "masks/val/validation.png") == labels((0, 0, 0, 4, 4), start=1)).all()


@pytest.mark.usefixtures("datumaro")
def test_coco_panoptic_leaves_unlabeled_pixels_out(root: Path, out: Path, cache: Path) -> None:
    """A segment's id is red + 256·green + 65536·blue; the id 0 is of pixels that nobody has labeled."""
    segments = {1: (7, 2), 300: (9, 1)}  # id → category, and the class that it becomes
    ids = labels((1, 0, 0, 4, 4)).astype(np.int64)
    ids[6:, :] = 300
    colours = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], -1).astype(np.uint8)
    for name in ("a", "b"):
        put(root / f"images/val2017/{name}.png", photo())
        put(root / f"annotations/panoptic_val2017/{name}.png", encode(colours))
    info = [
        {"id": one, "category_id": category, "iscrowd": 0, "bbox": [0, 0, 1, 1], "area": 1}
        for one, (category, _) in segments.items()
    ]
    text = {
        "images": [
            {"id": n, "file_name": f"{name}.png", "height": HEIGHT, "width": WIDTH} for n, name in enumerate("ab")
        ],
        "annotations": [
            {"image_id": n, "file_name": f"{name}.png", "segments_info": info} for n, name in enumerate("ab")
        ],
        "categories": [{"id": 9, "name": "sky", "isthing": 0}, {"id": 7, "name": "cat", "isthing": 1}],
    }
    put(root / "annotations/panoptic_val2017.json", json.dumps(text).encode())
    done = import_folder(root, out)
    assert (done.format, dict(done.images)) == ("COCO panoptic", {"val": 2})
    assert classes(out) == ["cat", "sky"]
    assert (read(out / "masks/val/a.png") == np.select([ids == 1, ids == 300], [0, 1], 255)).all()
    config = load_config({"method": "supervised", "data": str(root), "steps": 1}).data
    assert prepared(config, lambda line: None).root.parent == cache
    (root / "images/val2017").rename(root / "val2017")
    (root / "images").rmdir()
    assert "looks for the pictures in images/" in refusal_of(lambda: import_folder(root, out.with_name("other")))


@pytest.mark.usefixtures("datumaro")
def test_labelme_of_the_mit_and_datumaros_own_format(root: Path, out: Path) -> None:
    points = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in ((2, 2), (10, 2), (10, 8), (2, 8)))
    thing = f"<object><name>crop</name><deleted>0</deleted><id>0</id><polygon>{points}</polygon></object>"
    gone = thing.replace("<deleted>0", "<deleted>1").replace("<id>0", "<id>1").replace("crop", "weed")
    size = f"<imagesize><nrows>{HEIGHT}</nrows><ncols>{WIDTH}</ncols></imagesize>"
    text = f"<annotation><filename>a.png</filename><folder>field</folder>{thing}{gone}{size}</annotation>"
    put(root / "mit/Annotations/field/a.xml", text.encode())
    put(root / "mit/Images/field/a.png", photo())
    assert import_folder(root / "mit", out).format == "LabelMe of the MIT (XML)"
    assert (read(out / "masks/field/a.png") == labels((1, 2, 2, 10, 8))).all()

    shape = {
        "type": "polygon",
        "label_id": 1,
        "points": [2, 2, 10, 2, 10, 8, 2, 8],
        "z_order": 1,
        "attributes": {},
        "group": 0,
        "id": 0,
    }
    over = shape | {"label_id": 0, "points": [6, 4, 14, 4, 14, 10, 6, 10], "z_order": 0, "id": 1}
    item = {"id": "a", "annotations": [shape, over], "image": {"path": "a.png", "size": [HEIGHT, WIDTH]}}
    names = {
        "label": {"labels": [{"name": name, "parent": "", "attributes": []} for name in CVAT_LABELS], "attributes": []}
    }
    put(root / "own/annotations/train.json", json.dumps({"info": {}, "categories": names, "items": [item]}).encode())
    put(root / "own/images/train/a.png", photo())
    assert import_folder(root / "own", out.with_name("own")).format == "Datumaro"
    assert (read(out.with_name("own") / "masks/train/a.png") == labels((1, 6, 4, 14, 10), (2, 2, 2, 10, 8))).all()


@pytest.mark.usefixtures("datumaro")
def test_formats_that_are_not_read_are_named(root: Path, out: Path) -> None:
    put(root / "notes.txt", b"nothing that is known")
    assert "is in no format that is recognised" in refusal_of(lambda: import_folder(root, out))
    assert "no format that is read; there are" in refusal_of(lambda: import_folder(root, out, format="paper"))
    assert "the full ADE20K, which datumaro reads wrongly" in refusal_of(
        lambda: import_folder(root, out, format="ade20k2020")
    )


def encode16(array: NDArray[np.uint16]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()
