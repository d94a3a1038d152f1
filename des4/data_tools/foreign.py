"""Other programs' data sets, read by libraries: what `importing` writes as a plain folder.

datumaro (MIT licence) reads some forty formats, labelformat (MIT licence) YOLO's segmentation files, of which datumaro
reads the boxes alone. Both come with the extra `formats`, and neither is imported before it is needed. What they get
wrong is put right here:

- datumaro looks for the images of a CVAT export in the working directory where there is no `images/`: refused.
- datumaro passes over CVAT's ellipses, which are areas: refused. Cuboids and skeletons are counted as lost.
- datumaro refuses CVAT's exports of single jobs, which it reads well: its reader is called without the question.
- Shapes that are `outside` in a frame of a CVAT track are not there: left out.
- datumaro takes either of two kinds of Mapillary's annotations, by chance, and its newest edition alone: here the kind
  and the edition that are there are named.
- datumaro wants the pictures of COCO panoptic in `images/`: refused with that remedy.
- datumaro's ADE20K (the full set) gives a pixel to one of several classes by chance, and counts instances wrongly in
  pictures that are annotated to the last pixel: refused. The benchmark's form of it is a folder of index masks.
- labelformat takes a box for a polygon of two points, stops at images without a text file, and at a `path` in
  `data.yaml` that is another machine's; it looks beside the data set before it looks into it, and for the text files
  where Ultralytics has none: handled here.
"""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from des4.datasets.annotations.regions import Runs, bitmap_runs, polygon_runs
from des4.datasets.files import scan
from des4.images.pictures import read_header
from des4.images.tiff import MissingExtraError
from des4.types import DataError

Uncovered = Literal["class", "ignore"]
"""What pixels under no area are: the class background, or ignored."""

YOLO = "yolo_segmentation"
CVAT = "cvat"
PANOPTIC = "coco_panoptic"

FORMATS: Mapping[str, tuple[str, Uncovered]] = {
    YOLO: ("YOLO segmentation", "class"),
    CVAT: ("CVAT for images", "class"),
    "datumaro": ("Datumaro", "class"),
    "label_me": ("LabelMe of the MIT (XML)", "class"),
    PANOPTIC: ("COCO panoptic", "ignore"),
    "kitti_segmentation": ("KITTI segmentation", "ignore"),
    "mapillary_vistas": ("Mapillary Vistas", "ignore"),
}
"""Formats that are recognised: name → title, and what pixels under no area are by default. All names but YOLO's are
datumaro's."""

_KINDS = {
    "bbox": "boxes",
    "rotated_bbox": "boxes",
    "points": "points",
    "polyline": "lines",
    "label": "labels of images",
    "caption": "captions",
    "cuboid_2d": "cuboids",
    "cuboid_3d": "cuboids",
}
"""What annotations that are no areas are called, by datumaro's name of their type."""
_ADE20K = ("ade20k2017", "ade20k2020")
_NO_PART = ("cuboid", "skeleton")
_HEAD_BYTES = 1 << 16
_MAX_YAML = 1 << 18


@dataclass(frozen=True)
class Area:
    """A region of one class. label: None: of a class that the data set does not name. runs: makes its pixels, H×W."""

    label: int | None
    runs: Callable[[int, int], Runs]


@dataclass(frozen=True)
class Item:
    """An image of a data set, and its areas from the lowest to the uppermost.

    name: its path in its subset, without suffix. subset: '' where there are none. image: its file, which may be
    missing. size: (height, width) that the areas are drawn on, where the annotation states it. annotated: whether
    anybody says what is in it; without areas it is background then.
    """

    name: str
    subset: str
    image: Path | None
    size: tuple[int, int] | None
    areas: tuple[Area, ...]
    annotated: bool


@dataclass
class Foreign:
    """A data set of another program's, opened.

    reader: library and version. classes: names by label. items: may be walked over once. lost: counts by kind what is
    no area. said: what the library complained of; both are complete when the items have been walked over.
    """

    title: str
    reader: str
    classes: tuple[str, ...]
    uncovered: Uncovered
    items: Iterable[Item]
    count: int
    lost: Counter[str] = field(default_factory=Counter)
    said: list[str] = field(default_factory=list)


def recognise_foreign(root: Path) -> list[str]:
    """Name the formats of FORMATS that a folder may be in; most of them are seen only where datumaro is installed."""
    found = [YOLO] * (_yolo_file(root) is not None) + [CVAT] * bool(_cvat_files(root))
    try:
        environment = _datumaro().Environment()
    except MissingExtraError:
        return found
    with _listening([]), warnings.catch_warnings(action="ignore"):
        detected = environment.detect_dataset(str(root), depth=0)
    return [*found, *(name for name in detected if name in (*FORMATS, *_ADE20K) and name not in found)]


