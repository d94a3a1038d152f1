import numpy as np
import pytest
from trees import CVAT_COLOURS, cvat_tree, encode, photo, put, write_lines

from des4.datasets import Cvat, CvatConfig, recognise
from des4.types import DataError


def load(root, **settings):
    return Cvat(CvatConfig(root=root, **settings))


def refusal(root, **settings):
    with pytest.raises(DataError) as error:
        load(root, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def label_map(root, *lines):
    write_lines(root / "labelmap.txt", ("# label:color_rgb:parts:actions", *lines))


def subset(root, name, *stems):
    write_lines(root / "ImageSets" / "Segmentation" / f"{name}.txt", stems)


@pytest.fixture
def root(tmp_path):
    cvat_tree(tmp_path)
    return tmp_path


def test_labels_are_classes_in_the_order_of_the_label_map(root):
    data = load(root)
    assert data.classes == tuple(CVAT_COLOURS) == ("background", "hand: left", "table")
    assert data.palette == tuple(CVAT_COLOURS.values())
    assert sorted((*data.labeled, *data.val)) == ["d", "day/a", "day/b c"]
    assert data.unlabeled == ("e",)
    assert data.label("day/a")[:, 1].tolist() == [2, 2, 2, 0, 0, 0]
    assert data.label("day/a")[0, 0] == 1


def test_ignored_labels_are_no_classes(root):
    data = load(root, ignore=("background",))
    assert data.classes == ("hand: left", "table")
    assert data.label("day/a")[:, 1].tolist() == [1, 1, 1, 255, 255, 255]
    assert "no label 'sky', which data.ignore names; it has background, hand: left, table" in refusal(
        root, ignore=("sky",)
    )
    assert "leaves 1 classes" in refusal(root, ignore=("background", "table"))


def test_subsets_say_who_is_who(root):
    put(root / "SegmentationClass" / "e.png", (root / "SegmentationClass" / "d.png").read_bytes())
    (root / "ImageSets" / "Segmentation" / "default.txt").unlink()
    subset(root, "Train", "day/a")
    subset(root, "Validation", '"day/b c"')
    subset(root, "Test", "e")
    data = load(root)
    assert (data.labeled, data.unlabeled, data.val) == (("d", "day/a"), (), ("day/b c",))
    (root / "SegmentationClass" / "day" / "a.png").unlink()
    assert load(root).unlabeled == ("day/a",)


def test_val_images_that_are_not_annotated_are_neither_scored_nor_trained_on(root):
    subset(root, "val", "d", "e")
    assert load(root).val == ("d",)
    assert "e" not in load(root).unlabeled


def test_an_empty_subset_is_no_mistake(root):
    put(root / "ImageSets" / "Segmentation" / "val.txt", b"")
    assert len(load(root).val) == 1


def test_images_may_lie_beside_the_export_or_elsewhere(root, tmp_path_factory):
    (root / "JPEGImages").rename(root / "images")
    assert recognise(root) == "cvat"
    assert len(load(root).labeled) == 2
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "photos"
    (root / "images").rename(elsewhere)
    assert "export holds no images" in refusal(root)
    assert len(load(root, images=elsewhere).labeled) == 2
    assert "no such folder of images" in refusal(root, images=root / "gone")


def test_a_palette_mask_is_read_by_its_colours(root):
    palette = tuple(reversed(CVAT_COLOURS.values()))
    put(root / "SegmentationClass" / "d.png", encode(np.full((6, 8), 2, np.uint8), palette=palette))
    data = load(root, val=write_lines(root / "v.txt", ("d",)))
    assert data.label("d").unique().tolist() == [0]


def test_pairs_name_masks_by_their_paths(root):
    pair = "JPEGImages/day/a.jpg\tSegmentationClass/d.png"
    data = load(root, labeled=write_lines(root / "l.txt", (pair,)), val=write_lines(root / "v.txt", ("day/b c",)))
    assert data.labeled == ("day/a",)
    assert data.mask("day/a").path == root / "SegmentationClass" / "d.png"
    assert set(data.unlabeled) == {"d", "e"}


def test_unknown_colours_are_named_with_their_place(root):
    mask = np.zeros((6, 8, 3), np.uint8)
    mask[5, 2] = (250, 50, 84)
    put(root / "SegmentationClass" / "d.png", encode(mask))
    data = load(root, val=write_lines(root / "v.txt", ("d",)))
    with pytest.raises(DataError, match=r"d.png: the colour \(250, 50, 84\) at row 5, column 2 stands for no class"):
        data.label("d")


def test_label_maps_that_cannot_be_read_are_refused(root):
    label_map(root, "background:0,0,0::", "unknown:0,0,0::", "table:61,245,61::", "hand: left:250,50,83::")
    assert "'background' and 'unknown' share the colour (0, 0, 0)" in refusal(root)
    assert load(root, ignore=("background", "unknown")).classes == ("table", "hand: left")
    label_map(root, "background:0,0,0::", "table:61,245::")
    assert "'table:61,245::' gives the label no colour" in refusal(root)
    label_map(root, "background:0,0,0::", "table:61,245,256::")
    assert "no colour" in refusal(root)
    label_map(root, "background:0,0,0::", "table:::")
    assert "no colour" in refusal(root)
    label_map(root, "background:0,0,0::", "table")
    assert "'table' is not a new label" in refusal(root)
    label_map(root, "background:0,0,0::", "background:1,1,1::")
    assert "is not a new label" in refusal(root)
    label_map(root)
    assert "leaves 0 classes" in refusal(root)
    (root / "labelmap.txt").unlink()
    assert "labelmap.txt: no such label map" in refusal(root)
    assert "no such data folder" in refusal(root / "gone")


def test_an_image_of_another_name_is_an_orphan(root):
    put(root / "SegmentationClass" / "f.png", (root / "SegmentationClass" / "d.png").read_bytes())
    assert "no image belongs to the mask 'f'" in refusal(root)
    put(root / "JPEGImages" / "f.jpg", photo(".jpg"))
    assert len({*load(root).labeled, *load(root).val}) == 4
