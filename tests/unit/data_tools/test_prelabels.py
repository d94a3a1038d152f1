"""Predicted masks are written for labelme, Label Studio and CVAT, and read back by the readers of their formats.

Masks come back to the pixel. Polygons may move a border by up to a pixel, which is 2 % of the pixels of these shapes.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from des4.data_tools.importing import import_folder
from des4.data_tools.prelabels import CvatTask, LabelStudioTasks, Marked, Shapes, mark, write_labelme
from des4.datasets import Cvat, CvatConfig, FileDataset, Labelme, LabelmeConfig, LabelStudio, LabelStudioConfig
from des4.datasets.annotations.regions import counted_runs, painted, polygon_runs

CLASSES = ("road", "sky", "pole & wire")
WITH_BACKGROUND = ("background", "sky", "pole & wire")
PALETTE = ((128, 64, 128), (70, 130, 180), (220, 220, 0))
SIZE = (60, 80)
NAMES = ("a", "deep/b")
SHAPES: tuple[Shapes, ...] = ("polygons", "masks")
TOLERANCE = {"polygons": 0.02, "masks": 0.0}


def scene(seed: int) -> NDArray[np.uint8]:
    """A slanted horizon, a disc with a hole, a thin pole and a part at the edge."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    labels = (y < 30 + 0.2 * x + seed).astype(np.uint8)
    ring = (x - 50) ** 2 + (y - 38) ** 2
    labels[(ring < 200) & (ring > 60)] = 2
    labels[10:55, 12:15] = 2
    labels[52:, 60:] = 1
    return labels


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number, name in enumerate(NAMES):
        path = tmp_path / "images" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*SIZE, 3), 40 * number, np.uint8)).save(path)
    return tmp_path


def marks(classes: tuple[str, ...], shapes: Shapes) -> list[tuple[Marked, NDArray[np.uint8]]]:
    places = [PurePosixPath(f"{name}.png") for name in NAMES]
    return [(mark(place, scene(n), classes, 0.5, shapes), scene(n)) for n, place in enumerate(places)]


def assert_read_back(data: FileDataset, shapes: Shapes, classes: tuple[str, ...]) -> None:
    assert data.classes == classes
    assert sorted((*data.labeled, *data.val)) == list(NAMES)
    for number, name in enumerate(NAMES):
        found = data.label(name).numpy()
        assert not (found == 255).any()
        assert (found != scene(number)).mean() <= TOLERANCE[shapes], name


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("classes", [CLASSES, WITH_BACKGROUND])
def test_labelme_comes_back(root: Path, shapes: Shapes, classes: tuple[str, ...]) -> None:
    for marked, _ in marks(classes, shapes):
        write_labelme(marked, root / "images")
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in classes))
    background: Any = "class" if "background" in classes else "ignore"
    assert Labelme.recognises(root)
    assert_read_back(Labelme(LabelmeConfig(root=root, background=background)), shapes, classes)


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("classes", [CLASSES, WITH_BACKGROUND])
def test_label_studio_comes_back_once_predictions_are_submitted(
    root: Path, shapes: Shapes, classes: tuple[str, ...]
) -> None:
    tasks = LabelStudioTasks(classes, PALETTE, shapes, "run")
    for marked, _ in marks(classes, shapes):
        tasks.add(marked)
    tasks.write(root / "label_studio")
    written = json.loads((root / "label_studio" / "tasks.json").read_text())
    assert written[1]["data"]["image"] == "/data/local-files/?d=images/deep/b.png"
    assert written[0]["predictions"][0]["score"] == 0.5
    interface = ElementTree.parse(root / "label_studio" / "interface.xml").getroot()  # noqa: S314
    assert {label.get("value") for label in interface.iter("Label")} == set(classes)
    assert {one["type"] for task in written for one in task["predictions"][0]["result"]} == {interface[1].tag.lower()}
    exported = [task | {"annotations": [{"result": task.pop("predictions")[0]["result"]}]} for task in written]
    (root / "export.json").write_text(json.dumps(exported))
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in classes))
    background: Any = "class" if "background" in classes else "ignore"
    assert_read_back(LabelStudio(LabelStudioConfig(root=root, background=background)), shapes, classes)


