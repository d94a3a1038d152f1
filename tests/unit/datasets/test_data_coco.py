import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_api
from trees import COCO_TRAIN, SIZE, coco_instances, coco_tree, photo, put, refusal_of, write_json, write_lines

from des4.datasets import Coco, CocoConfig, recognise
from des4.datasets.annotations.coco_file import read_coco
from des4.types import DataError

TRAIN = tuple(f"train2017/{name}" for name in COCO_TRAIN)
FIRST = TRAIN[0]


def load(root, **settings):
    return Coco(CocoConfig(root=root, **settings))


def refusal(root, **settings):
    return refusal_of(lambda: load(root, **settings))


def train_file(root):
    return root / "annotations" / "instances_train2017.json"


def edit(root, change):
    """Change the content of the train file."""
    content = json.loads(train_file(root).read_text())
    change(content)
    write_json(train_file(root), content)
    return root


def annotate(root, *regions, size=SIZE):
    """Let these regions, each (category, segmentation, iscrowd), be all that is in the first picture."""

    def change(content):
        number = content["images"][0]["id"]
        content["images"][0] |= {"height": size[0], "width": size[1]}
        content["annotations"] = [one for one in content["annotations"] if one["image_id"] != number] + [
            {"id": 900 + place, "image_id": number, "category_id": category, "segmentation": shape, "iscrowd": crowd}
            for place, (category, shape, crowd) in enumerate(regions)
        ]

    return edit(root, change)


def rectangle(left, top, right, bottom):
    return [left, top, right, top, right, bottom, left, bottom]


@pytest.fixture
def root(tmp_path):
    coco_tree(tmp_path)
    return tmp_path


def test_who_is_who(root):
    data = load(root)
    assert recognise(root) == "coco"
    assert data.classes == ("background", "sky", "road")  # by category id: 1, 3
    assert data.labeled == TRAIN
    assert data.unlabeled == ("train2017/000000000036", "unlabeled2017/000000000001")
    assert data.val == ("val2017/000000000139", "val2017/000000000285")
    assert data.notes == ()
    data.check_labeled()
    assert data.label(FIRST).tolist() == [[0] * 8] * 3 + [[2] * 8] * 3
    assert data.image(FIRST).shape == (3, *SIZE)


def test_lists_name_images_with_or_without_folder_and_suffix(root):
    listed = write_lines(root / "l.txt", ("000000000009", "train2017/000000000030.jpg", "000000000036.jpg"))
    data = load(root, labeled=listed)
    assert data.labeled == (FIRST, "train2017/000000000030", "train2017/000000000036")
    assert set(data.unlabeled) == {"unlabeled2017/000000000001", TRAIN[1], TRAIN[3]}
    assert data.label("train2017/000000000036").unique().tolist() == [0]


def test_pixels_under_no_annotation_can_be_ignored(root):
    data = load(root, background="ignore")
    assert data.classes == ("sky", "road")
    assert data.label(FIRST).tolist() == [[255] * 8] * 3 + [[1] * 8] * 3


def test_small_regions_lie_over_large_ones_and_crowds_under_all(root):
    everything, half, dot = rectangle(0, 0, 8, 6), rectangle(0, 0, 4, 6), rectangle(3, 3, 5, 5)
    annotate(root, (1, [dot], 0), (3, [everything], 0))
    assert load(root).label(FIRST)[3].tolist() == [2, 2, 2, 1, 1, 2, 2, 2]
    crowd = {"size": list(SIZE), "counts": [27, 1, 20]}  # one pixel: column 4, row 3
    annotate(root, (1, crowd, 1), (3, [half], 0))
    assert load(root).label(FIRST)[3].tolist() == [2, 2, 2, 2, 1, 0, 0, 0]
    assert load(root, crowd="ignore").label(FIRST)[3].tolist() == [2, 2, 2, 2, 255, 0, 0, 0]
    annotate(root, (1, crowd, 1), (3, [rectangle(0, 0, 5, 6)], 0))
    assert load(root).label(FIRST)[3].tolist() == [2, 2, 2, 2, 2, 0, 0, 0]
    annotate(root, (1, [half], 0), (3, [half], 0))
    assert load(root).label(FIRST)[0].tolist() == [2, 2, 2, 2, 0, 0, 0, 0]


