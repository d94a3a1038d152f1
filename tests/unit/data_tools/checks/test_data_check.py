from __future__ import annotations

import hashlib
import io
import random
import re
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from bad_files import CORPUS, Bad, encoded, good_folder, labels, picture, put
from PIL import EpsImagePlugin, Image
from trees import TREES

import des4
from des4.data_tools.checks.check import check, refuse_errors
from des4.data_tools.checks.findings import KINDS, Finding, from_error, in_order
from des4.data_tools.checks.survey import DataCheck
from des4.datasets import FORMATS, Folder, FolderConfig
from des4.types import DataError

SHARED = Path(__file__).parents[5] / "shared" / "data"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return good_folder(tmp_path / "photos")


def look_at(root: Path, **settings: object) -> DataCheck:
    return check(FolderConfig(root=root, **settings))


def codes(done: DataCheck) -> set[tuple[str, str]]:
    """Return (severity, code) of the findings that are more than notes; val is small in all of these trees."""
    found = [finding for finding in done.findings if finding.code != "few-val"]
    return {(finding.severity, finding.code) for finding in found if finding.severity != "note"}


def only(done: DataCheck, code: str) -> Finding:
    (finding,) = (finding for finding in done.findings if finding.code == code)
    return finding


def snapshot(root: Path) -> dict[str, tuple[int, str]]:
    """Return modification time and hash of every file and folder."""
    return {
        path.relative_to(root).as_posix(): (
            path.lstat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in sorted(root.rglob("*"))
    }


# ── the corpus ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_thirty_bad_files_in_one_folder_are_all_named_with_the_reason(root: Path) -> None:
    for bad in CORPUS:
        bad.write(root)
    before = snapshot(root)
    done = look_at(root)
    named = {(str(f.path.relative_to(root)), f.severity, f.code): f for f in done.findings if f.path != root}
    missed = [bad for bad in CORPUS if (bad.path, bad.severity, bad.code) not in named]
    assert len(CORPUS) == 30
    assert missed == []
    for bad in CORPUS:
        finding = named[bad.path, bad.severity, bad.code]
        assert bad.says in finding.message
        assert finding.remedy or finding.severity == "note"
        assert "\n" not in str(finding)
    assert {path for path, severity, _ in named if severity != "note"} <= {bad.path for bad in CORPUS}
    assert done.exit_code() == 2
    assert snapshot(root) == before


@pytest.mark.parametrize("bad", CORPUS, ids=str)
def test_errors_are_what_a_training_would_stop_at(root: Path, bad: Bad) -> None:
    bad.write(root)
    done = look_at(root)
    refused = False
    try:
        data = Folder(FolderConfig(root=root))
        data.check_labeled()
        for sample_id in (*data.labeled, *data.val):
            data.image(sample_id)
            data.label(sample_id)
    except DataError:
        refused = True
    assert refused == (done.exit_code() == 2)
    assert [f.code for f in done.findings if f.path == root / bad.path] == [bad.code]


@pytest.mark.filterwarnings("error")
def test_damaged_files_of_any_format_end_in_a_finding(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = good_folder(tmp_path / "photos")
    rng = random.Random(0)
    pixels = picture(80)
    sources = [(suffix, encoded(pixels, kind)) for suffix, kind in
               ((".png", "PNG"), (".jpg", "JPEG"), (".webp", "WEBP"), (".tif", "TIFF"), (".bmp", "BMP"))]  # fmt: skip
    for _ in range(60):
        suffix, data = rng.choice(sources)
        damaged = bytearray(data)
        for _ in range(rng.choice((1, 3, 9))):
            damaged[rng.randrange(rng.choice((60, 300, len(data))))] = rng.randrange(256)
        image = put(root / "images" / f"damaged{suffix}", bytes(damaged))
        put(root / "masks" / "a.png", bytes(damaged))
        done = look_at(root)
        assert [f for f in done.findings if f.path == root / "masks" / "a.png" and f.severity == "error"]
        assert all("\n" not in str(finding) for finding in done.findings)
        image.unlink()
    assert capfd.readouterr() == ("", "")


def test_a_look_at_postscript_runs_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *given, **named: pytest.fail("it is run"))
    for side in ("images", "masks"):
        put(root / side / "a.png", encoded(picture(80), "EPS"))
    found = {finding.path: str(finding) for finding in look_at(root).findings if finding.severity == "error"}
    assert all("is PostScript" in found[root / side / "a.png"] for side in ("images", "masks"))


def test_a_good_folder_is_clean(root: Path) -> None:
    done = look_at(root)
    assert [finding.code for finding in done.findings] == ["few-val"]
    assert (done.exit_code(), done.exit_code(strict=True)) == (0, 1)
    assert done.counts == {"labeled": 4, "unlabeled": 2, "val": 2}
    assert done.sizes == {(40, 56): 8}
    road = done.classes[0]
    assert (road.name, road.pixels, road.images) == (
        "road",
        {"labeled": 4 * (14 * 56 - 1), "val": 2 * (14 * 56 - 1)},
        {"labeled": 4, "val": 2},
    )
    assert [count.name for count in done.classes if count.tail] == ["sky"]
    assert done.ignored == 1 / (40 * 56)
    assert done.imbalance == (14 * 56) / (12 * 56)
    assert done.examples == dict.fromkeys(range(3), "a")


def test_strict_makes_warnings_count(root: Path) -> None:
    put(root / "images" / "empty.jpg", b"")
    assert (look_at(root).exit_code(), look_at(root).exit_code(strict=True)) == (0, 1)


def test_a_folder_that_cannot_be_written_is_checked_all_the_same(root: Path) -> None:
    folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        assert look_at(root).exit_code() == 0
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_unlabeled_images_are_opened_unless_it_is_to_be_quick_and_their_masks_never(root: Path) -> None:
    put(root / "images" / "empty.jpg", b"")
    put(root / "masks" / "g.png", b"whoever opens this fails")
    put(root / "labeled.txt", b"a\nb\nc\nd\n")
    opened, watching = [], True

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event == "open":
            opened.append(str(arguments[0]))

    sys.addaudithook(watch)
    done = check(FolderConfig(root=root), quick=True)
    quickly, opened[:] = [*opened], []
    slow = look_at(root)
    watching = False
    assert done.unread == 3
    assert codes(done) == set()
    assert not [path for path in quickly if path.endswith(("images/g.png", "images/h.png", "empty.jpg"))]
    assert (slow.unread, codes(slow)) == (0, {("warning", "empty-file")})
    assert [path for path in opened if path.endswith("images/g.png")]
    assert [path for path in opened if path.endswith("masks/a.png")]
    assert not [path for path in [*quickly, *opened] if path.endswith("masks/g.png")]


def test_progress_sees_every_sample_once(root: Path) -> None:
    totals = []

    def walk(looks, total):
        totals.append(total)
        return looks

    check(FolderConfig(root=root), progress=walk)
    assert totals == [8]


def test_images_in_shards_are_unlabeled_images_too(root: Path, tmp_path: Path) -> None:
    shard = tmp_path / "more.tar"
    with tarfile.open(shard, "w") as tar:
        for name, data in (("a.png", encoded(picture(70), "PNG")), ("b.jpg", b"no image"),
                           ("c.png", encoded(picture(4), "PNG"))):  # fmt: skip
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    done = look_at(root, shards=shard, cache_dir=tmp_path / "cache")
    assert done.counts["unlabeled"] == 5
    assert done.sizes == {(40, 56): 10}
    assert codes(done) == {("warning", "not-an-image"), ("warning", "leak")}
    assert only(done, "not-an-image").path.parent == shard
    assert only(done, "leak").path.parent == shard


# ── names and lists ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_all_faults_of_names_and_lists_are_collected(root: Path) -> None:
    put(root / "images" / "a.bmp", encoded(picture(50), "BMP"))
    put(root / "images" / "lost.png", encoded(picture(51), "PNG"))
    put(root / "images" / "G.png", encoded(picture(52), "PNG"))
    for name in ("Lost", "nobody", "nowhere"):
        put(root / "masks" / f"{name}.png", encoded(labels(), "PNG"))
    done = look_at(root)
    assert codes(done) == {("error", "same-stem"), ("error", "orphan-mask"), ("error", "case-clash"),
                           ("warning", "case-clash")}  # fmt: skip
    assert only(done, "same-stem").path == root / "images" / "a.png"
    assert [f.path.name for f in done.findings if f.code == "orphan-mask"] == ["nobody.png", "nowhere.png"]
    assert [f.path.name for f in done.findings if f.code == "case-clash"] == ["Lost.png", "g.png"]

    put(root / "labeled.txt", b"a\nb\na\nzebra\ng\nval/e")
    done = look_at(root)
    assert {("error", "repeated-line"), ("error", "missing-file"), ("error", "in-val-too"),
            ("warning", "orphan-mask"), ("warning", "case-clash")} <= codes(done)  # fmt: skip
    texts = [f.message for f in done.findings if f.code == "missing-file"]
    assert [text[:17] for text in texts] == ["no image 'zebra' ", "'g' has no mask i"]
    assert "'val/e' is both labeled and val" in only(done, "in-val-too").message
    assert done.classes[0].images["labeled"] == 3

    put(root / "labeled.txt", b"")
    assert ("error", "unreadable-list") in codes(look_at(root))


def test_a_folder_that_is_none_of_the_format_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    done = look_at(tmp_path)
    assert codes(done) == {("error", "layout")}
    assert (done.exit_code(), done.classes, done.counts) == (2, (), {})
    assert look_at(tmp_path / "gone").exit_code() == 2


def test_one_mask_cannot_serve_training_and_validation(tmp_path: Path) -> None:
    put(tmp_path / "images" / "a.png", encoded(picture(0), "PNG"))
    put(tmp_path / "masks" / "a.png", encoded(labels(), "PNG"))
    assert {("error", "too-few-labeled"), ("warning", "no-unlabeled")} <= codes(look_at(tmp_path))


def test_what_was_decided_is_noted(root: Path) -> None:
    (root / "classes.txt").unlink()
    for name in ("e", "f"):
        (root / "images" / "val" / f"{name}.png").unlink()
        (root / "masks" / "val" / f"{name}.png").unlink()
    done = look_at(root)
    assert "1 of the 4 labeled images" in only(done, "decided").message
    assert [count.name for count in done.classes] == ["class_0", "class_1", "class_2"]
    assert len(done.palette) == 3


def test_a_dangling_link_is_a_missing_file(root: Path) -> None:
    (root / "images" / "link.png").symlink_to(root / "images" / "nothing.png")
    assert only(look_at(root), "missing-file").path == root / "images" / "link.png"


def test_an_image_is_very_small_by_its_shorter_side(root: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 100, 3), dtype=np.uint8)
    put(root / "images" / "g.png", encoded(pixels, "PNG"))
    assert only(look_at(root), "tiny-image").message == "is 100×20 pixels"


