"""Prediction end to end on a tiny network: objects in Python, files on disk, and images of any size."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, TiffImagePlugin
from test_data_video import make_video

import des4
from des4.images import windows
from des4.models import build_segmenter
from des4.predict import Outputs, Predictor, predict_files, prediction
from des4.predict.files import free_folder
from des4.predict.pieces import label_type
from des4.types import ConfigError, DataError, RunError
from des4.weights import load_weights, save_weights

Photo = Callable[..., Path]


@pytest.fixture(scope="session")
def shared(trained: Path) -> Predictor:
    return des4.load(trained)


@pytest.fixture
def fitting(trained: Path) -> Predictor:
    return des4.load(trained)


@pytest.fixture
def predictor(fitting: Predictor) -> Predictor:
    """One that takes images as they are."""
    fitting.configure(["eval.resize=1"])
    return fitting


def pixels(size: tuple[int, int] = (33, 47), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.fixture
def photo(tmp_path: Path) -> Photo:
    """Write a picture below tmp_path."""

    def write(name: str, size: tuple[int, int] = (20, 30), seed: int = 0) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(size, seed)).save(path)
        return path

    return write


def written(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


def rows(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "predictions.csv").open()))


def passes(predictor: Predictor) -> list[tuple[int, ...]]:
    """Return the list to which the shape of each input of the network is added from now on."""
    sizes: list[tuple[int, ...]] = []
    predictor.segmenter.register_forward_pre_hook(lambda _, inputs: sizes.append(tuple(inputs[0].shape)))
    return sizes


# ── in Python ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_all_kinds_of_images_give_one_prediction(predictor: Predictor, photo: Photo) -> None:
    image = pixels()
    path = photo("a.png", (33, 47))
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    expected = predictor.predict(image)
    for kind in (image, Image.fromarray(image), path, str(path), tensor, tensor.float() / 255):
        found = predictor.segment(kind)
        assert (found.labels == expected).all()
        assert (predictor.predict(kind) == expected).all()


def test_a_prediction_holds_everything_about_an_image(predictor: Predictor) -> None:
    found = predictor.segment(pixels())
    assert found.labels.dtype == np.uint8
    assert (np.asarray(found) == found.labels).all()
    np.testing.assert_allclose(found.probs.sum(0), 1, rtol=1e-5)
    assert (found.probs.argmax(0) == found.labels).all()
    assert found.confidence == pytest.approx(found.probs.max(0).mean(), rel=1e-5)
    entropy = -(found.probs * np.log(found.probs + 1e-10)).sum(0)
    np.testing.assert_allclose(found.entropy, entropy, atol=1e-5)
    assert found.mean_entropy == pytest.approx(entropy.mean(), rel=1e-4)
    assert found.shares[found.classes[0]] == pytest.approx((found.labels == 0).mean())
    assert sum(found.shares.values()) == pytest.approx(1)
    assert found.overlay().size == (47, 33)
    assert (np.asarray(found.overlay(alpha=0)) == pixels()).all()
    assert found._repr_png_()[:4] == b"\x89PNG"


def test_a_prediction_saves_itself(predictor: Predictor, tmp_path: Path) -> None:
    found = predictor.segment(pixels())
    with Image.open(found.save(tmp_path / "new" / "a.png")) as mask:
        assert mask.mode == "P"
        assert (np.array(mask) == found.labels).all()
        assert mask.getpalette()[: 3 * len(found.palette)] == [v for colour in found.palette for v in colour]  # type: ignore[index]
    with Image.open(found.save(tmp_path / "e.png", "entropy")) as grey:
        most = np.log(len(found.classes))
        np.testing.assert_allclose(np.array(grey) / 255 * most, found.entropy, atol=most / 255)
    assert np.load(found.save(tmp_path / "p.npy", "probs")).shape == found.probs.shape
    with Image.open(found.save(tmp_path / "o.jpg", "overlay")) as picture:
        assert picture.size == (47, 33)
    with pytest.raises(RunError, match=r"labels are written as \.png"):
        found.save(tmp_path / "a.jpg")
    with pytest.raises(RunError, match="cannot be written"):
        found.save(tmp_path / "e.png" / "b.png")


def test_lists_and_batches_give_lists(predictor: Predictor) -> None:
    images = [pixels(seed=seed) for seed in range(3)] + [pixels((20, 20))]
    one_by_one = [predictor.predict(image) for image in images]
    predictor.batch = 2
    sizes = passes(predictor)
    found = predictor.segment(images)
    assert sizes == [(2, 3, 33, 47), (1, 3, 33, 47), (1, 3, 20, 20)]
    assert isinstance(found, list)
    assert all((a.labels == b).all() for a, b in zip(found, one_by_one, strict=True))
    tensor = torch.from_numpy(np.stack(images[:3])).permute(0, 3, 1, 2)
    assert all((a.labels == b).all() for a, b in zip(predictor.segment(tensor), one_by_one, strict=False))
    assert [one.name for one in predictor.stream(iter(images))] == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((4, 4), np.uint8), "uint8 RGB array, not uint8"),
        (np.zeros((4, 4, 3)), "uint8 RGB array, not float64"),
        (Image.fromarray(np.full((4, 4), 999, np.uint16)), "PIL image of mode I;16 holds more than 8 bits"),
        (Image.fromarray(np.full((4, 4), 0.5, np.float32)), "PIL image of mode F holds more than 8 bits"),
        ({"a": 1}, "uint8 RGB array, not dict"),
        (torch.zeros(4, 4), r"shape \(3, H, W\), not \(4, 4\)"),
        (torch.zeros(3, 4, 4) + 2, "values in \\[0, 1\\]"),
        (torch.full((3, 4, 4), float("nan")), "values in \\[0, 1\\]"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "not torch.int64"),
    ],
)
def test_what_is_no_image_is_refused(predictor: Predictor, image: object, said: str) -> None:
    with pytest.raises(DataError, match=said):
        predictor.segment(image)  # type: ignore[call-overload]


def test_a_large_image_is_cut(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    image = pixels((150, 211))
    sizes = passes(predictor)
    predictor.tile = 80
    cut = predictor.segment(image)
    assert sizes == [(1, 3, 80, 80)] * 6
    np.testing.assert_allclose(cut.probs.sum(0), 1, rtol=1e-5)
    assert (cut.probs.argmax(0) == cut.labels).all()
    assert cut.mean_entropy == pytest.approx(cut.entropy.mean(), rel=1e-4)
    monkeypatch.setattr("des4.predict.predictor.KEPT_PROBS", 0)
    with pytest.raises(DataError, match="probabilities of 211×150 pixels were not kept; ask for them with probs=True"):
        _ = predictor.segment(image).probs
    with pytest.raises(DataError, match="entropies of"):
        _ = predictor.segment(image).entropy
    np.testing.assert_array_equal(predictor.segment(image, probs=True).probs, cut.probs)


def test_settings_change_how_images_are_seen(predictor: Predictor) -> None:
    plain = predictor.segment(pixels())
    mirrored = predictor.segment(pixels()[:, ::-1])
    predictor.configure(["eval.mirror=true"])
    both = predictor.segment(pixels())
    np.testing.assert_allclose(both.probs, (plain.probs + mirrored.probs[..., ::-1]) / 2, atol=1e-5)
    with pytest.raises(ConfigError, match=r"train\.steps: a prediction reads eval\.\* alone"):
        predictor.configure(["steps=3"])
    with pytest.raises(ConfigError, match="mirror"):
        predictor.configure(["eval.miror=true"])
    with pytest.raises(ConfigError, match=r"^eval\.resize: must be a number or auto, not 'foo'$"):
        predictor.configure(["eval.resize=foo"])


@pytest.mark.parametrize(
    ("size", "factor"),
    [
        ((48, 48), 1.0),
        ((70, 40), 1.0),  # less than 1.5 times as long, or as short
        ((72, 72), 1.0),  # not more than that
        ((32, 32), 1.0),
        ((96, 192), 0.5),  # of a panorama, the side that differs less counts
        ((20, 300), 1.0),  # neither larger nor smaller
        ((24, 12), 2.0),
        ((5, 7), 4.0),  # no more than eval.resize can be
    ],
)
def test_photos_of_another_resolution_are_brought_to_that_of_the_training(
    fitting: Predictor, size: tuple[int, int], factor: float
) -> None:
    assert fitting.info.image_size == (48, 48)
    image = pixels(size)
    assert list(fitting.notes_on(windows.Decoded(image, "a"))) == (["fitted"] if factor != 1 else [])
    found = fitting.segment(image)
    assert found.labels.shape == size
    fitting.configure([f"eval.resize={factor}"])
    np.testing.assert_array_equal(fitting.segment(image).probs, found.probs)
    fitting.configure(["resize=auto"])
    np.testing.assert_array_equal(fitting.segment(image).probs, found.probs)


def test_what_is_fitted_is_told_of_once_and_can_be_turned_off(fitting: Predictor, tmp_path: Path, photo: Photo) -> None:
    for name, size in (("a", (60, 60)), ("b", (192, 96)), ("c", (192, 96)), ("d", (12, 12))):
        photo(f"x/{name}.png", size)
    told: list[str] = []
    summary = predict_files(fitting, [tmp_path / "x"], tmp_path / "out", tell=told.append)
    assert summary.notes == told == [
        f"{tmp_path}/x/b.png: 96×192 pixels, and the network was trained on images of about 48×48: so it sees this one "
        "at 48×96, and others accordingly; eval.resize=1 turns this off"
    ]  # fmt: skip
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())["fitted"] is True
    fitting.configure(["eval.resize=1"])
    assert predict_files(fitting, [tmp_path / "x"], tmp_path / "new").notes == []
    with pytest.raises(RunError, match=r"other weights or settings \(fitted: True -> False\)"):
        predict_files(fitting, [tmp_path / "x"], tmp_path / "out", resume=True)


def test_a_run_that_resizes_keeps_its_factor(fitting: Predictor) -> None:
    assert fitting.note_on_resize() is None
    fitting.info = fitting.info.model_copy(update={"eval": fitting.eval.model_copy(update={"resize": 0.5})})
    fitting.configure(["eval.resize=auto"])
    assert str(fitting.note_on_resize()).startswith("eval.resize=0.5, as when the run was scored: the network sees ima")
    sizes = ((48, 48), 0.5), ((96, 96), 0.25), ((24, 24), 1.0)
    for size, factor in sizes:
        assert fitting.factor_of(windows.Decoded(pixels(size), "a")) == factor
    fitting.configure(["eval.resize=0.7"])
    assert "0.7: the network sees images at 0.7 times their size" in str(fitting.note_on_resize())
    assert {fitting.factor_of(windows.Decoded(pixels(size), "a")) for size, _ in sizes} == {0.7}


def test_a_photo_may_stand_upright_where_those_of_the_training_lay(fitting: Predictor) -> None:
    fitting.info = fitting.info.model_copy(update={"image_size": (48, 96)})
    for size in ((96, 192), (192, 96)):
        assert fitting.factor_of(windows.Decoded(pixels(size), "a")) == 0.5


def test_sizes_that_the_training_has_seen_are_left(fitting: Predictor) -> None:
    assert fitting.info.image_pixels == (48 * 48, 48 * 48)
    fitting.info = fitting.info.model_copy(update={"image_pixels": (20 * 20, 48 * 48)})
    assert fitting.factor_of(windows.Decoded(pixels((20, 20)), "a")) == 1
    assert fitting.factor_of(windows.Decoded(pixels((16, 16)), "a")) == 3


def test_what_lies_on_a_map_is_left_and_told_of(
    fitting: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photo: Photo
) -> None:
    path = photo("x/a.png", (192, 96))
    path.with_suffix(".pgw").write_text("1 0 0 -1 5 5")
    (told,) = predict_files(fitting, [path], tmp_path / "out").notes
    assert told.startswith(f"{path}: 96×192 pixels, and the network was trained on images of about 48×48; if it shows")
    assert told.endswith("eval.resize=0.5 brings them to their size")
    assert (tmp_path / "out" / "masks" / "a.pgw").read_text().split() == ["1", "0", "0", "-1", "5", "5"]
    whole = fitting.segment(path)
    fitting.configure(["eval.resize=1"])
    np.testing.assert_array_equal(fitting.segment(path).probs, whole.probs)
    fitting.configure(["eval.resize=auto"])
    monkeypatch.setattr("des4.predict.predictor.MAX_PIXELS", 96 * 192 - 1)
    assert fitting.factor_of(windows.Decoded(pixels((192, 96)), "larger than a photo")) == 1


def test_a_map_and_a_photo_of_one_size_are_seen_one_by_one(fitting: Predictor, photo: Photo) -> None:
    on_a_map, of_one_size = photo("a.png", (192, 96)), photo("b.png", (192, 96))
    on_a_map.with_suffix(".pgw").write_text("1 0 0 -1 5 5")
    fitting.batch = 2
    sizes = passes(fitting)
    fitting.segment([on_a_map, of_one_size])
    assert sizes == [(1, 3, 192, 96), (1, 3, 96, 48)]  # the photo at the size of those of the training


def test_an_image_of_just_two_tiles_pixels_is_whole(predictor: Predictor) -> None:
    predictor.tile = 20
    assert not predictor.is_cut(windows.Decoded(pixels((20, 40)), "a"))
    assert predictor.is_cut(windows.Decoded(pixels((20, 41)), "a"))


def test_small_images_that_grow_are_cut(fitting: Predictor) -> None:
    fitting.tile = 40
    image = windows.Decoded(pixels((24, 24)), "a")
    assert not fitting.is_cut(image)
    fitting.tile = 30
    assert fitting.is_cut(image)


def test_what_is_lost_of_a_place_is_told_of_once(fitting: Predictor, tmp_path: Path) -> None:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[33922] = (0.0, 0.0, 0.0, 100.0, 200.0, 0.0) * 4
    (tmp_path / "x").mkdir()
    for name in ("a", "b"):
        Image.fromarray(pixels((48, 48))).save(tmp_path / "x" / f"{name}.tif", tiffinfo=info)
    (told,) = predict_files(fitting, [tmp_path / "x"], tmp_path / "out").notes
    assert told.startswith(f"{tmp_path}/x/a.tif: its place on the map is given by 4 tie points, and is not kept; gdalw")
    assert not list((tmp_path / "out").rglob("*.pgw"))


def test_above_255_classes_labels_have_16_bits(trained: Path, tmp_path: Path) -> None:
    _, info = load_weights(trained / "weights" / "last.safetensors")
    names = tuple(f"c{i}" for i in range(300))
    info = info.model_copy(update={"classes": names, "palette": ((1, 2, 3),) * 300, "tail": ()})
    torch.manual_seed(0)
    segmenter = build_segmenter(info.model, 300, info.head, pretrained=False)
    save_weights(tmp_path / "w.safetensors", segmenter.state_dict(), info)
    predictor = des4.load(tmp_path / "w.safetensors")
    found = predictor.segment(pixels())
    assert found.labels.dtype == np.uint16
    assert found.labels.max() > 255
    Image.fromarray(pixels()).save(tmp_path / "a.png")
    predict_files(predictor, [tmp_path / "a.png"], tmp_path / "out")
    for path in (tmp_path / "out" / "masks" / "a.png", found.save(tmp_path / "b.png")):
        with Image.open(path) as mask:
            assert mask.mode.startswith("I")
            assert (np.array(mask) == found.labels).all()


def test_labels_of_255_classes_have_8_bits_and_of_256_have_16(tmp_path: Path) -> None:
    for classes, bits in ((255, 8), (256, 16)):  # 255 itself is left to ignored pixels
        assert np.dtype(label_type(classes)).itemsize * 8 == bits
        writer = prediction.png_of_labels(tmp_path / "a.png", (1, 1), classes, [(0, 0, 0)] * classes)
        writer.write(np.full((1, 1), classes - 1))
        writer.close()
        with Image.open(tmp_path / "a.png") as mask:
            assert np.array(mask) == classes - 1
        assert (tmp_path / "a.png").read_bytes()[24] == bits  # as its header says


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_tree_and_sizes_are_kept_and_the_rest_goes_on(predictor: Predictor, tmp_path: Path, photo: Photo) -> None:
    source, out = tmp_path / "photos", tmp_path / "out"
    photo("photos/a.png", (30, 20))
    photo("photos/trip/b.jpg", (17, 31))
    (source / "trip" / "broken.jpg").write_bytes(b"no image")
    (source / "notes.txt").write_text("no image either, and nobody says it is")
    before = sorted(source.rglob("*"))

    progress: list[float] = []
    summary = predict_files(predictor, [source], out, progress=progress.append)
    assert list(summary.skipped) == [str(source / "trip" / "broken.jpg")]
    assert summary.done == 2
    assert sum(progress) == pytest.approx(3)
    assert sorted(source.rglob("*")) == before
    assert written(out) == ["masks/a.png", "masks/trip/b.png", "overlays/a.jpg", "overlays/trip/b.jpg",
                            "predictions.csv", "predictions.json"]  # fmt: skip
    with Image.open(out / "masks" / "trip" / "b.png") as mask:
        assert mask.mode == "P"
        assert mask.size == (31, 17)
        assert mask.getpalette()[:3] == list(predictor.palette[0])  # type: ignore[index]
        assert (np.array(mask) == predictor.predict(source / "trip" / "b.jpg")).all()
    table = rows(out)
    assert [row["file"] for row in table] == [str(source / "a.png"), str(source / "trip" / "b.jpg")]
    assert [(row["height"], row["width"], row["mask"]) for row in table] == [
        ("30", "20", "masks/a.png"), ("17", "31", "masks/trip/b.png")]  # fmt: skip
    assert sum(float(table[0][f"share/{name}"]) for name in predictor.classes) == pytest.approx(1, abs=1e-5)
    found = predictor.segment(source / "a.png")
    assert float(table[0]["confidence"]) == pytest.approx(found.confidence, abs=1e-4)
    assert float(table[0]["entropy"]) == pytest.approx(found.mean_entropy, abs=1e-4)
    told = json.loads((out / "predictions.json").read_text())
    assert told["finished"] is True
    assert told["classes"] == list(predictor.classes)
    assert told["images"][0]["shares"] == pytest.approx(found.shares, abs=1e-5)
    assert "broken.jpg" in next(iter(told["skipped"]))


def test_everything_that_can_be_written_is(predictor: Predictor, tmp_path: Path, photo: Photo) -> None:
    predictor.tile = 70
    path = photo("a.png", (150, 131))
    predict_files(predictor, [path], tmp_path / "out", outputs=Outputs(overlays=False, entropy=True, probs=True))
    assert written(tmp_path / "out") == ["entropy/a.png", "masks/a.png", "predictions.csv", "predictions.json",
                                         "probs/a.npy"]  # fmt: skip
    found = predictor.segment(path, probs=True)
    np.testing.assert_allclose(np.load(tmp_path / "out" / "probs" / "a.npy"), found.probs, atol=1e-3)
    with Image.open(tmp_path / "out" / "entropy" / "a.png") as grey:
        assert (np.array(grey) == prediction.grey_of_entropy(found.entropy, len(found.classes))).all()
    with Image.open(tmp_path / "out" / "masks" / "a.png") as mask:
        assert (np.array(mask) == found.labels).all()


@pytest.mark.parametrize("setting", ["eval.resize=1", "eval.resize=0.5"])
def test_a_file_read_by_windows_gives_what_it_gives_whole(
    predictor: Predictor, tmp_path: Path, photo: Photo, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    pytest.importorskip("pyvips")
    predictor.configure([setting])
    predictor.tile = 70
    path = photo("a.png", (200, 170))
    predict_files(predictor, [path], tmp_path / "whole")
    monkeypatch.setattr(windows, "WINDOWS_FROM", 0)
    monkeypatch.setattr(prediction, "OVERLAY_PIXELS", 10_000)
    monkeypatch.setattr("des4.predict.writing.OVERLAY_PIXELS", 10_000)
    predict_files(predictor, [path], tmp_path / "out")
    for name in ("masks/a.png", "predictions.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    with Image.open(tmp_path / "out" / "overlays" / "a.jpg") as picture:
        assert picture.size == (85, 100)  # every second pixel
    assert predictor.segment(path).overlay().size == (85, 100)


def test_images_of_two_chunks_are_never_seen_together(predictor: Predictor, tmp_path: Path, photo: Photo) -> None:
    images = [photo("a.png", (30, 20)), photo("b.png", (20, 30)), photo("c.png", (20, 30))]  # two chunks: a and b, c
    predictor.batch = 2
    sizes = passes(predictor)
    predict_files(predictor, images, tmp_path / "out")
    assert [size[0] for size in sizes] == [1, 1, 1]  # as with several processes, to whom chunks are given


def test_a_mask_lies_where_its_image_does(predictor: Predictor, tmp_path: Path) -> None:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[33550], info[33922] = (2.0, 2.0, 0.0), (0.0, 0.0, 0.0, 100.0, 200.0, 0.0)
    Image.fromarray(pixels()).save(tmp_path / "a.tif", tiffinfo=info)
    predict_files(predictor, [tmp_path / "a.tif"], tmp_path / "out", outputs=Outputs(entropy=True))
    for folder in ("masks", "entropy"):
        assert (tmp_path / "out" / folder / "a.pgw").read_text().split() == ["2", "0", "0", "-2", "101", "199"]
        assert "<GeoTransform>100, 2, 0, 200, 0, -2<" in (tmp_path / "out" / folder / "a.png.aux.xml").read_text()


def test_two_images_of_one_name_do_not_stop_the_rest(predictor: Predictor, tmp_path: Path, photo: Photo) -> None:
    for name in ("x/a.png", "x/a.jpg", "x/b.png"):
        photo(name)
    summary = predict_files(predictor, [tmp_path / "x"], tmp_path / "out")
    assert [row["mask"] for row in rows(tmp_path / "out")] == ["masks/a.png", "masks/a-2.png", "masks/b.png"]
    assert summary.notes == [f"{tmp_path}/x/a.png: has the name of {tmp_path}/x/a.jpg; its results are called a-2"]


def test_the_frames_of_a_video_are_images(predictor: Predictor, tmp_path: Path, photo: Photo) -> None:
    video = make_video(tmp_path / "drive.mp4", frames=3)
    seen: list[float] = []
    broken = tmp_path / "broken.mov"
    broken.write_bytes(b"nothing")
    arguments = [photo("a.png"), video, broken]
    summary = predict_files(predictor, arguments, tmp_path / "out", progress=seen.append)
    assert list(summary.skipped) == [str(broken)]
    assert sum(seen) == pytest.approx(3)
    expected = ["a.png", "drive/000000.png", "drive/000001.png", "drive/000002.png"]
    assert [row["mask"].removeprefix("masks/") for row in rows(tmp_path / "out")] == expected
    with Image.open(tmp_path / "out" / "masks" / "drive" / "000002.png") as mask:
        assert mask.size == (64, 48)
    again = predict_files(predictor, arguments, tmp_path / "out", resume=True)
    assert again.done == 4
    assert len(rows(tmp_path / "out")) == 4


def test_a_video_and_a_folder_of_one_name_do_not_share_a_place(
    predictor: Predictor, tmp_path: Path, photo: Photo
) -> None:
    video, other = make_video(tmp_path / "drive.mp4", frames=2), tmp_path / "other"
    other.mkdir()
    photo("drive/000000.png")
    arguments = [video, tmp_path / "drive", make_video(other / "drive.mp4", frames=1)]
    summary = predict_files(predictor, arguments, tmp_path / "out")
    assert summary.done == 4
    expected = ["drive-2/000000.png", "drive-2/000001.png", "drive/000000.png", "drive-3/000000.png"]
    assert [row["mask"].removeprefix("masks/") for row in rows(tmp_path / "out")] == expected
    assert summary.notes == [
        f"{video}: has the name of {tmp_path}/drive; its results are called drive-2",
        f"{other}/drive.mp4: has the name of {tmp_path}/drive; its results are called drive-3",
    ]


def test_a_file_named_twice_is_segmented_once(predictor: Predictor, tmp_path: Path, photo: Photo) -> None:
    path = photo("x/a.png")
    assert predict_files(predictor, [tmp_path / "x", path], tmp_path / "out").done == 1


def test_patterns_lists_and_folders(predictor: Predictor, tmp_path: Path, photo: Photo) -> None:
    for name in ("one/a.png", "two/a.png", "two/deep/c.png", "two/deep/d.jpg"):
        photo(name)
    (tmp_path / "two" / "e.txt").write_text("")

    def places(*arguments: str | Path, lines: tuple[str, ...] = ()) -> list[str]:
        out = tmp_path / "out"
        predict_files(predictor, arguments, out, lines=lines, overwrite=True)
        return [row["mask"].removeprefix("masks/") for row in rows(out)]

    assert places(tmp_path / "one", tmp_path / "two") == ["one/a.png", "two/a.png", "two/deep/c.png", "two/deep/d.png"]
    assert places(f"{tmp_path}/two/**/*") == ["a.png", "deep/c.png", "deep/d.png"]
    assert places(f"{tmp_path}/*/*.png") == ["one/a.png", "two/a.png"]
    listed = [f"{tmp_path}/one/a.png\n", "\n", f"{tmp_path}/two/deep/c.png\n"]
    assert places(lines=tuple(listed)) == ["one/a.png", "two/deep/c.png"]
    with pytest.raises(DataError, match="matches no file"):
        places(f"{tmp_path}/*.gif")


def test_results_stay_in_their_folder_whatever_the_paths_are(
    predictor: Predictor, tmp_path: Path, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, near = photo("project/images/a.png"), photo("project/notes/here/b.png")
    before = image.read_bytes()
    monkeypatch.chdir(near.parent)
    lines = ("./b.png", "../../images/a.png", "../here/b.png")
    assert predict_files(predictor, (), "../../masks", lines=lines).done == 2  # b.png is named twice
    predict_files(predictor, [f"{tmp_path}/project/notes/*/../../images/*.png"], tmp_path / "deep" / "out")
    assert image.read_bytes() == before
    found = written(tmp_path / "project" / "masks")
    assert [name for name in found if name.startswith("masks/")] == ["masks/images/a.png", "masks/notes/here/b.png"]
    assert [row["mask"] for row in rows(tmp_path / "deep" / "out")] == ["masks/images/a.png"]


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are text there")
def test_a_name_that_no_table_can_hold_is_skipped(predictor: Predictor, tmp_path: Path, photo: Photo) -> None:
    photo("x/a.png")
    photo("x/b.png").rename(os.fsdecode(os.fsencode(tmp_path / "x") + b"/b\xff.png"))
    summary = predict_files(predictor, [tmp_path / "x"], tmp_path / "out")
    assert summary.done == 1
    path = f"{tmp_path}/x/b\\xff.png"
    assert summary.skipped == {path: f"{path}: the name is not valid UTF-8; rename the file or its folder"}
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())["skipped"] == summary.skipped


def test_a_table_whose_first_line_was_torn_begins_anew(predictor: Predictor, tmp_path: Path, photo: Photo) -> None:
    image, out = photo("a.png"), tmp_path / "out"
    predict_files(predictor, [image], out)
    whole = (out / "predictions.csv").read_bytes()
    for torn in (b"", b"file,conf"):
        (out / "predictions.csv").write_bytes(torn)
        assert predict_files(predictor, [image], out, resume=True).done == 1
        assert (out / "predictions.csv").read_bytes() == whole


def test_a_stopped_prediction_goes_on(predictor: Predictor, tmp_path: Path, photo: Photo) -> None:
    for number in range(4):
        photo(f"x/{number}.png", seed=number)
    out = tmp_path / "out"

    def stop(share: float, seen: list[float] = []) -> None:  # noqa: B006
        seen.append(share)
        if sum(seen) > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_files(predictor, [tmp_path / "x"], out, progress=stop)
    done = len(rows(out))
    assert 0 < done < 4
    assert json.loads((out / "predictions.json").read_text())["finished"] is False
    with (out / "predictions.csv").open("a") as file:
        file.write("torn lin")
    (out / "masks" / "0.png").write_bytes(b"as it was")
    with pytest.raises(RunError, match=r"--resume.*--overwrite"):
        predict_files(predictor, [tmp_path / "x"], out)
    predictor.tile = 99
    with pytest.raises(RunError, match=r"other weights or settings \(tile: 1024 -> 99\)"):
        predict_files(predictor, [tmp_path / "x"], out, resume=True)
    predictor.tile = 1024
    seen: list[float] = []
    summary = predict_files(predictor, [tmp_path / "x"], out, resume=True, progress=seen.append)
    assert summary.done == 4
    assert sum(seen) == 4
    assert [row["file"][-5:] for row in rows(out)] == ["0.png", "1.png", "2.png", "3.png"]
    assert (out / "masks" / "0.png").read_bytes() == b"as it was"
    assert not list(out.rglob("*.partial"))
    assert len(json.loads((out / "predictions.json").read_text())["images"]) == 4
    assert predict_files(predictor, [tmp_path / "x"], tmp_path / "new", resume=True).done == 4


def test_only_its_own_is_overwritten(predictor: Predictor, tmp_path: Path, photo: Photo) -> None:
    image, out = photo("a.png"), tmp_path / "out"
    (out / "masks").mkdir(parents=True)
    (out / "masks" / "truth.png").write_bytes(b"precious")
    for options, reason in (({}, "--overwrite"), ({"overwrite": True}, "leave it alone"),
                            ({"resume": True}, "leave it alone")):  # fmt: skip
        with pytest.raises(RunError, match=reason):
            predict_files(predictor, [image], out, **options)
    assert written(out) == ["masks/truth.png"]
    predict_files(predictor, [image], tmp_path / "new")
    (tmp_path / "new" / "masks" / "stale.png").write_bytes(b"")
    predict_files(predictor, [image], tmp_path / "new", overwrite=True)
    assert [path.name for path in (tmp_path / "new" / "masks").iterdir()] == ["a.png"]
    with pytest.raises(RunError, match="one of the two"):
        predict_files(predictor, [image], tmp_path / "new", overwrite=True, resume=True)


def test_bad_places_are_refused_before_anything_is_written(predictor: Predictor, tmp_path: Path, photo: Photo) -> None:
    source = tmp_path / "photos"
    source.mkdir()
    with pytest.raises(DataError, match="no image there"):
        predict_files(predictor, [source], tmp_path / "out")
    photo("photos/a.png")
    with pytest.raises(RunError, match="inside the input folder"):
        predict_files(predictor, [source], source / "out")
    with pytest.raises(DataError, match="no such file or folder"):
        predict_files(predictor, [tmp_path / "none"], tmp_path / "out")
    with pytest.raises(RunError, match="is a file"):
        predict_files(predictor, [source], photo("b.png"))
    assert not (tmp_path / "out").exists()
    assert [path.name for path in source.iterdir()] == ["a.png"]


def test_a_full_disk_leaves_no_half_image(
    predictor: Predictor, tmp_path: Path, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("des4.predict.writing._Overlay.save", full)
    with pytest.raises(RunError, match=r"No space left on device.*--resume"):
        predict_files(predictor, [photo("a.png")], tmp_path / "out")
    assert rows(tmp_path / "out") == []
    assert not [name for name in written(tmp_path / "out") if "a." in name]


def test_a_disk_that_is_full_at_the_table_says_so(
    predictor: Predictor, tmp_path: Path, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def writerow(self, row: object) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("des4.predict.files.csv.writer", lambda file: Full())
    with pytest.raises(RunError, match=r"predictions\.csv: cannot be written \(No space left on device\).*--resume"):
        predict_files(predictor, [photo("a.png")], tmp_path / "out")


def test_without_a_folder_the_next_free_one_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert free_folder("des4-1", continued=False) == Path("predictions/des4-1")
    assert free_folder("des4-1", continued=True) == Path("predictions/des4-1")
    for name in ("des4-1", "des4-1-2"):
        Path("predictions", name, "masks").mkdir(parents=True)
    assert free_folder("des4-1", continued=False) == Path("predictions/des4-1-3")
    assert free_folder("des4-1", continued=True) == Path("predictions/des4-1-2")
    shutil.rmtree("predictions")