def test_regions_of_one_size_are_painted_in_the_order_of_the_file(root):
    shapes = [rectangle(left, 0, left + 4, 6) for left in (0, 1, 2, 3, 4) * 8]
    annotate(root, *((1 if place % 2 else 3, [shape], 0) for place, shape in enumerate(shapes)))
    expected = np.zeros(8, int)
    for place, left in enumerate((0, 1, 2, 3, 4) * 8):
        expected[left : left + 4] = 1 if place % 2 else 2
    assert load(root).label(FIRST)[0].tolist() == expected.tolist()


def test_the_parts_of_an_instance_are_united(root):
    annotate(root, (1, [rectangle(0, 0, 3, 6), rectangle(2, 0, 5, 6)], 0))
    assert load(root).label(FIRST)[0].tolist() == [1, 1, 1, 1, 1, 0, 0, 0]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_a_label_map_is_what_the_coco_api_would_paint(tmp_path_factory, seed):
    root = tmp_path_factory.mktemp("coco")
    coco_tree(root)
    rng = np.random.default_rng(seed)
    regions, expected = [], np.zeros(SIZE, np.uint8)
    painted = []
    for _ in range(rng.integers(1, 6)):
        bitmap = np.asfortranarray((rng.random(SIZE) < rng.random()).astype(np.uint8))
        coded = coco_api.encode(bitmap)
        flat = bitmap.ravel(order="F")
        changes = np.flatnonzero(np.diff(flat, prepend=0)).tolist()
        polygons = [rng.uniform(-4, 12, 2 * rng.integers(3, 7)).round(rng.integers(0, 3)).tolist() for _ in range(2)]
        segmentation, decoded = [
            ({"size": list(SIZE), "counts": coded["counts"].decode()}, bitmap),
            ({"size": list(SIZE), "counts": np.diff([0, *changes, flat.size]).tolist()}, bitmap),
            (polygons, coco_api.decode(coco_api.merge(coco_api.frPyObjects(polygons, *SIZE)))),
        ][rng.integers(3)]
        category, crowd = int(rng.choice([1, 3])), bool(rng.random() < 0.2)
        regions.append((category, segmentation, int(crowd)))
        painted.append((not crowd, -int(decoded.sum()), {1: 1, 3: 2}[category], decoded))
    for _, _, label, decoded in sorted(painted, key=lambda one: one[:2]):
        expected[decoded == 1] = label
    annotate(root, *regions)
    assert (load(root).label(FIRST).numpy() == expected).all()


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        (None, "has no segmentation"),
        ([], "has no segmentation"),
        ([[0, 0, 1]], "no list of x, y, x, y"),
        ([[0, 0, 1, 1]], "needs 3 points, this one has 2"),
        ([0, 0, 1, 1, 2, 0], "no list of x, y, x, y"),
        ([[[0, 0], [1, 1], [2, 0]]], "no list of x, y, x, y"),
        ([["0", "0", "1", "1", "2", "0"]], "not all numbers"),
        ([[0, 0, 1, [1], 2, 0]], "unevenly nested"),
        ([[0, 0, 1e9, 1, 2, 0]], "no number within"),
        ("abc", "'size' is missing"),
        ({"counts": "0"}, "'size' is missing"),
        ({"size": [8, 6], "counts": [48]}, "'size' [8, 6] is not that of the image, [6, 8]"),
        ({"size": [6, 8]}, "neither text nor whole numbers"),
        ({"size": [6, 8], "counts": [1.5, 46.5]}, "neither text nor whole numbers"),
        ({"size": [6, 8], "counts": [[48]]}, "neither text nor whole numbers"),
        ({"size": [6, 8], "counts": [47]}, "do not add up to the 8×6 pixels"),
        ({"size": [6, 8], "counts": [50, -2]}, "do not add up"),
        ({"size": [6, 8], "counts": ""}, "do not add up"),
        ({"size": [6, 8], "counts": "€"}, "a character that COCO does not use"),
        ({"size": [6, 8], "counts": "o"}, "end in the middle"),
    ],
)
def test_regions_that_are_none_are_named_by_annotation(root, segmentation, reason):
    message = refusal(annotate(root, (1, segmentation, 0)))
    assert message.startswith(f"{train_file(root)}: annotation 900: ")
    assert reason in message
    assert message.endswith("; mend or delete it")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c["annotations"][1].update(image_id=77), "annotation 101: its image 77 is not in the file"),
        (lambda c: c["annotations"][1].update(category_id=2), "annotation 101: its category 2 is not in the file"),
        (lambda c: c["annotations"][1].pop("image_id"), "annotation 101: 'image_id' is missing"),
        (lambda c: c["annotations"][1].update(category_id=[3]), "annotation 101: 'category_id' is missing"),
        (lambda c: c["annotations"].append(None), "annotation None: 'image_id' is missing"),
        (lambda c: c["images"][1].update(id=9), "image 9: another image has the same id"),
        (lambda c: c["images"][1].pop("file_name"), "image 25: 'file_name' is missing"),
        (lambda c: c["images"][1].update(file_name="a\nb.jpg"), "is no name of an image file"),
        (lambda c: c["images"][1].update(file_name="000000000009.jpg"), "is listed in"),
        (lambda c: c["images"][0].pop("height"), "image '000000000009.jpg' has no usable height and width"),
        (lambda c: c["images"][0].update(width=-8), "has no usable height and width"),
        (lambda c: c["images"][0].update(width=10**9, height=10**9), "has no usable height and width"),
        (lambda c: c["images"][0].update(width=9), "is 9×6 pixels, its image 000000000009.jpg is 8×6"),
        (lambda c: c["categories"][0].update(name="sky"), "names the class 'sky' twice"),
        (lambda c: c["categories"][0].update(id=1), "category 1: another category has the same id"),
        (lambda c: c["categories"][0].update(name=3), "'name' is missing"),
        (lambda c: c["categories"][0].update(name="a\tb"), "is no name that can be printed"),
        (lambda c: c["categories"].append({"id": 9, "name": "tree"}), "its categories are not those of"),
        (lambda c: c.pop("categories"), "holds no categories"),
        (lambda c: c.update(images={}), "'id' is missing"),
        (lambda c: c["annotations"].clear(), "holds no annotations"),
    ],
)
def test_files_that_contradict_themselves_are_refused(root, change, reason):
    assert reason in refusal(edit(root, change))


