"""Decoded images, kept in files that are mapped into memory instead of being decoded again.

An entry is one file: a header of 64 bytes, then the pixels as they lie in memory. It belongs to a source file of a
certain size and time of change; once that differs, the entry is made anew. Entries are written under another name and
renamed, so a reader sees a whole one or none; the checksum is compared when a process meets an entry first, and a
damaged one counts as missing.

The bound holds for all data sets and processes together: whoever adds an entry first books its bytes in a shared
ledger. Where the bound is reached, entries of data sets that no process has open are removed, longest unused first;
then nothing more is added. Nothing is evicted within a data set: over random epochs each entry is as likely to be read
as any other, and exchanging them would only cost time.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from des4.types import DataError

GIB = 1 << 30
ABANDONED = 3600
"""Seconds after which an entry that is still being written is one whose writer has died."""
_HEADER = struct.Struct("<8sqqIIIII20x")
_MAGIC = b"des4px02"
"""Begins every entry. Another decoder, or another layout, takes another number, and old entries count as missing."""


def cache_folder(chosen: Path | None, root: Path) -> Path:
    """Return the folder for what can be made again: the chosen one, else `des4` under XDG_CACHE_HOME or ~/.cache.

    Raises DataError if it lies in the data folder `root`.
    """
    folder = chosen or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "des4"
    if folder.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{folder}: the cache would lie in the data folder {root}, where nothing is written; "
                        "name another place with data.cache_dir")  # fmt: skip
    return folder


_TYPES = (torch.uint8, torch.uint16, torch.int16, torch.float32)
"""Of pixels, by the number that stands for them in an entry."""


class PixelCache:
    """The cache of one data set.

    folder: shared by all data sets; `pixels/` in it belongs to the cache. root: the data folder, which tells data sets
    apart. limit: in bytes. Raises DataError if the folder cannot be written.
    """

    def __init__(self, folder: Path, root: Path, limit: int) -> None:
        if sys.platform == "win32":
            raise DataError("data.cache: needs the file locks of Linux or macOS; set data.cache=0")
        self._all = folder / "pixels"
        self._own = self._all / hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:32]
        self._limit = limit
        self._full = False
        self._sound: set[bytes] = set()  # entries whose checksum this process has seen to be right
        try:
            self._all.mkdir(parents=True, exist_ok=True)
            with self._ledger() as ledger:  # nobody removes the folder meanwhile
                self._own.mkdir(exist_ok=True)
                os.utime(self._own)  # its last use
                self._in_use: IO[bytes] | None = (self._own / "in-use").open("wb")
                _lock(self._in_use.fileno(), shared=True)
                ledger.total = _measure(self._all)
        except OSError as error:
            raise DataError(f"{folder}: the cache cannot be kept there ({error.strerror}); "
                            "name another folder with data.cache_dir, or set data.cache=0") from error  # fmt: skip

    def __getstate__(self) -> dict[str, Any]:
        """A worker needs no lock of its own: the process that started it holds one longer."""
        return {**self.__dict__, "_in_use": None}

    def get(self, source: Path, decode: Callable[[], Tensor], member: str = "") -> Tensor:
        """Return what `decode` returns, from the cache if it is there, else by calling it.

        source: the file it is decoded from. member: which part of it. decode: gives (bands, H, W) of one of `_TYPES`;
        what it raises passes through. The memory of what is returned is that of (H, W, bands).
        """
        try:
            stat = source.stat()
        except OSError:  # no such file any more: `decode` says so
            return decode()
        name = hashlib.sha256(f"{source.absolute()}\0{member}".encode()).hexdigest()[:32]
        stamp = (stat.st_size, stat.st_mtime_ns)
        path = self._own / name[:2] / name[2:]
        pixels = self._read(path, stamp)
        if pixels is None:
            pixels = decode()
            if not self._full:
                self._add(path, stamp, pixels)
        return pixels

    def _read(self, path: Path, stamp: tuple[int, int]) -> Tensor | None:
        """Map an entry into memory; None if there is none of this stamp, or it is damaged."""
        try:
            with path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # writable, but never written back
            magic, size, changed, height, width, bands, number, checksum = _HEADER.unpack_from(mapped)
        except (OSError, ValueError, struct.error):  # no file, an empty one, one shorter than a header
            return None
        if (magic, size, changed) != (_MAGIC, *stamp) or number >= len(_TYPES):
            return None
        dtype = _TYPES[number]
        if len(mapped) != _HEADER.size + height * width * bands * dtype.itemsize:
            return None
        key = path.name.encode()
        if key not in self._sound:
            if zlib.crc32(memoryview(mapped)[_HEADER.size :]) != checksum:
                return None
            self._sound.add(key)
        pixels = torch.frombuffer(mapped, dtype=dtype, offset=_HEADER.size)
        return pixels.view(height, width, bands).permute(2, 0, 1)

    def _add(self, path: Path, stamp: tuple[int, int], pixels: Tensor) -> None:
        """Write an entry, if there is room. A disk that takes no more is a bound like the other."""
        content = pixels.permute(1, 2, 0).contiguous().numpy().tobytes()
        shape = (*pixels.shape[1:], pixels.shape[0], _TYPES.index(pixels.dtype))
        entry = _HEADER.pack(_MAGIC, *stamp, *shape, zlib.crc32(content)) + content
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(exist_ok=True)
            if not self._book(partial, len(entry)):
                self._full = True
                return
            with partial.open("r+b") as file:
                file.write(entry)
            partial.replace(path)
        except OSError:
            self._full = True
            with suppress(OSError):
                partial.unlink(missing_ok=True)

    def _book(self, partial: Path, size: int) -> bool:
        """Make an empty entry of this size, if the bound allows it."""
        with self._ledger() as ledger:
            if (excess := ledger.total + size - self._limit) > 0:
                ledger.total -= self._remove_unused(excess)
            if ledger.total + size > self._limit:
                return False
            with partial.open("wb") as file:
                file.truncate(size)  # it counts in full from now on, whoever measures the folder
            ledger.total += size
        return True

    def _remove_unused(self, wanted: int) -> int:
        """Remove data sets that nobody has open until `wanted` bytes are free; return how many are."""
        freed = 0
        others = (path for path in self._all.iterdir() if path.is_dir() and path != self._own)
        for other in sorted(others, key=lambda path: path.stat().st_mtime):
            if freed >= wanted:
                break
            with (other / "in-use").open("ab") as mark:
                if _lock(mark.fileno(), shared=False, wait=False):
                    freed += _measure(other)
                    shutil.rmtree(other)
        return freed

    @contextmanager
    def _ledger(self) -> Iterator[_Ledger]:
        """Hold the ledger; the total that it is left with is kept."""
        file = os.open(self._all / "ledger", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(file, shared=False)
            ledger = _Ledger(int.from_bytes(os.pread(file, 8, 0), "little"))
            yield ledger
            os.pwrite(file, ledger.total.to_bytes(8, "little"), 0)
        finally:
            os.close(file)


@dataclass
class _Ledger:
    """total: bytes of all entries of all data sets. It may be too high after a crash, never too low."""

    total: int


def _lock(file: int, *, shared: bool, wait: bool = True) -> bool:
    """Lock an open file until it is closed; without waiting, return whether that could be done."""
    import fcntl  # not on every platform

    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _measure(folder: Path) -> int:
    """Add up the files below `folder`, and remove entries whose writer has died."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            with suppress(FileNotFoundError):  # renamed or removed meanwhile
                stat = path.stat()
                if name.startswith(".") and time.time() - stat.st_mtime > ABANDONED:
                    path.unlink()
                else:
                    total += stat.st_size
    return total
