"""Many small trainings at once on one GPU that is lent for minutes: few masks, and learning curves.

python benchmarks/gpu_campaign.py pack DATA.tar --camvid FOLDER --camvid-lists FOLDER
                                  [--clothing FOLDER --clothing-lists FOLDER] [--quality N]
python benchmarks/gpu_campaign.py run DATA.tar [KEY=VALUE …] --out FOLDER [--minutes N] [--workers N] [--steps N]
                                 [--mps] [--stages NAME …] [--lists NAME …] [--seeds N …]

`pack` makes one file of images, masks and lists; images are recompressed as WebP, at their own size. `run` needs no
network. It unpacks, decodes every image once, and forks workers that share them; each worker keeps copies on the GPU,
crops them there, and takes one training after the other from a common list, the most valuable first: few masks at half
resolution, seed by seed, learning curves, and both at full resolution. A training ends with its scores; there are no
reports of single runs. None begins that is known to take longer than is left; when the minutes are over, what is still
running is stopped. Then tables and curves of all that is done are written, and what was not reached is named.
`benchmarks/gpu_checks.py` looks at the GPU itself.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import queue
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from des4 import build
from des4.campaign import CampaignConfig, Planned, plan
from des4.config import dump, load_config, read_yaml
from des4.data_tools.importing import prepared
from des4.datasets import open_files
from des4.datasets.files import FilesConfig
from des4.engine import Interrupted
from des4.engine.process import prepare_process
from des4.report.campaign import CampaignReport, Finished
from des4.report.plots import learning_curve
from des4.runlog import RunFolder, write_atomically
from des4.types import ConfigError, Dataset, UserError

ROOT = Path(__file__).parents[1]
FAST = {"train.workers": 0, "train.eval_every": 0, "train.checkpoint_every": 10**6, "train.precision": "fp32"}
"""Of every training: its images are in memory, scores are wanted at the end alone, and small kernels gain nothing by
16 bits, which cost kernels that convert."""
WHOLE = {
    "camvid": {"views.crop_size": 256, "views.scale": [0.6, 1.2], "eval.resize": 1.0},
    "clothing": {"views.crop_size": 208, "views.scale": [0.65, 1.3], "eval.resize": 1.0},
}
"""What makes a training at half or three quarters of the size one at full size."""
FIRST = {"camvid": "6a", "clothing": "19a"}
"""A draw whose two lists are all training images together: `all.txt` is made of it."""
KEPT = ("miou", "tail_miou", "iou", "tail_classes", "steps", "evaluated", "seconds", "data")
MOST_FAILURES = 2
"""Trainings in a row that may fail in a process."""
ROOM = 8 << 30
"""Bytes of a memory file system that hold data and runs while they last; with less, they go to the disk."""
LOOK, TELL, PATIENCE = 0.5, 20.0, 15.0
"""Seconds between two looks at the workers, between two lines on how far they are, and that one may take to stop."""


# ── packing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def pack(args: argparse.Namespace) -> None:
    """Put what lists name of the data folders into one tar file, images as WebP; nothing is written beside it."""
    args.data.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(args.data, "w") as tar:
        for name in WHOLE:
            data, lists = getattr(args, name), getattr(args, f"{name}_lists")
            if data is None:
                continue
            if lists is None:
                raise ConfigError(
                    f"--{name}-lists: is missing; name the folder with a folder for every draw, and val.txt"
                )
            files = sorted(lists.rglob("*.txt"))
            wanted = {line for path in files for line in ids_of(path)}
            for path in sorted(data.rglob("*.*")):
                place = path.relative_to(data)
                if len(place.parts) > 1 and Path(*place.parts[1:]).with_suffix("").as_posix() not in wanted:
                    continue
                content = _recompressed(path, args.quality) if place.parts[0] == "images" else path.read_bytes()
                place = place.with_suffix(".webp") if place.parts[0] == "images" else place
                _add(tar, name / place, content)
            for path in files:
                _add(tar, Path("lists", name, path.relative_to(lists)), path.read_bytes())
            first = lists / FIRST[name]
            whole = [line for part in ("labeled", "unlabeled") for line in ids_of(first / f"{part}.txt")]
            _add(tar, Path("lists", name, "all.txt"), "\n".join(sorted(whole)).encode() + b"\n")
    print(f"{args.data}: {args.data.stat().st_size / 2**20:.1f} MiB")


def ids_of(path: Path) -> list[str]:
    """Read a list of ids, one a line."""
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _recompressed(path: Path, quality: int) -> bytes:
    buffer = io.BytesIO()
    with Image.open(path) as image:
        image.save(buffer, "WEBP", quality=quality)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, place: Path, content: bytes) -> None:
    entry = tarfile.TarInfo(place.as_posix())
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


# ── what is trained ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Stage:
    """A campaign at one resolution. file: of the campaign, by the name of the data. whole: at the images' own size."""

    title: str
    data: str
    file: Path
    whole: bool = False

    @property
    def name(self) -> str:
        """How files of it are called."""
        return f"{self.file.stem}{'-whole' if self.whole else ''}"


