"""Prediction by several processes: what they write, and how they end."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import des4
from des4.predict import Outputs, Predictor, predict_files, worker
from des4.predict.devices import one_device, several_devices
from des4.types import ConfigError, RunError

CPUS = [torch.device("cpu")] * 2
FAKE = """
import json, os, sys, time
def say(**message): print(json.dumps(message), flush=True)
task = json.loads(sys.stdin.readline())
if task["tile"] == 99: say(error="out/x: cannot be written to (No space left on device)")
for line in sys.stdin:
    for file, place in json.loads(line)["jobs"]:
        if "die" in file: os.kill(os.getpid(), 9)
        if "hang" in file: time.sleep(1000)
        if "bug" in file: say(bug="Traceback: ZeroDivisionError")
        if "late" in file: time.sleep(0.3)
        say(progress=1)
        say(file=file, note="large " + place)
        say(file=file, row=[file, "1", "0", "8", "8", "masks/" + place + ".png"] + ["0"] * 8)
    say(chunk="done")
"""


@pytest.fixture
def predictor(trained: Path) -> Predictor:
    predictor = des4.load(trained)
    predictor.configure(["eval.resize=1"])  # as images are
    return predictor


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five photos of two sizes, and something else."""
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    for number, name in enumerate(("a", "b", "deep/c", "deep/d", "e")):
        pixels = np.random.default_rng(number).integers(0, 256, (20 + 8 * (number % 2), 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{name}.png")
    (tmp_path / "photos" / "broken.png").write_bytes(b"no image")
    return tmp_path / "photos"


def content(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def files(out: Path) -> list[str]:
    return [Path(row["file"]).name for row in csv.DictReader((out / "predictions.csv").open())]


def test_two_processes_write_what_one_does(predictor: Predictor, photos: Path, tmp_path: Path) -> None:
    predictor.batch = 2
    seen: list[float] = []
    outputs = Outputs(entropy=True)
    one = predict_files(predictor, [photos], tmp_path / "one", outputs=outputs)
    two = predict_files(predictor, [photos], tmp_path / "two", outputs=outputs, devices=CPUS, progress=seen.append)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert two.done == 5 and two.skipped == one.skipped and list(one.skipped) == [str(photos / "broken.png")]
    assert sum(seen) == pytest.approx(6)


def test_what_a_process_says(predictor: Predictor, photos: Path, tmp_path: Path) -> None:
    predict_files(predictor, [photos / "a.png", photos / "deep" / "d.png"], tmp_path / "one")
    task = {
        "weights": str(predictor.path), "device": "cpu", "threads": 1, "eval": predictor.eval.model_dump(mode="json"),
        "fitted": False, "tile": 1024, "batch": 1, "out": str(tmp_path / "out"), "outputs": {"overlays": True},
    }  # fmt: skip
    jobs = [[str(photos / name), place] for name, place in (("a.png", "a"), ("broken.png", "x"), ("deep/d.png", "d"))]
    chunks = [{"jobs": jobs[:1], "done": []}, {"jobs": jobs[1:], "done": []}]
    said: list[dict[str, Any]] = []
    worker.serve(iter(map(json.dumps, [task, *chunks])), said.append)
    assert content(tmp_path / "out").items() <= content(tmp_path / "one").items()
    kinds = [next(iter(message.keys() - {"file"})) for message in said]
    assert kinds == ["row", "progress", "chunk", "progress", "row", "skipped", "progress", "chunk"]
    assert [message["row"] for message in said if "row" in message] == list(
        csv.reader((tmp_path / "one" / "predictions.csv").open())
    )[1:]


@pytest.mark.parametrize(("change", "kind"), [({"weights": "gone"}, "error"), ({"tile": None, "x": 1}, "bug")])
def test_a_process_that_fails_says_why(
    predictor: Predictor, photos: Path, tmp_path: Path, change: dict[str, Any], kind: str
) -> None:
    task = {
        "weights": str(predictor.path), "device": "cpu", "threads": None, "tile": 1024, "batch": 1,
        "eval": predictor.eval.model_dump(mode="json"), "fitted": False, "out": str(tmp_path / "out"), "outputs": {},
        **change,
    }  # fmt: skip
    said: list[dict[str, Any]] = []
    chunk = {"jobs": [[str(photos / "a.png"), "a"]], "done": []}
    worker.serve(iter(map(json.dumps, [task, chunk])), said.append)
    assert list(said[-1]) == [kind]
    assert {"error": "no such run folder", "bug": "Traceback"}[kind] in said[-1][kind]


def test_a_device_without_memory_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(worker, "Predictor", full)
    said: list[dict[str, Any]] = []
    worker.serve(iter([json.dumps({"weights": "w", "device": "cuda:1", "threads": None})]), said.append)
    assert said == [{"error": "cuda:1: out of memory; free some, or leave this device out, and go on with --resume"}]


# ── the process that starts them ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[str]]]:
    """Stand-ins for the processes, which segment nothing."""
    made: list[subprocess.Popen[str]] = []

    def start(*_: str) -> subprocess.Popen[str]:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        made.append(subprocess.Popen([sys.executable, "-c", FAKE], **pipes))  # noqa: S603
        return made[-1]

    monkeypatch.setattr("des4.predict.processes.start_module", start)
    yield made
    assert all(process.returncode is not None for process in made), "a process was left behind"


def named(tmp_path: Path, *names: str) -> list[Path]:
    for name in names:
        (tmp_path / name).write_bytes(b"")
    return [tmp_path / name for name in names]


def test_rows_are_in_order_and_none_is_lost(
    predictor: Predictor, tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    paths = named(tmp_path, "late.png", *(f"{number}.png" for number in range(9)))
    summary = predict_files(predictor, paths, tmp_path / "out", devices=CPUS)
    assert len(started) == 2
    assert files(tmp_path / "out") == [path.name for path in paths]
    assert summary.notes == ["large late"]
    told = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [Path(image["file"]).name for image in told["images"]] == [path.name for path in paths]
    predict_files(predictor, paths[:1], tmp_path / "few", devices=CPUS)
    assert len(started) == 3


def test_ctrl_c_ends_all_and_the_rest_follows(
    predictor: Predictor, tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    paths = named(tmp_path, "hang.png", "1.png", "2.png", "3.png", "4.png", "5.png")

    def interrupt(share: float, seen: list[float] = []) -> None:  # noqa: B006
        seen.append(share)
        if sum(seen) >= 2:
            raise KeyboardInterrupt

    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        predict_files(predictor, paths, tmp_path / "out", devices=CPUS, progress=interrupt)
    assert time.monotonic() - begin < 9
    assert [process.returncode for process in started] != [0, 0]
    done = files(tmp_path / "out")
    assert done and "hang.png" not in done
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())["finished"] is False
    paths[0].rename(tmp_path / "0.png")
    summary = predict_files(predictor, [tmp_path / "0.png", *paths[1:]], tmp_path / "out", devices=CPUS, resume=True)
    assert summary.done == 6
    assert files(tmp_path / "out") == [f"{number}.png" for number in range(6)]


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("die.png", RunError, r"the process on cpu was killed by signal 9.*go on with --resume"),
        ("bug.png", RuntimeError, "ZeroDivisionError"),
        ("full.png", RunError, "No space left on device"),
    ],
)
def test_a_process_that_is_lost_ends_the_rest(
    predictor: Predictor, tmp_path: Path, started: list[subprocess.Popen[str]], name: str, error: type, said: str
) -> None:
    if name == "full.png":
        predictor.tile = 99
    with pytest.raises(error, match=said):
        predict_files(predictor, named(tmp_path, "1.png", name, "hang.png"), tmp_path / "out", devices=CPUS)


def test_devices_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert several_devices("cpu, cpu") == CPUS
    with pytest.raises(ConfigError, match="device gpu: give auto, cpu or cuda"):
        several_devices("cpu,gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for names in ("0,1", "all", "cuda:0,cpu"):
        with pytest.raises(ConfigError, match="PyTorch sees no GPU here; give cpu"):
            several_devices(names)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    gpus = [torch.device("cuda", 0), torch.device("cuda", 1)]
    assert several_devices("0,1") == several_devices("all") == several_devices("cuda:0,cuda:1") == gpus
    assert one_device("cuda:1") == gpus[1]
    with pytest.raises(ConfigError, match="PyTorch sees 2 GPUs, cuda:0 to cuda:1"):
        one_device("cuda:2")
    with pytest.raises(ConfigError, match="for GPU number 2 alone give --device cuda:2; several are named, as 0,1"):
        several_devices("2")