def test_pictures_that_are_missing_are_named_if_they_are_annotated(root):
    (root / "train2017" / "000000000036.jpg").unlink()
    assert load(root).labeled == TRAIN
    (root / f"{FIRST}.jpg").unlink()
    assert "no image belongs to the mask '000000000009'" in refusal(root)
    data = load(root, labeled=write_lines(root / "l.txt", ("000000000025",)))
    assert data.labeled == (TRAIN[1],)


def test_annotations_of_unlabeled_images_are_never_decoded(root):
    annotate(root, (1, {"size": [6, 8], "counts": "whoever decodes this fails"}, 0))
    data = load(root, unlabeled=write_lines(root / "u.txt", (FIRST,)))
    data.check_labeled()
    for sample_id in (*data.labeled, *data.val):
        data.label(sample_id)
    assert FIRST in data.unlabeled
    with pytest.raises(DataError, match="neither a labeled nor a val image"):
        data.label(FIRST)
    assert "annotation 900: the counts hold" in refusal(root)


def test_a_file_that_changes_during_training_is_not_misread(root):
    data = load(root)
    edit(root, lambda content: content["info"].update(description="longer than it was"))
    with pytest.raises(DataError, match="has changed since it was opened"):
        data.label(FIRST)


def test_names_beyond_ascii_and_files_in_any_order(root):
    content = coco_instances(COCO_TRAIN)
    for category, name in zip(content["categories"], ("Straße", "Himmel ☁"), strict=True):
        category["name"] = name
    content["images"][0]["file_name"] = "Füße.jpg"
    put(root / "train2017" / "Füße.jpg", photo(".jpg"))
    for escaped in (True, False):
        ordered = {key: content[key] for key in ("annotations", "categories", "info", "images")}
        (root / "some.json").write_text(json.dumps(ordered, ensure_ascii=escaped), encoding="utf-8-sig")
        shutil.rmtree(root / "images", ignore_errors=True)
        shutil.copytree(root / "train2017", root / "images")
        data = load(root, annotations=root / "some.json")
        assert data.classes == ("background", "Himmel ☁", "Straße")
        assert "Füße" in (*data.labeled, *data.val)
        assert data.label("Füße")[5].unique().tolist() == [2]