def open_foreign(root: Path, name: str) -> Foreign:
    """Open a data set in the format of this name, one of FORMATS or any other that datumaro reads.

    Raises DataError, and MissingExtraError without the libraries.
    """
    return _open_yolo(root) if name == YOLO else _open_datumaro(root, name)


def require_datumaro() -> None:
    """Raise MissingExtraError unless datumaro is installed."""
    _datumaro()


def title_of(name: str) -> str:
    """Return what people call a format."""
    return FORMATS[name][0] if name in FORMATS else name


# ── datumaro ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _datumaro() -> Any:
    try:
        import datumaro
        import datumaro.components.environment
    except ImportError:
        raise MissingExtraError('needs datumaro; pip install "des4[formats]"') from None
    return datumaro


def _open_datumaro(root: Path, name: str) -> Foreign:
    datumaro = _datumaro()
    if name in _ADE20K:
        raise DataError(
            f"{root}: is the full ADE20K, which datumaro reads wrongly; take the form of the scene parsing benchmark "
            "(ADEChallengeData2016), which needs no import: data.values=1-150 data.ignore=0"
        )
    if name not in FORMATS and name not in datumaro.Environment().importers:
        raise DataError(f"{name}: no format that is read; there are {', '.join(FORMATS)}, and datumaro's others")
    title, uncovered = FORMATS.get(name, (name, "class"))
    lost: Counter[str] = Counter()
    said: list[str] = []
    options: dict[str, str] = {}
    if name == CVAT:
        lost.update(_checked_cvat(root))
    elif name == PANOPTIC and not (root / "images").is_dir():
        raise DataError(
            f"{root}: datumaro looks for the pictures in images/; move their folders, such as val2017/, there"
        )
    elif name == "mapillary_vistas":
        name, options = _mapillary(root)
    with _listening(said), _translating(root, title):
        if name == CVAT and (job := _cvat_job(root)):
            dataset = datumaro.Dataset.from_extractors(datumaro.Environment().make_extractor(CVAT, str(job)))
        else:
            dataset = datumaro.Dataset.import_from(str(root), format=name, **options)
        categories = dataset.categories().get(datumaro.AnnotationType.label, ())
        classes = tuple(category.name for category in categories)
        entries = list(dataset)

    def items() -> Iterator[Item]:
        for entry in entries:
            with _listening(said), _translating(root, title):
                item = _item(entry, lost)
            yield item

    reader = f"datumaro {version('datumaro')}"
    return Foreign(title, reader, classes, uncovered, items(), len(entries), lost, said)


def _mapillary(root: Path) -> tuple[str, dict[str, str]]:
    """Return the kind of Mapillary's annotations that is there, as datumaro calls it, and the newest edition of it."""
    for edition in ("v2.0", "v1.2"):
        for kind in ("instances", "panoptic"):
            if next(root.glob(f"{edition}/{kind}"), None) or next(root.glob(f"*/{edition}/{kind}"), None):
                return f"mapillary_vistas_{kind}", {"format_version": edition}
    raise DataError(f"{root}: holds neither v2.0/ nor v1.2/ with instances/ or panoptic/, as Mapillary Vistas does")


def _item(entry: Any, lost: Counter[str]) -> Item:
    """Translate an item of datumaro's; `lost` takes what is no area."""
    areas = []
    for annotation in sorted(entry.annotations, key=lambda one: getattr(one, "z_order", 0)):  # stable: as in the file
        kind = annotation.type.name
        if (annotation.attributes or {}).get("outside") is True:
            continue
        if kind in ("polygon", "mask", "ellipse"):
            areas.append(Area(annotation.label, _runs_of(annotation, kind)))
        else:
            lost[_KINDS.get(kind, kind)] += 1
    media = entry.media
    path = getattr(media, "path", None)
    return Item(
        name=entry.id,
        subset=entry.subset or "",
        image=Path(path) if path else None,
        size=tuple(media.size) if media is not None and media.has_size else None,
        areas=tuple(areas),
        annotated=bool(areas),
    )


