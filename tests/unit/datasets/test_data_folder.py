import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from trees import refusal_of

from des4.data import Loader, ViewsConfig
from des4.datasets import Folder, FolderConfig, pixel_counts, recognise
from des4.datasets.files import share_for_val
from des4.datasets.palettes import distinct_palette, voc_palette
from des4.types import DataError, ViewSpec

CAMVID = Path(__file__).parents[4] / "shared" / "data"


def put(root, sample_id, mask=None, size=(6, 8), suffix=".png"):
    """Write an image of one grey and, if `mask` is given, its mask: an array, or a class to fill it with."""
    image = root / "images" / f"{sample_id}{suffix}"
    image.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), 100, np.uint8)).save(image)
    if mask is not None:
        path = root / "masks" / f"{sample_id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        array = np.full(size, mask, np.uint8) if isinstance(mask, int) else mask
        Image.fromarray(array).save(path)


@pytest.fixture
def root(tmp_path):
    """Two labeled, two unlabeled, one val image; three classes by name."""
    (tmp_path / "classes.txt").write_text("road\ntraffic light\nsky\n")
    put(tmp_path, "train/a", 0)
    put(tmp_path, "train/b", 2, suffix=".jpg")
    put(tmp_path, "train/c")
    put(tmp_path, "d.e")
    put(tmp_path, "val/f", 1)
    return tmp_path


def write(path, *lines):
    path.write_text("\n".join(lines))
    return path


def load(root, **settings):
    return Folder(FolderConfig(root=root, **settings))


def refusal(root, **settings):
    return refusal_of(lambda: load(root, **settings))


def test_without_lists_the_folder_says_who_is_who(root):
    data = load(root)
    assert data.classes == ("road", "traffic light", "sky")
    assert data.labeled == ("train/a", "train/b")
    assert data.unlabeled == ("d.e", "train/c")
    assert data.val == ("val/f",)
    assert data.notes == ()
    assert data.image("train/b").shape == (3, 6, 8)
    assert data.label("train/b").unique().tolist() == [2]
    data.check_labeled()


def test_lists_in_the_root_are_used_and_the_config_goes_before_them(root):
    write(root / "labeled.txt", "train/b")
    write(root / "val.txt", "val/f", "train/a")
    assert load(root).labeled == ("train/b",)
    assert load(root).unlabeled == ("d.e", "train/c")
    assert load(root).val == ("val/f", "train/a")
    other = write(root / "other.txt", "train/c")
    assert load(root, unlabeled=other).unlabeled == ("train/c",)


def test_an_unlabeled_list_takes_its_images_from_the_labeled(root):
    assert load(root, unlabeled=write(root / "u.txt", "train/b")).labeled == ("train/a",)


def test_pairs_name_files_anywhere_in_the_root(tmp_path):
    put(tmp_path, "a", 0)
    put(tmp_path, "b", 1)
    put(tmp_path, "c")
    (tmp_path / "images").rename(tmp_path / "pictures")
    (tmp_path / "masks").rename(tmp_path / "truth")
    labeled = write(tmp_path / "labeled.txt", "pictures/a.png truth/a.png")
    write(tmp_path / "val.txt", "pictures/b.png truth/b.png")
    write(tmp_path / "unlabeled.txt", "pictures/c.png truth/c.png")  # as published; there is no such mask
    data = load(tmp_path, labeled=labeled)
    assert (data.labeled, data.val, data.unlabeled) == (("pictures/a",), ("pictures/b",), ("pictures/c",))
    assert data.label("pictures/b").unique().tolist() == [1]


def test_pairs_and_stems_of_one_image_have_one_id(root):
    pair = write(root / "p.txt", "images/train/b.jpg masks/train/b.png")
    assert load(root, labeled=pair).labeled == ("train/b",)


def test_val_is_drawn_from_the_labeled_where_nothing_names_it(tmp_path):
    for number in range(10):
        put(tmp_path, f"{number}", number % 3)
    data = load(tmp_path)
    assert len(data.val) == 3
    assert sorted((*data.labeled, *data.val)) == [str(number) for number in range(10)]
    assert data.val == load(tmp_path).val
    assert any("3 of the 10" in note for note in data.notes)
    assert any(set(load(tmp_path, val_seed=seed).val) != set(data.val) for seed in range(1, 4))
    assert len(load(tmp_path, val_fraction=0.5).val) == 5
    assert [share_for_val(masks) for masks in (2, 100, 150, 1000)] == [0.3, 0.2, 0.13, 0.1]


