"""The Python interface, end to end on a tiny network."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import des4
from des4 import api, build, cli, weights
from des4.config import load_config
from des4.export.formats import export_model
from des4.predict import Predictor
from des4.types import ConfigError, DataError, RunError, WeightsError

Settings = dict[str, Any]


@pytest.fixture(scope="session")
def predictor(trained: Path) -> Predictor:
    return des4.load(trained)


def test_importing_the_package_loads_no_torch() -> None:
    code = "import sys, des4; assert not {'torch', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603


def test_sub_packages_are_there_without_an_import_of_their_own() -> None:
    code = "import des4; des4.losses.cross_entropy; des4.methods.METHODS; des4.models.PrototypeClassifier; des4.ops"
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603


def test_a_name_that_there_is_not_is_named() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        des4.trian  # noqa: B018


def test_a_run_folder_holds_what_was_promised(trained: Path) -> None:
    for name in ("env.json", "train.log", "metrics.jsonl", "report.html", "weights/last.safetensors",
                 "weights/best.safetensors", "plots/samples.png", "plots/worst.png", "checkpoints/step-4"):  # fmt: skip
        assert (trained / name).exists(), name
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert config["train"]["steps"] == 4
    assert config["optim"]["lr"] == 1e-3  # defaults too
    results = json.loads((trained / "results.json").read_text())
    assert results["evaluated"] == "teacher"
    assert set(results["models"]) == {"teacher", "student"}
    assert results["data"]["val"] == 3
    assert results["data"]["protocol"] is None  # nobody publishes lists of scenes
    assert len(results["data"]["val_hash"]) == 64
    assert sum(results["pixel_share"].values()) == pytest.approx(1)
    env = json.loads((trained / "env.json").read_text())
    assert env["torch"] == torch.__version__.partition("+")[0]
    assert 0 < env["parameters"]["predicting"] < env["parameters"]["trained"]  # the teacher's decoder learns too
    assert env["peak_memory"]["device"] is None and env["peak_memory"]["process"] > 50_000_000


def test_overrides_and_the_next_free_folder(tiny: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [des4.train(tiny, method="supervised", steps=1, **{"model.head": "prototype"}) for _ in range(2)]
    assert [run.dir for run in runs] == [Path("runs/supervised-1"), Path("runs/supervised-2")]
    assert runs[0].results["method"] == "supervised"
    assert runs[0].results["steps"] == 1


@pytest.mark.parametrize(
    ("overrides", "error"),
    [
        ({"train.steps": None}, ConfigError),
        ({"epochs": 1}, ConfigError),
        ({"accumulate": 3}, ConfigError),
        ({"encoder": "resnet0"}, ConfigError),
        ({"model.weights": "none.pth"}, WeightsError),
        ({"data": "nowhere"}, DataError),
        ({"data.unlabeled": 0}, DataError),
        ({"model.head": "linear"}, ConfigError),
    ],
)
def test_nothing_is_written_before_everything_is_checked(
    tiny: Settings, tmp_path: Path, overrides: Settings, error: type[Exception]
) -> None:
    with pytest.raises(error):
        des4.train(tiny, out=tmp_path / "run", **overrides)
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_overwritten_unasked(tiny: Settings, trained: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(trained, tmp_path / "run")
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match="--overwrite"):
        des4.train(tiny, out=copy)
    assert before == {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    assert des4.train(tiny, out=copy, overwrite=True, steps=1).results["steps"] == 1


def test_resume_continues_to_the_same_weights(trained: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(copy / "checkpoints" / "step-4")
    shutil.rmtree(copy / "weights")
    (copy / "weights").mkdir()
    (copy / "results.json").unlink()
    run = api.resume(copy)
    assert "continuing from step 2" in (copy / "train.log").read_text()
    old, new = load_file(trained / "weights" / "last.safetensors"), load_file(copy / "weights" / "last.safetensors")
    assert old.keys() == new.keys()
    assert all(torch.equal(old[name], new[name]) for name in old)
    assert run.results["miou"] == json.loads((trained / "results.json").read_text())["miou"]


def test_a_run_that_goes_on_stays_in_its_folder(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="stays in its folder"):
        api.resume(trained, overrides={"out": tmp_path / "elsewhere"})
    for file in ([], [str(trained / "config.yaml")]):
        done = CliRunner().invoke(cli.app, ["train", *file, "--resume", str(trained), f"out={tmp_path / 'elsewhere'}"])
        assert done.exit_code == 2 and "out: a run that goes on stays in its folder" in done.stderr


def test_resume_refuses_other_settings_and_lists_them(trained: Path) -> None:
    with pytest.raises(RunError, match=r"optim\.lr: 0\.001 -> 0\.5; train\.steps: 4 -> 8") as error:
        api.resume(trained, overrides=["steps=8", "lr=0.5"])
    assert "\n" not in str(error.value)


def test_an_auxiliary_head_stays_in_the_run(tiny: Settings, tmp_path: Path) -> None:
    run = des4.train(tiny, out=tmp_path / "run", method="supervised", steps=2, auxiliary_weight=0.4)
    state = load_file(run.dir / "checkpoints" / "step-2" / "state.safetensors")
    assert any("/auxiliary_heads.student." in name for name in state)
    for source in (run.dir / "weights" / "last.safetensors", run.dir / "checkpoints" / "step-2"):
        segmenter, _ = weights.load_weights(source)
        assert not any("auxiliary" in name for name in segmenter.state_dict())
        assert not segmenter.encoder.yields_side
    assert api.resume(run.dir, overrides=["steps=3", "auxiliary_weight=0.2"], force=True).results["steps"] == 3
    with pytest.raises(RunError, match=r"trains another network than these settings \((method/)?auxiliary_heads"):
        api.resume(run.dir, overrides=["steps=4", "auxiliary_weight=0"], force=True)


def test_evaluate_repeats_the_run_s_figures(trained: Path) -> None:
    results = json.loads((trained / "results.json").read_text())
    again = des4.evaluate(trained)
    assert again.confusion.tolist() == results["models"]["teacher"]["confusion"]
    assert again.confusion.dtype == torch.int64
    assert (again.miou, again.tail_miou) == (results["miou"], results["tail_miou"])
    assert list(again.iou) == list(results["iou"])


def test_evaluate_weights_alone_on_named_data(tiny: Settings, trained: Path, tmp_path: Path) -> None:
    lone = Path(shutil.copy(trained / "weights" / "last.safetensors", tmp_path))
    assert des4.evaluate(lone, tiny["data"]).miou == des4.evaluate(trained).miou
    assert des4.evaluate(trained / "weights" / "best.safetensors", overrides=["val=2"]).confusion.sum() == 2 * 48 * 48
    with pytest.raises(ConfigError, match="data: missing"):
        des4.evaluate(lone)


def test_evaluate_refuses_what_it_would_not_read(trained: Path, folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.steps: an evaluation reads data\.\* and eval\.\* alone"):
        des4.evaluate(trained, overrides=["steps=8"])
    with pytest.raises(DataError, match="the data has the classes sky, land, sea, the model sky, mountain"):
        des4.evaluate(trained, folder)


def test_all_kinds_of_images_give_one_label_map(predictor: Predictor, tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    maps = [
        predictor.predict(kind)
        for kind in (pixels, Image.fromarray(pixels), tmp_path / "a.png", str(tmp_path / "a.png"))
    ]
    assert maps[0].shape == (33, 47)
    assert maps[0].dtype == np.uint8
    assert maps[0].max() < len(predictor.classes)
    assert all((label == maps[0]).all() for label in maps)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8), [[1]]]
)
def test_other_arrays_are_refused(predictor: Predictor, image: object) -> None:
    with pytest.raises(DataError, match="uint8 RGB array, not"):
        predictor.predict(image)  # type: ignore[arg-type]


def test_without_memory_images_are_segmented_by_windows(trained: Path) -> None:
    roomy, image = des4.load(trained), np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8)

    def fail_above(side: int) -> None:
        def fail(module: torch.nn.Module, args: tuple[torch.Tensor]) -> None:
            if max(args[0].shape[2:]) > side:
                raise torch.OutOfMemoryError("CUDA out of memory")

        roomy.segmenter.register_forward_pre_hook(fail)

    roomy.configure(["eval.resize=1", "eval.stride=400"])  # of windows that would leave gaps once they are smaller
    fail_above(130)
    with pytest.warns(UserWarning, match="by windows of") as said:
        label = roomy.predict(image)
    assert [str(warning.message).split()[-2] for warning in said] == ["513", "256", "128"]
    assert (roomy.eval.mode, roomy.eval.window, roomy.eval.stride) == ("sliding", 128, None)
    by_windows = des4.load(trained)
    by_windows.configure(["eval.resize=1"])
    by_windows.eval = roomy.eval
    assert np.array_equal(label, by_windows.predict(image))
    fail_above(10)
    with pytest.raises(RunError, match="even with windows of 128 pixels"):
        roomy.predict(image)


def test_a_weights_file_loads_alone_and_exactly(trained: Path, tmp_path: Path) -> None:
    lone = Path(shutil.copy(trained / "weights" / "last.safetensors", tmp_path / "w.safetensors"))
    segmenter, info = weights.load_weights(lone)
    assert info.method == "des4"
    assert info.head == "prototype"
    assert not segmenter.training
    weights.save_weights(tmp_path / "again.safetensors", segmenter.state_dict(), info)
    assert (tmp_path / "again.safetensors").read_bytes() == lone.read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_damaged_and_foreign_weights_are_named(trained: Path, tmp_path: Path) -> None:
    good = trained / "weights" / "last.safetensors"
    path = tmp_path / "w.safetensors"
    segmenter, info = weights.load_weights(good)

    path.write_bytes(good.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="cannot be read as a weights file"):
        weights.load_weights(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="was not written by des4"):
        weights.load_weights(path)
    save_file({"a": torch.zeros(1)}, path, {"des4": "{}"})
    with pytest.raises(WeightsError, match="does not fit this version"):
        weights.load_weights(path)
    weights.save_weights(path, segmenter.state_dict(), info.model_copy(update={"classes": ("one", "two")}))
    with pytest.raises(WeightsError, match="do not fit its header"):
        weights.load_weights(path)
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises((WeightsError, RunError)):
            des4.load(missing)


def test_a_method_is_told_of_the_training_that_it_is_built_for(tiny: Settings) -> None:
    training = build.training(load_config(tiny, ["seed=3", "logit_adjustment=0.5"]))
    setting, data = training.method.setting, training.dataset
    assert setting.classes == data.classes
    assert torch.equal(setting.pixel_counts, training.counts)
    assert (setting.total_steps, setting.seed) == (training.schedule.steps, 3)
    assert (setting.num_labeled, setting.num_unlabeled) == (len(data.labeled), len(data.unlabeled))
    assert training.method.supervision.config.logit_adjustment == 0.5
    torch.testing.assert_close(training.method.supervision.shift.exp().square().sum(), torch.tensor(1.0))


def test_images_that_are_mixed_with_themselves_alone_are_warned_of(tiny: Settings) -> None:
    def warned(*settings: str) -> list[str]:
        return build.training(load_config(tiny, settings)).lone_images

    (line,) = warned("unlabeled_batch_size=1")
    assert "1 unlabeled image at a time, so none is mixed" in line
    assert "accumulate" in warned("method=des4_committee", "accumulate=2")[0]
    for settings in (["views.cutmix=none"], ["views.mix_group=1"], ["method=supervised"], ["method=dars"]):
        assert warned("accumulate=2", *settings) == []
    assert warned() == []


@pytest.mark.parametrize("seed", [20240131120000, 2**63 - 1])
def test_a_seed_may_be_as_large_as_a_date(tiny: Settings, tmp_path: Path, seed: int) -> None:
    tiny["train"] |= {"steps": 1, "seed": seed}
    assert des4.train(tiny, out=tmp_path / "run").results["steps"] == 1
    with pytest.raises(ConfigError, match="seed"):
        load_config(tiny, [f"seed={2**63}"])


def test_building_twice_from_one_seed_gives_one_network(tiny: Settings) -> None:
    first, second = (build.training(load_config(tiny)).method.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = build.training(load_config(tiny, ["seed=1"])).method.state_dict()
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_run_shows_early_what_it_learns(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[float] = []
    monkeypatch.setattr("des4.api._draw_samples", _counting(des4.api._draw_samples, shown))
    tiny["train"] |= {"steps": 8, "eval_every": 3, "log_every": 20, "seed": 3}
    run = des4.train(tiny, out=tmp_path / "run")
    assert shown == [3, 3, 3]  # at steps 3 and 6, and of all in the end
    assert (run.dir / "plots" / "samples.png").is_file()
    lines = (run.dir / "train.log").read_text().splitlines()
    assert [line for line in lines if "step 5/8  about " in line and line.endswith("min left")]
    monkeypatch.setattr("des4.api._draw_samples", lambda *_, **__: None)
    tiny["train"]["eval_every"] = None
    quiet = des4.train(tiny, out=tmp_path / "quiet")
    weights = [(one.dir / "weights" / "last.safetensors").read_bytes() for one in (run, quiet)]
    assert weights[0] == weights[1]  # looking changes nothing


def _counting(draw: Any, shown: list[float]) -> Any:
    def counted(training: Any, run: Any, scores: Any, **options: Any) -> None:
        shown.append(len(scores))
        draw(training, run, scores, **options)

    return counted


def test_a_score_on_labeled_images_of_the_run_comes_with_a_warning(
    tiny: Settings, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "val.txt").write_text("2")
    (tmp_path / "both.txt").write_text("2\n1")
    tiny["data"] = str(folder)
    run = des4.train(tiny, method="supervised", steps=1, out=tmp_path / "run", **{"data.val": tmp_path / "val.txt"}).dir
    with pytest.warns(UserWarning, match="1 of the 2 images are labeled ones of this run"):
        des4.evaluate(run, overrides=[f"data.val={tmp_path / 'both.txt'}"])
    with pytest.warns(UserWarning, match="1 of the 2 images are labeled ones of this run"):
        des4.evaluate(run, {"root": str(folder), "val": str(tmp_path / "both.txt")})
    drawn = des4.train(tiny, method="supervised", steps=1, out=tmp_path / "drawn").dir
    with pytest.warns(UserWarning, match="of the 2 images are labeled ones of this run"):
        des4.evaluate(drawn, overrides=["data.val_fraction=0.5"])
    of_others = {"data.val": tmp_path / "val.txt", "guard.held_out": 1}
    other = des4.train(tiny, method="supervised", steps=1, out=tmp_path / "other", **of_others)
    (held,) = other.results["held_out"]["images"]
    (tmp_path / "three.txt").write_text("0\n1\n3")
    assert held in ("0", "1", "3")
    with pytest.warns(UserWarning, match="2 of the 3 images are labeled ones of this run"):  # the third was held out
        des4.evaluate(other.dir, overrides=[f"data.val={tmp_path / 'three.txt'}"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        des4.evaluate(run, overrides=["eval.mirror=true"])
        (tmp_path / "unlabeled.txt").write_text("4\n5")
        swapped = {"data.val": tmp_path / "unlabeled.txt", "data.unlabeled": tmp_path / "val.txt"}
        (folder / "masks" / "4.png").write_bytes((folder / "masks" / "0.png").read_bytes())
        (folder / "masks" / "5.png").write_bytes((folder / "masks" / "0.png").read_bytes())
        des4.evaluate(run, overrides={key: str(value) for key, value in swapped.items()})  # its unlabeled images
        (tmp_path / "val.txt").rename(tmp_path / "val-2.txt")
        des4.evaluate(run, overrides=[f"data.val={tmp_path / 'val-2.txt'}"])
        (tmp_path / "val-2.txt").rename(tmp_path / "val.txt")
        folder.rename(tmp_path / "moved")  # where the run's own place is gone, another may be named
        des4.evaluate(run, overrides=[f"data.root={tmp_path / 'moved'}"])


def test_a_map_of_one_pixel_is_too_small_for_norms(tiny: Settings, tmp_path: Path) -> None:
    small = {"views.crop_size": 8, "train.batch_size": 1, "model.output_stride": 16}
    with pytest.raises(ConfigError, match=r"a map of one pixel is left; raise views\.crop_size or train\.batch_size"):
        des4.train(tiny, method="supervised", out=tmp_path / "run", **small)


def test_no_model_is_exported_into_a_file(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("sky")
    with pytest.raises(RunError, match=r"classes\.txt is a file; choose a folder"):
        export_model(weights.weights_file(trained), tmp_path / "classes.txt")