def test_an_image_that_is_a_little_transparent_is_named(root: Path) -> None:
    pixels = picture(6, 4)
    pixels[..., 3] = 255
    pixels[0, 0, 3] = 200
    put(root / "images" / "g.png", encoded(pixels, "PNG"))
    assert only(look_at(root), "alpha").path == root / "images" / "g.png"


# ── pictures that occur twice ────────────────────────────────────────────────────────────────────────────────────────


def test_a_val_picture_in_training_is_a_leak_whatever_its_file_format(root: Path) -> None:
    put(root / "images" / "again.bmp", encoded(picture(4), "BMP"))
    put(root / "masks" / "again.png", encoded(labels(), "PNG"))
    leak = only(look_at(root), "leak")
    assert (leak.severity, leak.path) == ("error", root / "images" / "val" / "e.png")
    assert "again.bmp" in leak.message
    (root / "masks" / "again.png").unlink()
    assert only(look_at(root), "leak").severity == "warning"


def test_repeated_pictures_are_named_and_differing_masks_too(root: Path) -> None:
    put(root / "images" / "b.png", encoded(picture(0), "PNG"))
    assert only(look_at(root), "duplicate").remedy == "keep one of them"
    put(root / "masks" / "b.png", encoded(np.roll(labels(), 1), "PNG"))
    twice = only(look_at(root), "duplicate")
    assert (twice.severity, twice.path) == ("warning", root / "images" / "b.png")
    assert "their masks differ" in twice.message
    put(root / "images" / "b.png", encoded(picture(6), "PNG"))
    assert only(look_at(root), "duplicate").severity == "note"


