"""`des4 doctor`: the machine, and the dry run of a tiny training. It writes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from des4 import cli
from des4.doctor import dry_run as dry_runs
from des4.doctor import examine, machine
from des4.doctor.findings import count, duration, size
from des4.doctor.machine import _numbers as numbers
from des4.doctor.machine import examine_machine, existing
from des4.engine.process import memory_of_machine
from des4.methods import METHODS

TINY = ["encoder=test_efficientnet", "model.weights=none", "channels=16", "embedding_dim=12", "crop_size=32",
        "batch_size=2", "workers=0"]  # fmt: skip
SCENES = ["data=scenes", "data.size=48", "data.labeled=4", "data.unlabeled=4", "data.val=3"]

Des4 = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Des4:
    """Call the command line in a working directory that has to be empty afterwards as well."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("COLUMNS", "160")

    def call(*arguments: str) -> Result:
        result = CliRunner().invoke(cli.app, ["doctor", *arguments])
        assert list(Path.cwd().iterdir()) == []
        return result

    return call


def test_a_machine_is_looked_at_from_all_sides(tmp_path: Path) -> None:
    findings = examine_machine(tmp_path / "runs")
    subjects = {finding.subject for finding in findings}
    assert {"des4", "packages", "weights", "processor", "memory", "arithmetic", "disk"} <= subjects
    assert all(bool(finding.advice) == (finding.level != "ok") for finding in findings)
    assert "torch" in next(finding.text for finding in findings if finding.subject == "packages")
    assert list(tmp_path.iterdir()) == []


def test_a_place_for_runs_that_is_none_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (disk,) = (f for f in examine_machine(tmp_path / "file" / "runs") if f.subject == "disk")
    assert (disk.level, disk.text) == ("problem", f"{tmp_path / 'file'} cannot be written")
    assert existing(tmp_path / "a" / "b") == tmp_path


def test_a_place_for_runs_is_there_or_is_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for there in (False, True):
        (disk,) = machine._disk(Path("runs"))
        assert disk.text.endswith("where runs is" if there else "where runs is to be")
        (tmp_path / "runs").mkdir(exist_ok=True)


