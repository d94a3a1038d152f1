"""Other programs' data sets, written as the plain folder that a training reads: `images/`, `masks/`, `classes.txt`.

Images are links to the source's files, or copies where links cannot be made; masks are PNGs of class indices, drawn on
the upright pictures. `import.json` says what was read and what was lost. A source is never written to, and a folder
that holds anything is never written into: everything is made beside it and put in place at the end, whole or not at
all.

`prepared` does it for a `data=FOLDER` that holds no masks: into the user's cache, under a name that follows from the
names, sizes and times of all files of the source, wherever its description says that they are, so that a changed
source is imported anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from des4.data_tools.foreign import (
    PANOPTIC,
    Foreign,
    Item,
    Uncovered,
    open_foreign,
    recognise_foreign,
    require_datumaro,
    title_of,
    yolo_folders,
)
from des4.datasets import recognise
from des4.datasets.annotations.json_files import head
from des4.datasets.annotations.regions import RegionError, painted
from des4.datasets.annotations.shapes import BACKGROUND_NAMES, class_table, naming
from des4.datasets.class_files import read_classes
from des4.datasets.coco import CocoConfig
from des4.datasets.files import TEST_FOLDERS, VAL_FOLDERS, FilesConfig, composed, if_file
from des4.datasets.folder import MASK_FOLDERS, FolderConfig
from des4.datasets.lists import read_list
from des4.datasets.palettes import distinct_palette
from des4.datasets.walk import walk
from des4.images.cache import cache_folder
from des4.images.pictures import IMAGE_SUFFIXES, read_header, turned_upright
from des4.images.tiff import MissingExtraError
from des4.types import IGNORE, DataError, RunError

REPORT = "import.json"
"""Says what was imported, in the folder that was written."""

_LAYOUT = 1
"""Of what is written. Another one takes another number, and what lies in caches is made anew."""
_UNCOVERED = 254
"""In masks that are not finished: under no area."""
_MAX_CLASSES = 253
_NO_SUBSET = frozenset({"", "default", "annotations"})
"""What datumaro calls the only subset of a data set that has none."""

_LIKE_DATUMARO = re.compile(r'"categories"\s*:\s*\{')
"""What Datumaro's files hold near their beginning; in COCO's the categories are a list."""

Walk = Callable[[Iterable[Item], int], Iterable[Item]]
"""Walks over items, and may show how far it is."""
Say = Callable[[str], None]


@dataclass
class Imported:
    """What an import read and lost.

    source, format, reader: what was read, and by which library. images: counts by subset, '' without one. masks: images
    with a mask. unlabeled: those without. lost: counts by kind of what is not in the masks. missing: images that the
    annotations name and that are not there, or are no files that can be read. copied: images that could not be linked.
    turned: images whose EXIF data ask for a rotation that leaves the size as it is, so that `data.exif=upright` has to
    be said. said: what the library complained of.
    """

    source: str
    format: str
    reader: str
    classes: tuple[str, ...] = ()
    images: Counter[str] = field(default_factory=Counter)
    masks: int = 0
    unlabeled: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    copied: int = 0
    turned: int = 0
    said: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """Yield the report: one line a fact."""
        yield f"read     {self.source}: {self.format}, by {self.reader}"
        subsets = ", ".join(f"{count} in {name}/" for name, count in sorted(self.images.items()) if name)
        yield f"images   {self.images.total()}{f' ({subsets})' if subsets else ''}"
        yield f"masks    {self.masks}; unlabeled: {self.unlabeled}"
        yield f"classes  {', '.join(self.classes)}"
        for what, count in sorted(self.lost.items()):
            yield f"lost     {count} {what}"
        if self.missing:
            yield f"lost     {len(self.missing)} images that are not there or not read, such as {self.missing[0]}"
        if self.copied:
            yield f"copied   {self.copied} images, for links cannot be made here"
        if self.said:
            yield f"noted    {len(self.said)} complaints of the reader, such as: {self.said[0][:200]}"


def import_folder(
    source: Path, out: Path, *, format: str | None = None, uncovered: Uncovered | None = None, walk: Walk | None = None
) -> Imported:
    """Write a data set of another program's as a plain folder.

    out: a folder that is not there yet, or is empty. format: a name of `foreign.FORMATS` or of datumaro's; None: it is
    recognised. uncovered: what pixels under no area are; None: as is usual for the format. Raises DataError, RunError,
    or OSError with the place that cannot be written; then nothing is written.
    """
    if not source.is_dir():
        raise DataError(f"{source}: no such folder; give the folder that holds the data set")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out}: is there already, and nothing in it is replaced; give another folder with --out")
    if out.resolve().is_relative_to(source.resolve()):
        raise RunError(f"{out}: lies in {source}, into which nothing is written; give another folder with --out")
    if out.resolve() == Path.cwd():
        raise RunError(
            f"{out}: is the folder you are in, and would be replaced; go elsewhere, or give another with --out"
        )
    if format is None:
        format = _only_format(source)
    out = out.resolve()  # a link to an empty folder stays one
    foreign = _open(source, format)
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        done = _write(foreign, source, work, uncovered or foreign.uncovered, walk or (lambda items, _: items))
        work.chmod(0o777 & ~_umask())
        with suppress(FileNotFoundError):
            out.rmdir()  # an empty one
        work.rename(out)
    except OSError as error:
        if error.filename is None:  # a disk that is full does not say where
            raise OSError(error.errno, error.strerror or str(error), str(out)) from error
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return done


def prepared(config: FilesConfig, say: Say | None = None) -> FilesConfig:
    """Return the config of data as it can be read: where it names a data set of another program's, its import.

    The import lies in the user's cache; it is made where it is not there yet, which one line says. All other configs
    are returned as they are. Raises DataError.
    """
    if not _may_be_foreign(config):
        return config
    home = cache_folder(config.cache_dir, config.root) / "imported"
    place = home / f"{config.root.resolve().name}-{_signature(config.root)}"
    if not (place / REPORT).is_file():
        found = recognise_foreign(config.root)
        if not found:
            return config
        try:
            done = import_folder(config.root, place, format=_only(found, config.root))
        except RunError:
            if not (place / REPORT).is_file():  # nobody else was quicker
                raise
        except OSError as error:
            if not (place / REPORT).is_file():
                raise DataError(
                    f"{home}: {config.root} cannot be imported there ({error.strerror or error}); name another place "
                    f"with data.cache_dir, or use des4 data import {config.root} --out DIR"
                ) from error
        else:
            lost = sum(done.lost.values()) + len(done.missing)
            (say or _to_stderr)(
                f"{config.root}: {done.format}, imported into {place}: {done.images.total()} images, {done.masks} with "
                f"masks{f'; {lost} things were lost, see {REPORT} there' if lost else ''}"
            )
    own = {name: _list_in(config.root, name) for name in ("labeled", "unlabeled", "val") if not getattr(config, name)}
    changed: dict[str, Any] = {name: path for name, path in own.items() if path}
    changed |= {"root": place, "exif": "upright"}
    if isinstance(config, FolderConfig):
        return config.model_copy(update=changed)
    return FolderConfig(**{name: getattr(config, name) for name in FilesConfig.model_fields} | changed)


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# ── what is imported ─────────────────────────────────────────────────────────────────────────────────────────────────


def _may_be_foreign(config: FilesConfig) -> bool:
    """Whether a config of data may name another program's data set: a folder, without masks that can be read."""
    root = config.root
    if not os.path.isdir(root):  # noqa: PTH112  # Path.is_dir raises where nobody may look
        return False
    if isinstance(config, CocoConfig):
        if config.annotations is not None:
            return False
        files = sorted((root / "annotations").glob("*.json"))
        if any(path.name.startswith("instances_") for path in files):
            return False
        return any(path.name.startswith("panoptic_") or _LIKE_DATUMARO.search(head(path)) for path in files)
    if not isinstance(config, FolderConfig) or config.images or config.masks:
        return False
    try:
        if any(_holds_png(root / name) for name in MASK_FOLDERS):
            return False
    except DataError:  # a folder that nobody may look into: whoever opens the data says so
        return False
    labeled = config.labeled or _list_in(root, "labeled")
    with suppress(DataError):  # likewise a list that cannot be read
        return not (labeled and any(mask for _, mask in read_list(labeled)))  # a list may say where the masks are
    return True


