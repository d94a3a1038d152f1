import os
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trees import VOC_DETECTION, VOC_SBD, VOC_TRAIN, VOC_VAL, encode, photo, put, voc_tree, write_lines

from des4.datasets import Voc, VocConfig, pixel_counts, recognise
from des4.images.pictures import read_header
from des4.types import DataError

SHARED = Path(__file__).parents[4] / "shared" / "data"
LISTS = sorted((SHARED / "splits" / "pascal").glob("*/*/labeled.txt"))


def load(root, **settings):
    return Voc(VocConfig(root=root, **settings))


def refusal(root, **settings):
    with pytest.raises(DataError) as error:
        load(root, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def root(tmp_path):
    voc_tree(tmp_path)
    return tmp_path


def test_with_the_masks_of_sbd_every_image_but_val_is_labeled(root):
    data = load(root)
    assert data.labeled == tuple(sorted(VOC_TRAIN + VOC_SBD))
    assert data.unlabeled == ()
    assert data.val == VOC_VAL
    assert len(data.classes) == 21
    assert (data.classes[0], data.classes[20]) == ("background", "tvmonitor")
    assert data.palette[15] == (192, 128, 128)  # person
    assert any("SegmentationClassAug" in note for note in data.notes)
    data.check_labeled()


def test_without_them_the_images_of_sbd_are_unlabeled(root):
    data = load(root, masks="SegmentationClass")
    assert data.labeled == VOC_TRAIN
    assert data.unlabeled == VOC_SBD
    assert data.val == VOC_VAL


def test_a_tree_without_sbd_reads_the_masks_of_voc(tmp_path):
    voc_tree(tmp_path, aug=False)
    data = load(tmp_path)
    assert (data.labeled, data.val, data.unlabeled) == (VOC_TRAIN, VOC_VAL, ())
    write_lines(
        tmp_path / "ImageSets" / "Segmentation" / "train_aug.txt", [f"/JPEGImages/{i}.jpg /x/{i}.png" for i in VOC_SBD]
    )
    assert load(tmp_path).unlabeled == VOC_SBD


def test_detection_images_join_when_asked_and_val_never_does(root):
    assert load(root, detection_images=True).unlabeled == VOC_DETECTION
    one = write_lines(root / "one.txt", VOC_TRAIN[:1])
    assert set(load(root, labeled=one).unlabeled) == set(VOC_TRAIN[1:] + VOC_SBD)
    everything = load(root, labeled=one, detection_images=True)
    assert set(everything.unlabeled) == set(VOC_TRAIN[1:] + VOC_SBD + VOC_DETECTION)
    own_val = load(root, val=write_lines(root / "v.txt", VOC_TRAIN[:1]))
    assert not set(VOC_VAL) & {*own_val.labeled, *own_val.unlabeled}


def test_val_images_that_a_list_trains_on_are_noted(root):
    data = load(
        root, labeled=write_lines(root / "l.txt", VOC_VAL), val=write_lines(root / "v.txt", VOC_TRAIN), unlabeled=None
    )
    assert any("2 of VOC's val images" in note for note in data.notes)
    assert "both labeled and val" in refusal(root, labeled=root / "l.txt")


def test_palette_and_index_masks_of_an_image_are_the_same(root):
    own, aug = load(root, masks="SegmentationClass"), load(root)
    assert own.label("2007_000032").tolist() == aug.label("2007_000032").tolist()
    assert own.label("2007_000032")[0, :2].tolist() == [255, 1]
    assert aug.label("2008_000002")[5].unique().tolist() == [15]
    (root / "SegmentationClass" / "2007_000032.png").unlink()
    assert load(root).label("2007_000032").tolist() == own.catalogue.masks["2007_000039"].read().tolist()


def test_voc_s_own_mask_goes_before_that_of_sbd(root):
    put(root / "SegmentationClassAug" / "2007_000033.png", encode(np.full((6, 8), 3, np.uint8)))
    assert load(root).label("2007_000033").unique().tolist() == [1, 20, 255]


def test_the_tree_may_lie_deeper(tmp_path):
    voc_tree(tmp_path / "VOCdevkit" / "VOC2012")
    for root in (tmp_path, tmp_path / "VOCdevkit", tmp_path / "VOCdevkit" / "VOC2012"):
        assert recognise(root) == "voc"
        assert load(root).val == VOC_VAL


def test_pairs_of_published_lists_find_the_mask_by_its_id(root):
    (root / "SegmentationClass" / "2008_000008.png").unlink()
    forms = (
        "{0}",
        "JPEGImages/{0}.jpg SegmentationClass/{0}.png",
        "/JPEGImages/{0}.jpg /SegmentationClassAug/{0}.png",
        "VOC2012/JPEGImages/{0}.jpg\tVOC2012/SegmentationClass/{0}.png",
    )
    for form in forms:
        path = write_lines(root / "list.txt", [form.format(sample_id) for sample_id in ("2008_000008", "2008_000002")])
        data = load(root, labeled=path)
        assert data.labeled == ("2008_000008", "2008_000002")
        assert pixel_counts(data, data.labeled).sum() == 95


def test_hidden_files_do_not_hide_voc(root, monkeypatch):
    put(root / "JPEGImages" / f"._{VOC_VAL[0]}.jpg", b"of another system")
    scandir = os.scandir
    by_name = lambda folder: nullcontext(sorted(scandir(folder), key=lambda entry: entry.name))  # noqa: E731
    monkeypatch.setattr("des4.datasets.voc.os.scandir", by_name)  # the hidden one comes first, as on some disks
    assert Voc.recognises(root)


def test_data_of_one_s_own_in_voc_s_layout_is_not_taken_for_voc(tmp_path):
    voc_tree(tmp_path, train=("dog1", "dog2"), val=("dog3",), sbd=(), detection=(), aug=False)
    assert not Voc.recognises(tmp_path)
    assert recognise(tmp_path) == "folder"


def test_voc_s_images_annotated_in_cvat_are_not_taken_for_voc(root):
    write_lines(root / "labelmap.txt", ("background:0,0,0::", "wheel:128,0,0::"))
    assert not Voc.recognises(root)
    assert recognise(root) == "cvat"


def test_mistakes_in_the_tree_are_named(root):
    assert "no such data folder" in refusal(root / "gone")
    (root / "empty").mkdir()
    assert "is no Pascal VOC 2012 tree" in refusal(root / "empty")
    assert "no image '2007_111111'" in refusal(root, labeled=write_lines(root / "l.txt", ("2007_111111",)))
    assert "'2007_000027' has no mask" in refusal(root, labeled=write_lines(root / "l.txt", ("2007_000027",)))
    (root / "JPEGImages" / "2007_000042.jpg").unlink()
    assert "no image belongs to the mask '2007_000042'" in refusal(root)
    put(root / "JPEGImages" / "2007_000042.jpg", photo(".jpg"))
    (root / "ImageSets" / "Segmentation" / "val.txt").unlink()
    assert "val.txt: no such list" in refusal(root)
    assert load(root, val=write_lines(root / "v.txt", VOC_VAL)).val == VOC_VAL
    (root / "empty").rmdir()
    for mask in (root / "SegmentationClassAug").iterdir():
        mask.unlink()
    (root / "SegmentationClassAug").rmdir()
    assert "no such folder of masks" in refusal(root, masks="SegmentationClassAug", val=root / "v.txt")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """All names of VOC 2012 and SBD with the real masks, and images without content."""
    if not (SHARED / "voc_masks").is_dir():
        pytest.skip("the masks of VOC are not here")
    root = tmp_path_factory.mktemp("voc")
    (root / "SegmentationClassAug").symlink_to(SHARED / "voc_masks")
    ids = sorted(path.stem for path in (SHARED / "voc_masks").iterdir())
    (root / "JPEGImages").mkdir()
    for sample_id in ids:
        (root / "JPEGImages" / f"{sample_id}.jpg").touch()
    lists = SHARED / "splits" / "pascal" / "u2pl"
    for name, path in (("val", lists / "val.txt"), ("train", lists / "1464" / "labeled.txt")):
        put(root / "ImageSets" / "Segmentation" / f"{name}.txt", path.read_bytes())
    return root


def test_the_published_tree_has_the_published_numbers_of_images(published):
    data = load(published)
    assert (len(data.labeled), len(data.unlabeled), len(data.val)) == (10582, 0, 1449)
    few = load(published, labeled=SHARED / "splits" / "pascal" / "u2pl" / "92" / "labeled.txt")
    assert (len(few.labeled), len(few.unlabeled), len(few.val)) == (92, 10490, 1449)


@pytest.mark.parametrize("path", LISTS, ids=lambda path: "/".join(path.parts[-3:-1]))
def test_published_lists_are_read_unchanged(published, path):
    data = load(published, labeled=path, unlabeled=path.with_name("unlabeled.txt"))
    lines = [line for line in path.read_text().splitlines() if line]
    assert data.labeled == tuple(Path(line.split()[0]).stem for line in lines)
    assert {*data.labeled, *data.unlabeled} == set(data.catalogue.unlabeled)


def test_the_real_masks_hold_the_classes_of_voc(published):
    data = load(published)
    seen = set()
    for sample_id in (*data.labeled[:100], *data.val[:60]):
        image = data.image_file(sample_id)
        Image.new("RGB", read_header(data.mask(sample_id).path).size[::-1]).save(image)
        seen |= set(data.label(sample_id).unique().tolist())
    assert seen == {*range(21), 255}