def test_a_drawn_val_set_leaves_an_image_to_train_on(tmp_path):
    put(tmp_path, "a", 0)
    put(tmp_path, "b", 1)
    data = load(tmp_path, val_fraction=0.9)
    assert (len(data.labeled), len(data.val)) == (1, 1)


def test_classes_are_counted_where_nothing_names_them(root):
    (root / "classes.txt").unlink()
    assert load(root).classes == ("class_0", "class_1", "class_2")
    assert "counted" in load(root).notes[0]
    assert len(load(root, num_classes=7).classes) == 7


def test_the_mask_of_an_unlabeled_image_is_never_opened(root):
    put(root, "train/c", 0)
    put(root, "g", 0)
    for stem in ("train/c", "g"):
        (root / "masks" / f"{stem}.png").write_text("whoever opens this fails")
    write(root / "labeled.txt", "train/a", "train/b")
    (root / "classes.txt").unlink()
    opened, watching = [], True

    def watch(event, arguments):
        if watching and event == "open":
            opened.append(str(arguments[0]))

    sys.addaudithook(watch)
    data = load(root)
    data.check_labeled()
    pixel_counts(data, data.labeled)
    loader = Loader(
        data,
        ViewsConfig(crop_size=4),
        ViewSpec(strong=1),
        labeled_batch=2,
        unlabeled_batch=3,
        seed=0,
        workers=0,
        fill=(0, 0, 0),
    )
    for step in range(3):
        loader[step]
    watching = False
    assert "train/c" in data.unlabeled
    assert any(path.endswith("images/train/c.png") for path in opened)
    assert any(path.endswith("masks/train/a.png") for path in opened)
    assert not [path for path in opened if path.endswith(("masks/train/c.png", "masks/g.png"))]
    with pytest.raises(DataError, match="neither a labeled nor a val image"):
        data.label("train/c")


def test_labels_beyond_the_classes_are_refused_and_ignored_ones_are_not(root):
    mask = np.zeros((6, 8), np.uint8)
    mask[0, 0], mask[1, 1] = 255, 3
    put(root, "train/a", mask)
    assert "label 3 is neither one of the 3 classes" in refusal(root)
    mask[1, 1] = 2
    put(root, "train/a", mask)
    assert pixel_counts(load(root), ["train/a"]).tolist() == [46, 0, 1]


def test_a_size_mismatch_is_refused_before_training(root):
    Image.fromarray(np.zeros((8, 6), np.uint8)).save(root / "masks" / "train" / "a.png")
    data = load(root)
    with pytest.raises(DataError, match=r"masks/train/a\.png: is 6×8 pixels, its image a\.png is 8×6"):
        data.check_labeled()
    with pytest.raises(DataError, match="6×8"):
        data.label("train/a")


def test_a_rotated_image_with_a_mask_is_refused(root):
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(root / "images" / "train" / "b.jpg", exif=exif)
    assert "EXIF" in refusal(root)


def test_mistakes_in_the_folder_are_named(root):
    assert "no such data folder" in refusal(root / "gone")
    assert "no such data folder" in refusal(root / ("x" * 5000))
    assert recognise(root / ("x" * 5000)) == "folder"
    assert "'val/f' is both labeled and val" in refusal(root, labeled=write(root / "l.txt", "val/f", "train/a"))
    assert "'val/f' is both unlabeled and val" in refusal(root, unlabeled=write(root / "u.txt", "val/f"))
    assert "'train/c' has no mask" in refusal(root, labeled=write(root / "l.txt", "train/c"))
    assert "no image 'train/x'" in refusal(root, labeled=write(root / "l.txt", "train/x"))
    assert "listed twice" in refusal(root, labeled=write(root / "l.txt", "train/a", "images/train/a.png"))
    assert "is empty" in refusal(root, labeled=write(root / "l.txt", ""))
    assert "names 3 classes, expected 4" in refusal(root, num_classes=4)
    put(root, "train/b", 2)
    assert "same stem as" in refusal(root)
    (root / "images" / "train" / "b.jpg").unlink()
    Image.fromarray(np.zeros((6, 8), np.uint8)).save(root / "masks" / "train" / "a_mask.png")
    assert "a_mask.png: no image" in refusal(root)


def test_mistakes_in_the_masks_are_named(root):
    put(root, "train/a", np.full((6, 8, 3), (9, 0, 0), np.uint8))
    data = load(root)
    with pytest.raises(DataError, match="in colour"):
        data.label("train/a")
    (root / "masks" / "train" / "a.png").write_bytes(b"")
    assert "cannot be read" in refusal(root)
    put(root, "train/a", 255)
    put(root, "train/b", 0, suffix=".jpg")
    put(root, "val/f", 0)
    (root / "classes.txt").unlink()
    assert "no class but 0" in refusal(root)


