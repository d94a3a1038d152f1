"""`torchrun -m des4 train …`: two processes, one run folder; a process that dies, one that is asked to stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SETTINGS = [
    "method=des4", "sampling=all", "data=scenes", "data.size=48", "data.labeled=6", "data.unlabeled=10", "data.val=5",
    "model.encoder=test_efficientnet", "model.weights=none", "model.channels=16", "model.low_channels=8",
    "model.embedding_dim=12", "views.crop_size=32", "optim.lr=0.0003", "batch_size=4", "steps=12", "log_every=1",
    "workers=0", "checkpoint_every=5", "eval_every=6",
]  # fmt: skip
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def start(folder: Path, *options: str, out: str = "run", settings: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Start two processes that train into `folder / out`; what they say goes into `folder / <out>.log`."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *options]
    command += ["-m", "des4", "train", *SETTINGS, *settings, f"out={out}"]
    with (folder / f"{out}.log").open("w") as log:
        return subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=log, stderr=log, text=True)  # noqa: S603


def reached(folder: Path, step: int, process: subprocess.Popen[str], out: str = "run") -> None:
    """Wait until the run has logged a step."""
    metrics = folder / out / "metrics.jsonl"
    while not (metrics.exists() and f'"step": {step},' in metrics.read_text()):
        assert process.poll() is None, (folder / f"{out}.log").read_text()
        time.sleep(0.05)


def workers(process: subprocess.Popen[str]) -> list[int]:
    """Process ids of the two trainings, the first rank's first."""
    children = subprocess.run(  # noqa: S603
        ["ps", "-o", "pid=", "--ppid", str(process.pid)],  # noqa: S607
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    by_rank = {}
    for child in map(int, children):
        environment = Path(f"/proc/{child}/environ").read_text().split("\0")
        by_rank[next((v for v in environment if v.startswith("RANK=")), "none")] = child
    return [by_rank["RANK=0"], by_rank["RANK=1"]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that two processes have finished undisturbed."""
    folder = tmp_path_factory.mktemp("torchrun")
    process = start(folder)
    assert process.wait(timeout=300) == 0, (folder / "run.log").read_text()
    return folder


def test_two_processes_fill_one_folder(finished: Path) -> None:
    run, said = finished / "run", (finished / "run.log").read_text()
    results = json.loads((run / "results.json").read_text())
    assert results["step"] == 12
    assert sum(map(sum, results["models"]["student"]["confusion"])) <= 5 * 48 * 48  # each image once
    assert said.count("step 7/12") == said.count("│ mIoU ") == said.count("report  ") == 1
    assert "Traceback" not in said and "Warning" not in said
    assert (run / "report.html").exists()
    steps = [row["step"] for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())]
    assert steps == sorted(steps) and len(steps) == 12 + 2 * 2  # two validations, each after a line on the prototypes


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_is_restarted_and_nothing_differs(finished: Path, tmp_path: Path, rank: int) -> None:
    process = start(tmp_path, "--max-restarts=1")
    reached(tmp_path, 8, process)
    os.kill(workers(process)[rank], signal.SIGKILL)
    assert process.wait(timeout=300) == 0, (tmp_path / "run.log").read_text()
    for name in ("weights/last.safetensors", "checkpoints/step-12/state.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (finished / "run" / name).read_bytes(), name
    log = (tmp_path / "run" / "train.log").read_text()
    assert "continuing from step" in log
    assert "Traceback" not in (tmp_path / "run.log").read_text()


@pytest.mark.slow
def test_weights_in_shards_survive_and_one_process_goes_on_with_them(finished: Path, tmp_path: Path) -> None:
    for out in ("undisturbed", "killed"):
        process = start(tmp_path, "--max-restarts=1", out=out, settings=("train.shard=true",))
        if out == "killed":
            reached(tmp_path, 8, process, out)
            os.kill(workers(process)[1], signal.SIGKILL)
        assert process.wait(timeout=300) == 0, (tmp_path / f"{out}.log").read_text()
    for name in ("weights/last.safetensors", "checkpoints/step-12/state.safetensors"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes(), name
    weights = [load_file(path / "weights" / "last.safetensors") for path in (finished / "run", tmp_path / "killed")]
    torch.testing.assert_close(*weights, atol=1e-4, rtol=1e-3)
    command = [sys.executable, "-m", "des4", "train", "--resume", "killed", "steps=14", "--force"]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)  # noqa: S603
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "killed" / "results.json").read_text())["step"] == 14


@pytest.mark.slow
def test_a_stop_reaches_all_and_the_run_goes_on_from_there(finished: Path, tmp_path: Path) -> None:
    process = start(tmp_path)
    reached(tmp_path, 3, process)
    os.kill(workers(process)[1], signal.SIGTERM)  # one of them alone is asked
    process.wait(timeout=300)
    checkpoints = [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert len(checkpoints) == 1 and 3 <= int(checkpoints[0].removeprefix("step-")) <= 5
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "des4",
        "train",
    ]
    subprocess.run([*command, "--resume", "run"], cwd=tmp_path, env=ENVIRONMENT, check=True, timeout=300)  # noqa: S603
    last = "weights/last.safetensors"
    assert (tmp_path / "run" / last).read_bytes() == (finished / "run" / last).read_bytes()


@pytest.mark.slow
def test_restarts_need_a_folder_to_find(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--max-restarts=1", "-m", "des4", "train"]
    done = subprocess.run([*command, *SETTINGS], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)  # noqa: S603
    assert done.returncode != 0
    assert "error: out: torchrun may start this command again" in done.stderr
    assert not (tmp_path / "runs").exists()


WATCHED = """
import os, sys, json
import des4

class Noted(des4.Callback):
    def __init__(self): self.steps, self.scored, self.ended = [], [], []
    def on_step(self, step): self.steps.append(step.step)
    def on_validation(self, validation): self.scored.append(validation.step)
    def on_end(self, end):
        self.ended.append(end.status)
        self.say(f"seen by the callback of rank {os.environ['RANK']}")

noted = Noted()
des4.train({}, callbacks=[noted], **dict(pair.split("=", 1) for pair in sys.argv[1:]))
with open(f"rank{os.environ['RANK']}.json", "w") as file:
    json.dump([noted.steps, noted.scored, noted.ended], file)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals")
def test_callbacks_and_the_live_view_are_of_the_first_process_alone(tmp_path: Path) -> None:
    import pty

    (tmp_path / "watched.py").write_text(WATCHED)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "watched.py"]
    terminal, end = pty.openpty()
    process = subprocess.Popen(  # noqa: S603
        [*command, *SETTINGS, "out=run"], cwd=tmp_path, stdout=end, stderr=end,
        env={**ENVIRONMENT, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"},
    )  # fmt: skip
    os.close(end)
    drawn = b""
    try:
        while chunk := os.read(terminal, 65536):
            drawn += chunk
    except OSError:  # on Linux, how a terminal ends that nobody holds any more
        pass
    os.close(terminal)
    text = drawn.decode(errors="replace")
    assert process.wait(timeout=60) == 0, text
    steps, scored, ended = json.loads((tmp_path / "rank0.json").read_text())
    assert (steps, scored, ended) == (list(range(1, 13)), [6, 12], ["finished"])
    assert json.loads((tmp_path / "rank1.json").read_text()) == [[], [], []]
    log = (tmp_path / "run" / "train.log").read_text()
    assert log.count("seen by the callback of rank 0") == 1 and "rank 1" not in log
    assert "\x1b[" in text and "step 12/12" in text and "mIoU" in text
    assert text.count("seen by the callback") == 1 and "Traceback" not in text
