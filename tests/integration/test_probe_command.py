"""`des4 probe`, an oracle, and pseudo-labels against the truth, end to end on a tiny network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import des4
from des4 import build, cli
from des4.config import load_config
from des4.probe import OWN, probe
from des4.report.compare import compare
from des4.runlog import RunFolder
from des4.training import ORACLE
from des4.types import ConfigError, DataError, RunError
from des4.weights import load_weights


@pytest.mark.parametrize("model", ["teacher", "student"])
def test_the_networks_own_classifier_has_the_figures_of_the_run(trained: Path, model: str) -> None:
    found = probe(trained, model)
    run = RunFolder.open(trained).results()["models"][model]
    own = found.heads[OWN]
    assert own.confusion.tolist() == run["confusion"]
    assert own.tail_miou == pytest.approx(run["tail_miou"])
    assert (found.model, found.step, found.labeled, found.val) == (model, 4, 4, 3)
    assert found.pixels == 4 * 12 * 12  # 48 pixels at stride 4
    assert list(found.heads) == [
        OWN,
        *(f"{OWN} - {t} log share" for t in ("0.25", "0.5", "1")),
        "linear",
        "linear, classes weighted by share^-½",
        "LDA",
    ]
    assert max(one.miou for one in found.heads.values()) > own.miou  # it has learnt for four steps


def test_the_verb_prints_a_table_and_json(trained: Path) -> None:
    shown = CliRunner().invoke(cli.app, ["probe", str(trained)])
    assert shown.exit_code == 0, shown.output
    assert "LDA" in shown.stdout and "classifier on the teacher" in shown.stdout
    assert "Fitted on 4 labeled images" in shown.stdout
    assert "the score rests on 3 val images" in shown.stderr
    found = CliRunner().invoke(cli.app, ["probe", str(trained), "--json", "--model", "student", "eval.mirror=true"])
    assert json.loads(found.stdout)["model"] == "student"


def test_what_a_probe_cannot_do_it_says(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--model peer: this run has teacher and student"):
        probe(trained, "peer")
    with pytest.raises(ConfigError, match=r"data\.\* and eval\.\* alone"):
        probe(trained, overrides=["seed=1"])
    with pytest.raises(RunError, match="not a des4 run folder"):
        probe(tmp_path)


def test_an_oracle_run_is_marked_wherever_its_figures_stand(
    tiny: dict[str, Any], trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny["method"] = "fixmatch"
    run = des4.train(tiny, **{"train.oracle": True, "guard.truth_images": 2, "train.eval_every": 2})
    assert run.dir == Path("runs/fixmatch-oracle-1")
    assert run.results["oracle"] is True and run.results["caution"].startswith(ORACLE)
    rows = RunFolder.open(run.dir).metrics()
    assert {row["drift/confidence"] for row in rows if "loss" in row} == {1.0}  # perfect and sure
    assert {row["drift/kept"] for row in rows if "loss" in row} == {1.0}
    assert [row["step"] for row in rows if "truth/miou" in row] == [2, 4]
    assert any(key.startswith("truth/coverage/") for row in rows for key in row)  # fixmatch has a threshold
    assert run.results["truth"]["images"] == 2
    assert "warning: ORACLE RUN" in (run.dir / "train.log").read_text()
    page = (run.dir / "report.html").read_text()
    assert "ORACLE RUN. NO RESULT." in page and "2 unlabeled images whose masks" in page
    assert load_weights(run.dir / "weights" / "last.safetensors")[1].oracle
    shown = CliRunner().invoke(cli.app, ["eval", str(run.dir)])
    assert "caution: ORACLE RUN" in shown.stderr
    assert "fixmatch · ORACLE" in compare([RunFolder.open(run.dir)]).markdown()
    with pytest.raises(RunError, match=r"train\.oracle: True -> False"):
        des4.api.resume(run.dir, overrides=["train.oracle=false"], force=True)
    plain = RunFolder.open(trained).results()
    assert plain["oracle"] is False and "ORACLE" not in (plain["caution"] or "")
    assert plain["truth"] is None and plain["drift"]["warned"] == []


def test_labeled_images_that_are_held_out_are_scored_and_not_learnt_from(tiny: dict[str, Any], tmp_path: Path) -> None:
    run = des4.train(tiny, out=tmp_path / "run", **{"guard.held_out": 0.25, "train.steps": 2})
    assert run.results["data"]["labeled"] == 3
    (held,) = run.results["held_out"]["images"]
    assert run.results["held_out"]["models"].keys() == {"teacher", "student"}
    assert "held_out/teacher/miou" in RunFolder.open(run.dir).metrics()[-1]
    assert "On 1 labeled image that was held out" in (run.dir / "report.html").read_text()
    assert probe(run.dir).labeled == 3
    for count, share in ((1, 0.01), (1, 1), (3, 3)):
        training = build.training(load_config(tiny, {"guard.held_out": share}))
        assert len(training.dataset.held_out) == count
        assert not set(training.dataset.held_out) & set(training.dataset.labeled)
        assert len(training.dataset.labeled) == 4 - count
    assert held in training.dataset.held_out
    with pytest.raises(DataError, match=r"held_out=4 leaves none of the 4 labeled images"):
        build.training(load_config(tiny, {"guard.held_out": 4}))
    with pytest.raises(ConfigError, match="whole number of images, or a share below 1"):
        load_config(tiny, {"guard.held_out": 1.5})


@pytest.fixture
def repeating(tiny: dict[str, Any], folder: Path, tmp_path: Path) -> dict[str, Any]:
    """Settings with three labeled images that are on the unlabeled list too, beside one with a mask and one without."""
    (folder / "masks" / "4.png").write_bytes((folder / "masks" / "0.png").read_bytes())
    (tmp_path / "labeled.txt").write_text("0\n1\n2")
    (tmp_path / "all.txt").write_text("0\n1\n2\n4\n5")
    (tmp_path / "val.txt").write_text("3")
    lists = {"labeled": "labeled.txt", "unlabeled": "all.txt", "val": "val.txt"}
    paths = {name: str(tmp_path / file) for name, file in lists.items()}
    return {**tiny, "data": {"name": "folder", "root": str(folder), **paths}}


def test_images_that_are_labeled_and_unlabeled_are_held_out_of_both_lists(repeating: dict[str, Any]) -> None:
    data = build.training(load_config(repeating, {"guard.held_out": 1})).dataset
    (held,) = data.held_out
    assert sorted([*data.labeled, held]) == ["0", "1", "2"]
    assert sorted([*data.unlabeled, held]) == ["0", "1", "2", "4", "5"]
    assert held not in data.reveal()


def test_pseudo_labels_are_measured_on_images_that_are_unlabeled_alone(repeating: dict[str, Any]) -> None:
    training = build.training(load_config(repeating, {"guard.truth_images": 3}))
    assert training.guards.truth is not None
    assert [*training.guards.truth.ids] == ["4"]
    assert len(training.dataset.unlabeled) == 5  # they are learnt from as before


def test_an_oracle_without_masks_is_refused(tiny: dict[str, Any], folder: Path) -> None:
    oracle = {"train.oracle": True}
    settings = {**tiny, "data": str(folder)}
    with pytest.raises(DataError, match="2 of the 2 unlabeled images have no mask, the first is '4'"):
        des4.train(settings, **oracle)
    with pytest.raises(DataError, match=r"guard\.truth_images=3: no image that is unlabeled alone has a mask"):
        des4.train(settings, **{"guard.truth_images": 3})
    with pytest.raises(ConfigError, match="method=supervised reads no unlabeled image"):
        des4.train({**settings, "method": "supervised"}, **oracle)