def test_categories_are_ordered_by_number(root):
    def change(content):
        content["categories"] = [{"id": 10, "name": "road"}, {"id": 2, "name": "sky"}]
        for annotation in content["annotations"]:
            annotation["category_id"] = 10

    assert list(read_coco(train_file(edit(root, change))).categories.items()) == [(2, "sky"), (10, "road")]


def layout(root, *files):
    """Lay out annotation files, each (path, image folder, names), with their pictures."""
    for path, folder, names in files:
        write_json(root / path, coco_instances(names))
        for name in names:
            put(root / folder / f"{name}.jpg", photo(".jpg"))
    assert recognise(root) == "coco"
    return load(root)


def test_other_layouts_are_understood(tmp_path):
    train, val = ("000000000001", "000000000002"), ("000000000003",)
    data = layout(
        tmp_path / "roboflow",
        ("train/_annotations.coco.json", "train", train),
        ("valid/_annotations.coco.json", "valid", val),
        ("test/_annotations.coco.json", "test", ("000000000004",)),
    )
    assert (data.labeled, data.val) == (tuple(f"train/{name}" for name in train), ("valid/000000000003",))
    assert data.unlabeled == ()
    data = layout(
        tmp_path / "folders in images",
        ("annotations/instances_train.json", "images/train", train),
        ("annotations/instances_val.json", "images/val", val),
    )
    put(tmp_path / "folders in images" / "images" / "test" / "x.jpg", photo(".jpg"))
    assert (data.labeled, data.val) == (tuple(f"train/{name}" for name in train), ("val/000000000003",))
    assert load(tmp_path / "folders in images").unlabeled == ()
    data = layout(tmp_path / "CVAT", ("annotations/instances_default.json", "images/default", (*train, *val)))
    assert len(data.labeled) + len(data.val) == 3
    data = layout(
        tmp_path / "root", ("train.json", "images", train), ("my_val.json", "images", val), ("test.json", "x", ("9",))
    )
    assert (data.labeled, data.val) == (train, val)
    data = layout(tmp_path / "one", ("annotations/instances_train_val.json", "images", (*train, *val)))
    assert len(data.labeled) == 2
    put(tmp_path / "overlays" / "Visualization" / "overlay.jpg", photo(".jpg"))
    put(tmp_path / "overlays" / "JPEGImages" / "extra.jpg", photo(".jpg"))
    data = layout(tmp_path / "overlays", ("annotations.json", "JPEGImages", (*train, *val)))
    assert data.unlabeled == ("JPEGImages/extra",)
    data = layout(tmp_path / "beside", ("valley.json", ".", (*train, *val)))
    put(tmp_path / "beside" / "valley.jpg", photo(".jpg"))
    assert load(tmp_path / "beside").unlabeled == ("valley",)


def test_only_what_looks_like_coco_is_recognised(root, tmp_path_factory):
    (root / "masks").mkdir()
    assert not Coco.recognises(root)
    other = tmp_path_factory.mktemp("other")
    assert not Coco.recognises(other)
    assert "no COCO annotations found" in refusal(other)
    put(other / "package.json", b'{"name": "x"}')
    put(other / "broken.json", b"\xff\xfe{")
    assert not Coco.recognises(other)
    assert "no such file" in refusal(other, annotations=other / "gone.json")
    assert "holds no annotations" in refusal(other, annotations=other / "package.json")
    assert "is no JSON" in refusal(other, annotations=other / "broken.json")
    assert "no such data folder" in refusal(other / "gone")
