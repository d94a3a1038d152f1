"""Export end to end on a tiny network: the files say what the network says, at any size, and what they are."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from timm.layers import Conv2dSame
from typer.testing import CliRunner

import des4
from des4 import api, cli
from des4.engine import EvalConfig, segment_batch
from des4.engine.inference import resized
from des4.export import FORMATS, export_model, formats
from des4.export.card import model_card
from des4.export.network import Deployed, PaddedConv
from des4.export.side_by_side import _measure, measure, training_images
from des4.models import ModelConfig, build_segmenter
from des4.ops.pixels import scaled
from des4.types import Bands, ConfigError, RunError
from des4.weights import WeightsInfo, load_weights, save_weights, weights_hash, weights_info

ROOT = Path(__file__).parents[2]


def needs(*modules: str) -> None:
    for module in modules:
        pytest.importorskip(module)


def pixels(*size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with an ONNX file."""
    needs("onnx", "onnxscript", "onnxruntime")
    run = Path(shutil.copytree(trained, tmp_path_factory.mktemp("exported") / "run"))
    done = CliRunner().invoke(cli.app, ["export", str(run)])
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{run}/export/model.onnx\n"
    return run


def meta(path: Path) -> dict[str, str]:
    import onnx

    return {prop.key: prop.value for prop in onnx.load(str(path)).metadata_props}


