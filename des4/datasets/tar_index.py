"""Where the images lie in a tar file, so that any one is read without those before it.

WebDataset's naming: a member `dir/key.suffix` belongs to the sample `dir/key`; the suffix begins at the first dot of
the file name. Members whose suffix is that of an image count, all others are passed over (`key.json`, `key.seg.png`);
where a sample has a JPEG beside other images, the JPEG is its image.

An index is stored as a safetensors file: beside the tar (`NAME.tar.index`), where `des4 data shard` puts it, or in
des4's own folder, where it is kept after a tar was read through. It is believed only while it fits the tar: the same
size, and headers with the right names and lengths at places all over it. So a copied tar keeps its index, a replaced
one does not.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from des4.images.pictures import IMAGE_SUFFIXES
from des4.types import DataError

_VERSION = "1"
_BLOCK = tarfile.BLOCKSIZE
_PROBES = 8
"""Headers that are looked at before an index is believed."""
_LONGEST = (1 << 32) - 1
_IN_HEADER = 80
"""Characters of a key that fit into a header with any suffix, whatever program wrote the tar."""


@dataclass(frozen=True)
class TarIndex:
    """The images of a tar file, sorted by key: 16 bytes each, and the key.

    size: of the tar file. offsets: (N,) int64, where each image begins. lengths: (N,) uint32, in bytes.
    ends: (N,) uint32, where each key ends in `keys`, (bytes,) uint8, which is UTF-8.
    """

    size: int
    offsets: NDArray[np.int64]
    lengths: NDArray[np.uint32]
    ends: NDArray[np.uint32]
    keys: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.offsets)

    def key(self, index: int) -> str:
        """Return the key of an image."""
        start = int(self.ends[index - 1]) if index else 0
        return self.keys[start : int(self.ends[index])].tobytes().decode()

    def find(self, key: str) -> int | None:
        """Return the place of a key; None if it is not there."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self.key(middle) < key:
                low = middle + 1
            else:
                high = middle
        return low if low < len(self) and self.key(low) == key else None


def index_of(tar: Path, folder: Path) -> TarIndex:
    """Return the index of a tar file: the stored one if it fits, else made anew and kept in `folder`.

    Raises DataError if the tar cannot be read, or the folder not written.
    """
    kept = folder / f"{hashlib.sha256(str(tar.resolve()).encode()).hexdigest()[:32]}.index"
    try:
        with tar.open("rb") as file:
            for place in (index_path(tar), kept):
                if (index := load_index(place)) is not None and _fits(file.fileno(), index):
                    return index
    except OSError as error:
        raise DataError(f"{tar}: cannot be read ({error.strerror}); restore the file or leave it out") from error
    index = build_index(tar)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_index(index, kept)
    except OSError as error:
        raise DataError(f"{folder}: the index of {tar.name} cannot be kept there ({error.strerror}); "
                        "name another folder with data.cache_dir") from error  # fmt: skip
    return index


def index_path(tar: Path) -> Path:
    """Return where an index lies beside its tar file."""
    return tar.with_name(f"{tar.name}.index")


def build_index(tar: Path) -> TarIndex:
    """Read through a tar file's headers. Raises DataError if it is damaged, compressed, or names an image twice."""
    found: dict[str, tuple[int, int, bool]] = {}
    for name, offset, length in _images(tar):
        key, suffix = name
        is_jpeg = suffix in (".jpg", ".jpeg")
        if key in found and is_jpeg == found[key][2]:
            raise DataError(f"{tar}: holds two images of the sample '{key}'; give each its own name")
        if key not in found or is_jpeg:
            found[key] = offset, length, is_jpeg
    order = sorted(found)
    try:
        keys = [key.encode() for key in order]
    except UnicodeEncodeError as error:
        raise DataError(f"{tar}: the name {error.object!r} is not UTF-8; rename it and pack the shard again") from error
    return TarIndex(
        tar.stat().st_size,
        np.array([found[key][0] for key in order], np.int64),
        np.array([found[key][1] for key in order], np.uint32),
        np.cumsum([len(key) for key in keys], dtype=np.uint32),
        np.frombuffer(b"".join(keys), np.uint8),
    )


def save_index(index: TarIndex, path: Path) -> None:
    """Write an index as a whole: a reader sees the old file or the new one. Raises OSError."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(_tensors(index), partial, {"version": _VERSION, "size": str(index.size), "crc": _checksum(index)})
    except SafetensorError as error:  # how the library reports a full disk
        partial.unlink(missing_ok=True)
        raise OSError(0, str(error)) from error
    partial.replace(path)


def load_index(path: Path) -> TarIndex | None:
    """Read an index; None if there is none, or it is damaged or of another version."""
    try:
        with safe_open(path, framework="numpy") as file:
            about = file.metadata() or {}
            index = TarIndex(
                int(about["size"]), *(file.get_tensor(name) for name in ("offsets", "lengths", "ends", "keys"))
            )
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
    return index if about.get("version") == _VERSION and about.get("crc") == _checksum(index) else None


def _images(tar: Path) -> Iterator[tuple[tuple[str, str], int, int]]:
    """Yield ((key, suffix), offset, length) of the images of a tar file."""
    try:
        with tarfile.open(tar, "r:") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # else it would remember every member
                if member.isreg() and (name := _split(member.name)):
                    if member.issparse() or member.size > _LONGEST:
                        raise DataError(f"{tar}: '{member.name}' is larger than 4 GiB or sparse; leave it out")
                    yield name, member.offset_data, member.size
            end = archive.offset
        with tar.open("rb") as file:
            file.seek(end)
            if file.read(_BLOCK).strip(b"\0"):  # `tarfile` takes a damaged header for the end
                raise DataError(f"{tar}: is damaged at byte {end}; restore the file or leave it out")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(
            f"{tar}: cannot be read as a tar file ({error}); shards are whole and not compressed"
        ) from error


def _split(name: str) -> tuple[str, str] | None:
    """Split a member's name into key and suffix; None if it is no image."""
    folder, slash, file = name.removeprefix("./").rpartition("/")
    stem, dot, suffix = file.partition(".")
    suffix = f"{dot}{suffix.lower()}"
    return (f"{folder}{slash}{stem}", suffix) if stem and suffix in IMAGE_SUFFIXES else None


def _fits(file: int, index: TarIndex) -> bool:
    """Whether an index belongs to an open tar file: its size, and here and there a header with its name and length."""
    if os.fstat(file).st_size != index.size:
        return False
    for place in np.unique(np.linspace(0, len(index) - 1, _PROBES).astype(int)) if len(index) else ():
        try:
            block = os.pread(file, _BLOCK, int(index.offsets[place]) - _BLOCK)
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, OSError):
            return False
        if header.size != index.lengths[place] or not _may_be_called(header.name, index.key(place)):
            return False
    return True


def _may_be_called(name: str, key: str) -> bool:
    """Whether a header can be that of a key. Long names, and those beyond ASCII, may stand in full elsewhere."""
    return len(key) > _IN_HEADER or not key.isascii() or name.removeprefix("./").startswith(f"{key}.")


def _tensors(index: TarIndex) -> dict[str, NDArray[np.generic]]:
    return {"offsets": index.offsets, "lengths": index.lengths, "ends": index.ends, "keys": index.keys}


def _checksum(index: TarIndex) -> str:
    checksum = 0
    for tensor in _tensors(index).values():
        checksum = zlib.crc32(tensor.tobytes(), checksum)
    return f"{checksum:08x}"