def test_pictures_of_the_same_bytes_in_other_shapes_are_no_duplicates(root: Path) -> None:
    values = picture(62)[:9, :16]
    put(root / "images" / "g.png", encoded(values.reshape(8, 18, 3), "PNG"))
    put(root / "images" / "h.png", encoded(values.reshape(12, 12, 3), "PNG"))
    assert "duplicate" not in {finding.code for finding in look_at(root).findings}


# ── masks ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_swapped_sides_are_told_from_another_size(root: Path) -> None:
    put(root / "masks" / "a.png", encoded(labels((56, 40)), "PNG"))
    assert "swapped" in only(look_at(root), "size-mismatch").remedy


@pytest.mark.parametrize(
    ("colours", "remedy"),
    [
        (np.dstack([labels()] * 3 + [labels() // 2]), "channels are equal but for the transparency"),
        (np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0]], np.uint8)[labels() % 3], "3 colours seem to stand for"),
        (picture(60), "more than 256 colours"),
    ],
)
def test_a_mask_in_colour_gets_the_advice_it_needs(root: Path, colours: np.ndarray, remedy: str) -> None:
    put(root / "masks" / "a.png", encoded(colours, "PNG"))
    assert remedy in only(look_at(root), "mask-in-colour").remedy


def test_sixteen_bits_that_hold_class_indices_are_fine(root: Path) -> None:
    put(root / "masks" / "a.png", encoded(Image.fromarray(labels().astype(np.uint16)), "PNG"))
    assert codes(look_at(root)) == set()


