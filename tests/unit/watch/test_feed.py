"""Loggers can neither hold a run up nor end it; what they get, and once only. A fake library stands for real ones."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from des4.config import load_config
from des4.engine.callbacks import Callbacks, Stepped, Validated
from des4.engine.settings import LoggerName
from des4.loggers.logger import LOGGERS, FirstStep, flat
from des4.loggers.serve import Session, kind_of
from des4.types import ConfigError
from des4.watch.feed import LoggerFeed, check_installed

FAKE = """
import json, os, sys, time
from pathlib import Path
where = os.environ["FAKE"]
print("noise on the output")
if where == "import": raise SystemExit(3)
class Settings:
    def __init__(self, **settings): pass
class Image:
    def __init__(self, path): self.path = path
class Run:
    url, offline = "https://example.org/run", False
    def __init__(self, id, resume, dir, config, **rest):
        self.dir, self.out = str(dir), Path(dir, "fake.jsonl")
        self.write({"init": id})
    def write(self, what):
        with self.out.open("a") as file: file.write(json.dumps(what) + "\\n")
    def log(self, values, step):
        if where == "hang": time.sleep(1000)
        if where == "raise": raise ConnectionError("the server said\\n no")
        if where == "die": os.abort()
        if where == "ask": input("API key? ")
        if where == "slow": time.sleep(0.3)
        self.write({"step": step, **{k: v.path and 1 if isinstance(v, Image) else v for k, v in values.items()}})
    def finish(self, exit_code):
        if where == "endless": time.sleep(1000)
        self.write({"finish": exit_code})
def init(**rest): return Run(rest["id"], rest["resume"], rest["dir"], rest["config"])
def teardown(): pass
"""


class Said(list[str]):
    def __call__(self, text: str, echo: bool) -> None:
        self.append(text)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A library `wandb` that does what the variable FAKE says; return the run folder to use."""
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "wandb.py").write_text(FAKE)
    monkeypatch.syspath_prepend(tmp_path / "library")
    monkeypatch.setenv("FAKE", "work")
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def run_of(folder: Path, said: Said, steps: int = 4, start: int = 0, history: Any = (), **options: Any) -> float:
    """Tell a feed of a short run; return the seconds that it took."""
    began = time.monotonic()
    callbacks = Callbacks([LoggerFeed("wandb", **options)], folder, {"train": {"steps": 4}}, ("a", "b"), (), said)
    callbacks.start(start, steps, list(history))
    for step in range(start + 1, steps + 1):
        line = {"loss": 1.0 / step, "shares": [0.25, math.nan], "seconds": math.inf}
        callbacks.stepped(Stepped(step, steps, 0.1, 1.0, None, line))
        time.sleep(0.01)
    (folder / "samples.png").write_bytes(b"png")
    row = {"val/student/miou": 0.5}
    callbacks.validated(Validated(steps, steps, {}, True, row, folder / "samples.png"))
    callbacks.end("finished")
    return time.monotonic() - began


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "fake.jsonl").read_text().splitlines()]


def test_a_logger_gets_all_that_is_finite_and_the_picture(fake: Path) -> None:
    run_of(fake, said := Said())
    first, *rows, last = lines(fake)
    assert rows[:4] == [{"step": n, "loss": 1 / n, "shares/a": 0.25} for n in range(1, 5)]
    assert rows[4:] == [{"step": 4, "val/student/miou": 0.5}, {"step": 4, "samples": 1}]
    assert last == {"finish": 0}
    assert said == ["wandb: logging to https://example.org/run"]
    assert "noise" in (fake / "loggers" / "wandb.log").read_text()
    # and a run that goes on from step 2, with two lines that the logger has and one that it lacks
    history = [{"step": n, "loss": 1.0} for n in (1, 2)] + [{"step": 2, "val/x/miou": 0.1}]
    history += [{"step": 5, "inside/student/low": [0.1]}]  # which no logger is told of
    run_of(fake, Said(), steps=6, start=2, history=history)
    more = lines(fake)[len(rows) + 2 :]
    assert more[0] == first  # the same run
    assert "inside" not in str(more)
    assert [row["step"] for row in more[1:-1] if "loss" in row] == [5, 6]


