from __future__ import annotations

import re
from pathlib import Path
from time import sleep
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import des4
from des4.config import ConfigError, load_config
from des4.data_tools.checks.advice import Machine
from des4.datasets import FolderConfig, open_files
from des4.engine.cost import Part, parts_of_run
from des4.plan import Plan, plan, within_budget, within_kept_budget
from des4.types import DataError

TINY = {"model.encoder": "test_efficientnet", "model.weights": "none", "channels": 16, "low_channels": 8,
        "embedding_dim": 12, "crop_size": 33, "batch_size": 2, "workers": 0}  # fmt: skip


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """8 images of 80×60 pixels, 5 of them with masks of 2 classes."""
    rng = np.random.default_rng(0)
    for number in range(8):
        for side, shape in (("images", (60, 80, 3)), ("masks", (60, 80))):
            (tmp_path / "photos" / side).mkdir(parents=True, exist_ok=True)
            if side == "images" or number < 5:
                pixels = rng.integers(0, 256 if side == "images" else 2, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "photos" / side / f"{number}.png")
    return tmp_path / "photos"


def decided(planned: Plan) -> dict[str, object]:
    return {setting.key: setting.value for setting in planned.settings}


def test_data_alone_are_enough(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("des4.data_tools.checks.advice.torch.cuda.is_available", lambda: False)
    planned = plan({}, [f"data={photos}"])
    config = planned.config
    assert (config.method.name, config.model.encoder, config.optim.name) == (
        "des4_committee",
        "tf_efficientnet_lite0",
        "adamw",
    )
    assert (config.views.crop, config.train.steps, config.train.batch_size) == ((81, 81), 500, 4)
    assert config.train.eval_every == 50
    assert {"method.name", "views.crop_size", "train.steps", "model.weights"} <= decided(planned).keys()
    assert not {"data.name", "data.root"} & decided(planned).keys()
    assert all("\n" not in line and ": " in line for line in planned.lines())
    assert planned.lines()[0].startswith("method.name=des4_committee: ")
    assert plan({"data": str(photos)}).config == config


def test_the_check_draws_the_val_images_that_a_plan_draws(photos: Path) -> None:
    planned = plan({}, [f"data={photos}"]).config.data
    assert isinstance(planned, FolderConfig)
    drawn = [open_files(config).val for config in (planned, FolderConfig(root=photos))]
    assert len(drawn[0]) == 2 and drawn[0] == drawn[1]


def test_every_key_that_is_given_stays(photos: Path) -> None:
    planned = plan({}, [f"data={photos}", "method=fixmatch", "crop_size=33", "eval_every=0"])
    assert (planned.config.method.name, planned.config.views.crop) == ("fixmatch", (33, 33))
    assert planned.config.train.eval_every == 0
    assert not {"method.name", "views.crop_size", "train.eval_every"} & decided(planned).keys()
    other = plan({}, [f"data={photos}", "model=resnet18", "optim.name=sgd", "steps=7"])
    default = load_config({"method": "des4_committee", "data": str(photos)})
    assert other.config.model == default.model.model_copy(update={"encoder": "resnet18", "weights": "timm"})
    assert "timm downloads" in next(one.reason for one in other.settings if one.key == "model.weights")
    none = plan({}, [f"data={photos}", "model=resnet18", "weights=none"])
    assert none.config.model.weights == "none" and "model.weights" not in decided(none)
    assert (other.config.optim, other.config.train.steps) == (default.optim, 7)


def test_within_a_few_minutes_of_a_cpu_a_committee_has_fewer_networks(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def networks(*given: str) -> Any:
        return getattr(plan({}, [f"data={photos}", *given]).config.method, "networks", None)

    assert [networks("minutes=10"), networks("minutes=60"), networks()] == [2, 3, 3]
    assert [networks("minutes=10", "method=des4_committee"), networks("minutes=10", "networks=4")] == [2, 4]
    assert networks("minutes=10", "method=fixmatch") is None
    monkeypatch.setattr("des4.plan.Machine.here", lambda: Machine(gpu_bytes=16 * 2**30))
    assert networks("minutes=10") == 3


def test_a_method_and_a_length_are_a_plan_already(photos: Path, tmp_path: Path) -> None:
    given = [f"data={photos}", "method=des4", "steps=9"]
    assert plan({}, given).config == load_config({}, given)
    assert plan({}, given).settings == ()
    written = tmp_path / "config.yaml"
    written.write_text(f"method: des4\ndata: {photos}\nepochs: 2\n")
    assert plan(written).config == load_config(written)
    config = load_config({}, given)
    assert plan(config).config == config


def test_a_budget_takes_the_place_of_a_files_steps_but_not_of_given_ones(photos: Path, tmp_path: Path) -> None:
    written = tmp_path / "config.yaml"
    written.write_text(f"method: des4\ndata: {photos}\ntrain: {{steps: 9}}\ncrop_size: 33\n")
    planned = plan(written, ["minutes=2"])
    assert (planned.minutes, planned.config.views.crop, planned.config.train.minutes) == (2, (33, 33), None)
    for length in ("steps=5", "epochs=5"):
        with pytest.raises(ConfigError, match=f"leave out train.{length[:-2]}"):
            plan(written, ["minutes=2", length])
    for wrong in ("0", "-1", "soon"):
        with pytest.raises(ConfigError, match=r"train\.minutes: must be"):
            plan(written, [f"minutes={wrong}"])


def test_what_cannot_be_planned_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="method: missing"):
        plan({}, ["data=scenes"])
    with pytest.raises(ConfigError, match=r"^data: is empty; say data=FOLDER.*$"):  # in one line
        plan({}, ["data=", "minutes=1"])
    with pytest.raises(DataError, match="no such data folder"):
        plan({}, [f"data={tmp_path / 'nowhere'}"])
    with pytest.raises(ConfigError, match="did you mean minutes"):
        plan({}, ["minuts=5"])


def test_a_budget_becomes_steps_that_the_run_records(photos: Path, tmp_path: Path) -> None:
    run = des4.train({"data": str(photos)}, minutes=0.1, out=tmp_path / "run", **TINY)
    text = (run.dir / "config.yaml").read_text()
    train = yaml.safe_load(text)["train"]
    assert train["minutes"] is None
    assert train["steps"] == run.results["steps"] > 1
    assert 1 <= train["eval_every"] <= train["steps"]
    assert "# planned: train.steps=" in text
    log = (run.dir / "train.log").read_text()
    assert "planned: method.name=des4_committee: it learns from" in log
    assert f"planned: train.steps={train['steps']}: a step takes" in log
    again = des4.api.resume(run.dir)
    assert again.results["steps"] == train["steps"]


def test_a_budget_counts_every_part_of_a_run(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        """A step that takes longer in the second part."""

        def __init__(self, method: Any, *_: object, **__: object) -> None:
            self.method = method

        def __call__(self, batch: object) -> None:
            sleep(0.02 if self.method.step < self.method.restarts[0] else 0.08)

    monkeypatch.setattr("des4.plan.TrainStep", Slow)
    given = {"data": str(photos), "method": "des4_committee", "labels_alone": 0.5}
    planned = within_budget(plan(given, {"minutes": 0.2, **TINY}))
    (said,) = (line for line in planned.lines() if line.startswith("train.steps="))
    found = re.search(r"a step takes (0\.\d\d) s in the mean of 2 parts of the run \((0\.\d\d), (0\.\d\d)\)", said)
    assert found
    mean, first, second = map(float, found.groups())
    assert mean == pytest.approx((first + second) / 2, abs=0.011)
    assert second - first > 0.04
    assert planned.config.train.steps is not None
    assert planned.config.train.steps * mean < 12


@pytest.mark.parametrize("every", [50, 0, None])
def test_a_budget_counts_the_validations_that_were_asked_for(
    photos: Path, monkeypatch: pytest.MonkeyPatch, every: int | None
) -> None:
    step, image = 0.1, 1.25  # seconds; the two val images are scored and drawn at each validation
    monkeypatch.setattr("des4.plan._timed", lambda *_: ([(SimpleNamespace(share=1.0), step)], image))
    given = {} if every is None else {"eval_every": every}
    train = within_budget(
        plan({"data": str(photos), "method": "supervised"}, {"minutes": 10, **TINY, **given})
    ).config.train
    assert train.steps is not None and train.eval_every is not None
    validations = 1 if every == 0 else -(-train.steps // train.eval_every)
    assert 570 < step * train.steps + 4 * image * validations < 600


def test_a_budget_without_room_for_a_step_is_refused(photos: Path) -> None:
    with pytest.raises(ConfigError, match="no step fits; give more minutes"):
        within_budget(plan({"data": str(photos)}, {"minutes": 1e-4, **TINY}))


def test_a_budget_leaves_time_for_the_pictures_of_the_report(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def timed(training: Any, _: float) -> tuple[list[tuple[Part, float]], float]:
        return [(parts_of_run(training.method)[0], 100.0)], 100.0

    monkeypatch.setattr("des4.plan._timed", timed)
    train = within_budget(plan({"data": str(photos), "method": "supervised"}, {"minutes": 100, **TINY})).config.train
    # Of 6000 s two val images take 200 to be scored, 200 to be drawn then and 200 for the report; building takes a few.
    assert (train.steps, train.eval_every) == (53, 53)


def test_a_budget_is_kept_for_who_goes_on(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter((0.5, 0.25, 0.1))

    def timed(training: Any, _: float) -> tuple[list[tuple[Part, float]], float]:
        return [(parts_of_run(training.method)[0], next(seconds))], 0.01

    monkeypatch.setattr("des4.plan._timed", timed)
    file, given = tmp_path / "budget.json", {"data": str(photos), "method": "supervised"}

    def length(minutes: float, **others: Any) -> tuple[int | None, int | None]:
        train = within_kept_budget(plan(given, {"minutes": minutes, **TINY, **others}), file).config.train
        return train.steps, train.eval_every

    first = length(1)
    assert length(1) == first
    other = length(2)
    assert other[0] != first[0]
    assert length(2) == other
    assert length(2, seed=3) != other  # other settings are timed anew