def _runs_of(annotation: Any, kind: str) -> Callable[[int, int], Runs]:
    def runs(height: int, width: int) -> Runs:
        if kind == "mask":
            bitmap = np.asarray(annotation.image)
            if bitmap.shape != (height, width):
                raise DataError(f"a mask is {bitmap.shape[1]}×{bitmap.shape[0]} pixels, its image {width}×{height}")
            return bitmap_runs(bitmap.astype(np.bool_), 0, 0, height, width)
        corners = annotation.points if kind == "polygon" else annotation.as_polygon()
        return polygon_runs(np.asarray(corners, np.float64).reshape(-1, 2), height, width)

    return runs


def _cvat_files(root: Path) -> list[Path]:
    """Return the XML files in the root that begin as CVAT's do."""
    found = []
    for path in sorted(root.glob("*.xml")):
        try:
            with path.open("rb") as file:
                head = file.read(_HEAD_BYTES)
        except OSError:
            continue
        if re.search(rb"<annotations[\s>]", head):
            found.append(path)
    return found


def _cvat_job(root: Path) -> Path | None:
    """Return the file of an export of one job, if the root holds one and no other."""
    files = _cvat_files(root)
    if len(files) != 1:
        return None
    with files[0].open("rb") as file:
        return files[0] if re.search(rb"<meta>\s*<job>", file.read(_HEAD_BYTES)) else None


def _checked_cvat(root: Path) -> Counter[str]:
    """Count the shapes that datumaro passes over in silence. Raises DataError where that would make masks wrong."""
    from defusedxml import ElementTree

    passed: Counter[str] = Counter()
    for path in _cvat_files(root):
        if not (root / "images").is_dir():
            raise DataError(f"{path}: has no images/ beside it; put the images there, named as in this file")
        with _translating(path, title_of(CVAT)):
            tags = Counter(element.tag for _, element in ElementTree.iterparse(str(path)))
        if tags["ellipse"]:
            raise DataError(
                f"{path}: holds {tags['ellipse']} ellipses, which datumaro does not read; draw them as polygons or "
                "masks, or export CVAT's 'Segmentation mask 1.1'"
            )
        passed.update({f"{tag}s": tags[tag] for tag in _NO_PART if tags[tag]})
    return passed


@contextmanager
def _listening(said: list[str]) -> Iterator[None]:
    """Keep what a library logs as a warning or worse for the report, and from the terminal."""

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(" ".join(record.getMessage().split()))

    root, ear = logging.getLogger(), Ear(logging.WARNING)
    before = root.handlers[:]
    root.handlers[:] = [ear]
    try:
        yield
    finally:
        root.handlers[:] = before


