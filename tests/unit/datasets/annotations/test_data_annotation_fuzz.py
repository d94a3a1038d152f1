"""Annotation files that anyone may have written: whatever they hold, the answer is a label map or one line."""

import base64
import copy
import json
import random

import numpy as np
import pytest
from test_data_rle import packed
from trees import (
    COCO_TRAIN,
    SIZE,
    TREES,
    coco_instances,
    encode,
    labelme_annotation,
    labelme_shape,
    studio_region,
    studio_task,
    write_json,
)

from des4.datasets import FORMATS
from des4.types import DataError


def coco():
    content = coco_instances(COCO_TRAIN, ("000000000036",))
    shapes = [{"size": list(SIZE), "counts": [4, 40, 4]}, {"size": list(SIZE), "counts": "4X14"}]
    for annotation, shape in zip(content["annotations"], shapes, strict=False):
        annotation["segmentation"] = shape
    return "annotations/instances_train2017.json", content


def label_studio():
    words = [0, 0, 0, 255] * (SIZE[0] * SIZE[1])
    regions = [
        studio_region("road"),
        studio_region("sky", "rectanglelabels", x=1, y=2, width=30, height=40, rotation=5),
        studio_region("sun", "ellipselabels", x=50, y=50, radiusX=10, radiusY=20, rotation=5),
        studio_region("lane", "brushlabels", format="rle", rle=packed(words).tolist()),
    ]
    tasks = [studio_task(n, f"{n:08x}-{n}.jpg", *regions, updated_at="2026-01-01") for n in range(3)]
    return "project-1-at-2026-05-04-10-00-01234567.json", tasks


def labelme():
    bitmap = base64.b64encode(encode(np.eye(5, dtype=np.uint8))).decode()
    shapes = [
        labelme_shape("road"),
        labelme_shape("sky", "rectangle", [[1, 1], [4, 2]]),
        labelme_shape("sun", "circle", [[1, 1], [4, 2]]),
        labelme_shape("lane", "mask", [[1, 1], [4, 2]], mask=bitmap),
    ]
    return "a.json", labelme_annotation("a.jpg", *shapes)


CONTENTS = {"coco": coco, "label_studio": label_studio, "labelme": labelme}

STRANGE = [
    *(None, True, False, 0, 1, -1, 3, 255, 2**31, 2**63, 2**64, 10**400, 0.5, -0.0, 1e-320, 1e9, 1e308, float("inf")),
    *("", "a", "0", "é\n", "\ud800", "a" * 5000, "../../etc/passwd", "C:\\a.jpg", "data:,", "?d=", "[", "\x00"),
    *([], [[]], [None], [1], ["a"], [[1, 2], [3]], [[1, 2]] * 4, [1e308] * 8, {}, {"a": 1}, {"size": [6, 8]}),
]


def places(value, place=()):
    """Every place in a JSON value, as the keys that lead there."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(deeper for key, one in inner for deeper in places(one, (*place, key)))]


def spoil(content, rng):
    """Change one thing somewhere."""
    *way, key = rng.choice([place for place in places(content) if place])
    parent = content
    for step in way:
        parent = parent[step]
    action = rng.randrange(4)
    if action == 0:
        del parent[key]
    elif action == 1 and isinstance(parent, list):
        parent.append(copy.deepcopy(parent[key]))
    elif action == 2 and isinstance(parent[key], int | float) and not isinstance(parent[key], bool):
        parent[key] = rng.choice([-1, 2, 1000, 0.1]) * parent[key]
    else:
        parent[key] = copy.deepcopy(rng.choice(STRANGE))


def use(name, root):
    """Read all that a training would, and a little more. Whatever is refused must be so in one printable line."""
    try:
        data = FORMATS[name](FORMATS[name].Config(root=root))
        data.check_labeled()
        for sample_id in (*data.labeled, *data.val):
            assert tuple(data.label(sample_id).shape) == SIZE
    except DataError as error:
        assert str(error).isprintable(), str(error)
        assert len(str(error)) < 2000
    FORMATS[name].recognises(root)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", CONTENTS)
def test_strange_values_anywhere(name, tmp_path):
    TREES[name](tmp_path)
    rng = random.Random(name)
    path, sound = CONTENTS[name]()
    for _ in range(120):
        content = copy.deepcopy(sound)
        for _ in range(rng.choice([1, 1, 1, 2, 5])):
            spoil(content, rng)
        write_json(tmp_path / path, content)
        use(name, tmp_path)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", CONTENTS)
def test_bytes_flipped_and_files_cut(name, tmp_path):
    TREES[name](tmp_path)
    rng = random.Random(name)
    path, sound = CONTENTS[name]()
    text = json.dumps(sound).encode()
    for turn in range(100):
        data = bytearray(text)
        for _ in range(rng.choice([1, 1, 3, 10])):
            data[rng.randrange(len(data))] = rng.choice(b'0123456789"[]{},:-e.\\ \x00\x80\xff')
        (tmp_path / path).write_bytes(data[: rng.randrange(len(data))] if turn % 5 == 0 else data)
        use(name, tmp_path)


@pytest.mark.parametrize("name", CONTENTS)
def test_nesting_without_end(name, tmp_path):
    TREES[name](tmp_path)
    path, sound = CONTENTS[name]()
    for depth in (70, 900, 985, 100_000):
        deep = "[" * depth + "]" * depth
        for place in places(sound)[1::13]:
            content = copy.deepcopy(sound)
            parent = content
            for step in place[:-1]:
                parent = parent[step]
            parent[place[-1]] = "DEEP"
            (tmp_path / path).write_text(json.dumps(content).replace('"DEEP"', deep))
            use(name, tmp_path)
