"""Unpacking archives that came from elsewhere: every entry is judged before the first byte is written.

tarfile and zipfile only parse here. Their own extraction is never called, tar's `data` filter included (it could be
talked round on Python 3.11.7: CVE-2025-4517). What passes is regular files and folders under relative names that mean
one file on every system, within limits of count, size and ratio; a single entry beyond that refuses the whole archive.
Only links, devices and the like that nobody wants are passed over. Files are created by this module, in a folder that
holds nothing else, with the modes and times of new files.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Literal, NamedTuple, Protocol, cast

from des4.data_tools.progress import NO_BAR, Bar
from des4.types import DataError

CHUNK = 1 << 20
"""Bytes read at once; also the largest piece that tarfile may ask for, so that no header makes it fill the memory."""

_PADDING = 64 << 20
"""How much may follow the end mark of a tar archive; usual are some kilobytes."""

_FAILURES = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError),
    *(RuntimeError, RecursionError),  # zipfile on encryption; tarfile on a chain of extended headers
)
"""What the parsers raise on damaged archives."""

Wanted = Callable[[str], bool]

_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that Windows takes for devices."""


@dataclass(frozen=True)
class Limits:
    """How much an archive may hold: files and folders; bytes in all of them; bytes for each byte of the archive."""

    files: int = 200_000
    total: int = 64 << 30
    ratio: float = 200


DEFAULT_LIMITS = Limits()


class Reader(Protocol):
    """Something to read bytes from."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, none at the end."""


class _Entry(NamedTuple):
    """What a parser says of an entry. problem: why its kind alone refuses it."""

    name: str
    size: int
    is_folder: bool
    problem: str | None
    open: Callable[[], IO[bytes] | None]


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


def list_files(path: Path, wanted: Wanted = lambda name: True, *, limits: Limits = DEFAULT_LIMITS) -> dict[str, int]:
    """Judge all entries of an archive; return its plain files, name → bytes, in its order.

    wanted: which names must be plain files. Raises DataError.
    """
    with _opened(path) as entries:
        return {name: entry.size for name, entry in _judged(entries, path, limits, wanted)}


def read_files(
    path: Path, wanted: Wanted = lambda name: True, *, limits: Limits = DEFAULT_LIMITS, bar: Bar = NO_BAR
) -> Iterator[tuple[str, Reader]]:
    """Yield name and content of each wanted file, in the archive's order; each is read before the next is asked for.

    All entries are judged before the first is yielded. Raises DataError, also where a content turns out damaged.
    """
    bar.expect(sum(list_files(path, wanted, limits=limits).values()))
    with _opened(path) as entries:
        for name, entry in _judged(entries, path, limits, wanted):
            if wanted(name):
                content = entry.open()
                if content is None:
                    raise _refusal(path, name, "has no content")
                with content:
                    yield name, _Content(path, name, content, entry.size)
            bar.advance(entry.size)


def unpack(
    path: Path,
    into: Path,
    place: Callable[[str], str | None] = lambda name: name,
    *,
    limits: Limits = DEFAULT_LIMITS,
    bar: Bar = NO_BAR,
) -> dict[str, str]:
    """Write an archive's files into the folder `into`, which is made and must not exist; return place → SHA-256 (hex).

    place: where below `into` a file goes, None = nowhere: the end of its name, so that it is as safe as the name is.
    Raises DataError; what was written by then is the caller's to remove.
    """
    into.mkdir(parents=True)
    written: dict[str, str] = {}
    for name, content in read_files(path, lambda name: place(name) is not None, limits=limits, bar=bar):
        target = place(name)
        assert target is not None  # noqa: S101  # else it is not wanted
        if target in written:
            raise _refusal(path, name, f"would be written to {target}, as another entry is")
        written[target] = write_file(into / target, content)
    return written


def write_file(path: Path, content: Reader) -> str:
    """Write a new file, and its folders; return its SHA-256 (hex). An existing file is never opened."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with path.open("xb") as file:
        while chunk := content.read(CHUNK):
            file.write(chunk)
            digest.update(chunk)
    return digest.hexdigest()


# ── judging ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Judge:
    """Decides on entries one by one; what passed before counts, so that names stay unique and limits hold."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self._path, self._limits = path, limits
        self._packed = max(1, path.stat().st_size)
        self._entries = self._total = 0
        self._seen: dict[str, tuple[str, bool]] = {}
        """Folded name of each file and folder → its spelling, and whether it is a file."""

    def judge(self, entry: _Entry, wanted: Wanted) -> str | None:
        """Return the clean name of an entry that may be unpacked, None if it is passed over. Raises DataError."""
        if problem := _name_problem(entry.name):
            raise _refusal(self._path, entry.name, problem)
        self._count(entry.size)
        name = PurePosixPath(entry.name)
        if entry.problem:
            if wanted(name.as_posix()):
                raise _refusal(self._path, entry.name, entry.problem)
            return None
        if not (name.parts or entry.is_folder):
            raise _refusal(self._path, entry.name, "has no name")
        for folder in reversed(name.parents[:-1]):
            self._claim(folder, is_file=False)
        self._claim(name, is_file=not entry.is_folder)
        return name.as_posix()

    def _count(self, size: int) -> None:
        self._entries += 1
        self._total += size
        limits = self._limits
        for exceeds, what in (
            (self._entries > limits.files, f"holds more than {limits.files} files and folders"),
            (self._total > limits.total, f"holds more than {limits.total} bytes"),
            (self._total > limits.ratio * self._packed, f"would grow to more than {limits.ratio:g} times its size"),
        ):
            if exceeds:
                raise DataError(f"{self._path}: {what}; nothing of it is unpacked, fetch it anew from its publisher")

    def _claim(self, name: PurePosixPath, *, is_file: bool) -> None:
        """Note a name. One taken in any spelling is refused, unless it is the same folder again."""
        spelling = name.as_posix()
        folded = unicodedata.normalize("NFC", spelling).casefold()
        if (known := self._seen.get(folded)) is None:
            self._seen[folded] = (spelling, is_file)
        elif known[0] != spelling:
            raise _refusal(self._path, spelling, f"and '{known[0]}' are one where case does not count")
        elif known[1] != is_file:
            raise _refusal(self._path, spelling, "is both a file and a folder")
        elif is_file:
            raise _refusal(self._path, spelling, "is there twice")


