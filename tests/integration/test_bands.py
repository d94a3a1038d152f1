"""Images of four bands of 16 bits, from training to export: every part scales them alike."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

import des4
from des4 import api, cli
from des4.datasets import Folder, FolderConfig
from des4.engine import segment
from des4.images import windows
from des4.images.windows import StreamedBands, open_windows
from des4.probe import OWN, probe
from des4.types import DataError, RunError
from des4.weights import load_weights

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("imagecodecs")

SPECTRA = np.array([[800, 900, 1500, 2500], [300, 400, 200, 100], [300, 700, 500, 4500]])
"""Values of soil, water and wood in each band."""
PLACE = [
    (33550, "d", 3, (10.0, 10.0, 0.0)),
    (33922, "d", 6, (0, 0, 0, 500_000.0, 5_000_000.0, 0)),
    (34735, "H", 12, (1, 1, 0, 2, 1025, 0, 1, 1, 3072, 0, 1, 32633)),
]


def scene(seed: int, size: int = 48) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Draw values (size, size, 4) and classes (size, size): patches of 24 pixels."""
    rng = np.random.default_rng(seed)
    label = np.kron(rng.integers(0, 3, (size // 24, size // 24)), np.ones((24, 24), int)).astype(np.uint8)
    return (SPECTRA[label] + rng.normal(0, 60, (size, size, 4))).clip(0).astype(np.uint16), label


def write(path: Path, values: NDArray[Any], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, values, photometric="minisblack", planarconfig="contig", extratags=PLACE, **options)
    return path


@pytest.fixture(scope="session")
def satellite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder: 9 scenes, 6 of them with masks, of which 2 are val."""
    root = tmp_path_factory.mktemp("satellite") / "data"
    (root / "masks").mkdir(parents=True)
    (root / "classes.txt").write_text("soil\nwater\nwood\n")
    (root / "val.txt").write_text("4\n5\n")
    for number in range(9):
        values, label = scene(number)
        write(root / "images" / f"{number}.tif", values, compression="zlib")
        if number < 6:
            Image.fromarray(label).save(root / "masks" / f"{number}.png")
    return root


def settings(root: Path, **train: Any) -> dict[str, Any]:
    return {
        "method": "fixmatch",
        "data": {"root": str(root)},
        "model": {"encoder": "test_efficientnet", "weights": "none", "channels": 16, "low_channels": 8},
        "optim": {"name": "adamw", "lr": 0.01, "weight_decay": 0, "decoder_lr_multiplier": 1},
        "train": {"steps": 60, "batch_size": 4, "workers": 0, "checkpoint_every": 10, **train},
        "views": {"crop_size": 49, "scale": [0.8, 1.25]},
    }


@pytest.fixture(scope="session")
def run(satellite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run. Tests that write work on a copy."""
    torch.set_flush_denormal(True)
    learns = settings(satellite) | {"method": "supervised"}  # in 60 steps, with all of four seeds; fixmatch with some
    return des4.train(learns, out=tmp_path_factory.mktemp("bands") / "run").dir


def test_a_network_learns_from_four_bands(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    assert results["miou"] > 0.6  # by chance 0.2
    log = (run / "train.log").read_text()
    assert "images: bands 1, 2, 3, 4 of uint16 values" in log
    assert "what becomes 0 to 1 of each: 1: " in log
    assert (run / "plots" / "samples.png").is_file()


def test_a_probe_sees_bands_as_the_evaluation_does(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    assert probe(run).heads[OWN].confusion.tolist() == results["models"][results["evaluated"]]["confusion"]


def test_how_values_are_scaled_goes_with_the_run_and_its_weights(run: Path, satellite: Path) -> None:
    measured = Folder(FolderConfig(root=satellite)).bands
    assert measured is not None
    segmenter, info = load_weights(run / "weights" / "last.safetensors")
    assert info.bands == measured
    assert json.loads((run / "data.json").read_text())["bands"] == measured.model_dump(mode="json")
    assert segmenter.mean.tolist() == pytest.approx(measured.mean)
    assert segmenter.std.tolist() == pytest.approx(measured.std)
    assert next(segmenter.encoder.network.parameters()).shape[1] == 4


def test_prediction_scales_as_training_did(run: Path, satellite: Path, tmp_path: Path) -> None:
    predictor = des4.load(run)
    values, label = scene(4)
    labels = predictor.predict(satellite / "images" / "4.tif")
    assert (labels == label).mean() > 0.6
    image = Folder(FolderConfig(root=satellite)).image("4")
    expected = segment(predictor.segmenter, image, predictor.eval)
    torch.testing.assert_close(torch.from_numpy(predictor.segment(satellite / "images" / "4.tif").probs), expected)
    assert (predictor.predict(values) == labels).all()
    assert (
        predictor.predict(torch.from_numpy(values.astype(np.int32)).permute(2, 0, 1).to(torch.uint16)) == labels
    ).all()
    assert predictor.segment(values).overlay().size == (48, 48)
    dark = write(tmp_path / "dark.tif", values // 4)  # its own range would make it as bright as the others
    assert (predictor.predict(dark) != labels).mean() > 0.1


def test_what_a_network_of_bands_does_not_read(run: Path, trained: Path, satellite: Path, tmp_path: Path) -> None:
    predictor = des4.load(run)
    values, _ = scene(4)
    with pytest.raises(
        DataError, match=r"is a file, an \(H, W, 4\) array or a \(4, H, W\) tensor, not uint16 \(48, 48, 3\)"
    ):
        predictor.predict(values[..., :3])
    with pytest.raises(DataError, match="holds uint16 values, as the files that it was trained on, not float32"):
        predictor.predict(values.astype(np.float32))
    with pytest.raises(DataError, match="not Image"):
        predictor.predict(Image.new("RGB", (48, 48)))
    Image.new("RGB", (48, 48)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: holds uint8 values, where uint16 is expected"):
        predictor.predict(tmp_path / "a.png")
    with pytest.raises(DataError, match="more than 8 bits a channel"):
        des4.load(trained).predict(satellite / "images" / "4.tif")


def test_files_get_masks_overlays_and_their_place(run: Path, satellite: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.app, ["predict", str(run), str(satellite / "images"), "--out", str(tmp_path / "out"),
                                        "--entropy"])  # fmt: skip
    assert done.exit_code == 0, done.output
    mask = np.asarray(Image.open(tmp_path / "out" / "masks" / "4.png"))
    assert (mask == des4.load(run).predict(satellite / "images" / "4.tif")).all()
    assert Image.open(tmp_path / "out" / "overlays" / "4.jpg").size == (48, 48)
    lines = [float(line) for line in (tmp_path / "out" / "masks" / "4.pgw").read_text().split()]
    assert lines == [10, 0, 0, -10, 500_005, 4_999_995]
    assert "EPSG:32633" in (tmp_path / "out" / "masks" / "4.png.aux.xml").read_text()
    assert len([*csv.DictReader((tmp_path / "out" / "predictions.csv").open())]) == 9


@pytest.mark.parametrize("resize", [1, 0.5])
def test_a_large_image_is_segmented_by_tiles(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resize: float
) -> None:
    values, _ = scene(20, 240)
    path = write(tmp_path / "a.tif", values, tile=(64, 64), compression="lzw")
    predictor = des4.load(run)
    predictor.configure([f"eval.resize={resize}"])
    predictor.tile = 96
    whole = predictor.segment(path)
    monkeypatch.setattr(windows, "WINDOWS_FROM", 1000)
    assert isinstance(open_windows(path, predictor.info.bands), StreamedBands)
    by_windows = predictor.segment(path)
    np.testing.assert_allclose(by_windows.probs, whole.probs, atol=1e-5)
    assert by_windows.overlay().size == (240, 240)


def test_an_evaluation_scales_as_the_training_did(run: Path, satellite: Path, tmp_path: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    assert des4.evaluate(run).miou == pytest.approx(results["miou"])
    other = Path(shutil.copytree(satellite, tmp_path / "other"))
    for number in range(6):  # what is read with data.bands is the same, in files of another product
        values, _ = scene(number)
        write(other / "images" / f"{number}.tif", values[..., ::-1])
    assert des4.evaluate(run, other, overrides=["data.bands=4,3,2,1"]).miou == pytest.approx(results["miou"])
    with pytest.raises(DataError, match="names 2 bands, and the network was trained on 4"):
        des4.evaluate(run, other, overrides=["data.bands=4,3"])
    with pytest.raises(
        DataError, match=r"scenes: are pictures in RGB, and the network was trained on bands 1, 2, 3, 4"
    ):
        des4.evaluate(run, "scenes")


def test_a_run_goes_on_with_the_ranges_it_began_with(satellite: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(satellite, tmp_path / "data"))
    begun = des4.train(settings(data, steps=4), out=tmp_path / "run").dir
    before = json.loads((begun / "data.json").read_text())["bands"]
    values, _ = scene(8)
    write(data / "images" / "8.tif", values * 10)  # an unlabeled scene that would change what is measured
    again = api.resume(begun, overrides=["train.steps=6"], force=True).dir
    assert json.loads((again / "data.json").read_text())["bands"] == before
    _, info = load_weights(again / "weights" / "last.safetensors")
    assert info.bands is not None
    assert info.bands.model_dump(mode="json") == before
    with pytest.raises(RunError, match=r"data\.bands"):
        api.resume(begun, overrides=["data.bands=1,2"], force=True)


def test_chosen_bands_in_8_bits_and_one_band(satellite: Path, tmp_path: Path) -> None:
    for kind, bands in (("uint8", "4,1"), ("float32", "3")):
        data = Path(shutil.copytree(satellite, tmp_path / kind))
        for number in range(9):
            values, _ = scene(number)
            write(data / "images" / f"{number}.tif", (values / 20).clip(0, 255).astype(kind))
        tree = settings(data, steps=2, workers=1)
        tree["data"]["bands"] = bands
        done = des4.train(tree, out=tmp_path / f"run-{kind}").dir
        assert des4.load(done).predict(data / "images" / "4.tif").shape == (48, 48)


def test_exported_networks_take_stored_values(run: Path, satellite: Path, tmp_path: Path) -> None:
    for module in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(module)
    out = tmp_path / "export"
    done = CliRunner().invoke(cli.app, ["export", str(run), "--format", "onnx,int8,safetensors", "--out", str(out)])
    assert done.exit_code == 0, done.output
    from des4.export.formats import onnx_session

    values, _ = scene(4)
    labels, probs = onnx_session(out / "model.onnx")(values.astype(np.float32)[None])
    result = des4.load(run).segment(values)
    np.testing.assert_allclose(probs[0], result.probs, atol=1e-4)
    assert (labels[0] == result.labels).mean() > 0.999
    card = (out / "safetensors" / "README.md").read_text()
    assert "the bands 1, 2, 3, 4 of uint16 values" in card
    done = CliRunner().invoke(cli.app, ["benchmark", str(run), "--exported", str(out), "--images", "2", "--json"])
    assert done.exit_code == 0, done.output
    assert [row["name"] for row in json.loads(done.stdout)] == ["torch", "onnx", "int8"]