def stages(names: Iterable[str]) -> list[list[Stage]]:
    """Return the stages of that names; those of one entry take turns, seed by seed."""
    known = {
        "few": [Stage("Few masks", name, ROOT / "configs" / "gpu" / f"{name}.yaml") for name in WHOLE],
        "curve": [Stage("Learning curve", name, ROOT / "configs" / "gpu" / f"{name}_curve.yaml") for name in WHOLE],
    }
    for name in tuple(known):
        known[f"{name}-whole"] = [Stage(f"{one.title}, full size", one.data, one.file, True) for one in known[name]]
    return [known[name] for name in names]


STAGES = ("few", "curve", "few-whole", "curve-whole")


@dataclass(frozen=True)
class Entry:
    """A training in the order of the campaign. stage: that it belongs to."""

    stage: Stage
    run: Planned

    @property
    def kind(self) -> tuple[str, str]:
        """What takes as long: trainings of one method in a stage."""
        return self.stage.name, self.run.method

    @property
    def name(self) -> str:
        return f"{self.stage.name} · {self.run.name}"


@dataclass
class Plan:
    """All trainings, best first. campaigns: by the name of their stage."""

    entries: list[Entry] = field(default_factory=list)
    campaigns: dict[str, CampaignConfig] = field(default_factory=dict)


def planned(groups: Sequence[Sequence[Stage]], place: Path, args: argparse.Namespace) -> Plan:
    """Read the campaigns of the data that were packed into `place`. Raises ConfigError."""
    found = Plan()
    for group in groups:
        by_seed: dict[int, list[list[Entry]]] = {}
        for stage in group:
            if not (place / stage.data).is_dir():
                continue
            content = _filled(read_yaml(stage.file), place, stage.data)
            lists = {name: where for name, where in content["lists"].items() if not args.lists or name in args.lists}
            if not lists:
                continue
            full = content.get("full") if content.get("full") in lists else None
            out = place / "runs" / stage.name
            campaign = CampaignConfig.model_validate(
                {**content, "lists": lists, "full": full, "out": out, "seeds": args.seeds}
            )
            found.campaigns[stage.name] = campaign
            settings = {**FAST, **(WHOLE[stage.data] if stage.whole else {}), "train.device": args.device}
            if args.steps:
                settings["train.steps"] = args.steps
            runs = plan(campaign, [*(f"{key}={value}" for key, value in settings.items()), *args.settings])
            for seed in args.seeds:
                by_seed.setdefault(seed, []).append([Entry(stage, run) for run in runs if run.seed == seed])
        for parts in by_seed.values():  # of one seed the campaigns take turns
            found.entries += [part[n] for n in range(max(map(len, parts))) for part in parts if n < len(part)]
    if not found.entries:
        raise ConfigError("nothing to train: no campaign of --stages has the packed data and --lists")
    return found


