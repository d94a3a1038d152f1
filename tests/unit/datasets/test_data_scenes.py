import pytest
import torch
from pydantic import ValidationError

from des4.datasets import Scenes, ScenesConfig, pixel_counts
from des4.datasets.scenes import draw_scene
from des4.types import DataError

CONFIG = ScenesConfig(labeled=12, unlabeled=4, val=3, size=64)


def test_the_ids_follow_the_config():
    data = Scenes(CONFIG)
    assert (len(data.labeled), len(data.unlabeled), len(data.val)) == (12, 4, 3)
    assert (data.labeled[0], data.unlabeled[0], data.val[2]) == ("train/00000", "train/00012", "val/00002")
    assert len(data.classes) == len(set(data.palette)) == 8


@pytest.mark.parametrize("size", [32, 64, 161])
def test_a_scene_has_the_promised_shape(size):
    data = Scenes(ScenesConfig(size=size))
    image, label = data.image("val/00001"), data.label("val/00001")
    assert (image.shape, image.dtype) == ((3, size, size), torch.uint8)
    assert (label.shape, label.dtype) == ((size, size), torch.uint8)
    assert label.max() < len(data.classes)


def test_a_scene_depends_on_seed_split_and_index_alone():
    before = draw_scene(0, "train", 3, 64)
    draw_scene.cache_clear()
    draw_scene(0, "train", 2, 64)
    again = draw_scene(0, "train", 3, 64)
    assert torch.equal(before[0], again[0])
    assert torch.equal(before[1], again[1])
    for other in ((1, "train", 3), (0, "val", 3), (0, "train", 4)):
        assert not torch.equal(before[0], draw_scene(*other, 64)[0])


def test_writing_to_what_was_read_spoils_nothing():
    data = Scenes(CONFIG)
    data.image("val/00000").zero_()
    data.label("val/00000").zero_()
    assert data.image("val/00000").any()
    assert data.label("val/00000").any()


def test_the_tail_is_long_but_in_sight():
    data = Scenes(ScenesConfig(labeled=80, size=64))
    share = pixel_counts(data, data.labeled) / (80 * 64 * 64)
    assert share.sum() == pytest.approx(1)
    assert share.max() > 0.25
    assert 0.001 < share.min() < 0.01
    masks = [data.label(sample_id) for sample_id in data.labeled]
    for rare in ("boat", "sheep"):
        present = sum(bool((mask == data.classes.index(rare)).any()) for mask in masks)
        assert present >= 0.25 * len(masks), rare


def test_every_labeled_draw_of_the_default_shows_every_class():
    data = Scenes(ScenesConfig())
    assert (pixel_counts(data, data.labeled) > 0).all()


def test_unknown_ids_and_settings_are_refused():
    with pytest.raises(DataError, match="val/00003"):
        Scenes(CONFIG).image("val/00003")
    with pytest.raises(ValidationError):
        ScenesConfig(labeled=0)
