"""Unpacking archives that came from elsewhere, into a folder that holds nothing else.

Where a file would be written is judged by tarfile's `data` filter (PEP 706), for zip archives too, and contents are
limited in number and size. Only regular files are written, each of them new, with the modes and times of new files: as
no link is ever made, none can lead a later name out of the folder, which is how the filter has been talked round
(CVE-2025-4517).
"""

from __future__ import annotations

import gzip
import hashlib
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, NamedTuple, cast

from des4.data_tools.progress import NO_BAR, Bar
from des4.types import DataError

_AT_ONCE = 256 << 20
"""Bytes that are read in one piece, at most: no header makes tarfile fill the memory."""

_PADDING = 64 << 20
"""Bytes that may follow the end mark of a tar archive; usual are some kilobytes."""

_FAILURES = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError),
    *(RuntimeError, RecursionError),  # zipfile on encryption; tarfile on a chain of extended headers
)
"""What the parsers raise on damaged archives."""

Wanted = Callable[[str], bool]


@dataclass(frozen=True)
class Limits:
    """How much an archive may hold: files and folders; bytes in all, in one file, and for each byte of the archive."""

    files: int = 200_000
    total: int = 64 << 30
    one: int = _AT_ONCE
    ratio: float = 200


DEFAULT_LIMITS = Limits()


class _Entry(NamedTuple):
    """What a parser says of an entry. read: returns its content, of `size` bytes."""

    name: str
    size: int
    kind: Literal["file", "folder", "other"]
    read: Callable[[], bytes]


def is_archive(path: Path) -> bool:
    """Whether a file begins as an archive that can be unpacked here."""
    return _kind(path) is not None


def _kind(path: Path) -> Literal["tar", "tar.gz", "zip"] | None:
    """Tell the kind of an archive from its first bytes, whatever its name."""
    with path.open("rb") as file:
        start = file.read(512)
    if start.startswith(b"\x1f\x8b"):
        return "tar.gz"
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if start[257:262] == b"ustar":
        return "tar"
    return None


def unpack(
    path: Path,
    into: Path,
    place: Callable[[str], str | None] = lambda name: name,
    *,
    limits: Limits = DEFAULT_LIMITS,
    bar: Bar = NO_BAR,
) -> dict[str, str]:
    """Write an archive's files into the folder `into`, which is made and must not exist; return place → SHA-256 (hex).

    place: where below `into` a file goes, None = nowhere. Raises DataError, also where that is no place below `into`;
    what was written by then is the caller's to remove.
    """
    into.mkdir(parents=True)
    written: dict[str, str] = {}
    for name, content in read_files(path, lambda name: place(name) is not None, limits=limits, bar=bar):
        target = place(name)
        assert target is not None  # noqa: S101  # else it is not wanted
        if not target.isprintable():
            raise _refusal(path, name, "has unprintable letters in its name")
        try:
            target = tarfile.data_filter(tarfile.TarInfo(target), str(into)).name
            written[target] = write_file(into / target, content)
        except tarfile.FilterError as error:
            raise _refusal(path, name, "leads out of the folder") from error
        except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
            raise _refusal(path, name, "lies where another entry lies") from error
    return written


def write_file(path: Path, content: bytes) -> str:
    """Write a new file, and its folders; return its SHA-256 (hex). An existing file is never opened."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(content)
    return hashlib.sha256(content).hexdigest()


def read_files(
    path: Path, wanted: Wanted, *, limits: Limits = DEFAULT_LIMITS, bar: Bar = NO_BAR
) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each wanted file, in the archive's order.

    Raises DataError where one that is wanted is no regular file, a limit is reached, or the archive is damaged.
    """
    size, count, total, position = path.stat().st_size, 0, 0, 0
    bar.expect(size)
    with _opened(path) as (file, entries):
        for entry in entries:
            count, total = count + 1, total + entry.size
            _require_within(path, limits, count, total, limits.ratio * size)
            name = PurePosixPath(entry.name).as_posix()
            if wanted(name) and entry.kind != "folder":
                if entry.kind == "other":
                    raise _refusal(path, entry.name, "is a link, a device or a sparse file")
                if entry.size > limits.one:
                    raise _refusal(path, entry.name, f"has more than {limits.one} bytes")
                content = entry.read()
                if len(content) != entry.size:
                    raise _refusal(path, entry.name, "is not as long as the archive says")
                yield name, content
            if file.tell() > position:
                bar.advance(file.tell() - position)
                position = file.tell()


