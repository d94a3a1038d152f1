from pathlib import Path

import numpy as np
import pytest
from trees import CITYSCAPES, CITYSCAPES_EXTRA, CITYSCAPES_KINDS, cityscapes_tree, encode, photo, put, write_lines

from des4.datasets import Cityscapes, CityscapesConfig
from des4.types import DataError

TRAIN, VAL = CITYSCAPES[:4], CITYSCAPES[4:6]
LISTS = Path(__file__).parents[4] / "shared" / "data" / "splits" / "cityscapes"

TRAIN_IDS = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10}
TRAIN_IDS |= {24: 11, 25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18}
"""labelIds → labelTrainIds, as the benchmark publishes them; the other numbers of 0-33 are ignored."""


def load(root, **settings):
    return Cityscapes(CityscapesConfig(root=root, **settings))


@pytest.fixture
def root(tmp_path):
    cityscapes_tree(tmp_path)
    return tmp_path


def test_the_splits_are_those_of_the_folders(root):
    data = load(root)
    assert (data.labeled, data.unlabeled, data.val) == (TRAIN, (), VAL)
    assert len(data.classes) == len(set(data.palette)) == 19
    assert (data.classes[0], data.classes[13], data.classes[18]) == ("road", "car", "bicycle")
    assert data.palette[13] == (0, 0, 142)
    assert data.label(TRAIN[0])[:, 1].tolist() == [0, 0, 0, 13, 13, 13]
    assert data.label(VAL[0])[0, 0] == 255


def test_train_images_without_a_mask_are_unlabeled_and_train_extra_joins_when_asked(root):
    (root / "gtFine" / f"{TRAIN[1]}_gtFine_labelIds.png").unlink()
    assert load(root).labeled == (TRAIN[0], *TRAIN[2:])
    assert load(root).unlabeled == (TRAIN[1],)
    assert load(root, train_extra=True).unlabeled == (TRAIN[1], *CITYSCAPES_EXTRA)


def test_every_number_becomes_its_train_id_whichever_file_is_there(root):
    numbers = np.resize(np.arange(34, dtype=np.uint8), (6, 8))
    expected = np.array([TRAIN_IDS.get(number, 255) for number in range(34)], np.uint8)[numbers]
    put(root / "gtFine" / f"{TRAIN[0]}_gtFine_labelIds.png", encode(numbers))
    assert load(root).label(TRAIN[0]).tolist() == expected.tolist()
    put(root / "gtFine" / f"{TRAIN[0]}_gtFine_labelTrainIds.png", encode(expected))
    assert load(root).mask(TRAIN[0]).path.name.endswith("labelTrainIds.png")
    assert load(root).label(TRAIN[0]).tolist() == expected.tolist()
    (root / "gtFine" / f"{TRAIN[0]}_gtFine_labelIds.png").unlink()
    assert load(root).label(TRAIN[0]).tolist() == expected.tolist()


def test_numbers_that_cityscapes_does_not_have_are_refused_and_255_is_ignored(root):
    mask = np.full((6, 8), 7, np.uint8)
    mask[3, 5] = 255
    put(root / "gtFine" / f"{TRAIN[0]}_gtFine_labelIds.png", encode(mask))
    assert load(root).label(TRAIN[0])[3, 5] == 255
    mask[2, 1] = 34
    put(root / "gtFine" / f"{TRAIN[0]}_gtFine_labelIds.png", encode(mask))
    with pytest.raises(DataError, match=r"aachen_000000_000019_gtFine_labelIds\.png: the number 34 at row 2, column 1"):
        load(root).label(TRAIN[0])


def test_the_masks_of_test_are_no_masks(root):
    assert (root / "gtFine" / f"{CITYSCAPES[6]}_gtFine_labelIds.png").is_file()
    assert load(root, unlabeled=write_lines(root / "u.txt", CITYSCAPES[6:])).unlabeled == CITYSCAPES[6:]
    with pytest.raises(DataError, match="has no mask"):
        load(root, labeled=write_lines(root / "l.txt", CITYSCAPES[6:]))


def test_lists_name_images_as_they_are_published(root):
    forms = (
        "{0}",
        "leftImg8bit/{0}_leftImg8bit.png",
        "leftImg8bit/{0}_leftImg8bit.png gtFine/{0}_gtFine_labelTrainIds.png",
        "/leftImg8bit/{0}_leftImg8bit.png\t/gtFine/{0}_gtFine_labelTrainIds.png",
    )
    for form in forms:
        data = load(root, labeled=write_lines(root / "l.txt", [form.format(name) for name in TRAIN[1:3]]))
        assert data.labeled == TRAIN[1:3]
        assert set(data.unlabeled) == {TRAIN[0], TRAIN[3]}
        data.check_labeled()


def test_mistakes_in_the_tree_are_named(root):
    with pytest.raises(DataError, match="no such data folder"):
        load(root / "gone")
    with pytest.raises(DataError, match=r"leftImg8bit/leftImg8bit: no such data folder; .* leftImg8bit/ and gtFine/"):
        load(root / "leftImg8bit")
    with pytest.raises(DataError, match=r"no image 'leftImg8bit/train/x/x_leftImg8bit\.png'"):
        load(root, labeled=write_lines(root / "l.txt", ("leftImg8bit/train/x/x_leftImg8bit.png",)))
    for name in CITYSCAPES_EXTRA:
        (root / "leftImg8bit" / f"{name}_leftImg8bit.png").unlink()
        (root / "leftImg8bit" / name).parent.rmdir()
    (root / "leftImg8bit" / "train_extra").rmdir()
    with pytest.raises(DataError, match="train_extra: no such folder"):
        load(root, train_extra=True)
    (root / "leftImg8bit" / f"{TRAIN[0]}_leftImg8bit.png").unlink()
    with pytest.raises(DataError, match="no image belongs to the mask 'train/aachen/aachen_000000_000019'"):
        load(root)
    put(root / "leftImg8bit" / f"{TRAIN[0]}_leftImg8bit.png", photo(".png"))
    assert len(load(root).labeled) == 4


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    if not LISTS.is_dir():
        pytest.skip("the published lists are not here")
    names = set()
    for path in LISTS.glob("*/**/*.txt"):
        images = [line.split()[0] for line in path.read_text().splitlines() if line]
        names |= {image.removeprefix("leftImg8bit/").removesuffix("_leftImg8bit.png") for image in images}
    root = tmp_path_factory.mktemp("cityscapes")
    cityscapes_tree(root, sorted(names), kinds=("labelIds.png",))
    return root


def test_the_published_tree_has_the_published_numbers_of_images(published):
    data = load(published)
    assert (len(data.labeled), len(data.unlabeled), len(data.val)) == (2975, 0, 500)


@pytest.mark.parametrize("path", sorted(LISTS.glob("*/*/labeled.txt")), ids=lambda path: "/".join(path.parts[-3:-1]))
def test_published_lists_are_read_unchanged(published, path):
    data = load(published, labeled=path, unlabeled=path.with_name("unlabeled.txt"), val=path.parents[1] / "val.txt")
    assert len(data.labeled) == len([line for line in path.read_text().splitlines() if line])
    assert {*data.labeled, *data.unlabeled} == set(data.catalogue.unlabeled)
    assert len(data.val) == 500
    data.label(data.labeled[0])


def test_the_builder_lays_out_what_the_download_holds(root):
    assert {path.name.split("_gtFine_")[1] for path in (root / "gtFine" / "train").rglob("*.*")} == {*CITYSCAPES_KINDS}
