import base64
import json
import sys

import numpy as np
import pytest
from trees import (
    LOWER_HALF,
    SIZE,
    encode,
    labelme_annotation,
    labelme_shape,
    labelme_tree,
    photo,
    put,
    refusal_of,
    write_json,
    write_lines,
)

from des4.datasets import Labelme, LabelmeConfig, recognise


def load(root, **settings):
    return Labelme(LabelmeConfig(root=root, **settings))


def refusal(root, **settings):
    return refusal_of(lambda: load(root, **settings))


def draw(root, *shapes, name="a", **change):
    """Let these shapes be the annotation of a picture, and everything else about it be as in `change`."""
    write_json(root / f"{name}.json", labelme_annotation(f"{name}.jpg", *shapes) | change)
    return root


def label(root, name="a", **settings):
    val = write_lines(root / "other.txt", ("e",))
    return load(root, val=val, **settings).label(name).tolist()


def bitmap(array):
    return base64.b64encode(encode(array)).decode()


@pytest.fixture
def root(tmp_path):
    labelme_tree(tmp_path)
    return tmp_path


def test_who_is_who(root):
    data = load(root)
    assert recognise(root) == "labelme"
    assert data.classes == ("background", "road")
    assert sorted((*data.labeled, *data.val)) == list("abcde")
    assert data.unlabeled == ("f",)
    assert any("classes: 2, the names in the annotations" in note for note in data.notes)
    data.check_labeled()
    assert data.label(data.val[0]).tolist() == [[0] * 8] * 3 + [[1] * 8] * 3


def test_the_annotations_of_unlabeled_images_may_be_revealed(root):
    data = load(root, labeled=write_lines(root / "few.txt", ("a", "b")), val=write_lines(root / "v.txt", ("c",)))
    revealed = data.reveal()
    assert set(revealed) == {"d", "e"}
    assert data.classes == ("background", "road")
    assert data.label("e").tolist() == [[0] * 8] * 3 + [[1] * 8] * 3


def test_the_annotation_of_an_unlabeled_image_is_never_opened(root):
    write_lines(root / "unlabeled.txt", ("b", "f"))
    opened, watching = [], True

    def watch(event, arguments):
        if watching and event == "open":
            opened.append(str(arguments[0]))

    sys.addaudithook(watch)
    data = load(root)
    data.check_labeled()
    for sample_id in (*data.labeled, *data.val):
        data.label(sample_id)
    for sample_id in data.unlabeled:
        data.image(sample_id)
    watching = False
    assert data.unlabeled == ("b", "f")
    assert str(root / "a.json") in opened
    assert str(root / "b.jpg") in opened
    assert str(root / "b.json") not in opened


def test_shapes_of_every_kind_are_painted_in_their_order(root):
    draw(
        root,
        labelme_shape("road"),
        labelme_shape("sky", "rectangle", [[8, 0], [5, 2]]),
        labelme_shape("sun", "circle", [[2, 2], [2, 3]]),
        labelme_shape("lane", "mask", [[2.8, 3.6], [4, 5]], mask=bitmap(np.array([[1, 0], [1, 1]], np.uint8))),
        labelme_shape("__ignore__", "oriented_rectangle", [[0, 5], [2, 5], [2, 6], [0, 6]]),
        labelme_shape("_background_", None, [[7, 3], [8, 3], [8, 6], [7, 6]]),
    )
    assert load(root).classes == ("_background_", "lane", "road", "sky", "sun")
    assert label(root) == [
        [0, 0, 0, 0, 0, 3, 3, 3],
        [0, 4, 4, 0, 0, 3, 3, 3],
        [0, 4, 4, 0, 0, 0, 0, 0],
        [2, 2, 2, 2, 2, 2, 2, 0],
        [2, 2, 2, 1, 2, 2, 2, 0],
        [255, 255, 2, 1, 1, 2, 2, 0],
    ]


def test_a_rectangle_may_have_four_corners(root):
    draw(root, labelme_shape("road", "rectangle", [[0, 0], [4, 0], [4, 2], [0, 2]]))
    assert label(root) == [[1] * 4 + [0] * 4] * 2 + [[0] * 8] * 4


def test_a_bitmap_may_stick_out_and_hold_any_number_above_0(root):
    whole = labelme_shape("road", "mask", [[-3, -2], [10, 10]], mask=bitmap(np.full((20, 30), 255, np.uint8)))
    assert label(draw(root, whole)) == [[1] * 8] * 6
    corner = labelme_shape("road", "mask", [[7, 5], [20, 20]], mask=bitmap(np.ones((15, 14), bool)))
    assert np.argwhere(label(draw(root, corner))).tolist() == [[5, 7]]


def test_an_annotation_without_shapes_is_all_background(root):
    draw(root)
    assert label(root) == [[0] * 8] * 6
    draw(root, labelme_shape("road"), labelme_shape("sky", "rectangle", [[0, 0], [1, 1]]))
    assert label(root, background="ignore") == [[1] + [255] * 7] + [[255] * 8] * 2 + [[0] * 8] * 3


def test_a_list_of_classes_fixes_them(root):
    write_lines(root / "labels.txt", ("__ignore__", "_background_", "sky", "road"))
    data = load(root)
    assert data.classes == ("_background_", "sky", "road")
    assert data.notes[-1:] != ("classes: 3",)
    assert label(root)[5] == [2] * 8
    assert load(root, classes=write_lines(root / "own.txt", ("road", "lane"))).classes == ("background", "road", "lane")
    draw(root, labelme_shape("lake"))
    assert "a.json: shape 1: its name 'lake' is not among the classes" in refusal(root)


