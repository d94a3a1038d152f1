import json

import numpy as np
import pytest
from PIL import Image
from test_data_rle import packed
from trees import SIZE, label_studio_tree, photo, put, refusal_of, studio_region, studio_task, write_json, write_lines

from des4.datasets import LabelStudio, LabelStudioConfig, recognise
from des4.datasets.annotations.shapes import ImageNames
from des4.types import DataError

HEIGHT, WIDTH = SIZE


def load(root, **settings):
    return LabelStudio(LabelStudioConfig(root=root, **settings))


def refusal(root, **settings):
    return refusal_of(lambda: load(root, **settings))


@pytest.fixture
def root(tmp_path):
    """Two pictures, `a` and `b`; tests write the export."""
    for name in ("a.jpg", "b.jpg"):
        put(tmp_path / "images" / name, photo(".jpg"))
    return tmp_path


def export(root, *tasks):
    write_json(root / "export.json", tasks)
    return root


def annotate(root, *results, **annotation):
    """Export these regions for `a`, a road over the lower half for `b`."""
    return export(
        root, studio_task(1, "/x/a.jpg", *results, **annotation), studio_task(2, "b.jpg", studio_region("road"))
    )


def label(root, **settings):
    data = load(root, val=write_lines(root / "v.txt", ("b",)), **settings)
    return data.label("a").tolist()


def rectangle(name, x, y, width, height, **rest):
    """A rectangle, given in pixels."""
    value = {"x": 100 * x / WIDTH, "y": 100 * y / HEIGHT, "width": 100 * width / WIDTH, "height": 100 * height / HEIGHT}
    return studio_region(name, "rectanglelabels", **value, **rest)


def brush(name, alpha):
    """A brush mask as the editor has it: a colour everywhere, and alpha where it was painted."""
    rgba = np.stack([np.full(SIZE, 17), np.full(SIZE, 130), np.arange(HEIGHT * WIDTH).reshape(SIZE), alpha], -1)
    return studio_region(name, "brushlabels", format="rle", rle=packed(rgba.ravel().tolist()).tolist())


def test_who_is_who(tmp_path):
    label_studio_tree(tmp_path)
    data = load(tmp_path)
    assert recognise(tmp_path) == "label_studio"
    assert data.classes == ("background", "road")
    assert len(data.labeled) + len(data.val) == 5
    assert data.unlabeled == ("00000005-5",)
    data.check_labeled()
    assert data.label(data.val[0]).tolist() == [[0] * 8] * 3 + [[1] * 8] * 3


def test_regions_of_every_kind_are_painted_in_their_order(root):
    painted = np.zeros(SIZE, int)
    painted[4, 1:4], painted[5, 3] = 255, 1
    annotate(
        root,
        studio_region("road"),
        rectangle("sky", 5, 0, 3, 2, rotation=0),
        studio_region("sun", "ellipselabels", x=25, y=100 / 3, radiusX=100 / WIDTH, radiusY=100 / HEIGHT, rotation=90),
        brush("lane", painted),
        {"type": "choices", "value": {"choices": ["dry"]}, "from_name": "weather"},
        {"type": "relation", "from_id": "a", "to_id": "b"},
    )
    assert load(root).classes == ("background", "lane", "road", "sky", "sun")
    assert label(root) == [
        [0, 0, 0, 0, 0, 3, 3, 3],
        [0, 4, 4, 0, 0, 3, 3, 3],
        [0, 4, 4, 0, 0, 0, 0, 0],
        [2, 2, 2, 2, 2, 2, 2, 2],
        [2, 1, 1, 1, 2, 2, 2, 2],
        [2, 2, 2, 1, 2, 2, 2, 2],
    ]


def test_a_rectangle_turns_clockwise_about_its_corner(root):
    annotate(root, rectangle("road", 4, 1, 3, 2, rotation=90))
    expected = np.zeros(SIZE, int)
    expected[1:4, 2:4] = 1
    assert label(root) == expected.tolist()


def test_an_ellipse_is_as_wide_and_high_as_its_radii_say(root):
    annotate(root, studio_region("road", "ellipselabels", x=50, y=50, radiusX=25, radiusY=100 / 3, rotation=0))
    inside = [[((x - 3.5) / 2) ** 2 + ((y - 2.5) / 2) ** 2 <= 1 for x in range(8)] for y in range(6)]
    assert label(root) == np.array(inside, int).tolist()


def test_pixels_under_no_region_can_be_ignored(root):
    annotate(
        root, rectangle("sky", 0, 0, 8, 1), rectangle("__ignore__", 0, 0, 1, 1), rectangle("background", 1, 0, 1, 1)
    )
    assert label(root)[0] == [255, 0] + [2] * 6
    assert load(root).classes == ("background", "road", "sky")
    assert load(root, background="ignore").classes == ("background", "road", "sky")
    assert label(root, background="ignore")[:2] == [[255, 0] + [2] * 6, [255] * 8]