@contextmanager
def _translating(place: Path, title: str) -> Iterator[None]:
    """Turn whatever a library raises at a file that it cannot read into a DataError of one line."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # there is no list of what the readers of forty formats raise
        cause = error
        while cause.__cause__ is not None and isinstance(cause.__cause__, Exception):
            cause = cause.__cause__
        reason = " ".join(str(cause).split())[:200].rstrip(".") or type(cause).__name__
        raise DataError(f"{place}: cannot be read as {title}: {reason}; mend it, or export it anew") from error


# ── YOLO ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _yolo_file(root: Path) -> Path | None:
    """Return the YAML file in the root that describes a data set as Ultralytics does; None without one."""
    for path in sorted([*root.glob("*.yaml"), *root.glob("*.yml")]):
        tree = _yaml(path)
        if isinstance(tree, dict) and "names" in tree and any(isinstance(tree.get(key), str) for key in _SPLITS):
            return path
    return None


_SPLITS = ("train", "val", "test")


def _yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text("utf-8")) if path.stat().st_size <= _MAX_YAML else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError):
        return None


def _open_yolo(root: Path) -> Foreign:
    try:
        from labelformat.formats import YOLOv8InstanceSegmentationInput
    except ImportError:
        raise MissingExtraError('needs labelformat; pip install "des4[formats]"') from None
    path = _yolo_file(root)
    if path is None:
        raise DataError(f"{root}: has no data.yaml with names: and train: or val:, which YOLO's format needs")
    tree = _yaml(path)
    classes = _yolo_classes(path, tree["names"])
    lost: Counter[str] = Counter()
    found: list[tuple[str, str, Path, Path, Any]] = []
    seen: set[Path] = set()
    for split in _SPLITS:
        if not tree.get(split):
            continue
        if not isinstance(tree[split], str):
            raise DataError(f"{path}: {split}: names several places; name one folder of images, such as images/{split}")
        folder, labels = _yolo_folders(root, tree, split)
        if not _is_dir(folder):
            if split == "test":  # it is seldom published
                continue
            raise DataError(f"{path}: {split}: {tree[split]} is no folder under {root}; mend the line")
        if folder.resolve() in seen:  # val may be train
            continue
        seen.add(folder.resolve())
        if labels is None:
            raise DataError(
                f"{path}: {split}: {tree[split]} lies in no folder called images, beside which labels/ has the text "
                "files; move the images into one"
            )
        reader: Any = YOLOv8InstanceSegmentationInput(input_file=path, input_split=split)
        reader._labels_dir = partial(Path, labels)
        for name, image in scan(folder).items():
            found.append((name, split, image, labels / image.relative_to(folder).with_suffix(".txt"), reader))

    def items() -> Iterator[Item]:
        for name, split, image, label, reader in found:
            if not label.is_file():
                yield Item(name, split, image, None, (), annotated=False)
                continue
            size = read_header(image).upright
            areas, empty = _yolo_areas(reader, image, label, size, lost)
            yield Item(name, split, image, size, areas, annotated=empty or bool(areas))

    reader_name = f"labelformat {version('labelformat')}"
    return Foreign(title_of(YOLO), reader_name, classes, "class", items(), len(found), lost)


def yolo_folders(root: Path) -> list[Path]:
    """Return the folders that the YAML file in the root leads to, if it describes a data set as Ultralytics does."""
    path = _yolo_file(root)
    tree = _yaml(path) if path else {}
    found = [_yolo_folders(root, tree, split) for split in _SPLITS if isinstance(tree.get(split), str)]
    return [folder for folders in found for folder in folders if folder is not None]


def _yolo_folders(root: Path, tree: Mapping[str, Any], split: str) -> tuple[Path, Path | None]:
    """Return the folder of a split's images, which may not be there, and that of its text files.

    The latter is None where no folder is called images, in whose place it would be.
    """
    inner = str(tree[split])
    places = [(root / str(tree["path"]), inner)] if "path" in tree else []  # it may be another machine's
    if inner.startswith("../"):  # of Roboflow, which means the root by it
        places.append((root, inner.removeprefix("../")))
    places.append((root, inner))
    base, inner = next((place for place in places if _is_dir(place[0] / place[1])), places[-1])
    parts = Path(inner).parts
    named = [index for index, part in enumerate(parts) if part == "images"]
    found = [base.joinpath(*parts[:index], "labels", *parts[index + 1 :]) for index in reversed(named)]
    if "images" in inner:
        found.append(base / inner.replace("images", "labels", 1))
    return base / inner, next((folder for folder in found if _is_dir(folder)), next(iter(found), None))


def _is_dir(place: Path) -> bool:
    return os.path.isdir(place)  # noqa: PTH112  # Path.is_dir raises where a name is too long or nobody may look


def _yolo_classes(path: Path, names: Any) -> tuple[str, ...]:
    """Return the names by number. Raises DataError unless they are numbered 0, 1, … as the text files count."""
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or sorted(names, key=str) != sorted(range(len(names)), key=str) or not names:
        raise DataError(f"{path}: names: is no list, and does not number its classes 0, 1, …; mend it")
    return tuple(str(names[number]) for number in range(len(names)))


def _yolo_areas(
    reader: Any, image: Path, label: Path, size: tuple[int, int], lost: Counter[str]
) -> tuple[tuple[Area, ...], bool]:
    """Read the areas of one text file, and whether it says that there are none; `lost` takes boxes.

    Raises DataError.
    """
    from labelformat.model.image import Image

    text = label.read_text("utf-8", errors="replace")
    if not text.strip():
        return (), True
    height, width = size
    # The library finds the text file by the image's name, seen from the folder of images.
    relative = label.relative_to(reader._labels_dir()).with_suffix(image.suffix).as_posix()
    reader.get_images = lambda: [Image(id=0, filename=relative, width=width, height=height)]
    try:
        (found,) = reader.get_labels()
        areas = []
        for entry in found.objects:
            (corners,) = entry.segmentation.polygons
            if len(corners) < 3:
                lost["boxes"] += 1
                continue
            points = np.array(corners, np.float64)
            areas.append(Area(entry.category.id, partial(polygon_runs, points)))
    except KeyError as error:
        raise DataError(f"{label}: names the class {error}, which data.yaml does not; mend one of the two") from None
    except IndexError:
        raise DataError(f"{label}: has an empty line between others; delete it") from None
    except ValueError as error:
        raise DataError(f"{label}: cannot be read as YOLO segmentation: {error}; mend it") from None
    return tuple(areas), False
