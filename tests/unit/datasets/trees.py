"""Data sets laid out exactly as the published ones, with tiny pictures: a builder for every format of FORMATS.

The builders take the names that they should create, so that a test can lay out a whole published list. TREES has a
small tree of each format, on which the contract tests run: four training images with masks at least, and one without.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from des4.datasets.files import FileDataset
from des4.datasets.palettes import Palette, voc_palette
from des4.types import DataError

Array = NDArray[np.uint8]

SIZE = (6, 8)
"""Height and width of every picture here."""


def encode(array: Array, suffix: str = ".png", palette: Palette = ()) -> bytes:
    """Encode a picture; given a palette, as a PNG of indices into it."""
    image = Image.fromarray(array)
    if palette:
        image.putpalette([value for colour in palette for value in colour])
    buffer = io.BytesIO()
    image.save(buffer, {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}[suffix])
    return buffer.getvalue()


def halves(top: object, bottom: object, corner: object) -> Array:
    """Fill the upper half with one label or colour, the lower with another, and the first pixel with a third."""
    array = np.full((*SIZE, *np.shape(top)), top, np.uint8)
    array[SIZE[0] // 2 :], array[0, 0] = bottom, corner
    return array


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def write_lines(path: Path, lines: Iterable[str]) -> Path:
    return put(path, "".join(f"{line}\n" for line in lines).encode())


@cache
def photo(suffix: str) -> bytes:
    return encode(halves((90, 100, 110), (20, 30, 40), (0, 0, 0)), suffix)


@cache
def index_mask(top: int, bottom: int, corner: int = 255, palette: Palette = ()) -> bytes:
    return encode(halves(top, bottom, corner), palette=palette)


# ── folder ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def folder_tree(root: Path) -> None:
    write_lines(root / "classes.txt", ("road", "sky"))
    for number in range(8):
        name = f"{'val' if number > 5 else 'train'}/{number}"
        put(root / "images" / f"{name}.jpg", photo(".jpg"))
        if number != 5:
            put(root / "masks" / f"{name}.png", index_mask(number % 2, 0))


# ── Pascal VOC ───────────────────────────────────────────────────────────────────────────────────────────────────────

VOC_TRAIN = ("2007_000032", "2007_000039", "2008_000008")
VOC_VAL = ("2007_000033", "2007_000042")
VOC_SBD = ("2008_000002", "2008_000003")
VOC_DETECTION = ("2007_000027", "2012_004331")


def voc_tree(
    root: Path,
    train: Iterable[str] = VOC_TRAIN,
    val: Iterable[str] = VOC_VAL,
    sbd: Iterable[str] = VOC_SBD,
    detection: Iterable[str] = VOC_DETECTION,
    *,
    aug: bool = True,
) -> None:
    """Lay out VOCdevkit/VOC2012's content: VOC's masks hold 1 over 20, those of SBD alone 2 over 15.

    aug: with SegmentationClassAug, which repeats the masks of train and val as index PNGs, as it is distributed.
    """
    for sample_id in (*train, *val, *sbd, *detection):
        put(root / "JPEGImages" / f"{sample_id}.jpg", photo(".jpg"))
    for sample_id in (*train, *val):
        put(root / "SegmentationClass" / f"{sample_id}.png", index_mask(1, 20, palette=voc_palette(256)))
    if aug:
        for sample_id in (*train, *val):
            put(root / "SegmentationClassAug" / f"{sample_id}.png", index_mask(1, 20))
        for sample_id in sbd:
            put(root / "SegmentationClassAug" / f"{sample_id}.png", index_mask(2, 15, 0))
    lists = root / "ImageSets" / "Segmentation"
    for name, ids in (("train", train), ("val", val), ("trainval", (*train, *val))):
        write_lines(lists / f"{name}.txt", ids)


# ── Cityscapes ───────────────────────────────────────────────────────────────────────────────────────────────────────

CITYSCAPES = (
    "train/aachen/aachen_000000_000019",
    "train/aachen/aachen_000001_000019",
    "train/ulm/ulm_000079_000019",
    "train/ulm/ulm_000080_000019",
    "val/frankfurt/frankfurt_000001_062250",
    "val/munster/munster_000173_000019",
    "test/berlin/berlin_000000_000019",
)
CITYSCAPES_EXTRA = ("train_extra/bad-honnef/bad-honnef_000000_000000", "train_extra/nuremberg/nuremberg_000000_000000")
CITYSCAPES_KINDS = ("color.png", "instanceIds.png", "labelIds.png", "polygons.json")
"""What the download holds for each image; `labelTrainIds.png` is made from it by cityscapesScripts."""


def cityscapes_tree(
    root: Path,
    names: Iterable[str] = CITYSCAPES,
    extra: Iterable[str] = CITYSCAPES_EXTRA,
    kinds: Iterable[str] = CITYSCAPES_KINDS,
) -> None:
    """Lay out leftImg8bit and gtFine: road over car, and an unlabeled pixel. `extra`: images without a mask."""
    content = dict.fromkeys(CITYSCAPES_KINDS, b"nobody reads this")
    content |= {"labelIds.png": index_mask(7, 26, 0), "labelTrainIds.png": index_mask(0, 13)}
    for name in names:
        put(root / "leftImg8bit" / f"{name}_leftImg8bit.png", photo(".png"))
        for kind in kinds:
            put(root / "gtFine" / f"{name}_gtFine_{kind}", content[kind])
    for name in extra:
        put(root / "leftImg8bit" / f"{name}_leftImg8bit.png", photo(".png"))


# ── CamVid ───────────────────────────────────────────────────────────────────────────────────────────────────────────

CAMVID = (
    "0001TP_006690",
    "0001TP_008520",
    "0006R0_f00930",
    "0016E5_00901",
    "0016E5_07920",
    "0016E5_07959",
    "0016E5_08159",
    "0016E5_08190",
    "0001TP_008550",
    "Seq05VD_f00000",
)
CAMVID_SKY, CAMVID_TROLLEY, CAMVID_SHOULDER = (128, 128, 128), (64, 0, 192), (128, 128, 192)


def camvid_tree(root: Path, frames: Iterable[str] = CAMVID) -> None:
    """Lay out both folders: sky over the shoulder of the road, and a pixel of a trolley, which has no class."""
    mask = encode(halves(CAMVID_SKY, CAMVID_SHOULDER, CAMVID_TROLLEY))
    for frame in frames:
        put(root / "701_StillsRaw_full" / f"{frame}.png", photo(".png"))
        put(root / "LabeledApproved_full" / f"{frame}_L.png", mask)


# ── CVAT ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

CVAT_COLOURS = {"background": (0, 0, 0), "hand: left": (250, 50, 83), "table": (61, 245, 61)}
CVAT_IMAGES = ("day/a.jpg", "day/b c.jpeg", "d.png", "e.jpg")


def cvat_tree(root: Path, images: Iterable[str] = CVAT_IMAGES, folder: str = "JPEGImages") -> None:
    """Lay out an export: table over background, a pixel of a hand, in RGB; the last image is not annotated."""
    colours = [f"{name}:{','.join(map(str, colour))}::" for name, colour in CVAT_COLOURS.items()]
    write_lines(root / "labelmap.txt", ("# label:color_rgb:parts:actions", *colours))
    background, hand, table = CVAT_COLOURS.values()
    *annotated, last = (Path(image) for image in images)
    for image in (*annotated, last):
        put(root / folder / image, photo(image.suffix))
    for image in annotated:
        put(root / "SegmentationClass" / image.with_suffix(".png"), encode(halves(table, background, hand)))
        put(root / "SegmentationObject" / image.with_suffix(".png"), b"nobody reads this")
    stems = [image.with_suffix("").as_posix() for image in (*annotated, last)]
    write_lines(
        root / "ImageSets" / "Segmentation" / "default.txt", (f'"{stem}"' if " " in stem else stem for stem in stems)
    )


# ── annotation files: COCO, Label Studio, labelme ────────────────────────────────────────────────────────────────────

LOWER_HALF = ((0, 3), (8, 3), (8, 6), (0, 6))
"""Corners of what is annotated in every picture; the upper half is background."""


def write_json(path: Path, content: object) -> Path:
    return put(path, json.dumps(content).encode())


COCO_CATEGORIES = {3: "road", 1: "sky"}
COCO_TRAIN = ("000000000009", "000000000025", "000000000030", "000000000034")
COCO_VAL = ("000000000139", "000000000285")
COCO_EMPTY = "000000000036"


def coco_instances(names: Iterable[str], empty: Iterable[str] = ()) -> dict[str, Any]:
    """Make an annotation file: road (category 3) in the lower half of each picture but the empty ones."""
    names, height, width = (*names, *empty), *SIZE
    return {
        "info": {"description": "tiny"},
        "images": [
            {"id": int(name), "file_name": f"{name}.jpg", "height": height, "width": width, "license": 1}
            for name in names
        ],
        "annotations": [
            {
                "id": 100 + place,
                "image_id": int(name),
                "category_id": 3,
                "segmentation": [[value for corner in LOWER_HALF for value in corner]],
                "area": 24.0,
                "bbox": [0, 3, 8, 3],
                "iscrowd": 0,
            }
            for place, name in enumerate(names)
            if name not in empty
        ],
        "categories": [{"id": number, "name": name} for number, name in COCO_CATEGORIES.items()],
    }


def coco_tree(root: Path) -> None:
    """Lay out COCO 2017: a picture that nobody annotated in train2017, and one in unlabeled2017."""
    for split, names, empty in (("train2017", COCO_TRAIN, (COCO_EMPTY,)), ("val2017", COCO_VAL, ())):
        write_json(root / "annotations" / f"instances_{split}.json", coco_instances(names, empty))
        for name in (*names, *empty):
            put(root / split / f"{name}.jpg", photo(".jpg"))
    put(root / "unlabeled2017" / "000000000001.jpg", photo(".jpg"))


def studio_region(name: str, kind: str = "polygonlabels", **value: object) -> dict[str, Any]:
    """Make a region as Label Studio writes it; by default a polygon over the lower half."""
    height, width = SIZE
    value = value or {"points": [[100 * x / width, 100 * y / height] for x, y in LOWER_HALF], "closed": True}
    return {
        "id": f"r{name}",
        "type": kind,
        "value": {**value, kind: [name]},
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "from_name": "label",
        "to_name": "image",
    }


def studio_task(number: int, image: str, *results: object, **annotation: object) -> dict[str, Any]:
    """Make a task with one annotation."""
    done = {"id": 50 + number, "was_cancelled": False, "ground_truth": False, "result": list(results)}
    return {"id": number, "annotations": [done | annotation], "data": {"image": image}, "predictions": []}


def label_studio_tree(root: Path) -> None:
    """Lay out an export whose pictures were uploaded; the last task is not done."""
    names = [f"{number:08x}-{number}.jpg" for number in range(6)]
    tasks = [studio_task(n, f"/data/upload/1/{name}", studio_region("road")) for n, name in enumerate(names)]
    tasks[-1]["annotations"] = []
    write_json(root / "project-1-at-2026-05-04-10-00-01234567.json", tasks)
    for name in names:
        put(root / "images" / name, photo(".jpg"))


def labelme_shape(label: str, kind: str = "polygon", points: object = LOWER_HALF, **rest: object) -> dict[str, Any]:
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **rest}


def labelme_annotation(image: str, *shapes: object) -> dict[str, Any]:
    height, width = SIZE
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": list(shapes),
        "imagePath": image,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }


def labelme_tree(root: Path) -> None:
    """Lay out pictures with their annotations beside them; the last has none."""
    for name in "abcdef":
        put(root / f"{name}.jpg", photo(".jpg"))
    for name in "abcde":
        write_json(root / f"{name}.json", labelme_annotation(f"{name}.jpg", labelme_shape("road")))


TREES: dict[str, Callable[[Path], None]] = {
    "voc": voc_tree,
    "cityscapes": cityscapes_tree,
    "camvid": camvid_tree,
    "cvat": cvat_tree,
    "coco": coco_tree,
    "label_studio": label_studio_tree,
    "labelme": labelme_tree,
    "folder": folder_tree,
}


def refusal_of(open_dataset: Callable[[], FileDataset]) -> str:
    """Return the one line with which a data set, or the reading of all its labeled samples, is refused."""
    with pytest.raises(DataError) as error:
        data = open_dataset()
        data.check_labeled()
        for sample_id in (*data.labeled, *data.val):
            data.label(sample_id)
    assert "\n" not in str(error.value)
    return str(error.value)