def _require_within(path: Path, limits: Limits, count: int, total: int, most: float) -> None:
    for exceeds, what in (
        (count > limits.files, f"holds more than {limits.files} files and folders"),
        (total > limits.total, f"holds more than {limits.total} bytes"),
        (total > most, f"would grow to more than {limits.ratio:g} times its size"),
    ):
        if exceeds:
            raise DataError(f"{path}: {what}; nothing of it is kept, fetch it anew from its publisher")


def _refusal(path: Path, name: str, problem: str) -> DataError:
    shown = name if name.isprintable() else ascii(name)[1:-1]
    return DataError(
        f"{path}: the entry '{shown[:100]}' {problem}; nothing of it is kept, fetch it anew from its publisher"
    )


# ── parsing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], Iterator[_Entry]]]:
    """Open an archive; yield its file, whose position shows how far it is read, and its entries. Raises DataError."""
    kind = _kind(path)
    if kind is None:
        raise DataError(f"{path}: is neither a tar nor a zip archive; move it away and fetch it anew")
    try:
        with path.open("rb") as file:
            if kind == "zip":
                with zipfile.ZipFile(file) as archive:
                    yield file, _zip_entries(archive)
            elif kind == "tar":
                yield file, _tar_entries(_Guarded(file))
            else:
                with gzip.GzipFile(fileobj=file) as stream:
                    yield file, _tar_entries(_Guarded(stream))
    except _FAILURES as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: is damaged ({reason}); move it away and fetch it anew") from error


def _zip_entries(archive: zipfile.ZipFile) -> Iterator[_Entry]:
    for info in archive.infolist():
        mode = stat.S_IFMT(info.external_attr >> 16)
        plain = mode in (0, stat.S_IFDIR if info.is_dir() else stat.S_IFREG)
        kind: Literal["file", "folder", "other"] = "other" if not plain else "folder" if info.is_dir() else "file"
        yield _Entry(info.filename, info.file_size, kind, partial(_read, archive.open, info, info.file_size))


def _tar_entries(stream: _Guarded) -> Iterator[_Entry]:
    with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r:") as archive:
        for member in archive:
            if member.size < 0:  # which would lead tarfile back, and round in circles (CVE-2025-8194)
                raise tarfile.ReadError("a negative size")
            plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse()
            kind: Literal["file", "folder", "other"] = "folder" if member.isdir() else "file" if plain else "other"
            yield _Entry(member.name, member.size, kind, partial(_read, archive.extractfile, member, member.size))
        stream.seek(archive.offset)  # tarfile stops without a word at a header that it cannot read
        if stream.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError("a broken header")
        if len(stream.read(_PADDING)) == _PADDING:  # gzip's checksum comes at the very end
            raise tarfile.ReadError("more behind its end than padding")


def _read(open_entry: Callable[[Any], IO[bytes] | None], entry: Any, size: int) -> bytes:
    """Read no more of an entry than it is said to hold."""
    content = open_entry(entry)
    if content is None:
        raise tarfile.ReadError("an entry without content")
    with content:
        return content.read(size)


class _Guarded:
    """A stream that hands out no more than _AT_ONCE bytes: headers of any size are asked for in one piece."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile) -> None:
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _AT_ONCE:
            raise tarfile.ReadError("a header of unreasonable size")
        return self._stream.read(size)
