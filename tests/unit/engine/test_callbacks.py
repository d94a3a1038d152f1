"""Who watches a run is told of it, in its order; an error in a callback stops the run, which is saved first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import des4
from des4.engine.callbacks import Callbacks, Ended, Started, Stepped, Validated
from des4.types import CallbackError

TINY: dict[str, Any] = {
    "method": "supervised",
    "data": {"name": "scenes", "size": 48, "labeled": 4, "unlabeled": 4, "val": 2},
    "model": {"encoder": "test_efficientnet", "weights": "none", "channels": 16, "low_channels": 8},
    "train": {"steps": 4, "batch_size": 2, "workers": 0, "log_every": 2, "eval_every": 2},
    "views": {"crop_size": 32},
}


class Noted(des4.Callback):
    """Keeps what it is told; raises in one place."""

    def __init__(self, fails: str = "", at: int = 0) -> None:
        self.fails, self.at = fails, at
        self.told: list[tuple[str, Any]] = []

    def _note(self, name: str, event: Any) -> None:
        self.told.append((name, event))
        if name == self.fails and getattr(event, "step", self.at) == self.at:
            raise ValueError("not today")

    def on_start(self, started: Started) -> None:
        self._note("start", started)

    def on_step(self, step: Stepped) -> None:
        self._note("step", step)

    def on_validation(self, validation: Validated) -> None:
        self._note("validation", validation)

    def on_warning(self, text: str) -> None:
        self._note("warning", text)

    def on_end(self, end: Ended) -> None:
        self._note("end", end)

    def of(self, name: str) -> list[Any]:
        return [event for kind, event in self.told if kind == name]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Noted, Path]:
    noted = Noted()
    run = des4.train(TINY, out=tmp_path_factory.mktemp("watched") / "run", callbacks=[noted])
    return noted, run.dir


def test_a_callback_is_told_of_the_whole_run(watched: tuple[Noted, Path]) -> None:
    noted, run = watched
    (started,), (ended,) = noted.of("start"), noted.of("end")
    assert (started.run, started.step, started.steps, started.history) == (run, 0, 4, [])
    assert started.config["train"]["steps"] == 4
    assert set(started.tail) < set(started.classes)
    assert [step.step for step in noted.of("step")] == [1, 2, 3, 4]
    assert [bool(step.metrics) for step in noted.of("step")] == [False, True, False, True]
    assert {"loss", "loss/labeled", "lr", "images_per_second"} <= noted.of("step")[1].metrics.keys()
    assert [validation.step for validation in noted.of("validation")] == [2, 4]
    assert noted.of("validation")[0].best
    assert noted.of("validation")[0].headline.miou == noted.of("validation")[0].metrics["val/student/miou"]
    assert [validation.samples for validation in noted.of("validation")] == [run / "plots" / "samples.png", None]
    assert (ended.status, ended.step, ended.results["step"]) == ("finished", 4, 4)
    assert ended.samples == run / "plots" / "samples.png"
    assert noted.told[-1][0] == "end"


def test_an_error_in_a_callback_stops_a_run_that_is_saved(watched: tuple[Noted, Path], tmp_path: Path) -> None:
    noted, end = Noted("step", 3), Noted("end", 4)
    with pytest.raises(CallbackError, match=r"Noted\.on_step raised ValueError: not today; the run is saved") as caught:
        des4.train(TINY, out=tmp_path / "run", callbacks=[noted, end])
    assert isinstance(caught.value.__cause__, ValueError)
    assert (tmp_path / "run" / "checkpoints" / "step-3").is_dir()
    assert noted.of("end") == []  # it is not asked again
    assert [ended.status for ended in end.of("end")] == ["stopped"]
    # resumed, it is told what the run had logged; an error at the end loses nothing
    end.told.clear()
    with pytest.raises(CallbackError, match="the run has finished"):
        des4.resume(tmp_path / "run", callbacks=[end])
    (started,) = end.of("start")
    assert (started.step, [row["step"] for row in started.history]) == (3, [2, 2])
    assert [step.step for step in end.of("step")] == [4]
    results, whole = (json.loads((run / "results.json").read_text()) for run in (tmp_path / "run", watched[1]))
    assert results["iou"] == whole["iou"]
    assert (tmp_path / "run" / "report.html").exists()


def test_an_optional_callback_that_fails_is_left_out() -> None:
    said: list[str] = []
    failing, other = Noted("step", 1), Noted()
    failing.optional = True
    callbacks = Callbacks([failing, other], say=lambda text, echo: said.append(text))
    callbacks.start(0, 3, [])
    for number in (1, 2):
        callbacks.stepped(Stepped(number, 3, 0.1, 1.0, None))
    assert callbacks.error is None
    assert (len(failing.of("step")), len(other.of("step"))) == (1, 2)
    assert said == ["warning: Noted.on_step raised ValueError: not today; the run goes on without it"]
    assert other.of("warning") == said


def test_the_end_is_told_once_and_only_after_a_start() -> None:
    noted = Noted()
    callbacks = Callbacks([noted])
    callbacks.end("failed")
    callbacks.start(0, 1, [])
    callbacks.end("stopped", "Ctrl-C")
    callbacks.end("finished")
    assert [(end.status, end.reason) for end in noted.of("end")] == [("stopped", "Ctrl-C")]


def test_a_callback_may_warn(capsys: pytest.CaptureFixture[str]) -> None:
    noted = Noted()
    Callbacks([noted], say=lambda text, echo: print(text, echo))
    noted.warn("mind the step")
    assert noted.of("warning") == ["mind the step"]
    assert capsys.readouterr().out == "mind the step True\n"
