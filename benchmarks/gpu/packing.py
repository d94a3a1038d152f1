"""Data and lists in one file, images as WebP."""

from __future__ import annotations

import argparse
import io
import tarfile
from pathlib import Path

from PIL import Image

from des4.types import ConfigError
from gpu.stages import WHOLE

FIRST = {"camvid": "6a", "clothing": "19a"}
"""A draw whose two lists are all training images together: `all.txt` is made of it."""


def pack(args: argparse.Namespace) -> None:
    """Put what lists name of the data folders into one tar file, images as WebP; nothing is written beside it."""
    args.data.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(args.data, "w") as tar:
        for name in WHOLE:
            data, lists = getattr(args, name), getattr(args, f"{name}_lists")
            if data is None:
                continue
            if lists is None:
                raise ConfigError(
                    f"--{name}-lists: is missing; name the folder with a folder for every draw, and val.txt"
                )
            files = sorted(lists.rglob("*.txt"))
            wanted = {line for path in files for line in ids_of(path)}
            for path in sorted(data.rglob("*.*")):
                place = path.relative_to(data)
                if len(place.parts) > 1 and Path(*place.parts[1:]).with_suffix("").as_posix() not in wanted:
                    continue
                content = _recompressed(path, args.quality) if place.parts[0] == "images" else path.read_bytes()
                place = place.with_suffix(".webp") if place.parts[0] == "images" else place
                _add(tar, name / place, content)
            for path in files:
                _add(tar, Path("lists", name, path.relative_to(lists)), path.read_bytes())
            first = lists / FIRST[name]
            whole = [line for part in ("labeled", "unlabeled") for line in ids_of(first / f"{part}.txt")]
            _add(tar, Path("lists", name, "all.txt"), "\n".join(sorted(whole)).encode() + b"\n")
    print(f"{args.data}: {args.data.stat().st_size / 2**20:.1f} MiB")


def ids_of(path: Path) -> list[str]:
    """Read a list of ids, one a line."""
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _recompressed(path: Path, quality: int) -> bytes:
    buffer = io.BytesIO()
    with Image.open(path) as image:
        image.save(buffer, "WEBP", quality=quality)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, place: Path, content: bytes) -> None:
    entry = tarfile.TarInfo(place.as_posix())
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