def test_annotations_may_have_a_folder_of_their_own(root):
    for name in ("a.jpg", "b.jpg"):
        put(root / "new" / "images" / "deep" / name, photo(".jpg"))
    for folder in ("annotations", "labels"):
        for name in "ab":
            write_json(
                root / "new" / folder / "deep" / f"{name}.json",
                labelme_annotation(f"..\\..\\images\\deep\\{name}.jpg", labelme_shape("road")),
            )
        assert recognise(root / "new") == "labelme"
        data = load(root / "new")
        assert sorted((*data.labeled, *data.val)) == ["deep/a", "deep/b"]
        (root / "new" / folder).rename(root / f"moved {folder}")
    data = load(root / "new", annotations=root / "moved labels")
    assert data.label("deep/a").unique().tolist() == [0, 1]
    assert "gone: no such folder" in refusal(root, annotations=root / "gone")


def test_sizes_are_the_annotations_or_the_images(root):
    draw(root, labelme_shape("road"), imageHeight=None, imageWidth=None)
    assert label(root)[5] == [1] * 8
    assert "is 9×6 pixels, its image a.jpg is 8×6" in refusal(draw(root, imageWidth=9))
    assert "a.json: the image: its width None and height 6 are no size" in refusal(draw(root, imageWidth=None))
    assert "exceed the limit" in refusal(draw(root, imageHeight=10**6, imageWidth=10**6))


def test_the_embedded_picture_is_not_used(root):
    assert label(draw(root, labelme_shape("road"), imageData="no base64 at all"))[5] == [1] * 8


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        (labelme_shape("road", "point", [[1, 1]]), "a shape of type 'point' covers no area, a polygon would"),
        (labelme_shape("road", "line", [[1, 1], [2, 2]]), "type 'line' covers no area"),
        (labelme_shape("road", "linestrip", [[1, 1], [2, 2]]), "type 'linestrip' covers no area"),
        (labelme_shape("road", ["polygon"]), "type a list covers no area"),
        (labelme_shape("road", "polygon", [[1, 1], [2, 2]]), "a polygon needs 3 points, this one has 2"),
        (labelme_shape("road", "polygon", [1, 1, 2, 2, 3, 3]), "no list of [x, y]"),
        (labelme_shape("road", "polygon", []), "no list of [x, y]"),
        (labelme_shape("road", "polygon", "abc"), "'points' is missing or no list"),
        (labelme_shape("road", "polygon", [[1e300, 1], [2, 2], [3, 1]]), "no number within"),
        (labelme_shape("road", "rectangle", [[1, 1], [2, 2], [3, 3]]), "a rectangle needs 2 points, this one has 3"),
        (labelme_shape("road", "circle", [[1, 1], [1, 1]]), "the radius is not above 0"),
        (labelme_shape("road", "mask", [[1, 1], [2, 2]]), "'mask' is missing or no text"),
        (labelme_shape("road", "mask", [[1, 1], [2, 2]], mask="é"), "its mask is no base64 text"),
        (labelme_shape("road", "mask", [[1, 1], [2, 2]], mask="abcd"), "cannot be read as an image"),
        (
            labelme_shape("road", "mask", [[1, 1], [2, 2]], mask=bitmap(np.eye(3, dtype=np.uint8)[None])),
            "in colour",
        ),
        (labelme_shape(None), "'label' is missing or no text"),
        (labelme_shape("a\nb"), "is no name that can be printed"),
        ("road", "'label' is missing or no text"),
    ],
)
def test_shapes_that_are_none_are_named_by_file_and_number(root, shape, reason):
    message = refusal(draw(root, labelme_shape("road"), shape))
    assert reason in message
    assert "a.json: " in message


def test_files_that_are_no_annotations_are_refused(root):
    assert "going by its imagePath" in refusal(draw(root, imagePath="sub/b.png"))
    assert "'shapes' is missing or no list" in refusal(draw(root, shapes={}))
    write_json(root / "a.json", [1])
    assert "a.json: is no labelme annotation" in refusal(root)
    put(root / "a.json", b"[")
    assert "a.json: is no JSON" in refusal(root)
    labelme_tree(root)
    write_json(root / "g.json", labelme_annotation("g.jpg"))
    assert "g.json: no image belongs to the mask 'g'" in refusal(root)
    for name in "abcdeg":
        (root / f"{name}.json").unlink()
    assert "no image has a mask" in refusal(root)


def test_accents_are_one_name_however_they_are_spelt(root):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    put(root / f"{decomposed}.jpg", photo(".jpg"))
    draw(root, labelme_shape("road"), name=decomposed, imagePath=f"{composed}.jpg")
    assert label(root, composed)[5] == [1] * 8


def test_only_what_looks_like_labelme_is_recognised(root, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    assert not Labelme.recognises(other)
    put(other / "images" / "a.jpg", photo(".jpg"))
    put(other / "package.json", b'{"version": "1.0", "name": "x"}')
    assert not Labelme.recognises(other)
    write_json(other / "images" / "deep" / "a.json", labelme_annotation("a.jpg"))
    assert Labelme.recognises(other)
    (root / "masks").mkdir()
    assert not Labelme.recognises(root)


def test_the_tree_is_that_of_labelme(root):
    annotation = json.loads((root / "a.json").read_text())
    assert annotation["shapes"][0]["points"] == [list(corner) for corner in LOWER_HALF]
    assert (annotation["imageHeight"], annotation["imageWidth"]) == SIZE