def test_a_mask_full_of_odd_labels_looks_resized_or_compressed(root: Path) -> None:
    put(root / "masks" / "a.png", encoded(picture(61)[..., 0], "PNG"))
    assert "resized smoothly" in only(look_at(root), "label-outside").remedy


@pytest.mark.parametrize(("count", "remedy"), [(15, "mend the mask or the class list"), (21, "resized smoothly")])
def test_a_few_odd_labels_are_those_of_other_classes(root: Path, count: int, remedy: str) -> None:
    mask = labels()
    mask[1, :count] = np.arange(3, 3 + count)
    put(root / "masks" / "a.png", encoded(mask, "PNG"))
    assert remedy in only(look_at(root), "label-outside").remedy


def test_a_mask_that_labels_a_hundredth_teaches_something(root: Path) -> None:
    mask = np.full((40, 50), 255, np.uint8)
    mask[0, :20] = 1
    put(root / "images" / "a.png", encoded(picture(0)[:, :50], "PNG"))
    put(root / "masks" / "a.png", encoded(mask, "PNG"))
    assert codes(look_at(root)) == set()


def test_palettes_that_disagree_are_named(root: Path) -> None:
    for name, order in (("a", (0, 1, 2)), ("b", (0, 2, 1))):
        image = Image.fromarray(labels())
        palette = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0]], np.uint8)[list(order)]
        image.putpalette(palette.ravel().tolist() + [9] * 759)
        put(root / "masks" / f"{name}.png", encoded(image, "PNG"))
    found = [f for f in look_at(root).findings if f.code == "mask-palettes-differ"]
    assert {f.path.name for f in found} == {"a.png", "b.png"}
    assert found[0].severity == "warning"
    assert "the colour (0, 128, 0) means 2 here and 1 in b.png" in found[0].message


def test_a_palette_that_gives_classes_one_colour_says_nothing(root: Path) -> None:
    image = Image.fromarray(labels())
    image.putpalette([0] * 768)
    put(root / "masks" / "a.png", encoded(image, "PNG"))
    assert codes(look_at(root)) == set()


def test_masks_that_nobody_drew_are_noted(root: Path) -> None:
    put(root / "masks" / "a.png", encoded(np.zeros((40, 56), np.uint8), "PNG"))
    note = only(look_at(root), "one-class-mask")
    assert (note.severity, note.path) == ("note", root / "masks" / "a.png")


def test_labels_of_the_whole_data_set_are_judged(root: Path) -> None:
    for path in root.glob("masks/**/*.png"):
        put(path, encoded(labels() + (labels() < 255), "PNG"))
    assert ("error", "shifted-labels") in codes(look_at(root))
    for path in root.glob("masks/**/*.png"):
        put(path, encoded(np.where(labels() == 1, 255, 0).astype(np.uint8), "PNG"))
    assert ("error", "binary-mask") in codes(look_at(root))
    assert ("error", "one-class") not in codes(look_at(root))
    (root / "classes.txt").unlink()
    assert ("error", "binary-mask") in codes(look_at(root))


@pytest.mark.parametrize("only_class", [0, 1])
def test_labeled_masks_of_one_class_beside_255_stop_the_check(root: Path, only_class: int) -> None:
    for path in root.glob("masks/*.png"):
        put(path, encoded(np.where(labels() == 1, 255, only_class).astype(np.uint8), "PNG"))
    assert ("error", "one-class") in codes(look_at(root))


