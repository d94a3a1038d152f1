"""Hostile and damaged archives write nothing elsewhere; all others come out as they went in."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import posixpath
import shutil
import stat
import struct
import tarfile
import tempfile
import warnings
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from des4.data_tools.downloads.archives import Limits, is_archive, unpack
from des4.types import DataError

NOISE = hashlib.shake_128(b"noise").digest(20_000)
TREE = {"a.png": b"first", "deep/er/b.png": b"", "deep/c d.txt": b"x" * 3000}


def tar_of(*members: tuple[tarfile.TarInfo, bytes], **options: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", **options) as archive:  # type: ignore[call-overload]
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def entry(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def zip_of(*members: tuple[str | zipfile.ZipInfo, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", compression) as archive:
        warnings.simplefilter("ignore")  # zipfile warns of duplicate names
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def moded(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info


def build(kind: str, files: dict[str, bytes]) -> bytes:
    if kind == "zip":
        return zip_of(*files.items())
    plain = tar_of(*(entry(name, content) for name, content in files.items()))
    return plain if kind == "tar" else gzip.compress(plain)


def found(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def refusal(tmp_path: Path, data: bytes, limits: Limits | None = None) -> str:
    """Return the one line by which an archive is refused; nothing may have been written outside `out`."""
    path = tmp_path / "archive"
    path.write_bytes(data)
    with pytest.raises(DataError) as error:
        unpack(path, tmp_path / "out", limits=limits or Limits())
    assert {p.name for p in tmp_path.iterdir()} <= {"archive", "out", "victim"}
    (message,) = str(error.value).splitlines()
    assert message.startswith(str(path))
    return message.removeprefix(str(path))  # it names the test


# ── good ones ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_files_come_out_with_their_hashes(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "archive"  # the name says nothing; the first bytes do
    path.write_bytes(build(kind, TREE))
    assert is_archive(path)
    written = unpack(path, tmp_path / "out")
    assert found(tmp_path / "out") == TREE
    assert written == {name: hashlib.sha256(content).hexdigest() for name, content in TREE.items()}


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_folders_of_every_tar_format(tmp_path: Path, format: int) -> None:
    name = "/".join(["folder" * 5] * 4 + ["image" * 10 + ".png"])
    members = (entry("./", type=tarfile.DIRTYPE), entry("./folder", type=tarfile.DIRTYPE), entry(f"./{name}", b"x"))
    path = tmp_path / "archive"
    path.write_bytes(tar_of(*members, format=format))
    unpack(path, tmp_path / "out")
    assert found(tmp_path / "out") == {name: b"x"}


def test_only_what_has_a_place_is_written(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    path.write_bytes(build("zip", TREE))
    unpack(path, tmp_path / "out", lambda name: name.removeprefix("deep/") if name.startswith("deep/") else None)
    assert sorted(found(tmp_path / "out")) == ["c d.txt", "er/b.png"]
    with pytest.raises(DataError, match="lies where another entry lies"):
        unpack(path, tmp_path / "again", lambda name: "one")


def test_the_folder_must_be_new(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    path.write_bytes(build("tar", TREE))
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError):
        unpack(path, tmp_path / "out")


def test_modes_owners_and_times_of_the_archive_are_not_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    path.write_bytes(tar_of(entry("tool", b"#!", mode=0o4777, uid=0, mtime=1)))
    unpack(path, tmp_path / "out")
    status = (tmp_path / "out" / "tool").stat()
    assert not status.st_mode & (stat.S_ISUID | stat.S_IXUSR)
    assert status.st_mtime > 1e9


NAMES = st.lists(st.text("abcdé-_. ", min_size=1, max_size=6), min_size=1, max_size=3).map("/".join)


@given(st.dictionaries(NAMES, st.binary(max_size=50), max_size=5), st.sampled_from(["tar", "tar.gz", "zip"]))
def test_an_archive_comes_out_exactly_or_not_at_all(files: dict[str, bytes], kind: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "archive")
        path.write_bytes(build(kind, files))
        try:
            unpack(path, Path(folder, "out"), limits=Limits(ratio=1e6))
        except DataError:
            pass
        else:
            clean = {posixpath.normpath(name): content for name, content in files.items()}  # a/../b is b
            assert found(Path(folder, "out")) == clean
        assert {p.name for p in Path(folder).iterdir()} <= {"archive", "out"}


# ── hostile ones ─────────────────────────────────────────────────────────────────────────────────────────────────────

BAD_NAMES = {
    "../victim": "leads out",
    "a/../../victim": "leads out",
    "good.png/../../victim": "leads out",
    "a/..": "where another entry lies",
    "a\nb": "unprintable",
}


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_names_that_leave_the_folder(tmp_path: Path, kind: str, name: str) -> None:
    (tmp_path / "victim").write_text("mine")
    assert BAD_NAMES[name] in refusal(tmp_path, build(kind, {"good.png": b"x", name: b"evil"}))
    assert (tmp_path / "victim").read_text() == "mine"
    assert found(tmp_path / "out") == {"good.png": b"x"}


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_absolute_names_are_taken_below_the_folder(tmp_path: Path, kind: str) -> None:
    victim = tmp_path / "victim"
    path = tmp_path / "archive"
    path.write_bytes(build(kind, {victim.as_posix(): b"evil"}))
    assert list(unpack(path, tmp_path / "out")) == [victim.as_posix().removeprefix("/")]
    assert not victim.exists()


def test_a_place_is_judged_and_not_the_name_it_is_made_of(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    path.write_bytes(build("tar", {"set/a/../../evil": b"x"}))
    with pytest.raises(DataError, match="leads out"):
        unpack(path, tmp_path / "out", lambda name: name.removeprefix("set/"))
    assert [p.name for p in tmp_path.iterdir() if p.name != "out"] == ["archive"]


@pytest.mark.parametrize(
    "names", [("a", "a/b"), ("a/b", "a"), ("a//b", "a/b"), ("a/./b", "a/b"), ("a/c/../b", "a/b"), ("a", "a")]
)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_two_names_for_one_file(tmp_path: Path, kind: str, names: tuple[str, str]) -> None:
    members = [(name, b"12"[i : i + 1]) for i, name in enumerate(names)]
    data = zip_of(*members) if kind == "zip" else tar_of(*(entry(*member) for member in members))
    assert "lies where another entry lies" in refusal(tmp_path, data)
    assert list(found(tmp_path / "out").values()) == [b"1"], "no file is written over another"


LINKS_AND_DEVICES = {
    "symlink": [entry("link", type=tarfile.SYMTYPE, linkname="/etc/passwd")],
    "file through a symlink": [entry("link", type=tarfile.SYMTYPE, linkname=".."), entry("link/victim", b"evil")],
    "hard link": [entry("a", b"x"), entry("link", type=tarfile.LNKTYPE, linkname="a")],
    "hard link outwards": [entry("link", type=tarfile.LNKTYPE, linkname="../victim")],
    "character device": [entry("dev", type=tarfile.CHRTYPE, devmajor=1, devminor=3)],
    "block device": [entry("dev", type=tarfile.BLKTYPE)],
    "pipe": [entry("pipe", type=tarfile.FIFOTYPE)],
    "contiguous file": [entry("old", b"x", type=tarfile.CONTTYPE)],
    "unknown type": [entry("odd", b"x", type=b"Z")],
}


@pytest.mark.parametrize("what", LINKS_AND_DEVICES)
def test_tar_entries_that_are_no_plain_files(tmp_path: Path, what: str) -> None:
    (tmp_path / "victim").write_text("mine")
    message = refusal(tmp_path, tar_of(entry("good", b"x"), *LINKS_AND_DEVICES[what]))
    assert "link, a device or a sparse file" in message
    assert (tmp_path / "victim").read_text() == "mine"
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))


def test_links_that_nobody_wants_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    path.write_bytes(tar_of(entry("docs/latest", type=tarfile.SYMTYPE, linkname="../.."), entry("a.png", b"x")))
    unpack(path, tmp_path / "out", lambda name: name if name.endswith(".png") else None)
    assert found(tmp_path / "out") == {"a.png": b"x"}
    assert not (tmp_path / "out" / "docs").exists()


def test_sparse_files_of_the_pax_format(tmp_path: Path) -> None:
    headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "0,1", "GNU.sparse.size": "1000"}
    assert "sparse" in refusal(tmp_path, tar_of(entry("a", b"x", pax_headers=headers)))


@pytest.mark.parametrize("mode", [stat.S_IFLNK | 0o777, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFDIR])
def test_zip_entries_that_are_no_plain_files(tmp_path: Path, mode: int) -> None:
    assert "link, a device" in refusal(tmp_path, zip_of(("good", b"x"), (moded("bad", mode), b"/etc/passwd")))
    assert found(tmp_path / "out") == {"good": b"x"}


def test_encrypted_zip_entries(tmp_path: Path) -> None:
    plain = bytearray(zip_of(("good", b"x"), ("bad", b"x"), compression=zipfile.ZIP_STORED))
    plain[plain.rindex(b"PK\x01\x02") + 8] |= 1
    assert "encrypted" in refusal(tmp_path, bytes(plain))


# ── too much ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_limits(tmp_path: Path, kind: str) -> None:
    data = build(kind, {f"{i}.png": NOISE[:9_000] + b"\0" * 91_000 for i in range(5)})
    for limits, reason in (
        (Limits(files=4), "more than 4 files and folders"),
        (Limits(total=499_999), "more than 499999 bytes"),
        (Limits(one=99_999), "more than 99999 bytes"),
        (Limits(ratio=0.1), "more than 0.1 times"),
    ):
        assert reason in refusal(tmp_path, data, limits)
        shutil.rmtree(tmp_path / "out")
    path = tmp_path / "archive"
    assert len(unpack(path, tmp_path / "out", limits=Limits(files=5, total=500_000))) == 5


def test_bombs(tmp_path: Path) -> None:
    zeros = b"\0" * (8 << 20)
    for data in (build("tar.gz", {"bomb": zeros}), build("zip", {"bomb": zeros})):
        assert "200 times" in refusal(tmp_path, data)
        shutil.rmtree(tmp_path / "out")


def test_folders_count_as_well(tmp_path: Path) -> None:
    folders = tar_of(*(entry(f"d{i}", type=tarfile.DIRTYPE) for i in range(11)))
    assert "more than 10 files" in refusal(tmp_path, folders, Limits(files=10))


def test_a_header_that_asks_for_all_memory(tmp_path: Path) -> None:
    head = tarfile.TarInfo("pax")
    head.type, head.size = tarfile.XHDTYPE, 1 << 40
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
        head.type = kind
        assert "unreasonable size" in refusal(tmp_path, gzip.compress(head.tobuf(tarfile.GNU_FORMAT) + b"\0" * 10_000))
        (tmp_path / "out").rmdir()


def test_a_chain_of_headers_without_end(tmp_path: Path) -> None:
    head = tarfile.TarInfo("pax")
    head.type = tarfile.XHDTYPE
    assert "damaged" in refusal(tmp_path, gzip.compress(head.tobuf() * 5000))


def test_negative_sizes_do_not_turn_the_reader_in_circles(tmp_path: Path) -> None:
    """CVE-2025-8194: a size below zero sends tarfile back to where it has been."""
    raw = bytearray(tar_of(entry("a", b"x" * 512)))
    raw[124:136] = b"\xff" * 10 + struct.pack(">h", -512)
    raw[148:156] = b" " * 8
    raw[148:156] = f"{sum(raw[:512]):06o}\0 ".encode()
    assert "a negative size" in refusal(tmp_path, bytes(raw))


# ── damaged ones ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_truncated_archives(tmp_path: Path, kind: str) -> None:
    data = build(kind, {"a": NOISE, "b": NOISE})
    for length in (600, len(data) // 2, len(data) * 7 // 10):
        assert "damaged" in refusal(tmp_path, data[:length])
        shutil.rmtree(tmp_path / "out")


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    for kind in ("tar.gz", "zip"):
        data = bytearray(build(kind, {"a": NOISE}))
        data[5000] ^= 1
        assert "damaged" in refusal(tmp_path, bytes(data))
        shutil.rmtree(tmp_path / "out")


def test_entries_behind_a_broken_header_are_not_lost_without_a_word(tmp_path: Path) -> None:
    raw = bytearray(tar_of(entry("a", b"x"), entry("b", b"x"), entry("c", b"x")))
    raw[1024 + 10] ^= 0xFF
    assert "broken header" in refusal(tmp_path, bytes(raw))


def test_zip_entries_shorter_than_they_claim(tmp_path: Path) -> None:
    data = bytearray(zip_of(("a", b"12345"), compression=zipfile.ZIP_STORED))
    directory = data.index(b"PK\x01\x02")
    data[directory + 24 : directory + 28] = struct.pack("<I", 6)
    assert "not as long" in refusal(tmp_path, bytes(data))


@pytest.mark.parametrize("data", [b"", b"<html>404</html>", b"\x1f", bz2.compress(b"x"), b"PK"])
def test_files_that_are_no_archives(tmp_path: Path, data: bytes) -> None:
    assert "neither a tar nor a zip" in refusal(tmp_path, data)
    assert not is_archive(tmp_path / "archive")


@given(
    st.binary(max_size=700), st.sampled_from([b"\x1f\x8b\x08\0", b"PK\x03\x04", b"PK\x05\x06", b"\0" * 257 + b"ustar"])
)
def test_noise_ends_in_one_line(noise: bytes, start: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "archive")
        path.write_bytes(start + noise)
        with pytest.raises(DataError) as error:
            unpack(path, Path(folder, "out"))
        assert len(str(error.value).splitlines()) == 1