def test_the_annotation_that_counts(root):
    def done(name, **rest):
        return {"id": 1, "was_cancelled": False, "result": [studio_region(name)], **rest}

    task = studio_task(1, "a.jpg")
    other = studio_task(2, "b.jpg", studio_region("road"))
    first, last = done("first", updated_at="2026-03-01T10:00:00Z"), done("last", updated_at="2026-03-02T09:00:00Z")
    truth = done("truth", ground_truth=True, updated_at="2026-01-01T00:00:00Z")
    skipped = done("skipped", was_cancelled=True, ground_truth=True, updated_at="2027-01-01T00:00:00Z")
    undated = done("undated")
    for annotations, name in (
        ([first, last, skipped], "last"),
        ([last, first], "last"),
        ([last, truth, first], "truth"),
        ([done("one"), undated], "undated"),
    ):
        export(root, task | {"annotations": annotations, "predictions": [done("model")]}, other)
        assert load(root).classes == ("background", *sorted((name, "road")))
    export(root, task | {"annotations": [skipped], "drafts": [done("draft")]}, other, studio_task(3, "c.jpg"))
    put(root / "images" / "c.jpg", photo(".jpg"))
    assert load(root).unlabeled == ("a",)
    data = load(root, labeled=write_lines(root / "l.txt", ("c.jpg",)), val=write_lines(root / "v.txt", ("b",)))
    assert data.label("c").unique().tolist() == [0]


@pytest.mark.parametrize(
    "reference",
    [
        "a b.jpg",
        "/data/upload/1/0a1b2c3d-a b.jpg",
        "/data/upload/1/a%20b.jpg",
        "/data/local-files/?d=elsewhere/one/a%20b.jpg",
        "https://example.org/bucket/a%20b.jpg?X-Signature=abc&d=",
        "s3://bucket/one/a%20b.jpg",
        "C:\\pictures\\a b.jpg",
    ],
)
def test_pictures_are_found_by_their_names(root, reference):
    put(root / "images" / "one" / "a b.jpg", photo(".jpg"))
    export(root, studio_task(1, reference, studio_region("road")), studio_task(2, "b.jpg", studio_region("road")))
    data = load(root)
    assert "one/a b" in (*data.labeled, *data.val)
    other_key = studio_task(1, "", studio_region("road")) | {"data": {"photo": reference, "note": "by hand. see [1"}}
    export(root, other_key, studio_task(2, "b.jpg", studio_region("road")))
    assert "one/a b" in (*load(root).labeled, *load(root).val)


def test_a_name_that_fits_several_pictures_needs_its_folder(root):
    put(root / "images" / "one" / "x.jpg", photo(".jpg"))
    put(root / "images" / "two" / "x.jpg", photo(".jpg"))
    other = studio_task(2, "b.jpg", studio_region("road"))
    export(root, studio_task(1, "/data/local-files/?d=mnt/two/x.jpg", studio_region("road")), other)
    data = load(root)
    assert "two/x" in (*data.labeled, *data.val)
    export(root, studio_task(1, "/data/upload/1/0a1b2c3d-x.jpg", studio_region("road")), other)
    assert "export.json: task 1: its name" in (message := refusal(root))
    assert "fits 'one/x' and 'two/x'" in message
    assert ImageNames({"0a1b2c3d-x": root, "x": root}).find("0a1b2c3d-x.jpg") == "0a1b2c3d-x"


def test_regions_of_unlabeled_images_are_never_decoded(root):
    annotate(root, studio_region("road", "brushlabels", format="rle", rle=[1, 2, 3]))
    put(root / "images" / "c.jpg", photo(".jpg"))
    tasks = json.loads((root / "export.json").read_text())
    export(root, *tasks, studio_task(3, "c.jpg", studio_region("road")))
    data = load(root, unlabeled=write_lines(root / "u.txt", ("a",)))
    data.check_labeled()
    for sample_id in (*data.labeled, *data.val):
        data.label(sample_id)
    assert data.unlabeled == ("a",)
    with pytest.raises(DataError, match="neither a labeled nor a val image"):
        data.label("a")
    assert "task 1, region 'rroad': the brush mask breaks off" in refusal(root)