def _list_in(root: Path, name: str) -> Path | None:
    """Return the list of this name that lies in a data folder."""
    return if_file(root / f"{name}.txt") or if_file(root / f"{name.replace('labeled', 'labelled')}.txt")


def _holds_png(folder: Path) -> bool:
    return any(name.lower().endswith(".png") for _, _, names in walk(folder) for name in names)


def _only_format(source: Path) -> str:
    """Recognise the format of a folder. Raises DataError if there is none, or more than one."""
    known = recognise(source)
    config = {"folder": FolderConfig, "coco": CocoConfig}.get(known)
    if config is None or not _may_be_foreign(config(root=source)):
        raise DataError(f"{source}: needs no import, for it is read as it is: data={source} ({known})")
    found = recognise_foreign(source)
    if found:
        return _only(found, source)
    if not any(names for _, _, names in walk(source)):
        raise DataError(f"{source}: holds no files; give the folder that holds the data set")
    try:
        require_datumaro()
    except MissingExtraError as error:
        raise MissingExtraError(f"{source}: looking for its format {error}") from None
    raise DataError(f"{source}: is in no format that is recognised; name it with --format, such as {PANOPTIC}")


def _only(found: Sequence[str], root: Path) -> str:
    if len(found) > 1:
        titles = " or ".join(f"{title_of(name)} ({name})" for name in found)
        raise DataError(f"{root}: could be {titles}; say which: des4 data import {root} --format NAME")
    return found[0]


