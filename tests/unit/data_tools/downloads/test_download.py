"""The published data sets, from archives laid out as the real ones, on a server of this machine."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import shutil
import socket
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from mat_files import sbd_mask
from publisher import Publisher
from trees import SIZE, TREES, VOC_SBD, VOC_TRAIN, VOC_VAL, camvid_tree, cityscapes_tree, put, voc_tree
from typer.testing import CliRunner

from des4 import cli
from des4.data_tools.downloads.archives import Limits
from des4.data_tools.downloads.download import download
from des4.data_tools.downloads.sources import SOURCES, VOC_FOLDER, Piece, Source, files_matching
from des4.data_tools.downloads.transfer import Connection, Remote
from des4.data_tools.progress import Bar
from des4.datasets import DATASETS, recognise
from des4.types import DataError

ROOT = Path(__file__).parents[4]
HERE = Connection(local_http=True, timeout=5, retries=0, pause=0)
Snapshot = dict[str, tuple[bytes, int]]


def snapshot(root: Path) -> Snapshot:
    """Return content and time of every file below a folder."""
    return {
        path.relative_to(root).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def zip_of(folder: Path, *others: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    """Pack a folder's content."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w") as archive:
        warnings.simplefilter("ignore")  # of duplicate names
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder).as_posix())
        for name, content in others:
            archive.writestr(name, content)
    return buffer.getvalue()