def _filled(value: Any, place: Path, data: str) -> Any:
    """Put the folders of the packed data in the place of CAMVID, CLOTHING and LISTS, and those of the project."""
    if isinstance(value, dict):
        return {key: _filled(item, place, data) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, place, data) for item in value]
    if not isinstance(value, str):
        return value
    first, slash, rest = value.partition("/")
    if first == data.upper():
        return str(place / data / rest)
    if first == "LISTS":
        return str(place / "lists" / data / rest)
    return str(ROOT / value) if first == "configs" and slash else value


# ── images in memory ─────────────────────────────────────────────────────────────────────────────────────────────────


class Resident:
    """A data set whose images and masks are decoded already. device: where they are wanted; each is copied once.

    Everything else is asked of the data set itself.
    """

    def __init__(self, decoded: Mapping[str, tuple[Tensor, Tensor]], device: torch.device) -> None:
        self.device = device
        self._decoded = decoded
        self._copies: dict[str, tuple[Tensor, Tensor]] = {}
        self._dataset: Dataset | None = None

    def of(self, dataset: Dataset) -> Resident:
        """Stand for a data set with these images; copies are shared by all that do."""
        other = Resident(self._decoded, self.device)
        other._copies, other._dataset = self._copies, dataset
        return other

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

    def image(self, sample_id: str) -> Tensor:
        return self._pair(sample_id)[0]

    def label(self, sample_id: str) -> Tensor:
        return self._pair(sample_id)[1]

    def _pair(self, sample_id: str) -> tuple[Tensor, Tensor]:
        if self.device.type == "cpu":
            return self._decoded[sample_id]
        if (pair := self._copies.get(sample_id)) is None:
            image, label = self._decoded[sample_id]
            pair = self._copies[sample_id] = image.to(self.device), label.to(self.device)
        return pair