def _open(source: Path, name: str) -> Foreign:
    try:
        return open_foreign(source, name)
    except MissingExtraError as error:
        raise MissingExtraError(f"{source}: is {title_of(name)}, which {error}") from None


def _signature(root: Path) -> str:
    """Name a state of a source: its place, and names, sizes and times of its files, also those outside of it."""
    own = root.resolve()
    state = hashlib.sha256(f"{_LAYOUT}\0{own}".encode())
    outside = [folder for folder in yolo_folders(root) if not folder.resolve().is_relative_to(own)]
    for folder in (root, *outside):
        if folder != root:
            state.update(f"\0\0{folder}".encode(errors="replace"))
        for place, inner, names in walk(folder):
            for file in names:
                try:
                    stat = (place / file).stat()
                except OSError:  # a link that leads nowhere
                    continue
                line = f"\0{'/'.join((*inner, file))}\0{stat.st_size}\0{stat.st_mtime_ns}"
                state.update(line.encode(errors="replace"))
    return state.hexdigest()[:16]


# ── what is written ──────────────────────────────────────────────────────────────────────────────────────────────────


def _write(foreign: Foreign, source: Path, out: Path, uncovered: Uncovered, walk: Walk) -> Imported:
    """Fill a folder with a data set. Raises DataError."""
    table = class_table(source, foreign.classes, uncovered)
    if len(table.classes) > _MAX_CLASSES:
        raise DataError(f"{source}: names {len(table.classes)} classes, and {_MAX_CLASSES} is the limit; merge some")
    added = uncovered == "class" and not set(BACKGROUND_NAMES) & set(foreign.classes)
    labels = [table.labels[name] for name in foreign.classes]
    done = Imported(str(source), foreign.title, foreign.reader)
    palette = _palette(table.classes)
    masks: list[Path] = []
    seen: set[PurePosixPath] = set()
    any_uncovered = False
    for item in walk(foreign.items, foreign.count):
        place = _place_of(item, source)
        if item.image is None or not item.image.is_file() or item.image.suffix.lower() not in IMAGE_SUFFIXES:
            done.missing.append(str(item.image or place))
            continue
        if place in seen:
            raise DataError(f"{source}: has two images that would be called {place}; rename one of the two")
        seen.add(place)
        image = out / "images" / f"{place}{item.image.suffix}"
        done.copied += not _link(item.image, image)
        done.images[place.parts[0] if len(place.parts) > 1 else ""] += 1
        if not item.annotated:
            done.unlabeled += 1
            continue
        label = _label_map(item, labels, foreign, done)
        free = label == _UNCOVERED
        any_uncovered |= bool(free.any())
        label[free] = table.background
        masks.append(out / "masks" / f"{place}.png")
        _save(masks[-1], label, palette)
    done.masks = len(masks)
    done.lost = dict(foreign.lost)
    done.said = foreign.said
    done.classes = table.classes
    if not seen:
        raise DataError(
            f"{source}: none of the {foreign.count} images of this data set is there, such as {done.missing[0]}; put "
            "them there"
            if done.missing
            else f"{source}: is {foreign.title}, and no image of it is there; put the images where it says they are"
        )
    if not masks:
        lost = ", ".join(f"{count} {what}" for what, count in sorted(done.lost.items()))
        raise DataError(f"{source}: no image has an area that is annotated{f', only {lost}' if lost else ''}; masks "
                        "need polygons, brush strokes or the like")  # fmt: skip
    if added and not any_uncovered and len(done.classes) > 2:
        _drop_background(masks, done)
    (out / "masks").mkdir(exist_ok=True)
    _write_classes(out / "classes.txt", done.classes, source)
    report = json.dumps({"layout": _LAYOUT} | vars(done), indent=2, ensure_ascii=False)
    (out / REPORT).write_text(report + "\n", encoding="utf-8")
    return done


