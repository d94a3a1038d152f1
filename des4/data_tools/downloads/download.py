"""`des4 data download`: a published data set, fetched, checked and laid out as its reader expects it.

```
<root>/downloads/<archive>              as published; may be deleted once it is unpacked
<root>/downloads/<archive>.unpacked     the SHA-256 of each file made from it, as sha256sum writes and checks them
<root>/des4-downloads.json              size and SHA-256 of archives for which nobody has published them
<root>/…                                the data set
```

An archive is unpacked only if it is the published one, or where nothing is published, the one that was first fetched.
It is unpacked beside its place, and moved there when it is complete. What is there already is checked and left alone.
Nothing is overwritten, and nothing deleted but what an interrupted run of this module has left.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from des4.data_tools.downloads.archives import DEFAULT_LIMITS, Limits, is_archive
from des4.data_tools.downloads.sources import Piece, Source
from des4.data_tools.downloads.transfer import (
    Connection,
    Fingerprint,
    Remote,
    fetch,
    fingerprint,
    mismatch,
    require_room,
)
from des4.data_tools.progress import Meter, silent
from des4.types import DataError

Say = Callable[[str], None]


def download(
    source: Source,
    root: Path,
    *,
    offline: bool = False,
    connection: Connection | None = None,
    limits: Limits = DEFAULT_LIMITS,
    meter: Meter = silent,
    say: Say = print,
) -> None:
    """Make a data set in the folder `root`, or check the one that is there.

    offline: open no connection; the archives have to be in `root / "downloads"`. say: told what is done, in lines.
    Raises DataError if a server fails, an archive is not the right one, a folder in the way is not complete, a package
    is missing, or the disk is full. Then what failed is not in its place, and the same call goes on from there.
    """
    place = _Place(root, meter, say)
    missing = [piece for piece in source.pieces if not place.is_complete(piece)]
    if not missing:
        say(f"{root}: complete")
        return
    absent = [piece for piece in missing if not place.has_archive(piece.archive)]
    if by_hand := [piece.archive for piece in absent if offline or not piece.archive.urls]:
        raise DataError(_instructions(source, by_hand, place.downloads))
    for piece in missing:
        piece.require()
    place.require_room(source, missing, absent)
    for piece in absent:
        expected = place.expected(piece.archive)
        found = fetch(expected, place.downloads, connection=connection, accept=is_archive, meter=meter, say=say)
        place.record(piece.archive, found)
    for piece in missing:
        place.make(piece, limits)
    say(f"{root}: complete")


@dataclass(frozen=True)
class _Place:
    """The folder of a data set."""

    root: Path
    meter: Meter
    say: Say

    @property
    def downloads(self) -> Path:
        return self.root / "downloads"

    # ── what is there ────────────────────────────────────────────────────────────────────────────────────────────────

    def is_complete(self, piece: Piece) -> bool:
        """Whether the piece's folder is there. Raises DataError if it is, but not as it should be."""
        folder = self.root / piece.folder
        if not folder.exists():
            return False
        if self._manifest(piece).is_file():
            self._verify(piece)
            self.say(f"{folder}: every file is as it was unpacked")
        else:
            _require_all(piece, folder)
            self.say(f"{folder}: has all files; it was not unpacked by des4, so their content is not checked")
        return True

    def has_archive(self, remote: Remote) -> bool:
        """Whether the archive is there. Raises DataError if it is, but is another one."""
        path = self.downloads / remote.name
        if not path.exists():
            return False
        found = fingerprint(path, self.meter)
        if problem := mismatch(self.expected(remote), found) or (None if is_archive(path) else "is no archive"):
            raise DataError(
                f"{path}: {problem}; move it away to have it fetched anew, or unpack it into {self.root} yourself"
            )
        self.record(remote, found)
        return True

    def _manifest(self, piece: Piece) -> Path:
        return self.downloads / f"{piece.archive.name}.unpacked"

    def _verify(self, piece: Piece) -> None:
        """Raise DataError unless every file that was unpacked is there, byte for byte."""
        manifest = self._manifest(piece)
        lines = [re.fullmatch(r"([0-9a-f]{64})  (.+)", line) for line in _read(manifest).splitlines()]
        expected = {self.root / line[2]: line[1] for line in lines if line}
        if not expected or None in lines:
            raise DataError(f"{manifest}: is not what des4 wrote; restore it, or move it away")
        with self.meter(f"checking {piece.folder}", None) as bar:
            bar.expect(sum(path.stat().st_size for path in expected if path.is_file()))
            for path, sha256 in expected.items():
                found = fingerprint(path) if path.is_file() else None
                if found is None or found.sha256 != sha256:
                    problem = "has changed since it was unpacked" if found else "is missing"
                    raise DataError(f"{path}: {problem}; restore it, or move {self.root / piece.folder} away")
                bar.advance(found.size)

    # ── archives that nobody has published a checksum of ─────────────────────────────────────────────────────────────

    @property
    def _records(self) -> Path:
        return self.root / "des4-downloads.json"

    def expected(self, remote: Remote) -> Remote:
        """Return the file with size and SHA-256 as published, or as recorded when it was first fetched."""
        if remote.sha256 or remote.name not in (records := self._read_records()):
            return remote
        return replace(remote, size=records[remote.name].size, sha256=records[remote.name].sha256)

    def record(self, remote: Remote, found: Fingerprint) -> None:
        """Keep what was found, where nothing is published and nothing recorded."""
        records = self._read_records()
        if remote.sha256 or remote.name in records:
            return
        records[remote.name] = found
        content = {name: {"size": one.size, "sha256": one.sha256} for name, one in sorted(records.items())}
        _write(self._records, json.dumps(content, indent=2) + "\n")
        self.say(f"{remote.name}: no checksum is published; SHA-256 {found.sha256} is kept in {self._records}")

    def _read_records(self) -> dict[str, Fingerprint]:
        if not self._records.exists():
            return {}
        try:
            content = json.loads(_read(self._records))
            return {name: Fingerprint(int(one["size"]), str(one["sha256"])) for name, one in content.items()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"{self._records}: is not what des4 wrote; restore it, or move it away") from error

    # ── making it ────────────────────────────────────────────────────────────────────────────────────────────────────

    def require_room(self, source: Source, missing: list[Piece], absent: list[Piece]) -> None:
        """Make the folder; raise DataError unless the disk has room for archives and data set."""
        try:
            self.downloads.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{self.downloads}: cannot be made ({error.strerror}); choose another folder") from error
        begun = sum(path.stat().st_size for piece in absent if (path := self._partial(piece)).exists())
        size = sum(piece.archive.size or piece.unpacked for piece in absent) + sum(piece.unpacked for piece in missing)
        require_room(self.root, size - begun, source.title)

    def _partial(self, piece: Piece) -> Path:
        return self.downloads / f"{piece.archive.name}.partial"

    def make(self, piece: Piece, limits: Limits) -> None:
        """Unpack an archive into the piece's folder. Raises DataError; then the folder is not there."""
        folder = self.root / piece.folder
        unfinished = folder.with_name(f"{folder.name}.unpacking")
        try:
            if unfinished.exists():  # left by a run that was killed
                shutil.rmtree(unfinished)
            with self.meter(f"unpacking {piece.archive.name}", None) as bar:
                written = piece.build(self.downloads / piece.archive.name, self.root, unfinished, limits, bar)
            _require_all(piece, unfinished)
            if folder.exists():
                raise DataError(f"{folder}: has appeared meanwhile, and is not overwritten")
            unfinished.rename(folder)
        except OSError as error:
            raise DataError(f"{folder}: cannot be written ({error.strerror}); make room, then run it again") from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        lines = [f"{digest}  {piece.folder}/{name}\n" for name, digest in sorted(written.items())]
        _write(self._manifest(piece), "".join(lines))
        self.say(f"{folder}: {len(written)} files")


def _require_all(piece: Piece, folder: Path) -> None:
    for pattern, count in piece.holds.items():
        found = sum(1 for _ in folder.glob(pattern))
        if found < count:
            raise DataError(
                f"{folder}: holds {found} of {count} files {pattern}; complete it, or move it away to have it made anew"
            )


def _instructions(source: Source, archives: list[Remote], folder: Path) -> str:
    names = " and ".join(remote.name for remote in archives)
    if source.by_hand:
        return f"{source.title}: {source.by_hand.format(archives=names, folder=folder)}"
    addresses = ", ".join(remote.urls[0] for remote in archives)
    return f"{folder}: has no {names}; without --offline it is fetched, or put there what is at {addresses}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); restore it, or move it away") from error


def _write(path: Path, text: str) -> None:
    """Write a file of this module's own, whole or not at all."""
    unfinished = path.with_name(f"{path.name}.new")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); make room, then run it again") from error
