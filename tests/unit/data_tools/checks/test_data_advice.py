from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from bad_files import encoded, good_folder, picture, put

from des4.config import load_config
from des4.data_tools.checks.advice import MEMORY, Machine, Setting, as_yaml, suggest, validations
from des4.data_tools.checks.check import check
from des4.data_tools.checks.survey import ClassCount, DataCheck
from des4.datasets import FolderConfig

CPU, GPU = Machine(None), Machine(80 << 30)


def data(sizes: dict[tuple[int, int], int], labeled: int = 100, unlabeled: int = 1000, val: int = 50) -> DataCheck:
    """Return the check of data with images of these sizes, (height, width) → count."""
    classes = tuple(
        ClassCount(name, {"labeled": n, "val": n}, {"labeled": 9, "val": 9}, name == "sign")
        for name, n in (("road", 900), ("tree", 90), ("sign", 10))
    )
    counts: Any = {"labeled": labeled, "unlabeled": unlabeled, "val": val}
    return DataCheck(FolderConfig(root=Path("photos")), counts, 0, classes, 0.0, sizes, ())


def values(done: DataCheck, machine: Machine) -> dict[str, Any]:
    return {setting.key: setting.value for setting in suggest(done, machine)}


SIZES = {
    "voc": {(375, 500): 700, (500, 375): 300},
    "cityscapes": {(1024, 2048): 3475},
    "camvid": {(360, 480): 468},
    "photos": {(3000, 4000): 10, (4000, 3000): 12},
    "chips": {(64, 64): 100},
    "tiny": {(3, 5): 1},
}


@pytest.mark.parametrize("machine", [CPU, GPU, Machine(8 << 30), Machine(1 << 28)], ids=str)
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("unlabeled", [0, 3, 100_000])
def test_every_suggestion_is_a_config_of_which_each_value_has_a_reason(sizes, machine, unlabeled):
    settings = suggest(data(sizes, unlabeled=unlabeled), machine)
    assert all(setting.reason for setting in settings)
    tree = yaml.safe_load(as_yaml(settings, "Where to begin\nwith photos"))
    config = load_config(tree)
    config.train.shares()
    config.train.total_steps(100, unlabeled)
    written = {f"{section}.{key}": value for section, keys in tree.items() for key, value in keys.items()}
    assert written == {s.key: str(s.value) if isinstance(s.value, Path) else s.value for s in settings}


def test_the_paper_s_settings_come_out_for_the_paper_s_data():
    voc, cityscapes = (values(data(SIZES[name], 1323, 9259), GPU) for name in ("voc", "cityscapes"))
    assert (voc["views.crop_size"], cityscapes["views.crop_size"]) == (513, 769)
    assert voc["views.scale"] == [0.5, 2.0]
    assert voc["train.steps"] == 40_000
    assert (voc["model.encoder"], voc["train.batch_size"], voc["optim.name"]) == ("resnet101", 16, "sgd")
    assert "eval.mode" not in voc
    assert (cityscapes["eval.mode"], cityscapes["eval.window"]) == ("sliding", 769)


def test_a_machine_without_gpu_gets_what_was_trained_on_camvid():
    camvid = values(data(SIZES["camvid"], 46, 321), CPU)
    assert camvid["views.crop_size"] == 129
    assert camvid["views.scale"] == [0.3, 0.6]
    assert camvid["eval.resize"] == 0.5
    assert (camvid["model.encoder"], camvid["model.weights"], camvid["model.channels"]) == (
        "tf_efficientnet_lite0", "package", 64,
    )  # fmt: skip
    assert (camvid["optim.name"], camvid["train.batch_size"], camvid["train.steps"]) == ("adamw", 4, 3300)


def test_memory_decides_about_parts_and_encoder():
    pair = MEMORY["resnet101"] * 513**2
    assert "train.accumulate" not in values(data(SIZES["voc"]), Machine(2 * 16 * pair))
    assert values(data(SIZES["voc"]), Machine(2 * 15 * pair))["train.accumulate"] == 2
    assert values(data(SIZES["voc"]), Machine(2 * 4 * pair))["train.accumulate"] == 4
    assert values(data(SIZES["voc"]), Machine(2 * 4 * pair - 10))["model.encoder"] == "resnet50"
    assert values(data(SIZES["chips"]), GPU)["model.output_stride"] == 8


def test_of_two_sizes_in_equal_number_the_smaller_is_the_median():
    assert values(data({(64, 64): 1, (64, 128): 1}), CPU)["views.crop_size"] == 65


def test_images_that_are_drawn_at_a_validation_take_their_time():
    times, share = validations(1000, 9, 1)  # one image scored and once more drawn, two passes each; nine of training
    assert (times, share) == (10, pytest.approx(10 * 2 * 2 * 9 / (9 * 1000)))


def test_without_unlabeled_images_training_is_supervised():
    assert values(data(SIZES["voc"], unlabeled=0), CPU)["method.name"] == "supervised"
    assert values(data(SIZES["voc"]), CPU)["method.name"] == "des4_committee"


def test_data_without_a_readable_image_get_no_suggestion():
    assert suggest(data({}), CPU) == ()
    assert suggest(DataCheck(FolderConfig(root=Path("x")), {}, 0, (), 0.0, {}, ()), CPU) == ()


def test_what_was_given_to_the_check_is_in_the_config(tmp_path):
    root = good_folder(tmp_path / "my # data: 1")
    for name in "ef":
        (root / "images" / "val" / f"{name}.png").unlink()
        (root / "masks" / "val" / f"{name}.png").unlink()
    put(root / "images" / "more.png", encoded(picture(9), "PNG"))
    settings = suggest(check(FolderConfig(root=root, val_seed=3)), CPU)
    config = load_config(yaml.safe_load(as_yaml(settings)))
    assert config.data == FolderConfig(root=root, val_seed=3, val_fraction=0.3)
    (reason,) = (s.reason for s in settings if s.key == "data.val_fraction")
    assert "about 1 of the 4 images" in reason


def test_yaml_is_readable():
    text = as_yaml(
        [Setting("a.x", "one", "because"), Setting("a.y", 1e-3, "because"), Setting("b.z", "12", "why")], "t"
    )
    assert text == '# t\n\na:\n  # because\n  x: one\n  y: 0.001\n\nb:\n  # why\n  z: "12"\n'


@pytest.mark.parametrize("name", ["@d", "[set", "%s", "*s", "{a", "`d", "!d", "|", "1", "yes", "a: b"])
def test_names_that_yaml_has_a_meaning_for_are_quoted(name: str) -> None:
    setting = Setting("data.root", Path(name), "as given")
    assert yaml.safe_load(as_yaml([setting])) == {"data": {"root": name}}