@pytest.mark.parametrize(
    ("masks", "message"),
    [("masks/*.png", "all labeled masks hold 255 (ignore) alone"), ("masks/val/*.png", "all val masks hold 255")],
)
def test_masks_that_label_nothing_stop_check_and_training(root: Path, masks: str, message: str) -> None:
    for path in root.glob(masks):
        put(path, encoded(np.full((40, 56), 255, np.uint8), "PNG"))
    finding = only(look_at(root), "no-labeled-pixel")
    assert finding.severity == "error" and finding.message.startswith(message)
    config = FolderConfig(root=root)
    with pytest.raises(DataError, match=re.escape(message)):
        refuse_errors(Folder(config), config, ("labeled", "val"))


def test_what_explains_all_masks_comes_before_each_of_them(root: Path) -> None:
    for path in root.glob("masks/**/*.png"):
        put(path, encoded(labels() + (labels() < 255), "PNG"))
    config = FolderConfig(root=root)
    with pytest.raises(
        DataError, match=r"they begin at 1, .*; say data\.values=1-\d data\.ignore=0, .* more: des4 data check"
    ):
        refuse_errors(Folder(config), config, ("labeled", "val"))


# ── every format ─────────────────────────────────────────────────────────────────────────────────────────────────────

DESERVED = {
    "leak",
    "duplicate",
    "tiny-image",
    "no-unlabeled",
    "class-missing",
    "class-not-in-val",
    "class-only-in-val",
}
"""What may be said of a tree whose pictures are few, tiny and the same."""


@pytest.mark.parametrize("name", TREES)
def test_every_format_is_checked(tmp_path: Path, name: str) -> None:
    root = tmp_path / "tree"
    TREES[name](root)
    before = snapshot(root)
    done = check(FORMATS[name].Config(root=root))
    assert {code for _, code in codes(done)} <= DESERVED
    assert sum(done.sizes.values()) == sum(done.counts.values())
    assert any(count.pixels["labeled"] for count in done.classes)
    assert snapshot(root) == before
    mask = done.dataset.mask(done.dataset.labeled[0]).path
    put(mask, b"")
    broken = check(FORMATS[name].Config(root=root))
    assert [f for f in broken.findings if f.severity == "error" and f.path.name == mask.name] or (
        ("error", "layout") in codes(broken)
    )


# ── findings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_error_is_taken_apart_and_put_together_again() -> None:
    error = DataError("/x/a: b.png: is broken; at the root; mend it")
    finding = from_error("error", "damaged-file", error, Path("/x/a: b.png"))
    assert (finding.message, finding.remedy) == ("is broken; at the root", "mend it")
    assert str(finding) == str(error)
    finding = from_error("error", "layout", DataError("/x: holds no images"))
    assert (finding.path, finding.message, finding.remedy) == (Path("/x"), "holds no images", "")


def test_errors_come_first() -> None:
    found = (("note", "decided", "b"), ("error", "leak", "b"), ("error", "layout", "c"), ("error", "leak", "a"))
    ordered = in_order([Finding(severity, code, Path(path), "") for severity, code, path in found])
    assert [f"{f.code} {f.path}" for f in ordered] == ["layout c", "leak a", "leak b", "decided b"]


def test_every_code_in_use_is_a_kind() -> None:
    sources = [path.read_text(encoding="utf-8") for path in Path(des4.__file__).parent.rglob("*.py")]
    used = {code for text in sources for code in re.findall(r'stepping_over\("([^"]+)"\)', text)}
    assert used
    assert used <= KINDS.keys()


def test_the_page_of_the_docs_lists_every_kind() -> None:
    page = Path(__file__).parents[4] / "docs" / "check.md"
    rows = re.findall(r"^\| `([a-z-]+)` \| ([A-Z].+) \|$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert dict(rows) == KINDS


# ── real data ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "camvid").is_dir(), reason="CamVid is not here")
def test_camvid_is_clean() -> None:
    lists = SHARED / "splits" / "camvid"
    done = look_at(
        SHARED / "camvid",
        labeled=lists / "1_8" / "labeled.txt",
        unlabeled=lists / "1_8" / "unlabeled.txt",
        val=lists / "val.txt",
    )
    assert done.findings == ()
    assert done.sizes == {(360, 480): 468}
    assert [count.name for count in done.classes if count.tail] == ["pole", "sign", "fence", "pedestrian", "bicyclist"]