def test_folders_without_training_masks_are_refused(tmp_path):
    assert "holds no images; put them in images/" in refusal(tmp_path)
    assert f"{tmp_path} holds no images; mend data.images" in refusal(tmp_path, images=tmp_path)
    put(tmp_path, "a")
    assert "no image has a mask for training; put masks in masks/" in refusal(tmp_path)
    for name in ("masks/a.npy", "masks/b.npy", "masks/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert "masks/ holds 2 .npy files, which no reader knows; save masks as PNGs" in refusal(tmp_path)
    put(tmp_path, "a", 1)
    assert "one labeled image cannot serve" in refusal(tmp_path)


def test_images_in_another_place_are_named(tmp_path):
    for name in ("a.jpg", "a_mask.png", "notes.txt", ".hidden.jpg"):
        (tmp_path / name).touch()
    assert "its 2 image files lie in the folder itself, none in images/; put images into images/" in refusal(tmp_path)
    parts = tmp_path / "parts"
    for name in ("train/images", "train/masks", "val/images", "val/masks"):
        (parts / name).mkdir(parents=True)
    told = refusal(parts)
    assert "its images lie in train/images/, val/images/; make these images/train/, images/val/" in told
    assert told.endswith("and their masks masks/train/, masks/val/")


def test_a_suffix_that_no_mask_has_is_named(root):
    told = refusal(root, mask_suffix="_gt")
    assert "no mask's name ends in '_gt', the first is a.png; mend data.mask_suffix" in told


def test_a_relative_root_counts_from_where_the_command_is_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refusal(Path("gone")).startswith(
        "gone: no such data folder; give data=FOLDER, the folder that holds images/"
    )
    assert f"a relative path counts from {tmp_path}" in refusal(Path("gone"))


def test_settings_are_checked():
    for wrong in ({"val_fraction": 1}, {"num_classes": 1}, {"rooot": "x"}):
        with pytest.raises(ValidationError):
            FolderConfig(root="x", **wrong)


def test_the_palette_is_the_one_of_voc_and_has_no_repeats():
    assert voc_palette(22)[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert voc_palette(22)[20:] == ((0, 64, 128), (128, 64, 128))
    assert len(set(voc_palette(255))) == 255


def test_colours_that_nobody_gave_can_be_told_apart():
    twenty = distinct_palette([f"class_{index}" for index in range(20)])
    gaps = [np.abs(np.subtract(one, other)).sum() for i, one in enumerate(twenty) for other in twenty[:i]]
    assert min(gaps) > 64  # of 0-765; what it is of VOC's first twenty
    many = distinct_palette([f"class_{index}" for index in range(255)])
    assert (many[:20], len(set(many))) == (twenty, 255)
    assert distinct_palette(["Background", "crack"]) == ((0, 0, 0), twenty[0])
    assert distinct_palette([]) == ()


@pytest.mark.skipif(not (CAMVID / "camvid").is_dir(), reason="CamVid is not here")
def test_camvid_with_its_lists():
    lists = CAMVID / "splits" / "camvid"
    data = load(
        CAMVID / "camvid",
        labeled=lists / "1_8" / "labeled.txt",
        unlabeled=lists / "1_8" / "unlabeled.txt",
        val=lists / "val.txt",
    )
    assert (len(data.labeled), len(data.unlabeled), len(data.val)) == (46, 321, 101)
    assert len(data.classes) == 11
    data.check_labeled()
    counts = pixel_counts(data, data.labeled[:8])
    assert counts.dtype == torch.int64
    assert 0 < counts.sum() <= 8 * 360 * 480
    alone = load(CAMVID / "camvid", labeled=lists / "1_8" / "labeled.txt")
    assert (set(alone.unlabeled), set(alone.val)) == (set(data.unlabeled), set(data.val))


def test_masks_of_unlabeled_images_are_opened_only_when_they_are_revealed(root):
    put(root, "train/g", 1)
    put(root, "train/h")
    Image.fromarray(np.full((6, 8), 2, np.uint8)).save(root / "elsewhere.png")
    write(root / "unlabeled.txt", "train/c", "train/g", "images/train/h.png elsewhere.png")
    data = load(root)
    with pytest.raises(DataError, match="its mask is not read"):
        data.label("train/g")
    assert data.reveal() == ("train/g", "train/h")
    assert data.label("train/g").unique().tolist() == [1]
    assert data.label("train/h").unique().tolist() == [2]
    with pytest.raises(DataError, match="its mask is not read"):
        data.label("train/c")
    assert data.labeled == ("train/a", "train/b")
