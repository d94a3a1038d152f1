from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from trees import CAMVID, camvid_tree, encode, photo, put, write_lines

from des4.datasets import Camvid, CamvidConfig
from des4.datasets.camvid import _CLASSES, _NO_CLASS, _split
from des4.types import DataError

SHARED = Path(__file__).parents[4] / "shared" / "data" / "camvid"

TRAIN = ("0001TP_006690", "0001TP_008520", "0006R0_f00930", "0016E5_00901", "0016E5_07920", "0016E5_08190")
VAL = ("0016E5_07959", "0016E5_08159")
TEST = ("0001TP_008550", "Seq05VD_f00000")


def load(root, **settings):
    return Camvid(CamvidConfig(root=root, **settings))


@pytest.fixture
def root(tmp_path):
    camvid_tree(tmp_path)
    return tmp_path


def test_frames_are_split_by_drive_and_number(root):
    data = load(root)
    assert (data.labeled, data.unlabeled, data.val) == (TRAIN, (), VAL)
    assert load(root, val_split="test").val == TEST
    assert load(root, val_split="test").labeled == TRAIN
    assert sorted((*TRAIN, *VAL, *TEST)) == sorted(CAMVID)


def test_colours_become_the_eleven_classes(root):
    data = load(root)
    assert data.classes == (
        *("sky", "building", "pole", "road", "pavement", "tree"),
        *("sign", "fence", "car", "pedestrian", "bicyclist"),
    )
    assert data.palette[3] == (128, 64, 128)
    label = data.label(TRAIN[0])  # sky over the shoulder of the road, a trolley in the corner
    assert label[:, 1].tolist() == [0, 0, 0, 3, 3, 3]
    assert label[0, 0] == 255


def test_there_are_thirty_two_colours_and_each_has_one_meaning(root):
    colours = [*(colour for group in _CLASSES.values() for colour in group.values()), *_NO_CLASS.values()]
    assert len(set(colours)) == len(colours) == 32
    put(
        root / "LabeledApproved_full" / "0001TP_006690_L.png",
        encode(np.array([*colours, *16 * [(0, 0, 0)]], np.uint8).reshape(6, 8, 3)),
    )
    expected = [index for index, group in enumerate(_CLASSES.values()) for _ in group]
    assert load(root).label("0001TP_006690").flatten().tolist() == expected + (48 - len(expected)) * [255]


def test_other_colours_are_refused_with_their_place(root):
    mask = np.full((6, 8, 3), 128, np.uint8)
    mask[4, 7] = 129
    put(root / "LabeledApproved_full" / "0001TP_006690_L.png", encode(mask))
    with pytest.raises(DataError, match=r"006690_L.png: the colour \(129, 129, 129\) at row 4, column 7"):
        load(root).label("0001TP_006690")


def test_frames_without_a_mask_are_unlabeled_and_lists_name_frames(root):
    (root / "LabeledApproved_full" / "0016E5_00901_L.png").unlink()
    assert load(root).unlabeled == ("0016E5_00901",)
    pair = "701_StillsRaw_full/0001TP_006690.png LabeledApproved_full/0001TP_006690_L.png"
    data = load(root, labeled=write_lines(root / "l.txt", (pair, "0006R0_f00930")))
    assert data.labeled == ("0001TP_006690", "0006R0_f00930")
    assert set(data.unlabeled) == set(TRAIN) - set(data.labeled)


def test_other_pictures_among_the_frames_are_named(root):
    put(root / "701_StillsRaw_full" / "IMG_0001.png", photo(".png"))
    with pytest.raises(DataError, match=r"IMG_0001.png: is not named as a frame of CamVid"):
        load(root)


@pytest.mark.skipif(not SHARED.is_dir(), reason="CamVid is not here")
def test_the_split_is_that_of_the_eleven_class_form():
    for split in ("train", "val"):
        frames = [path.stem for path in (SHARED / "images" / split).iterdir()]
        assert Counter(_split(frame, Path(frame)) for frame in frames) == {split: {"train": 367, "val": 101}[split]}
    assert tuple(_CLASSES) == tuple((SHARED / "classes.txt").read_text().split())