class Forgetful:
    """A logger that drops what lies beyond the step that a run goes on from."""

    forgets = True

    def __init__(self) -> None:
        self.steps: list[int] = []

    def open(self, run: Path, first: FirstStep, known: dict[str, Any]) -> dict[str, Any]:
        return {"at": "here"}

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self.steps.append(step)


def test_a_logger_that_forgets_gets_again_what_lies_beyond(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LOGGERS, "tensorboard", (__name__, "Forgetful"))
    (tmp_path / "loggers").mkdir()
    (tmp_path / "loggers" / "tensorboard.json").write_text('{"run": {}, "sent": {"training": 10}}')
    session = Session("tensorboard", tmp_path)
    rows = [{"step": step, "values": {"loss": 1.0}} for step in (4, 5, 6)]
    session.open({"run": "a", "config": {}, "step": 5, "rows": rows})
    assert isinstance(session.logger, Forgetful)
    assert session.logger.steps == [6]


@pytest.mark.parametrize(
    ("what", "trouble"),
    [
        ("import", "failed: SystemExit: 3"),
        ("raise", "failed: ConnectionError: the server said no"),
        ("ask", "failed: EOFError"),
        ("die", "failed: its process has ended"),
        ("hang", "has not answered for 1.5 seconds"),
        ("endless", "had not taken everything"),
    ],
)
def test_a_logger_in_trouble_costs_one_warning(
    fake: Path, monkeypatch: pytest.MonkeyPatch, what: str, trouble: str
) -> None:
    monkeypatch.setenv("FAKE", what)
    said = Said()
    patience = 1.5 if what == "hang" else 30.0
    seconds = run_of(fake, said, patience=patience, grace={"finished": 2.0 if what == "endless" else 30.0})
    warnings = [text for text in said if text.startswith("warning")]
    assert len(warnings) == 1
    assert f"train.log_to: wandb {trouble}" in warnings[0]
    assert warnings[0].endswith("wandb.log)")
    assert seconds < 20


def test_a_logger_that_falls_behind_is_given_up_at_once(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE", "slow")
    seconds = run_of(fake, said := Said(), steps=20, most_waiting=5)
    assert [text for text in said if "is 5 lines behind; the run goes on without it" in text]
    assert seconds < 5


def test_a_logger_whose_training_is_killed_closes(fake: Path) -> None:
    feed = LoggerFeed("wandb")
    callbacks = Callbacks([feed], fake, {}, (), (), Said())
    callbacks.start(0, 4, [])
    callbacks.stepped(Stepped(1, 4, 0.1, 1.0, None, {"loss": 1.0}))
    process = feed._process
    assert process and process.stdin
    until = time.monotonic() + 20
    while not (fake / "fake.jsonl").exists() or len(lines(fake)) < 2:
        assert time.monotonic() < until
        time.sleep(0.05)
    process.stdin.close()  # as the system does of a process that it ends
    process.wait(10)
    assert lines(fake)[-1] == {"finish": 1}


def test_the_key_takes_one_several_and_none() -> None:
    def log_to(value: str) -> tuple[str, ...]:
        return load_config({"method": "supervised", "data": "scenes"}, [f"log_to={value}"]).train.log_to

    assert log_to("tensorboard") == ("tensorboard",)
    assert log_to("wandb,mlflow, wandb") == log_to("[wandb, mlflow]") == ("wandb", "mlflow")
    assert log_to("null") == log_to("[]") == ()
    with pytest.raises(ConfigError, match=r"train\.log_to.*'tensorboard', 'wandb' or 'mlflow'"):
        log_to("comet")


def test_a_library_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("des4.watch.feed.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'train\.log_to=mlflow: .*pip install "des4\[mlflow\]"'):
        check_installed(["mlflow"])


def test_loggers_are_those_of_the_key() -> None:
    assert tuple(LOGGERS) == get_args(LoggerName)


def test_lines_are_of_two_kinds_and_settings_are_flattened() -> None:
    assert kind_of({"loss": 1}) == "training"
    assert kind_of({"val/x/miou": 1}) == "validation"
    assert flat({"a": {"b": 1, "c": {}}, "d": [2]}) == {"a.b": 1, "a.c": {}, "d": [2]}