def test_the_place_that_is_looked_at_is_that_of_the_training(run: Des4, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out, level in ((tmp_path / "file" / "run", "problem"), (tmp_path / "run", "ok")):
        result = run("method=supervised", *SCENES, *TINY, f"out={out}", "--steps", "1", "--seconds", "1", "--json")
        (disk,) = (f for f in json.loads(result.stdout)["findings"] if f["subject"] == "disk")
        assert (disk["level"] == "problem") == (level == "problem")
        assert str(tmp_path / "file" if level == "problem" else out) in disk["text"]
        assert result.exit_code == (level == "problem")


@pytest.mark.parametrize(
    ("installed", "lowest", "old"),
    [("2.15", "2.15.0", False), ("2.15.0", "2.15", False), ("2.9", "2.15.0", True), ("2.15.0+cpu", "2.15.1", True)],
)
def test_versions_are_compared_number_by_number(installed: str, lowest: str, old: bool) -> None:
    assert (numbers(installed) < numbers(lowest)) == old


def test_memory_is_what_the_container_allows(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  1000 kB\nMemFree:  1 kB\nMemAvailable:  600 kB\nActive(anon): 7 kB\n")
    assert memory_of_machine(tmp_path / "meminfo", tmp_path) == (1000 * 1024, 600 * 1024)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("100\n")
    assert memory_of_machine(tmp_path / "meminfo", tmp_path) == (1000 * 1024, 600 * 1024)
    (tmp_path / "memory.max").write_text("5000\n")
    assert memory_of_machine(tmp_path / "meminfo", tmp_path) == (5000, 4900)
    (tmp_path / "memory.stat").write_text("anon 10\ninactive_file 60\nactive_file 20\n")  # 60 would be given up
    assert memory_of_machine(tmp_path / "meminfo", tmp_path) == (5000, 4960)
    assert memory_of_machine(tmp_path / "none", tmp_path) is None


def test_a_driver_without_a_gpu_for_torch_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = tmp_path / "version"
    driver.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\n")
    monkeypatch.setattr(machine, "DRIVER", driver)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (gpu,) = (finding for finding in examine_machine(tmp_path) if finding.subject == "GPU")
    assert gpu.level == "warn" and "570.86.15" in gpu.text


def test_packages_that_do_not_fit_together_are_named(tmp_path: Path) -> None:
    """torchvision made for another torch fails on import, and with it most of des4."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms is missing')")
    done = subprocess.run(
        [sys.executable, "-m", "des4", "doctor", "method=des4", "data=scenes"],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "COLUMNS": "160"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "operator torchvision::nms is missing" in done.stdout
    assert "pip install --force-reinstall" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("method", ["supervised", "des4"])
def test_a_dry_run_measures_a_training(run: Des4, method: str) -> None:
    measure = ("--steps", "2", "--seconds", "600", "--json")
    result = run(f"method={method}", *SCENES, *TINY, "train.steps=50", "eval_every=20", *measure)
    data: dict[str, Any] = json.loads(result.stdout)
    assert result.exit_code == int(any(finding["level"] == "problem" for finding in data["findings"])), result.stdout
    trained = data["dry_run"]
    assert (trained["method"], trained["precision"], trained["crop"]) == (method, "fp32", [32, 32])
    assert trained["images"] == [2, 2 if METHODS[method].VIEWS.reads_unlabeled else 0]
    assert (trained["steps"], trained["validations"], trained["parts"]) == (50, 3, 1)
    assert trained["lists"] == {"labeled": 4, "unlabeled": 4, "val": 3}
    assert (trained["flops"]["plain"] > 0) == (method == "des4")
    assert trained["flops"]["forward"] < trained["flops"]["backward"] < 2 * trained["flops"]["forward"]
    measured = trained["measured"]
    assert 0 < measured["waiting"] < measured["step"]
    assert measured["training"] == pytest.approx(50 * measured["step"] + 3 * measured["validation"])
    total = sum(trained["flops"].values())
    assert measured["flop_rate"] == pytest.approx(total / measured["step"])
    assert sum(measured["shares"].values()) == pytest.approx(1)
    assert measured["shares"]["data"] == pytest.approx(measured["waiting"] / measured["step"])


def test_every_part_of_a_run_is_measured(run: Des4) -> None:
    arguments = ("method=des4_committee", *SCENES, *TINY, "train.steps=40", "--steps", "1", "--seconds", "600")
    measured = json.loads(run(*arguments, "--json").stdout)["dry_run"]["measured"]
    assert [part["share"] for part in measured["parts"]] == [0.75, 0.25]
    assert measured["step"] == pytest.approx(sum(part["share"] * part["step"] for part in measured["parts"]))
    assert sum(measured["shares"].values()) == pytest.approx(1)
    assert "75 % · 25 % of the steps" in run(*arguments).stdout


def test_a_method_that_waits_for_the_device_is_told(run: Des4, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("method=supervised", *SCENES, *TINY, "--steps", "1", "--json")
    told = "supervised asks the device for values in each step, and waits for them"
    plain = json.loads(run(*arguments).stdout)
    monkeypatch.setattr(METHODS["supervised"], "WAITS", True)
    waiting = json.loads(run(*arguments).stdout)
    assert [told in [finding["text"] for finding in data["findings"]] for data in (plain, waiting)] == [False, True]
    assert waiting["dry_run"]["flops"] == plain["dry_run"]["flops"]


def test_parts_of_a_step_do_the_same_work_in_less_memory(run: Des4) -> None:
    runs = [json.loads(run("method=des4", *SCENES, *TINY, f"accumulate={parts}", "--steps", "1", "--json").stdout)
            for parts in (1, 2)]  # fmt: skip
    whole, halves = (one["dry_run"] for one in runs)
    assert halves["parts"] == 2
    assert halves["flops"] == whole["flops"]
    assert 0.45 * whole["memory"]["kept"] < halves["memory"]["kept"] < 0.55 * whole["memory"]["kept"]


def test_tables_for_people(run: Des4) -> None:
    text = run("method=des4", *SCENES, *TINY, "--steps", "1").stdout
    for expected in ("packages", "des4 · test_efficientnet · 2 + 2 images of 32×32", "the training", "1000 steps",
                     "for the backward pass", "share of a step", "student backward", "choosing pixels"):  # fmt: skip
        assert expected in text


def test_steps_that_have_no_room_are_not_risked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(dry_runs, "free_memory", lambda device: 1 << 10)  # a machine that is full
    settings = {"method": "des4", "data": {"name": "scenes", "size": 48, "labeled": 4, "unlabeled": 4, "val": 3}}
    examination = examine(settings, TINY, 1)
    assert examination.exit_code == 1
    assert examination.dry_run is not None and examination.dry_run.measured is None
    (problem,) = (finding for finding in examination.findings if finding.level == "problem")
    assert "1.0 KiB are free" in problem.text and "train.accumulate" in problem.advice
    held = examination.dry_run.memory
    assert 0 < held.optimiser <= held.gradients  # one moment of all that SGD trains, which there will be


def test_a_cache_of_images_is_not_filled(run: Des4, folder: Path, tmp_path: Path) -> None:
    result = run("method=supervised", f"data={folder}", "data.cache=0.01", f"data.cache_dir={tmp_path / 'cache'}",
                 "data.val_fraction=0.5", *TINY, "--steps", "1", "--json")  # fmt: skip
    assert json.loads(result.stdout)["dry_run"]["measured"]["loader_rate"] > 0
    assert not (tmp_path / "cache").exists()


def test_mistakes_end_in_one_line(run: Des4) -> None:
    for arguments, expected in [
        (["method=des5", "data=scenes"], "des5"),
        (["method=des4"], "data"),
        (["nowhere.yaml"], "nowhere.yaml"),
    ]:
        result = run(*arguments)
        assert result.exit_code == 2, result.output
        (line,) = result.stderr.splitlines()
        assert expected in line
    assert run("one.yaml", "two.yaml").exit_code == 2


def test_numbers_as_people_read_them() -> None:
    assert [size(1), size(1536), size(3 << 20), size(5 << 30)] == ["1 bytes", "1.5 KiB", "3.0 MiB", "5.0 GiB"]
    assert [count(1.5e12, "FLOP"), count(999, "FLOP"), count(2e15, "FLOP")] == ["1.5 TFLOP", "999 FLOP", "2 PFLOP"]
    assert [duration(s) for s in (0.25, 90, 600, 10800, 5 * 86400)] == [
        "250 ms",
        "90.0 s",
        "10 min",
        "3.0 h",
        "5.0 days",
    ]
