"""Which images are meant: files, folders, patterns, lists; and the name under which each result is kept."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path

from des4.images.pictures import IMAGE_SUFFIXES
from des4.images.video import is_video
from des4.types import DataError


@dataclass(frozen=True)
class Job:
    """An image file, and the relative path of its results, without a suffix."""

    source: Path
    place: Path


def find_images(arguments: Sequence[str | Path], lines: Iterable[str] = ()) -> tuple[list[Job], list[str]]:
    """List the images of files, folders and glob patterns, each file once, and say where two had one name.

    A file may be a video too, where it is named or matches a pattern; folders are searched for images alone.

    lines: further files, one a line, as `-` reads them from standard input. The tree below a folder, below the fixed
    part of a pattern, or below the folder that all lines share, is kept; with several arguments each folder's name
    comes before its tree. Where two images would get one name, the later one gets a number. Raises DataError for an
    argument that is nothing, and where there is no image at all.
    """
    found: list[tuple[Path, Path]] = []
    for argument in arguments:
        found += _of_argument(Path(argument), alone=len(arguments) == 1)
    found += _of_lines([line.strip() for line in lines if line.strip()])
    if not found:
        given = ", ".join(map(str, arguments)) or "standard input"
        raise DataError(f"{given}: no image there; known are {', '.join(sorted(IMAGE_SUFFIXES))}")
    return _named(found)


def _of_argument(path: Path, alone: bool) -> list[tuple[Path, Path]]:
    if path.is_file():
        return [(path, Path(path.name))]
    if path.is_dir():
        inside = Path() if alone else Path(path.resolve().name)
        # Path.rglob would not enter linked sub-folders
        files = (Path(place, name) for place, _, names in os.walk(path, followlinks=True) for name in names)
        return [(file, inside / file.relative_to(path)) for file in sorted(files) if _is_image(file)]
    if not has_magic(str(path)):
        raise DataError(f"{path}: no such file or folder")
    base = Path(re.split(r"[^/]*[*?\[]", str(path), maxsplit=1)[0])
    matches = sorted(Path(match) for match in glob(str(path), recursive=True))  # noqa: PTH207  # absolute ones, too
    if not matches:
        raise DataError(f"{path}: matches no file")
    wanted = (match for match in matches if match.is_file() and (_is_image(match) or is_video(match)))
    return [(match, match.relative_to(base)) for match in wanted]


def _of_lines(lines: Sequence[str]) -> list[tuple[Path, Path]]:
    if not lines:
        return []
    files = [Path(line) for line in lines]
    places = [Path(os.path.abspath(file)) for file in files]  # noqa: PTH100  # Path.absolute would leave ".." in it
    folder = Path(os.path.commonpath([place.parent for place in places]))
    return [(file, place.relative_to(folder)) for file, place in zip(files, places, strict=True)]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _named(found: Sequence[tuple[Path, Path]]) -> tuple[list[Job], list[str]]:
    """Give each file, taken once, a place of its own. A file system may take upper and lower case for one.

    Below the place of a video lie its frames, so that is no folder of images either; they are named first.
    """
    sources: dict[str, tuple[Path, Path]] = {}
    for source, path in found:
        sources.setdefault(str(source.parent.resolve() / source.name), (source, path))
    jobs: dict[Path, Job] = {}
    notes: list[str] = []
    taken: dict[str, Path] = {}
    folders: dict[str, Path] = {}
    for source, path in sorted(sources.values(), key=lambda each: is_video(each[0])):
        inside = [part for part in Path(os.path.normpath(path)).parts if part != ".."]  # results stay in their folder
        wanted = place = Path(*inside).with_suffix("")
        before = taken | folders if is_video(source) else taken
        number = 1
        while str(place).lower() in before:
            number += 1
            place = wanted.with_name(f"{wanted.name}-{number}")
        if place != wanted:
            first = before[str(wanted).lower()]
            notes.append(f"{source}: has the name of {first}; its results are called {place}")
        taken[str(place).lower()] = source
        for folder, origin in zip(place.parents, source.parents, strict=False):
            folders.setdefault(str(folder).lower(), origin)
        jobs[source] = Job(source, place)
    return [jobs[source] for source, _ in sources.values()], notes