def cvat_masks(path: Path, classes: tuple[str, ...]) -> dict[str, NDArray[np.uint8]]:
    """Paint "CVAT for images" as CVAT does: by z-order."""
    found = {}
    for image in ElementTree.parse(path).getroot().iter("image"):  # noqa: S314
        width, height = int(image.attrib["width"]), int(image.attrib["height"])
        regions = []
        for shape in sorted(image, key=lambda one: int(one.attrib["z_order"])):
            if shape.tag == "polygon":
                points = [[float(v) for v in point.split(",")] for point in shape.attrib["points"].split(";")]
                runs = polygon_runs(np.array(points), height, width)
            else:
                left, top, columns, rows = (int(shape.attrib[key]) for key in ("left", "top", "width", "height"))
                counts = np.array([int(count) for count in shape.attrib["rle"].split(", ")])
                inside = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(rows, columns)
                canvas = np.zeros((height, width), bool)
                canvas[top : top + rows, left : left + columns] = inside
                changes = np.flatnonzero(np.diff(canvas.T.ravel().astype(int), prepend=0))
                runs = counted_runs(np.diff(changes, prepend=0, append=canvas.size), height, width)
            regions.append((runs, classes.index(shape.attrib["label"])))
        bottom = classes.index("background") if "background" in classes else 255
        found[image.attrib["name"]] = painted(regions, height, width, bottom).numpy()
    return found


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("classes", [CLASSES, WITH_BACKGROUND])
def test_cvat_comes_back(root: Path, shapes: Shapes, classes: tuple[str, ...]) -> None:
    task = CvatTask(root / "cvat", classes, PALETTE)
    for marked, labels in marks(classes, shapes):
        task.add(marked, labels)
    task.close()
    assert Cvat.recognises(root / "cvat")
    assert_read_back(Cvat(CvatConfig(root=root / "cvat", images=root / "images")), "masks", classes)
    painted_again = cvat_masks(root / "cvat" / "annotations.xml", classes)
    assert sorted(painted_again) == [f"{name}.png" for name in NAMES]
    for number, name in enumerate(NAMES):
        assert (painted_again[f"{name}.png"] != scene(number)).mean() <= TOLERANCE[shapes]


@pytest.mark.parametrize("shapes", SHAPES)
def test_cvat_for_images_is_imported(root: Path, tmp_path: Path, shapes: Shapes) -> None:
    pytest.importorskip("datumaro")
    task = CvatTask(root / "cvat", CLASSES, PALETTE)
    for marked, labels in marks(CLASSES, shapes):
        task.add(marked, labels)
    task.close()
    field = tmp_path / "field"
    field.mkdir()
    (root / "images").rename(field / "images")
    (root / "cvat" / "annotations.xml").rename(field / "annotations.xml")
    import_folder(field, tmp_path / "out")
    assert (tmp_path / "out" / "classes.txt").read_text().splitlines() == list(CLASSES)
    for number, name in enumerate(NAMES):
        found = np.array(Image.open(tmp_path / "out" / "masks" / f"{name}.png"))
        assert (found != scene(number)).mean() <= TOLERANCE[shapes]


def test_black_is_no_class_in_cvat(tmp_path: Path) -> None:
    task = CvatTask(tmp_path / "cvat", ("road", "sky"), ((0, 0, 0), (1, 2, 3)))
    road = np.zeros((4, 4), np.uint8)
    task.add(mark(PurePosixPath("a.png"), road, ("road", "sky"), 1, "masks"), road)
    task.close()
    assert ":0,0,0::" not in (tmp_path / "cvat" / "labelmap.txt").read_text()