@pytest.mark.parametrize("head", ["linear", "prototype"])
@pytest.mark.parametrize("encoder", ["test_efficientnet", "test_vit"])
def test_the_deployed_network_says_what_the_network_says(head: str, encoder: str) -> None:
    torch.manual_seed(0)
    config = ModelConfig(encoder=encoder, weights="none", channels=16, low_channels=8, embedding_dim=12)
    segmenter = build_segmenter(config, 5, head).eval()  # type: ignore[arg-type]
    before = {name: value.clone() for name, value in segmenter.state_dict().items()}
    image = torch.from_numpy(pixels(2, 37, 66))
    with torch.inference_mode():
        labels, probs = Deployed(segmenter, 5)(image)
    expected = segment_batch(segmenter, image.movedim(-1, 1).float() / 255, EvalConfig())
    torch.testing.assert_close(probs, expected, atol=1e-5, rtol=1e-4)
    assert labels.dtype == torch.uint8
    assert (labels == probs.argmax(1)).all()
    assert all(torch.equal(before[name], value) for name, value in segmenter.state_dict().items())


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("size", [(8, 9), (9, 8), (1, 2), (15, 16)])
def test_padding_for_exporters_meets_the_same_pixels(kernel: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    conv = Conv2dSame(4, 6, kernel, stride=2, groups=2)
    image = torch.rand(2, 4, *size)
    torch.testing.assert_close(PaddedConv(conv)(image), conv(image))


def test_onnx_says_what_it_is_and_how_well_it_agrees(exported: Path, trained: Path) -> None:
    path = exported / "export" / "model.onnx"
    told = meta(path)
    _, info = load_weights(trained / "weights" / "last.safetensors")
    assert json.loads(told["classes"]) == list(info.classes)
    assert json.loads(told["eval"])["mode"] == "whole"
    assert len(json.loads(told["mean"])) == 3
    checks = json.loads(told["parity"])
    assert [check["size"] for check in checks] == [list(size) for size in formats.CHECKED_SIZES]
    assert all(check["largest_difference"] < 1e-4 and check["equal_labels"] > 0.999 for check in checks)
    assert len(told["weights_sha256"]) == 64


@pytest.mark.parametrize("size", [(1, 48, 48), (1, 33, 130), (3, 65, 64)])
def test_onnx_takes_pictures_of_any_number_and_size(exported: Path, trained: Path, size: tuple[int, ...]) -> None:
    images = pixels(*size)
    labels, probs = formats.onnx_session(exported / "export" / "model.onnx")(images)
    assert labels.shape == size
    predictor = des4.load(trained)
    for number, image in enumerate(images):
        found = predictor.segment(image)
        np.testing.assert_allclose(probs[number], found.probs, atol=1e-3)
        assert (labels[number] == found.labels).mean() > 0.999


def test_a_vision_transformer_takes_any_size_too(trained: Path, tmp_path: Path) -> None:
    needs("onnx", "onnxscript", "onnxruntime")
    _, info = load_weights(trained / "weights" / "last.safetensors")
    info = info.model_copy(update={"model": info.model.model_copy(update={"encoder": "test_vit"})})
    torch.manual_seed(0)
    segmenter = build_segmenter(info.model, len(info.classes), info.head, pretrained=False)
    save_weights(tmp_path / "w.safetensors", segmenter.state_dict(), info)
    (path,) = export_model(tmp_path / "w.safetensors", tmp_path / "out")
    assert all(check["equal_labels"] > 0.99 for check in json.loads(meta(path)["parity"]))


def test_the_runner_needs_no_torch(exported: Path, trained: Path, tmp_path: Path) -> None:
    image = pixels(33, 47)
    Image.fromarray(image).save(tmp_path / "a.png")
    arguments = [str(exported / "export" / "model.onnx"), str(tmp_path / "a.png")]
    code = (
        f"import runpy, sys; sys.argv[1:] = {arguments!r}\n"
        "runpy.run_path('examples/run_onnx.py', run_name='__main__')\n"
        "assert not {'torch', 'des4'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)  # noqa: S603
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{tmp_path}/a.png  ")
    predictor = des4.load(trained)
    with Image.open(tmp_path / "a.mask.png") as mask:
        assert mask.mode == "P"
        assert mask.getpalette()[:3] == list(predictor.palette[0])  # type: ignore[index]
        assert (np.array(mask) == predictor.predict(image)).mean() > 0.999
    assert len((ROOT / "examples" / "run_onnx.py").read_text().split('"""')[2].strip().splitlines()) <= 31


def test_the_runner_resizes_as_an_evaluation(exported: Path, trained: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    image = np.kron(pixels(8, 10), np.ones((8, 8, 1), np.uint8))  # squares, so that there is something to get wrong
    Image.fromarray(image).save(tmp_path / "a.png")
    model = onnx.load(exported / "export" / "model.onnx")
    (about,) = (one for one in model.metadata_props if one.key == "eval")
    about.value = json.dumps({**json.loads(about.value), "resize": 0.5})
    onnx.save(model, tmp_path / "half.onnx")
    runpy.run_path(str(ROOT / "examples" / "run_onnx.py"))["main"](
        str(tmp_path / "half.onnx"), [str(tmp_path / "a.png")]
    )
    segmenter, info = load_weights(trained / "weights" / "last.safetensors")
    half = info.eval.model_copy(update={"resize": 0.5})
    save_weights(tmp_path / "half.safetensors", segmenter.state_dict(), info.model_copy(update={"eval": half}))
    with Image.open(tmp_path / "a.mask.png") as mask:
        same = (np.array(mask) == des4.load(tmp_path / "half.safetensors").predict(image)).mean()
    assert same > 0.93  # 0.91 if labels are enlarged, 0.86 if pictures are made smaller by other pixels too


def test_bands_are_resized_within_their_ranges() -> None:
    stored = torch.rand(2, 16, 16) * 100
    stored[:, :8, :8] = torch.nan  # no data there
    stored[0, 12, 12] = 1e6  # a glint
    bands = Bands(numbers=(1, 2), type="float32", ranges=((0.0, 100.0), (20.0, 80.0)), mean=(0, 0), std=(1, 1))
    seen = scaled(stored.permute(1, 2, 0), bands.ranges).permute(2, 0, 1)
    data = SimpleNamespace(labeled=("a",), bands=bands, stored_image=lambda _: stored, image=lambda _: seen)
    (given,) = training_images(data, 1, 0.5)  # type: ignore[arg-type]
    found = scaled(torch.from_numpy(given), bands.ranges).permute(2, 0, 1)
    torch.testing.assert_close(found, resized(seen[None], 0.5)[0])


def test_files_are_not_replaced_unasked_and_sources_are_used_again(exported: Path) -> None:
    needs("onnxruntime")
    weights, out = exported / "weights" / "last.safetensors", exported / "export"
    with pytest.raises(RunError, match=r"model\.onnx exists; replace it with --overwrite"):
        export_model(weights, out)
    before = (out / "model.onnx").stat().st_mtime_ns
    dataset, _ = api.data_of(des4.load(exported), exported)
    paths = export_model(weights, out, ["int8"], images=lambda: training_images(dataset, 4))
    assert [path.name for path in paths] == ["model.int8.onnx"]
    assert (out / "model.onnx").stat().st_mtime_ns == before
    labels, _ = formats.onnx_session(paths[0])(pixels(1, 40, 50))
    assert labels.shape == (1, 40, 50)
    told = meta(paths[0])
    assert told["quantised"].startswith("int8")
    assert all(0 <= check["equal_labels"] <= 1 for check in json.loads(told["parity"]))
    assert not list(out.glob(".partial*"))


def test_int8_needs_images(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="int8 needs images of the training data"):
        export_model(exported / "weights" / "last.safetensors", tmp_path / "out", ["int8"])
    assert not (tmp_path / "out").exists()


def test_openvino_says_the_same(exported: Path) -> None:
    needs("openvino")
    (folder,) = export_model(exported / "weights" / "last.safetensors", exported / "export", ["openvino"])
    told = json.loads((folder / "model.json").read_text())
    assert all(check["largest_difference"] < 1e-3 for check in told["parity"])
    images = pixels(2, 40, 51)
    ours, _ = formats.onnx_session(exported / "export" / "model.onnx")(images)
    theirs, probs = formats.openvino_session(folder / "model.xml")(images)
    assert probs.shape == (2, len(told["classes"]), 40, 51)
    assert (ours == theirs).mean() > 0.999


def test_torch_export_can_be_loaded_by_others(trained: Path, tmp_path: Path) -> None:
    (path,) = export_model(trained / "weights" / "last.safetensors", tmp_path, ["torch"])
    extra = {"des4.json": ""}
    network = torch.export.load(path, extra_files=extra).module()
    told = json.loads(extra["des4.json"])
    assert all(check["largest_difference"] < 1e-4 for check in told["parity"])
    image = pixels(1, 50, 39)
    labels, _ = network(torch.from_numpy(image))
    assert (labels[0].numpy() == des4.load(trained).predict(image[0])).mean() > 0.999


def test_weights_with_a_card(trained: Path, tmp_path: Path) -> None:
    (folder,) = export_model(trained / "weights" / "last.safetensors", tmp_path, ["safetensors"])
    assert (folder / "model.safetensors").read_bytes() == (trained / "weights" / "last.safetensors").read_bytes()
    image = pixels(20, 30)
    assert (des4.load(folder / "model.safetensors").predict(image) == des4.load(trained).predict(image)).all()
    card = (folder / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["pipeline_tag"] == "image-segmentation"
    results = json.loads((trained / "results.json").read_text())
    assert f"| mIoU | {100 * results['miou']:.2f} |" in card
    assert "| 0 | sky | #" in card
    lone = Path(shutil.copy(trained / "weights" / "last.safetensors", tmp_path / "w.safetensors"))
    (folder,) = export_model(lone, tmp_path / "lone", ["safetensors"])
    assert "Not known" in (folder / "README.md").read_text()


def test_the_card_of_the_best_weights_has_their_figure(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    last, best = (run / "weights" / f"{name}.safetensors" for name in ("last", "best"))
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps({**results, "best": {"step": 4, "miou": 0.5, "chosen_on": "val"}}))
    assert model_card(best, weights_info(best)) == model_card(last, weights_info(last))
    (run / "results.json").write_text(json.dumps({**results, "best": {"step": 2, "miou": 0.5, "chosen_on": "val"}}))
    card = model_card(best, weights_info(best))
    assert "50.00 % mIoU on 3 validation images of `scenes`, at step 2. It was chosen as the best" in card
    assert "| mIoU |" not in card and "| mIoU |" in model_card(last, weights_info(last))


def test_folders_that_hold_other_files_are_left_alone(trained: Path, tmp_path: Path) -> None:
    weights = trained / "weights" / "last.safetensors"
    (folder,) = export_model(weights, tmp_path, ["safetensors"])
    assert export_model(weights, tmp_path, ["safetensors"], overwrite=True) == [folder]
    (folder / "mine.safetensors").write_bytes(b"mine")
    with pytest.raises(RunError, match="holds other files than an export writes, so --overwrite leaves it alone"):
        export_model(weights, tmp_path, ["safetensors"], overwrite=True)
    assert (folder / "mine.safetensors").read_bytes() == b"mine"


def test_a_network_that_an_exporter_cannot_follow_is_one_line(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def give_up(model: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise AssertionError("Guard failed: a != b\nand more")

    monkeypatch.setitem(FORMATS, "torch", replace(FORMATS["torch"], write=give_up))
    with pytest.raises(RunError, match=r"model\.pt2: this network cannot be written so \(Guard failed: a != b\); try"):
        export_model(trained / "weights" / "last.safetensors", tmp_path, ["torch"])
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_differs_is_not_kept(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("onnx", "onnxscript", "onnxruntime")
    wrong = lambda images: (np.zeros(images.shape[:3]), np.zeros((images.shape[0], 8, *images.shape[1:3])))  # noqa: E731
    monkeypatch.setattr(formats, "onnx_session", lambda path: wrong)
    with pytest.raises(RunError, match=r"differs from the trained one by .* and was not kept"):
        export_model(trained / "weights" / "last.safetensors", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_named(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("onnx")
    weights = trained / "weights" / "last.safetensors"
    with pytest.raises(ConfigError, match="tflite: no such format; there are onnx, int8"):
        export_model(weights, tmp_path, ["tflite"])
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r'onnx: needs onnxscript; pip install "des4\[onnx\]"'):
        export_model(weights, tmp_path, ["int8"])
    (tmp_path / "model.onnx").write_bytes(b"from another machine")
    monkeypatch.setitem(sys.modules, "onnx", None)
    for name, extra in (("int8", "onnx"), ("openvino", "onnx,openvino")):
        with pytest.raises(ConfigError, match=rf'{name}: needs onnx; pip install "des4\[{extra}\]"'):
            export_model(weights, tmp_path, [name])
    with pytest.raises(ConfigError, match="onnx: needs onnx; pip install"):
        measure(weights, tmp_path, SimpleNamespace(val=["a"]), 1)  # type: ignore[arg-type]


def test_arguments_that_nobody_reads_are_refused(exported: Path) -> None:
    for command, said in (
        (["export", str(exported), "int8"], "formats are named with --format"),
        (["export", str(exported), "data=scenes"], "int8 alone reads data"),
        (["export", str(exported), "--format", "int8", "--overwrite", "eval.resize=0.5"], "settings of data alone"),
        (["benchmark", str(exported), "resize=0.5"], "eval.resize: settings of data alone"),
    ):
        done = CliRunner().invoke(cli.app, command)
        assert done.exit_code == 2 and said in " ".join(done.stderr.replace("│", " ").split()), done.output


def test_a_damaged_file_and_one_of_other_weights_are_not_used(exported: Path, tmp_path: Path) -> None:
    weights, images = exported / "weights" / "last.safetensors", lambda: iter(())
    (tmp_path / "model.onnx").write_bytes(b"damaged" * 100)
    with pytest.raises(RunError, match=r"model\.onnx exists; replace it with --overwrite"):
        export_model(weights, tmp_path, ["int8"], images=images)
    dataset, _ = api.data_of(des4.load(exported), exported)
    with pytest.raises(RunError, match=r"model\.onnx: was not made from .*last\.safetensors; make it anew"):
        measure(weights, tmp_path, dataset, 1)
    shutil.copy(exported / "export" / "model.onnx", tmp_path)
    segmenter, info = load_weights(weights)
    save_weights(tmp_path / "w.safetensors", segmenter.state_dict(), info.model_copy(update={"method": "other"}))
    with pytest.raises(RunError, match=r"model\.onnx: was not made from .*w\.safetensors"):
        measure(tmp_path / "w.safetensors", tmp_path, dataset, 1)
    assert set(FORMATS) == {"onnx", "int8", "openvino", "torch", "safetensors"}


def test_many_classes_have_wider_labels(trained: Path, tmp_path: Path) -> None:
    _, info = load_weights(trained / "weights" / "last.safetensors")
    many = info.model_copy(update={"classes": tuple(map(str, range(300))), "palette": ((0, 0, 0),) * 300, "tail": ()})
    segmenter = build_segmenter(many.model, 300, many.head, pretrained=False).eval()
    assert Deployed(segmenter, 300)(torch.from_numpy(pixels(1, 33, 33)))[0].dtype == torch.int32
    save_weights(tmp_path / "w.safetensors", segmenter.state_dict(), many)
    assert isinstance(load_weights(tmp_path / "w.safetensors")[1], WeightsInfo)


def test_side_by_side(exported: Path, tmp_path: Path) -> None:
    run = CliRunner()
    (exported / "export" / "model.pt2").write_bytes(b"never opened")
    done = run.invoke(cli.app, ["benchmark", str(exported), "--images", "2", "--json"])
    assert done.exit_code == 0, done.output
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert set(rows) >= {"torch", "onnx", "torch.export"}
    assert rows["torch"]["equal"] == 1
    assert rows["torch.export"]["equal"] > 0.999
    assert rows["onnx"]["equal"] > 0.999
    assert rows["onnx"]["miou"] == pytest.approx(rows["torch"]["miou"], abs=1e-3)
    assert all(row["images_per_second"] > 0 and row["megabytes"] > 0 for row in rows.values())
    shown = run.invoke(cli.app, ["benchmark", str(exported), "data=scenes", "data.size=48", "--images", "1"])
    assert "images/s" in shown.stdout
    assert "on the first 1 of 64 validation images" in shown.stdout
    nothing = run.invoke(cli.app, ["benchmark", str(exported), "--exported", str(tmp_path)])
    assert nothing.exit_code == 2
    assert "make some with des4 export" in nothing.stderr


def test_pixels_are_counted_over_all_images() -> None:
    sizes = {"a": (1, 1), "b": (3, 3)}
    dataset: Any = SimpleNamespace(
        classes=("x", "y"),
        bands=None,
        image=lambda name: torch.zeros(3, *sizes[name], dtype=torch.uint8),
        label=lambda name: torch.zeros(sizes[name], dtype=torch.uint8),
    )
    reference = [np.zeros((1, 1, 1), np.uint8), np.ones((1, 3, 3), np.uint8)]
    run = lambda image: (np.zeros(image.shape[:3], np.uint8), np.zeros((1, 2, *image.shape[1:3]), np.float32))  # noqa: E731
    row = _measure("onnx", 1.0, run, dataset, ["a", "b"], 1.0, reference)
    assert row.equal == 0.1 and row.miou == 1.0


def test_a_run_that_resizes_is_scored_as_its_evaluation(exported: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(exported, tmp_path / "run"))
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["eval"]["resize"] = 0.5
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    weights = run / "weights" / "last.safetensors"
    segmenter, info = load_weights(weights)
    half = info.eval.model_copy(update={"resize": 0.5})
    save_weights(weights, segmenter.state_dict(), info.model_copy(update={"eval": half}))
    shutil.rmtree(run / "export" / "openvino", ignore_errors=True)
    for path in (run / "export").glob("*.onnx"):
        formats._describe_onnx(path, {"weights_sha256": weights_hash(weights)})
    dataset, _ = api.data_of(des4.load(run), run)
    (row, *_) = measure(weights, run / "export", dataset, 3)
    assert row.miou == pytest.approx(des4.evaluate(run).miou, abs=0.02)  # pixels are rounded to 8 bits on the way
    assert [image.shape for image in training_images(dataset, 1, 0.5)] == [(24, 24, 3)]