def tar_of(folder: Path, prefix: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        archive.add(folder, prefix)
    return buffer.getvalue()


def sbd_archive(ids: tuple[str, ...]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ids:
            data = sbd_mask(np.full(SIZE, 7, np.uint8))
            info = tarfile.TarInfo(f"benchmark_RELEASE/dataset/cls/{name}.mat")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return gzip.compress(buffer.getvalue())


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# ── a small source ───────────────────────────────────────────────────────────────────────────────────────────────────


PICTURES = {"images/a.png": b"a", "images/deep/b.png": b"b" * 5000, "README": b"not wanted"}


class World:
    """A server, a source of one archive on it, and a folder to put it."""

    def __init__(self, publisher: Publisher, root: Path) -> None:
        self.publisher, self.root = publisher, root
        self.archive = root / "downloads" / "pictures.zip"
        self.lines: list[str] = []
        self.publish(zip_bytes(PICTURES))

    def publish(self, data: bytes, *, pinned: bool = True, **settings: Any) -> None:
        url = self.publisher.publish("pictures.zip", data, **settings)
        known = {"size": len(data), "sha256": sha256(data)} if pinned else {"max_size": 1 << 20}
        remote = Remote("pictures.zip", (url,), **known)  # type: ignore[arg-type]
        self.source = Source(
            "Pictures", url, (Piece(remote, "set/images", {"**/*.png": 2}, files_matching("images/(.+)"), 9000),)
        )

    def download(self, **options: Any) -> None:
        self.lines.clear()
        download(self.source, self.root, connection=HERE, say=self.lines.append, **options)

    def refusal(self, **options: Any) -> str:
        """Return the one line by which a download ends; nothing may be in the data set's place, or half made."""
        before = (self.root / "set" / "images").exists()
        with pytest.raises(DataError) as error:
            self.download(**options)
        assert (self.root / "set" / "images").exists() == before
        assert not list(self.root.rglob("*.unpacking"))
        (message,) = str(error.value).splitlines()
        return message


def zip_bytes(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def world(publisher: Publisher, tmp_path: Path) -> World:
    return World(publisher, tmp_path / "data")


@pytest.fixture
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_a_data_set_is_made(world: World) -> None:
    world.download()
    made = {p.relative_to(world.root).as_posix(): p.read_bytes() for p in world.root.rglob("*.png")}
    assert made == {"set/images/a.png": b"a", "set/images/deep/b.png": b"b" * 5000}
    assert sorted(path.name for path in world.archive.parent.iterdir()) == ["pictures.zip", "pictures.zip.unpacked"]
    assert not (world.root / "des4-downloads.json").exists(), "the published checksum needs no record"
    assert world.lines[-1] == f"{world.root}: complete"


def test_the_list_of_files_is_one_that_sha256sum_checks(world: World) -> None:
    world.download()
    lines = (world.root / "downloads" / "pictures.zip.unpacked").read_text().splitlines()
    assert lines == [f"{sha256(b'a')}  set/images/a.png", f"{sha256(b'b' * 5000)}  set/images/deep/b.png"]


def test_again_is_a_check_that_changes_nothing_and_needs_no_archive(
    world: World, request: pytest.FixtureRequest
) -> None:
    world.download()
    world.archive.unlink()
    before = snapshot(world.root)
    request.getfixturevalue("no_sockets")
    world.download()
    assert snapshot(world.root) == before
    assert "every file is as it was unpacked" in world.lines[0]


def test_a_file_that_changed_or_vanished_is_named_and_left_alone(world: World) -> None:
    world.download()
    picture = world.root / "set" / "images" / "deep" / "b.png"
    picture.write_bytes(b"c" * 5000)
    before = snapshot(world.root)
    assert f"{picture}: has changed" in world.refusal()
    picture.unlink()
    assert f"{picture}: is missing" in world.refusal()
    assert snapshot(world.root) == {name: value for name, value in before.items() if not name.endswith("b.png")}


@pytest.mark.parametrize("text", ["", "no list", f"{'0' * 63}  set/images/a.png", "\xff"])
def test_a_damaged_list_of_files_is_named(world: World, text: str) -> None:
    world.download()
    put(world.root / "downloads" / "pictures.zip.unpacked", text.encode("latin-1"))
    assert "pictures.zip.unpacked" in world.refusal()


def test_a_folder_that_was_removed_is_made_anew_from_the_archive(world: World, request: pytest.FixtureRequest) -> None:
    world.download()
    shutil.rmtree(world.root / "set")
    request.getfixturevalue("no_sockets")
    world.download(offline=True)
    assert (world.root / "set" / "images" / "a.png").read_bytes() == b"a"


# ── offline, and what the user has already ───────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("no_sockets")
def test_offline_opens_no_socket(tmp_path: Path) -> None:
    data = zip_bytes(PICTURES)
    remote = Remote("pictures.zip", ("https://example.org/pictures.zip",), size=len(data), sha256=sha256(data))
    source = Source(
        "Pictures", "", (Piece(remote, "set/images", {"**/*.png": 2}, files_matching("images/(.+)"), 9000),)
    )
    with pytest.raises(DataError, match=r"has no pictures\.zip.*https://example\.org/pictures\.zip"):
        download(source, tmp_path / "data", offline=True)
    assert not (tmp_path / "data").exists()
    put(tmp_path / "data" / "downloads" / "pictures.zip", data)
    download(source, tmp_path / "data", offline=True)
    assert (tmp_path / "data" / "set" / "images" / "a.png").read_bytes() == b"a"
    with pytest.raises(AssertionError, match="a socket was opened"):  # so the test would notice
        download(source, tmp_path / "other", connection=replace(HERE, retries=0))


def test_an_archive_that_is_there_is_used(world: World) -> None:
    put(world.archive, zip_bytes(PICTURES))
    before = snapshot(world.root)["downloads/pictures.zip"]
    world.download()
    assert world.publisher.requests == []
    assert snapshot(world.root)["downloads/pictures.zip"] == before


@pytest.mark.parametrize("data", [b"something else", zip_bytes({"images/a.png": b"evil", "images/b.png": b""})])
def test_an_archive_that_is_another_is_not_touched(world: World, data: bytes) -> None:
    put(world.archive, data)
    message = world.refusal()
    assert str(world.archive) in message
    assert "move it away" in message
    assert world.archive.read_bytes() == data
    assert world.publisher.requests == []


def test_a_tree_of_the_users_own_is_counted_and_left_alone(world: World) -> None:
    for name in ("x.png", "y/z.png", "notes.txt"):
        put(world.root / "set" / "images" / name, b"mine")
    before = snapshot(world.root)
    world.download()
    assert snapshot(world.root) == before
    assert "not unpacked by des4" in world.lines[0]
    assert world.publisher.requests == []


def test_a_tree_that_is_not_complete_is_left_alone_too(world: World) -> None:
    put(world.root / "set" / "images" / "x.png", b"mine")
    before = snapshot(world.root)
    assert "holds 1 of 2 files **/*.png" in world.refusal()
    assert snapshot(world.root) == before


def test_what_lies_beside_it_stays(world: World) -> None:
    put(world.root / "set" / "mine.txt", b"mine")
    world.download()
    assert (world.root / "set" / "mine.txt").read_bytes() == b"mine"


# ── archives without a published checksum ────────────────────────────────────────────────────────────────────────────


def test_the_first_fetch_is_recorded_and_later_ones_have_to_match(world: World) -> None:
    first, second = zip_bytes(PICTURES), zip_bytes(PICTURES | {"images/c.png": b"c"})
    world.publish(first, pinned=False)
    world.download()
    record = world.root / "des4-downloads.json"
    assert json.loads(record.read_text()) == {"pictures.zip": {"size": len(first), "sha256": sha256(first)}}
    assert any(sha256(first) in line for line in world.lines)
    written = record.stat().st_mtime_ns
    shutil.rmtree(world.root / "set")
    world.download()
    assert record.stat().st_mtime_ns == written
    shutil.rmtree(world.root / "set")
    world.archive.unlink()
    world.publish(second, pinned=False)
    assert f"offers {len(second)} bytes, not {len(first)}" in world.refusal()
    put(world.archive, second)
    assert f"{len(first)} are expected" in world.refusal()
    assert world.archive.read_bytes() == second
    record.unlink()  # the user has decided to trust it
    world.download()
    assert json.loads(record.read_text())["pictures.zip"]["sha256"] == sha256(second)


def test_an_error_page_is_never_recorded(world: World) -> None:
    world.publish(b"<html>we have moved</html>", pinned=False)
    assert "another kind" in world.refusal()
    assert not (world.root / "des4-downloads.json").exists()
    assert list(world.archive.parent.iterdir()) == []


@pytest.mark.parametrize("text", ["", "[]", '{"pictures.zip": 3}', '{"pictures.zip": {}}', "\xff"])
def test_a_damaged_record_is_named(world: World, text: str) -> None:
    put(world.root / "des4-downloads.json", text.encode("latin-1"))
    world.publish(zip_bytes(PICTURES), pinned=False)
    assert "des4-downloads.json" in world.refusal()
    assert world.publisher.requests == []


# ── what goes wrong on the way ───────────────────────────────────────────────────────────────────────────────────────


def test_a_wrong_file_is_not_unpacked(world: World) -> None:
    world.publisher.pages["/pictures.zip"].content = zip_bytes(PICTURES)[::-1]
    assert "has SHA-256" in world.refusal()
    assert list(world.archive.parent.iterdir()) == []


def test_a_truncated_file_is_not_unpacked_and_goes_on_later(world: World) -> None:
    world.publisher.pages["/pictures.zip"].cuts = [3000, 0]
    assert "connection closed" in world.refusal()
    assert [path.name for path in world.archive.parent.glob("*.zip*")] != []
    world.download()
    assert world.publisher.ranges() == [None, "bytes=3000-", "bytes=3000-"]


def test_http_is_refused_by_default(world: World) -> None:
    with pytest.raises(DataError, match="is not https"):
        download(world.source, world.root, say=world.lines.append)
    assert world.publisher.requests == []


def link(name: str, target: str) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, 0o120777 << 16
    return info, target.encode()


@pytest.mark.parametrize(
    "evil",
    [
        ("images/../../evil.png", b"x"),
        link("images/link.png", "/etc/passwd"),
        ("images/a.png", b"x"),
        ("images/a.png/b.png", b"x"),
        ("images/bomb.png", b"\0" * 1_000_000),
    ],
)
@pytest.mark.parametrize("pinned", [True, False])
def test_a_hostile_archive_leaves_nothing_behind(world: World, evil: tuple[Any, bytes], pinned: bool) -> None:
    buffer = io.BytesIO(zip_bytes(PICTURES))
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")
        archive.writestr(*evil)
    world.publish(buffer.getvalue(), pinned=pinned)
    message = world.refusal(limits=Limits(ratio=100))
    assert "nothing of it is kept" in message
    assert {path.name for path in world.root.iterdir()} <= {"downloads", "set", "des4-downloads.json"}
    assert not list(world.root.rglob("*.png"))


def test_an_archive_without_the_files_is_not_taken_for_the_data_set(world: World) -> None:
    world.publish(zip_bytes({"images/a.png": b"a", "pictures/b.png": b"b"}))
    assert "holds 1 of 2 files" in world.refusal()


def test_what_a_killed_run_left_is_cleared(world: World) -> None:
    put(world.root / "set" / "images.unpacking" / "half.png", b"half")
    world.download()
    assert not (world.root / "set" / "images.unpacking").exists()
    assert sorted(path.name for path in (world.root / "set").rglob("*.png")) == ["a.png", "b.png"]


def test_what_appears_meanwhile_is_not_overwritten(world: World) -> None:
    (piece,) = world.source.pieces

    def build(archive: Path, root: Path, into: Path, limits: Limits, bar: Bar) -> dict[str, str]:
        (root / "set" / "images").mkdir(parents=True)
        return piece.build(archive, root, into, limits, bar)

    world.source = replace(world.source, pieces=(replace(piece, build=build),))
    with pytest.raises(DataError, match="has appeared meanwhile"):
        world.download()
    assert list((world.root / "set").iterdir()) == [world.root / "set" / "images"]
    assert list((world.root / "set" / "images").iterdir()) == []


def test_a_disk_that_is_too_small_is_noticed_first(world: World) -> None:
    (piece,) = world.source.pieces
    world.source = replace(world.source, pieces=(replace(piece, unpacked=1 << 60),))
    assert "make room" in world.refusal()
    assert world.publisher.requests == []


def test_what_cannot_be_unpacked_here_is_not_fetched(world: World) -> None:
    def missing() -> None:
        raise DataError("needs SciPy")

    (piece,) = world.source.pieces
    world.source = replace(world.source, pieces=(replace(piece, require=missing),))
    assert "needs SciPy" in world.refusal()
    assert world.publisher.requests == []


def test_a_folder_that_cannot_be_made(world: World) -> None:
    put(world.root, b"a file")
    assert "cannot be made" in world.refusal()


# ── the real sources ─────────────────────────────────────────────────────────────────────────────────────────────────


def served(name: str, archives: dict[str, bytes], holds: dict[str, int], publisher: Publisher) -> Source:
    """Return a source of SOURCES with its archives on the server here, and few files in each folder."""
    pieces = []
    for piece in SOURCES[name].pieces:
        data = archives[piece.archive.name]
        url = publisher.publish(piece.archive.name, data)
        urls = (url,) if piece.archive.urls else ()
        remote = replace(piece.archive, urls=urls, size=len(data), sha256=sha256(data))
        counts = {pattern: holds.get(pattern, count) for pattern, count in piece.holds.items()}
        pieces.append(replace(piece, archive=remote, holds=counts, unpacked=0))
    return replace(SOURCES[name], pieces=tuple(pieces))


def voc_archives(tmp_path: Path) -> dict[str, bytes]:
    voc_tree(tmp_path / "published", aug=False)
    put(tmp_path / "published" / "Annotations" / "2007_000032.xml", b"<annotation/>")
    return {
        "VOCtrainval_11-May-2012.tar": tar_of(tmp_path / "published", VOC_FOLDER),
        "benchmark.tgz": sbd_archive((*VOC_SBD, VOC_VAL[0])),
    }


def camvid_archives(tmp_path: Path) -> dict[str, bytes]:
    camvid_tree(tmp_path / "published")
    images, masks = tmp_path / "published" / "701_StillsRaw_full", tmp_path / "published" / "LabeledApproved_full"
    images.rename(tmp_path / "701_StillsRaw_full")
    (tmp_path / "images").mkdir()
    (tmp_path / "701_StillsRaw_full").rename(tmp_path / "images" / "701_StillsRaw_full")
    rubbish = (("__MACOSX/701_StillsRaw_full/._0001TP_006690.png", b"x"), ("701_StillsRaw_full/Thumbs.db", b"x"))
    return {
        "701_StillsRaw_full.zip": zip_of(tmp_path / "images", *rubbish),
        "LabeledApproved_full.zip": zip_of(masks),
    }


def cityscapes_archives(tmp_path: Path) -> dict[str, bytes]:
    archives = {}
    for folder in ("leftImg8bit", "gtFine"):
        cityscapes_tree(tmp_path / folder / "tree", extra=())
        for other in {"leftImg8bit", "gtFine"} - {folder}:
            shutil.rmtree(tmp_path / folder / "tree" / other)
        others = (("README", b"read me"), ("license.txt", b"terms"))
        archives[f"{folder}_trainvaltest.zip"] = zip_of(tmp_path / folder / "tree", *others)
    return archives


REAL: dict[str, tuple[Callable[[Path], dict[str, bytes]], dict[str, int]]] = {
    "voc": (
        voc_archives,
        {
            "JPEGImages/*.jpg": 9,
            "SegmentationClass/*.png": len(VOC_TRAIN + VOC_VAL),
            "*.png": len(VOC_TRAIN + VOC_VAL + VOC_SBD),
        },
    ),
    "camvid": (camvid_archives, {"*.png": 10, "*_L.png": 10}),
    "cityscapes": (
        cityscapes_archives,
        {
            f"{split}/*/*_{kind}.png": count
            for split, count in (("train", 4), ("val", 2))
            for kind in ("leftImg8bit", "gtFine_labelIds")
        },
    ),
}


@pytest.mark.parametrize("name", REAL)
def test_the_reader_reads_what_is_made(tmp_path: Path, publisher: Publisher, name: str) -> None:
    build, holds = REAL[name]
    archives = build(tmp_path / "make")
    source = served(name, archives, holds, publisher)
    root = tmp_path / "data"
    if source.by_hand:
        for archive, data in archives.items():
            put(root / "downloads" / archive, data)
    download(source, root, connection=HERE, say=lambda line: None)
    assert recognise(root) == name
    reference = tmp_path / "reference"
    TREES[name](reference)
    cls = DATASETS[name]
    made, expected = (cls(cls.Config(root=path)) for path in (root, reference))  # type: ignore[arg-type,call-arg]
    assert made.labeled == expected.labeled
    assert made.val == expected.val
    own = set(VOC_TRAIN + VOC_VAL)
    for sample_id in (*made.labeled, *made.val):
        assert made.image(sample_id).equal(expected.image(sample_id))
        if name != "voc" or sample_id in own:
            assert made.label(sample_id).equal(expected.label(sample_id))
        else:
            assert made.label(sample_id).unique().tolist() == [7]
    download(source, root, offline=True, say=lambda line: None)


def test_a_login_is_explained(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        download(SOURCES["cityscapes"], tmp_path / "data")
    message = str(error.value)
    assert "leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip" in message
    assert str(tmp_path / "data" / "downloads") in message
    assert len(message.splitlines()) == 1


def test_the_sources_are_https_and_pinned_as_the_docs_say() -> None:
    docs = (ROOT / "docs" / "download.md").read_text(encoding="utf-8")
    for source in SOURCES.values():
        for piece in source.pieces:
            remote = piece.archive
            assert remote.urls or source.by_hand
            assert all(url.startswith("https://") and url in docs for url in remote.urls)
            assert (remote.size is None) == (remote.sha256 is None)
            assert remote.name in docs
            if remote.sha256:
                assert re.fullmatch(r"[0-9a-f]{64}", remote.sha256)
                assert remote.sha256 in docs
                assert f"{remote.size:,}" in docs
    names = [piece.archive.name for source in SOURCES.values() for piece in source.pieces]
    assert len(set(names)) == len(names)


# ── the verb ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def verb(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["data", "download", *map(str, arguments)])


@pytest.mark.usefixtures("no_sockets")
def test_the_verb_checks_what_is_there(tmp_path: Path) -> None:
    camvid_tree(tmp_path, (f"0016E5_{number:05}" for number in range(701)))
    result = verb("camvid", tmp_path)
    assert result.exit_code == 0, result.output
    complete, following = result.stdout.splitlines()[-2:]
    assert complete == f"{tmp_path}: complete" and following == f"next: des4 data check {tmp_path}"


@pytest.mark.usefixtures("no_sockets")
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("vok",), "there are voc, camvid, cityscapes"),
        (("voc", "--offline"), "without --offline it is fetched"),
        (("cityscapes",), "make an account"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, arguments: tuple[str, ...], line: str) -> None:
    result = verb(arguments[0], tmp_path / "data", *arguments[1:])
    assert result.exit_code == 2
    (complaint,) = result.stderr.splitlines()
    assert line in complaint
