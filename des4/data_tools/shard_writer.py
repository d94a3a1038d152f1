"""Packing a folder of images into tar shards. The files go in as they are: nothing is decoded, or encoded again."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from des4.data_tools.progress import Meter, silent
from des4.datasets.files import scan, split_of
from des4.datasets.tar_index import build_index, index_path, save_index
from des4.images.pictures import decode_header, read_bytes
from des4.types import DataError


@dataclass(frozen=True)
class Packed:
    """What was done.

    shards: the tar files. images: how many they hold. skipped: a line for each that cannot be read. spared: how many
    images of val and test were left out.
    """

    shards: tuple[Path, ...]
    images: int
    skipped: tuple[str, ...]
    spared: int = 0


def write_shards(source: Path, out: Path, max_bytes: int, meter: Meter = silent) -> Packed:
    """Pack the images of a folder, sub-folders included, into `out/NAME-00000.tar`, … with their indexes.

    source: NAME is its name; where it holds `images/`, as data folders do, those are packed and the masks are not, nor
    are images in folders of val and test, for what is in shards is trained on.
    out: a new or empty folder outside of it. max_bytes: of the images in a shard, unless a single one is larger.
    An image whose header cannot be read is left out. Raises DataError if there is nothing to pack, or no place for it.
    """
    is_data = (source / "images").is_dir()
    folder = source / "images" if is_data else source
    if not folder.is_dir():
        raise DataError(f"{source}: no such folder; give the one that holds the images")
    found = scan(folder)
    wanted = {stem: path for stem, path in found.items() if not (is_data and split_of(stem))}
    members = _members(wanted)
    if not found:
        raise DataError(f"{folder}: holds no images; give the folder that does")
    if not members:
        raise DataError(f"{folder}: all its {len(found)} images lie in folders of val or test; add some to train on")
    _make_empty(out, source)
    try:
        packed = _pack(members, out / source.resolve().name, max_bytes, meter)
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror}); make room, or choose another place") from error
    if not packed.images:
        raise DataError(f"{folder}: none of its {len(members)} images can be read. The first: {packed.skipped[0]}")
    return replace(packed, spared=len(found) - len(wanted))


def _pack(members: Mapping[str, Path], name: Path, max_bytes: int, meter: Meter) -> Packed:
    """Write the shards `name-00000.tar`, …"""
    shards: list[_Shard] = []
    skipped: list[str] = []
    sizes = {path: _size(path) for path in members.values()}
    with meter("packing", sum(sizes.values())) as bar:
        for member, path in members.items():
            bar.advance(sizes[path])
            try:
                data = read_bytes(path)
                decode_header(path, data)
            except DataError as error:
                skipped.append(str(error))
                continue
            if not shards or shards[-1].bytes + len(data) > max_bytes:
                if shards:
                    shards[-1].finish()
                shards.append(_Shard(name.with_name(f"{name.name}-{len(shards):05}.tar")))
            shards[-1].add(member, data, int(path.stat().st_mtime))
        if shards:
            shards[-1].finish()
    return Packed(tuple(shard.path for shard in shards), len(members) - len(skipped), tuple(skipped))


def _size(path: Path) -> int:
    """Return the bytes of a file, 0 where it cannot be looked at: a link that leads nowhere."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


class _Shard:
    """A tar file under another name until it is complete. bytes: of the images in it."""

    def __init__(self, path: Path) -> None:
        self.path, self.bytes = path, 0
        self._partial = path.with_name(f".{path.name}.partial")
        self._tar = tarfile.open(self._partial, "x:")  # noqa: SIM115  # `finish` closes it

    def add(self, name: str, data: bytes, changed: int) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mtime = len(data), changed
        self._tar.addfile(info, io.BytesIO(data))
        self.bytes += len(data)

    def finish(self) -> None:
        """Close the tar, index it as a reader would, and give it its name."""
        self._tar.close()
        save_index(build_index(self._partial), index_path(self.path))
        self._partial.replace(self.path)


def _members(images: Mapping[str, Path]) -> Mapping[str, Path]:
    """Name images, by stem, as members of a tar; a key ends at the first dot, so its own become underscores."""
    members: dict[str, Path] = {}
    for stem, path in images.items():
        place = PurePosixPath(stem)
        key = place.with_name(place.name.replace(".", "_")).as_posix()
        if key in members:
            raise DataError(f"{path}: would be packed as '{key}', as {members[key].name} is; rename one of the two")
        members[key] = path
    return {f"{key}{path.suffix.lower()}": path for key, path in members.items()}


def _make_empty(out: Path, source: Path) -> None:
    """Make the folder for the shards. Raises DataError if it cannot be had, or is not empty."""
    if out.resolve().is_relative_to(source.resolve()):
        raise DataError(
            f"{out}: lies in the folder that is packed, into which nothing is written; choose another place"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise DataError(f"{out}: is not empty; choose another folder for the shards, or empty this one")
    except OSError as error:
        raise DataError(f"{out}: no folder can be made there ({error.strerror}); choose another place") from error