def test_an_image_without_regions_is_annotated_upright(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(root / "images" / "a.jpg", exif=exif)
    annotate(root)
    for exif in ("auto", "upright"):
        assert label(root, exif=exif) == [[0] * HEIGHT] * WIDTH


def test_a_list_of_classes_fixes_them(root):
    annotate(root, studio_region("road"))
    write_lines(root / "classes.txt", ("sky", "road"))
    assert load(root).classes == ("background", "sky", "road")
    assert label(root)[5] == [2] * 8
    write_lines(root / "classes.txt", ("sky", "lane"))
    assert "its name 'road' is not among the classes" in refusal(root)


def test_sizes_are_the_regions_or_the_images(root):
    annotate(root)
    assert label(root) == [[0] * 8] * 6
    unstated = {"original_width": None, "original_height": None}
    annotate(root, studio_region("road") | unstated, studio_region("road") | unstated)
    assert label(root)[5] == [1] * 8
    annotate(root, studio_region("road") | {"original_width": 9})
    assert "is 9×6 pixels, its image a.jpg is 8×6" in refusal(root)
    annotate(root, studio_region("road"), studio_region("sky") | {"original_height": 9})
    assert "task 1, region 'rsky': it was not drawn on an image of 8×6 pixels" in refusal(root)
    annotate(root, studio_region("road") | {"original_width": "8"})
    assert "task 1: its width '8' and height 6 are no size" in refusal(root)
    annotate(root, studio_region("road") | {"original_width": 10**6, "original_height": 10**6})
    assert "exceed the limit" in refusal(root)


@pytest.mark.parametrize(
    ("region", "reason"),
    [
        (studio_region("road", points=[[0, 0], [100, 100]]), "needs 3 points"),
        (studio_region("road", points=[[0, 0], [1]]), "unevenly nested"),
        (studio_region("road", points=None), "'points' is missing"),
        (studio_region("road", points=[[0, 0], [1e9, 0], [0, 1]]), "no number within"),
        (rectangle("road", 0, 0, -2, 2), "width or height is negative"),
        (studio_region("road", "rectanglelabels", x=0, y=0, width=5), "'height' is missing"),
        (studio_region("road", "rectanglelabels", x=0, y=0, width=5, height="5"), "'height' is missing or no number"),
        (studio_region("road", "ellipselabels", x=0, y=0, radiusX=0, radiusY=4), "radius is not above 0"),
        (studio_region("road", "brushlabels", format="rle", rle=[]), "the brush mask breaks off"),
        (studio_region("road", "brushlabels", format="rle", rle=packed([9] * 12).tolist()), "holds 12 words"),
        (studio_region("road", "brushlabels", format="png", rle=[1]), "no list of bytes in the format 'rle'"),
        (studio_region("road", "brushlabels", format="rle", rle=[256]), "no list of bytes"),
        (studio_region("road", "brushlabels", format="rle", rle=[[1]]), "no list of bytes"),
        (studio_region("road", "brushlabels", format="rle", rle="abc"), "'rle' is missing"),
        (studio_region("road", "keypointlabels", x=1, y=2, width=1), "a region of type 'keypointlabels' is not read"),
        (studio_region("road", "bitmasklabels", imageDataURL="x"), "'bitmasklabels' is not read"),
        (studio_region("road") | {"image_rotation": 90}, "was turned in Label Studio"),
        (studio_region("road") | {"value": {"points": [], "polygonlabels": []}}, "has the labels [], expected one"),
        (studio_region("road") | {"value": {"polygonlabels": ["a", "b"]}}, "has the labels a list, expected one"),
        (studio_region("road") | {"value": None}, "'value' is missing"),
        (studio_region("a\nb"), "is no name that can be printed"),
        ({"value": {}}, "'type' is missing"),
        (None, "'type' is missing"),
    ],
)
def test_regions_that_are_none_are_named_by_task(root, region, reason):
    message = refusal(annotate(root, studio_region("road"), region))
    assert reason in message
    assert "export.json: task 1" in message


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (7, "is no list of tasks"),
        ({"id": 1, "image": "a.jpg", "label": []}, "task 1 has no 'annotations'; export as JSON, not as JSON-MIN"),
        ({"id": 1, "annotations": [4]}, "task 1: its 'annotations' are not written out"),
        ({"id": 1, "annotations": {}}, "task 1: 'annotations' is missing or no list"),
        ({"id": 1, "annotations": [{}]}, "task 1: 'result' is missing or no list"),
        ({"id": 1, "annotations": [{"result": []}]}, "task 1: 'data' is missing or no object"),
        ({"id": 1, "annotations": [{"result": []}], "data": {"text": "abc"}}, "its data name 0 pictures"),
        ({"annotations": [{"result": []}], "data": {"x": "a.jpg", "y": "b.png"}}, "task 0: its data name 2 pictures"),
        (studio_task(1, "https://[::1/a.jpg"), "is no address of a file"),
        (studio_task(1, "data:image/png;base64,AAAA"), "its picture is written into the export"),
        (studio_task(1, ""), "'' is no name of an image file"),
        (studio_task(1, "b.jpg"), "task 1 and task 2 are of one image, 'b'"),
        (studio_task(1, "gone.jpg"), "no image belongs to the mask 'gone'"),
    ],
)
def test_tasks_that_are_none_are_refused(root, task, reason):
    export(root, task, studio_task(2, "b.jpg", studio_region("road")))
    assert reason in refusal(root, annotations=root / "export.json")


def test_the_export_is_found_or_named(root):
    assert "holds no JSON file that is an export" in refusal(root)
    annotate(root, studio_region("road"))
    write_json(root / "second.json", [studio_task(1, "a.jpg", studio_region("lane"))])
    assert "export.json and second.json are both an export" in refusal(root)
    assert load(root, annotations=root / "export.json").classes == ("background", "road")
    assert "no such file" in refusal(root, annotations=root / "gone.json")
    write_json(root / "object.json", {"annotations": []})
    assert "is no list of tasks" in refusal(root, annotations=root / "object.json")
    (root / "masks").mkdir()
    assert not LabelStudio.recognises(root)