def _judged(entries: Iterator[_Entry], path: Path, limits: Limits, wanted: Wanted) -> Iterator[tuple[str, _Entry]]:
    """Judge entries; yield clean name and entry of the plain files."""
    judge = _Judge(path, limits)
    for entry in entries:
        name = judge.judge(entry, wanted)
        if name is not None and not entry.is_folder:
            yield name, entry


def _name_problem(name: str) -> str | None:
    """Say why a name cannot be trusted to mean one file inside the folder, on any system."""
    if any(ord(letter) < 32 or ord(letter) == 127 or 0xD800 <= ord(letter) < 0xE000 for letter in name):
        return "has unprintable letters in its name"
    if name.startswith("/") or "\\" in name or ":" in name:
        return "has an absolute path or one of another system"
    parts = PurePosixPath(name).parts
    if ".." in parts:
        return "leads out of the folder"
    if any(part.rstrip(" .") != part or _RESERVED.fullmatch(part) or len(part.encode()) > 200 for part in parts):
        return "has a name that not every system can keep"
    return None


def _refusal(path: Path, name: str, problem: str) -> DataError:
    shown = name if name.isprintable() else ascii(name)[1:-1]
    return DataError(
        f"{path}: the entry '{shown[:100]}' {problem}; nothing of it is unpacked, fetch it anew from its publisher"
    )


# ── parsing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _opened(path: Path) -> Iterator[Iterator[_Entry]]:
    """Open an archive; yield its entries. Raises DataError where the archive is damaged."""
    kind = _kind(path)
    if kind is None:
        raise DataError(f"{path}: is neither a tar nor a zip archive; move it away and fetch it anew")
    try:
        with path.open("rb") as file:
            if kind == "zip":
                with zipfile.ZipFile(file) as archive:
                    yield _zip_entries(archive)
            elif kind == "tar":
                yield _tar_entries(_Guarded(file))
            else:
                with gzip.GzipFile(fileobj=file) as stream:
                    yield _tar_entries(_Guarded(stream))
    except _FAILURES as error:
        raise _damage(path, error) from error


def _damage(path: Path, error: Exception) -> DataError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return DataError(f"{path}: is damaged ({reason}); move it away and fetch it anew")


def _zip_entries(archive: zipfile.ZipFile) -> Iterator[_Entry]:
    for info in archive.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        problem = None
        if kind not in (0, stat.S_IFDIR if info.is_dir() else stat.S_IFREG):
            problem = "is a link or a device"
        elif info.flag_bits & 1:
            problem = "is encrypted"
        elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            problem = "is compressed in an unusual way"
        yield _Entry(info.orig_filename, info.file_size, info.is_dir(), problem, partial(archive.open, info))


def _tar_entries(stream: _Guarded) -> Iterator[_Entry]:
    with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r:") as archive:
        for member in archive:
            if member.size < 0:  # which would lead tarfile back, and round in circles
                raise tarfile.ReadError("a negative size")
            problem = None
            if not (member.isdir() or member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)) or member.issparse():
                problem = "is a link, a device or a sparse file"
            yield _Entry(member.name, member.size, member.isdir(), problem, partial(archive.extractfile, member))
        stream.seek(archive.offset)  # tarfile stops without a word at a header that it cannot read
        if stream.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError("a broken header")
        for _ in range(_PADDING // CHUNK):  # gzip's checksum comes at the very end
            if not stream.read(CHUNK):
                return
        raise tarfile.ReadError("more behind its end than padding")


class _Guarded:
    """A stream that hands out no more than CHUNK bytes at once: headers of any size are asked for in one piece."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile) -> None:
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= CHUNK:
            raise tarfile.ReadError("a header of unreasonable size")
        return self._stream.read(size)


class _Content:
    """The content of one file. It is as long as the archive said, or reading it raises DataError."""

    def __init__(self, path: Path, name: str, stream: IO[bytes], size: int) -> None:
        self._path, self._name, self._stream, self._left = path, name, stream, size

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, none at the end."""
        try:
            chunk = self._stream.read(min(size, CHUNK))
        except _FAILURES as error:
            raise _damage(self._path, error) from error
        self._left -= len(chunk)
        if self._left < 0 or (self._left and not chunk):
            raise _refusal(self._path, self._name, "is not as long as the archive says")
        return chunk