def _place_of(item: Item, source: Path) -> PurePosixPath:
    """Return where an image goes, below images/ and without suffix. Raises DataError if that is not below images/."""
    subset = "" if item.subset.lower() in _NO_SUBSET else _split_named(item.subset)
    name = composed(item.name.replace("\\", "/"))
    place = PurePosixPath(subset) / name
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or ":" in parts[0] or not str(place).isprintable():
        raise DataError(f"{source}: {item.name!a} is no name that an image can be given; rename it there")
    return place


def _split_named(subset: str) -> str:
    """Return the folder of a subset: train, val or test where its name says so, else the name."""
    words = subset.lower().replace("-", "_").split("_")
    for split, names in (("val", VAL_FOLDERS), ("test", TEST_FOLDERS), ("train", {"train", "training"})):
        if any(word.rstrip("0123456789") in names for word in words):
            return split
    return "".join(character if character.isalnum() or character in "-_" else "_" for character in subset)


def _link(source: Path, place: Path) -> bool:
    """Put an image into the folder: a link (True), or a copy where links cannot be made (False)."""
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        place.symlink_to(source.resolve())
    except OSError:  # Windows without the right to, or a disk without links
        shutil.copy2(source, place)
        return False
    return True


def _label_map(item: Item, labels: Sequence[int], foreign: Foreign, done: Imported) -> NDArray[np.uint8]:
    """Paint an image's areas as they lie on the upright picture, (H, W) uint8; under none is _UNCOVERED.

    Raises DataError.
    """
    assert item.image is not None  # noqa: S101  # as `_write` has seen
    header = read_header(item.image)
    height, width = item.size or header.upright
    if (height, width) not in (header.upright, header.size):
        raise DataError(
            f"{item.image}: is {header.upright[1]}×{header.upright[0]} pixels, and annotated as {width}×{height}; "
            "put the image there that was annotated"
        )
    regions = []
    for area in item.areas:
        known = area.label is not None and 0 <= area.label < len(labels)
        if not known:
            foreign.lost["areas of a class that is not named, which are 255 in the masks"] += 1
        try:
            with naming(item.image, "an area"):
                runs = area.runs(height, width)
        except DataError as error:
            if isinstance(error.__cause__, RegionError):
                foreign.lost["outlines that enclose nothing"] += 1
                continue
            raise DataError(f"{item.image}: {error}") from error
        regions.append((runs, labels[area.label] if known else IGNORE))  # type: ignore[index]
    label: NDArray[np.uint8] = painted(regions, height, width, _UNCOVERED).numpy()
    if header.rotated and header.size == header.upright:
        done.turned += 1
    return label if (height, width) == header.upright else turned_upright(label, header.orientation)


def _palette(classes: Sequence[str]) -> list[int]:
    """Return red, green, blue of all 256 indices, white for 255: with fewer, Pillow would save fewer bits a pixel."""
    colours = [*distinct_palette(classes), *[(0, 0, 0)] * (IGNORE - len(classes)), (255, 255, 255)]
    return [value for colour in colours for value in colour]


def _save(path: Path, label: NDArray[np.uint8], palette: Sequence[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(label)
    image.putpalette(palette)
    image.save(path)


def _drop_background(masks: Iterable[Path], done: Imported) -> None:
    """Take a background out of the classes that no pixel of any mask is."""
    done.classes = done.classes[1:]
    palette = _palette(done.classes)
    for path in masks:
        label = np.array(Image.open(path))
        _save(path, np.where(label == IGNORE, IGNORE, label - 1).astype(np.uint8), palette)


def _write_classes(path: Path, classes: Sequence[str], source: Path) -> None:
    """Write the names of the classes. Raises DataError if they would be read as something else."""
    path.write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
    try:
        read = read_classes(path)
        names = () if read.colours else read.names
    except DataError:
        names = ()
    if names != tuple(classes):
        odd = next((name for name in classes if name not in names), classes[0])
        raise DataError(f"{source}: the class {odd!a} would be misread in classes.txt; rename it there")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