def decoded(place: Path, name: str, threads: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Decode all images with masks of a packed data set; id → image (3, H, W) and label (H, W), bytes."""
    ids = sorted({line for path in (place / "lists" / name).rglob("*.txt") for line in ids_of(path)})
    data = {"root": str(place / name)}
    for kind, part in (("labeled", ids[:-1]), ("val", ids[-1:])):  # so that every mask is opened; nothing is trained
        data[kind] = str(place / f"{name}-{kind}.txt")
        write_atomically(Path(data[kind]), "\n".join(part) + "\n")
    config = load_config({"method": "supervised", "data": data})
    assert isinstance(config.data, FilesConfig)
    dataset = open_files(prepared(config.data))
    with ThreadPoolExecutor(threads) as pool:
        pairs = pool.map(lambda one: (dataset.image(one), dataset.label(one)), ids)
        return dict(zip(ids, pairs, strict=True))


# ── workers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Shared:
    """What workers have in common: the list of trainings, the images, and how long trainings take.

    images: by the name of the data. ends: when all have to be done, by `time.time`. said: a queue of what workers say.
    """

    def __init__(
        self, plan: Plan, images: dict[str, dict[str, tuple[Tensor, Tensor]]], ends: float, workers: int
    ) -> None:
        context = multiprocessing.get_context("fork")
        self.plan, self.images, self.ends = plan, images, ends
        self.said: Any = context.Queue() if workers else queue.SimpleQueue()
        self._taken = context.Array("b", len(plan.entries))
        kinds = list(dict.fromkeys(entry.kind for entry in plan.entries))
        self._kinds = {kind: number for number, kind in enumerate(kinds)}
        self._seconds = context.Array("d", len(kinds))  # of the last training of a kind; 0 = none was done yet

    def next(self) -> int | None:
        """Take the first entry that can be done in time, as far as is known; None if there is none."""
        left = self.ends - time.time()
        with self._taken.get_lock():
            for number, entry in enumerate(self.plan.entries):
                if not self._taken[number] and max(self._seconds[self._kinds[entry.kind]], 0.001) < left:
                    self._taken[number] = 1
                    return number
        return None

    def took(self, entry: Entry, seconds: float) -> None:
        """Remember how long a training took, for those of its kind."""
        self._seconds[self._kinds[entry.kind]] = seconds


def work(shared: Shared, log: Path | None) -> None:
    """Train one entry after the other. log: a file for what they print.

    A training that fails is tried once more with its images in the host's memory; after two that fail even so, this
    process ends: a GPU that has met an error answers nothing any more, and the others shall have the rest of the list.
    """
    prepare_process()
    torch.set_num_threads(1)
    residents: dict[tuple[str, str], Resident] = {}
    on_device, failures = True, 0
    while failures < MOST_FAILURES and (number := shared.next()) is not None:
        entry = shared.plan.entries[number]
        images = shared.images[entry.stage.data]
        shared.said.put({"number": number, "state": "running"})
        started, told = time.perf_counter(), None
        while told is None:
            try:
                with log.open("a") if log else io.StringIO() as file, contextlib.redirect_stdout(file):
                    results = train(entry, images, residents if on_device else None)
            except Interrupted:
                return
            except Exception as error:  # one training that fails must not cost the others
                traceback.print_exc()
                reason = f"{type(error).__name__}: {error}"
                if on_device:
                    on_device = False
                    shared.said.put({"number": number, "state": "running", "reason": f"{reason}; again from the host"})
                else:
                    told, failures = {"state": "failed", "reason": reason}, failures + 1
            else:
                seconds = time.perf_counter() - started
                shared.took(entry, seconds)
                told, failures = {"state": "done", "seconds": seconds, "results": results}, 0
        shared.said.put({"number": number, **told})


def train(
    entry: Entry, images: Mapping[str, tuple[Tensor, Tensor]], residents: dict[tuple[str, str], Resident] | None
) -> dict[str, Any]:
    """Take a training to its end and score it; return what is kept of its results.

    residents: the data sets on the GPU so far, by name and device; None: images stay in the host's memory.
    """
    training = build.training(entry.run.config, checked=False)
    key = entry.stage.data, str(training.device)
    if residents is None:
        resident = Resident(images, torch.device("cpu"))
    else:
        resident = residents.setdefault(key, Resident(images, training.device))
    data = resident.of(training.dataset)
    training.loader.dataset = training.evaluator.dataset = data  # type: ignore[assignment]
    run = RunFolder.create(entry.run.folder, overwrite=True)
    run.write_config(dump(entry.run.config))
    results = training.trainer(run).fit()
    shutil.rmtree(run.path)
    return {key: results[key] for key in KEPT}


@contextmanager
def shared_kernels(wanted: bool, place: Path) -> Iterator[str]:
    """Let the kernels of several processes run side by side, by CUDA's multi-process service; say what came of it."""
    control = shutil.which("nvidia-cuda-mps-control", path=f"{os.environ['PATH']}:/usr/local/nvidia/bin")
    if not wanted or control is None:
        yield "processes take turns on the GPU" + (" (no nvidia-cuda-mps-control here)" if wanted else "")
        return
    names = {"CUDA_MPS_PIPE_DIRECTORY": place / "mps", "CUDA_MPS_LOG_DIRECTORY": place / "mps-log"}
    for name, folder in names.items():
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[name] = str(folder)
    try:
        subprocess.run([control, "-d"], check=True, timeout=30)  # noqa: S603
        probe = "import torch; print(float(torch.ones(9, device='cuda').sum()))"
        subprocess.run([sys.executable, "-c", probe], check=True, timeout=60, stdout=subprocess.DEVNULL)  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        _quit(control)
        for name in names:
            del os.environ[name]
        yield f"processes take turns on the GPU (the multi-process service did not start: {error})"
        return
    try:
        yield "kernels of all processes run side by side (multi-process service)"
    finally:
        _quit(control)


def _quit(control: str) -> None:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        subprocess.run([control], input=b"quit\n", timeout=30, check=False, stdout=subprocess.DEVNULL)  # noqa: S603


# ── a campaign ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Progress:
    """What is known of the entries. state: number → running, stopped, done or failed. results: of those done."""

    plan: Plan
    state: dict[int, str] = field(default_factory=dict)
    results: dict[int, dict[str, Any]] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)

    def note(self, told: Mapping[str, Any], out: Path) -> None:
        """Take in what a worker says, and keep a result at once."""
        number = told["number"]
        entry = self.plan.entries[number]
        self.state[number] = told["state"]
        if "reason" in told:
            self.reasons[number] = told["reason"]
            print(f"{entry.name}: {told['reason']}", flush=True)
        if told["state"] == "done":
            self.results[number], self.seconds[number] = told["results"], told["seconds"]
            line = {"stage": entry.stage.name, "method": entry.run.method, "lists": entry.run.lists,
                    "seed": entry.run.seed, "whole_seconds": told["seconds"], **told["results"]}  # fmt: skip
            with (out / "results.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def count(self, state: str) -> int:
        return sum(one == state for one in self.state.values())

    def line(self) -> str:
        return (f"{self.count('done')} of {len(self.plan.entries)} trainings done, {self.count('running')} running, "
                f"{self.count('stopped')} stopped, {self.count('failed')} failed")  # fmt: skip


def play(shared: Shared, workers: int, out: Path, log: Path, ends: float) -> Progress:
    """Train with so many processes until all is done or the time is over. workers: 0 = in this process."""
    progress = Progress(shared.plan)
    if workers == 0:
        work(shared, None)
        while not shared.said.empty():
            progress.note(shared.said.get(), out)
        return progress
    context = multiprocessing.get_context("fork")  # what is imported and decoded is there at once, and only once
    processes = [context.Process(target=work, args=(shared, log / f"{n}.log")) for n in range(workers)]
    for process in processes:
        process.start()
    told = time.time()
    while any(process.is_alive() for process in processes) and time.time() < ends:
        _listen(shared, progress, out)
        if time.time() - told > TELL:
            told = time.time()
            print(f"{progress.line()}; {ends - told:.0f} s left", flush=True)
    _stop(processes, shared, progress, out)
    return progress


def _listen(shared: Shared, progress: Progress, out: Path) -> None:
    with contextlib.suppress(queue.Empty):
        progress.note(shared.said.get(timeout=LOOK), out)
        while True:
            progress.note(shared.said.get_nowait(), out)


def _stop(processes: Sequence[Any], shared: Shared, progress: Progress, out: Path) -> None:
    """Ask the workers to stop, wait, and end those that do not; hear all that they still had to say."""
    for process in processes:
        if process.is_alive():
            os.kill(process.pid, signal.SIGTERM)
    until = time.time() + PATIENCE
    while any(process.is_alive() for process in processes) and time.time() < until:
        _listen(shared, progress, out)
    for process in processes:
        if process.is_alive():
            process.kill()
    _listen(shared, progress, out)
    progress.state = {number: "stopped" if one == "running" else one for number, one in progress.state.items()}


def write(progress: Progress, out: Path, about: str) -> str:
    """Write tables and curves, and what was not reached; return the text."""
    blocks = [f"{about}\n\n{progress.line()}.", *_seconds(progress)]
    done: dict[str, list[Finished]] = {}
    for number, results in sorted(progress.results.items()):
        run = progress.plan.entries[number].run
        stage = progress.plan.entries[number].stage.name
        done.setdefault(stage, []).append(Finished(run.method, run.lists, run.seed, results))
    for stage, campaign in progress.plan.campaigns.items():
        if stage not in done:
            continue
        found = CampaignReport(done[stage], campaign.reference, campaign.full)
        blocks.append(f"## {stage}\n\n{found.markdown()}")
        if "curve" in stage and (drawn := found.curve_values()):
            learning_curve(drawn, out / f"{stage}.png")
    missing = [
        f"- {entry.name}: {progress.reasons.get(number, 'not begun' if state == 'waiting' else 'stopped')}"
        for number, entry in enumerate(progress.plan.entries)
        if (state := progress.state.get(number, "waiting")) != "done"
    ]
    notes = [
        f"- {progress.plan.entries[number].name}: {reason}"
        for number, reason in sorted(progress.reasons.items())
        if progress.state[number] == "done"
    ]
    if notes:
        blocks.append("## Notes\n\n" + "\n".join(notes))
    if missing:
        blocks.append("## Not reached\n\n" + "\n".join(missing))
    text = "\n\n".join(blocks) + "\n"
    write_atomically(out / "report.md", text)
    return text


def _seconds(progress: Progress) -> Iterator[str]:
    """Say how long the trainings of each kind took."""
    kinds: dict[str, list[float]] = {}
    for number, seconds in sorted(progress.seconds.items()):
        entry = progress.plan.entries[number]
        steps = progress.results[number]["steps"]
        kinds.setdefault(f"{entry.stage.name}, {entry.run.method}, {steps} steps", []).append(seconds)
    if kinds:
        yield "Seconds of a training, scores included, beside the others:\n\n" + "\n".join(
            f"- {kind}: {statistics.median(seconds):.1f} ({len(seconds)} trainings)" for kind, seconds in kinds.items()
        )


def gpu_name() -> str:
    """Name the GPU without touching it: a process that has talked to it cannot be forked."""
    if (tool := shutil.which("nvidia-smi")) is None:
        return "no GPU"
    asked = [tool, "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() or "no GPU"  # noqa: S603


def run(args: argparse.Namespace) -> None:
    """Unpack, train, report."""
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # else asking whether there is a GPU forbids to fork
    ends = time.time() + 60 * args.minutes - PATIENCE
    args.out.mkdir(parents=True, exist_ok=True)
    memory = Path("/dev/shm")  # noqa: S108  # a new folder in it, of this process alone
    has_room = memory.is_dir() and shutil.disk_usage(memory).free > ROOM
    place = Path(tempfile.mkdtemp(prefix="campaign-", dir=memory if has_room else None))
    torch.set_num_threads(1)  # a process that has started threads cannot be forked
    try:
        with tarfile.open(args.data) as tar:
            tar.extractall(place, filter="data")
        shared = Shared(
            planned(stages(args.stages), place, args),
            {name: decoded(place, name, os.cpu_count() or 1) for name in WHOLE if (place / name).is_dir()},
            ends,
            args.workers,
        )
        print(f"{len(shared.plan.entries)} trainings, {args.workers} at a time", flush=True)
        log = place / "log"
        log.mkdir()
        with shared_kernels(args.mps, place) as how:
            progress = play(shared, args.workers, args.out, log, ends)
        print(write(progress, args.out, f"{gpu_name()}, torch {torch.__version__}, {args.workers} processes; {how}."))
    finally:
        shutil.rmtree(place, ignore_errors=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="put data and lists into one file")
    packing.add_argument("data", type=Path, metavar="DATA.tar")
    for name in WHOLE:
        packing.add_argument(f"--{name}", type=Path, metavar="FOLDER")
        packing.add_argument(
            f"--{name}-lists", type=Path, metavar="FOLDER", help="with a folder for every draw, and val.txt"
        )
    packing.add_argument("--quality", type=int, default=90, help="of WebP")
    running = commands.add_parser("run", help="train")
    running.add_argument("data", type=Path, metavar="DATA.tar")
    running.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="of every training")
    running.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    running.add_argument("--lists", nargs="+", help="these alone")
    running.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    running.add_argument("--workers", type=int, default=16, help="processes; 0 = this one")
    running.add_argument("--steps", type=int, help="of every training, for a try")
    running.add_argument("--mps", action="store_true", help="start CUDA's multi-process service, if it is there")
    running.add_argument("--out", type=Path, required=True)
    running.add_argument("--minutes", type=float, default=8.0, help="after which it stops by itself")
    running.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    return parser.parse_args()


def main() -> None:
    """Do what is asked."""
    args = arguments()
    try:
        (pack if args.command == "pack" else run)(args)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
