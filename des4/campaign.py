"""Campaigns: methods × lists × seeds as one command, and what each method is worth against a reference.

docs/campaigns.md shows a campaign file. One folder a run: out/METHOD/LIST/seed-0.

A run is done, goes on where it was stopped, or is trained from its beginning; so the command may be given again at any
time. Paths are relative to the working directory, as everywhere.

Runs of one list name are compared pair by pair, so they have to have the same images: what decides that belongs to the
list, and what the runs had is compared by the hashes in their results.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, ValidationError, model_validator
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from des4.opening import lists_now
from des4.config import RunConfig, differences, dump, given_settings, load_config, read_yaml
from des4.data_tools.importing import prepared
from des4.data_tools.split_folder import Recipe, write_splits
from des4.data_tools.splits import counts_of, draw, pool_of, read_contents
from des4.datasets import open_files
from des4.datasets.files import FilesConfig
from des4.methods import METHODS
from des4.report.campaign import CampaignReport, Finished
from des4.report.compare import HASH, KINDS
from des4.runlog import RunFolder, read_json, write_atomically
from des4.types import Config, ConfigError, RunError, UserError

POLL = 0.5
"""Seconds between two looks at the runs that are being trained."""

OF_THE_LIST = ("data.labeled", "data.unlabeled", "data.val")
"""Settings that a method may not have for itself."""
NAME_LISTS = {
    "labeled": ("labeled", "val_fraction", "val_seed", "protocol", "lists", "seed"),
    "unlabeled": ("unlabeled", "shards"),
    "val": ("val",),
}
"""Kind of list → settings of `data` that decide which images are on it."""


class CampaignConfig(Config):
    """What a campaign file says."""

    out: Path
    settings: dict[str, Any] = Field(default_factory=dict)
    methods: dict[str, dict[str, Any]] = Field(min_length=1)
    lists: dict[str, dict[str, Any]] = Field(min_length=1)
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    reference: str | None = None
    full: str | None = None
    table: int | None = Field(None, ge=1, le=5)
    """Of the paper: its figures are printed beside these runs."""
    report: Path | None = None
    """Folder of tables and pictures; None = `out`. Campaigns that share runs have an `out` in common and not this."""

    @property
    def reports(self) -> Path:
        """Folder of the tables and pictures."""
        return self.report or self.out

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        if self.reference is not None and self.reference not in self.methods:
            raise ValueError(f"reference: `{self.reference}` is none of the methods {', '.join(self.methods)}")
        if self.full is not None and self.full not in self.lists:
            raise ValueError(f"full: `{self.full}` is none of the lists {', '.join(self.lists)}")
        for name, settings in self.methods.items():
            if not isinstance(settings.get("lists", []), list):
                raise ValueError(f"methods.{name}.lists: is a list, such as [{next(iter(self.lists))}]")
            if unknown := [entry for entry in settings.get("lists", ()) if entry not in self.lists]:
                raise ValueError(f"methods.{name}.lists: {', '.join(unknown)} is none of {', '.join(self.lists)}")
        return self


@dataclass(frozen=True)
class Planned:
    """One run of a campaign: what it is called, where it lies, and its settings."""

    method: str
    lists: str
    seed: int
    config: RunConfig

    @property
    def folder(self) -> Path:
        """The run folder."""
        assert self.config.out is not None  # noqa: S101  # `plan` gives each run one
        return self.config.out

    @property
    def name(self) -> str:
        """How it is called on the terminal."""
        return f"{self.method} · {self.lists} · seed {self.seed}"

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of lists that the run looks at: not the unlabeled one, if its method reads none of these."""
        strong = METHODS[self.config.method.name].VIEWS.strong
        return tuple(kind for kind in KINDS if kind != "unlabeled" or strong)


def read_campaign(path: Path) -> CampaignConfig:
    """Read a campaign file. Raises ConfigError."""
    try:
        return CampaignConfig.model_validate(read_yaml(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{path}: {where + ': ' if where else ''}{first['msg']}") from None


def plan(campaign: CampaignConfig, overrides: Sequence[str] = ()) -> list[Planned]:
    """List the runs of a campaign, lists first, so that a table fills row by row. overrides: settings of every run.

    Raises ConfigError where a run's settings are wrong, or a method has lists of its own, all of them before the first
    is trained.
    """
    runs: list[Planned] = []
    for seed in campaign.seeds:
        for lists, where in campaign.lists.items():
            for method, given in campaign.methods.items():
                own = dict(given)
                wanted, file = own.pop("lists", None), own.pop("config", None)
                if wanted is not None and lists not in wanted:
                    continue
                # later ones win: the file, what all runs share, the lists, the method's own, the command line's
                layers = [Path(file)] if file else []
                config = load_config([*layers, campaign.settings, where, own, {"train.seed": seed}], overrides)
                config.train.total_steps(1, 1)  # is its length given?
                out = campaign.out / method / lists / f"seed-{seed}"
                _refuse_own_lists(method, own)
                runs.append(Planned(method, lists, seed, config.model_copy(update={"out": out})))
    _refuse_other_settings_of_lists(runs)
    return runs


def _refuse_own_lists(method: str, own: dict[str, Any]) -> None:
    """Raise ConfigError if the block of a method says which images there are."""
    if taken := [key for key in OF_THE_LIST if key in given_settings(own)]:
        raise ConfigError(
            f"methods.{method}: {', '.join(taken)} cannot be a method's own, for all methods of a list are compared on "
            "the same images; write it under lists or settings, and a list that only some methods are to have under a "
            f"name of its own, with methods.{method}.lists"
        )


def _refuse_other_settings_of_lists(runs: Sequence[Planned]) -> None:
    """Raise ConfigError if runs of one list name are told to have different images, as by the file of a method."""
    first: dict[tuple[str, str], tuple[Planned, Any]] = {}
    for run in runs:
        for key in (key for kind in run.kinds for key in NAME_LISTS[kind]):
            value = getattr(run.config.data, key, None)
            other, wanted = first.setdefault((run.lists, key), (run, value))
            if value != wanted:
                raise ConfigError(
                    f"lists.{run.lists}: data.{key} is {wanted} for {other.method} and {value} for {run.method}, and "
                    "methods of one list are compared on the same images; write it under lists or settings"
                )


def curve(config: RunConfig, out: Path, masks: Sequence[int], seeds: Sequence[int]) -> CampaignConfig:
    """Make the campaign of a learning curve: supervised training with ever more of the masks that there are.

    config: of data in files and a method that reads no unlabeled image. masks: numbers of labeled images; none = all
    of them, and a half, a quarter and an eighth. The lists are drawn into `out`/lists once, stratified and each inside
    the next larger one. Raises ConfigError or DataError.
    """
    if METHODS[config.method.name].VIEWS.strong:
        raise ConfigError(
            f"method={config.method.name}: a learning curve is of supervised training; leave method out, or give "
            "method=supervised"
        )
    if not isinstance(config.data, FilesConfig):
        raise ConfigError("data: a learning curve is drawn of data in files; give data=FOLDER")
    dataset = open_files(prepared(config.data))
    pool = pool_of(dataset)
    numbers = sorted(set(masks)) or sorted({n for n in (len(pool) >> shift for shift in range(4)) if n >= 2})
    counts = counts_of(len(pool), (), [*numbers, *([len(pool)] if len(pool) not in numbers else [])])
    recipe = Recipe(tuple(f"--count {name}" for name in counts), "stratified", nested=True, seed=0, pool=len(pool))
    lists = out / "lists"
    if not lists.exists():
        contents = read_contents(dataset, pool)
        write_splits(lists, dataset, draw(dataset, pool, counts, nested=True, contents=contents), contents, recipe)
    elif tuple(read_json(lists / "splits.json").get("sizes", ())) != recipe.sizes:
        raise RunError(f"{lists} holds lists of other sizes; give another folder with --out, or the same --masks")
    return CampaignConfig(
        out=out,
        settings=dump(config),
        methods={config.method.name: {}},
        lists={
            name: {f"data.{kind}": str(lists / name / f"{kind}.txt") for kind in ("labeled", "unlabeled")}
            | {"data.val": str(lists / "val.txt")}
            for name in counts
        },
        seeds=tuple(seeds),
        reference=config.method.name,
        full=str(len(pool)),
    )


def run_campaign(runs: Sequence[Planned], jobs: int, threads: int | None = None) -> list[str]:
    """Train what is missing of a campaign, `jobs` runs at a time; return one line for each run that failed.

    threads: CPU threads of each run; None shares the cores among the runs. Ctrl-C stops the runs, which save; given
    again, the command goes on. Raises RunError as `look` does.
    """
    finished = look(runs).folders
    waiting = [run for run in runs if run.folder not in finished]
    threads = threads or max(1, (os.cpu_count() or 1) // jobs)
    failures: list[str] = []
    running: dict[subprocess.Popen[bytes], Planned] = {}
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, disable=not sys.stdout.isatty()) as progress:
        bar = progress.add_task("runs", total=len(runs), completed=len(runs) - len(waiting))
        bars = {}
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    run = waiting.pop(0)
                    process = _start(run, threads)
                    running[process] = run
                    bars[process] = progress.add_task(run.name, total=run.config.train.steps)
                    if progress.disable:
                        print(f"{run.name}: started", flush=True)
                time.sleep(POLL)
                for process, run in list(running.items()):
                    progress.update(bars[process], completed=_step(run))
                    if process.poll() is None:
                        continue
                    del running[process]
                    progress.remove_task(bars.pop(process))
                    progress.advance(bar)
                    done = process.returncode == 0
                    if not done:
                        failures.append(f"{run.name}: {_reason(run)}")
                    if progress.disable:
                        print(f"{run.name}: {'done' if done else failures[-1]}", flush=True)
        finally:  # on Ctrl-C a terminal has told them too; twice does no harm to one that saves
            for process in running:
                process.terminate()
            for process in running:
                process.wait()
    return failures


def report(campaign: CampaignConfig, runs: Sequence[Planned]) -> CampaignReport:
    """Put the figures of all runs that are done together. Raises RunError if none is, and as `look` does."""
    found = look(runs)
    done = [
        Finished(run.method, run.lists, run.seed, folder.results(), folder)
        for run in runs
        if (folder := found.folders.get(run.folder))
    ]
    if not done:
        raise RunError(f"{campaign.out}: no run of this campaign is finished; nothing can be compared yet")
    rebuilt = dict.fromkeys(run.method for run in runs if METHODS[run.config.method.name].RECONSTRUCTION)
    return CampaignReport(done, campaign.reference, campaign.full, len(runs), tuple(rebuilt), found.unseen)


@dataclass(frozen=True)
class Look:
    """What there is of a campaign.

    folders: of the runs that are done, by path. unseen: why lists of finished runs could not be read again, one line a
    reason.
    """

    folders: dict[Path, RunFolder]
    unseen: tuple[str, ...]


def look(runs: Sequence[Planned]) -> Look:
    """Find the runs that are done, and see that they may be compared.

    Raises RunError for a folder that holds a run with other settings, for a finished run whose lists have changed
    since, and for finished runs of one list name that had different images.
    """
    folders = {run.folder: RunFolder.open(run.folder) for run in runs if _is_done(run)}
    done = [run for run in runs if run.folder in folders]
    results = {run.folder: folders[run.folder].results()["data"] for run in done}
    _refuse_mixed_lists(done, results)
    return Look(folders, _refuse_changed_lists(done, results))


def _is_done(run: Planned) -> bool:
    """Whether the run has its results, with these settings. Raises RunError for a folder with other settings.

    Settings that are newer than the run have their defaults there. A campaign may have been moved as a whole.
    """
    if not RunFolder.is_run(run.folder):
        return False
    before = load_config(RunFolder.open(run.folder).config()).model_copy(update={"out": run.config.out})
    if changed := differences(before, run.config):
        raise RunError(f"{run.folder} was trained with other settings ({'; '.join(changed[:3])}); give the campaign "
                       "another out, or remove this run")  # fmt: skip
    return (run.folder / "results.json").exists()


def _refuse_mixed_lists(done: Sequence[Planned], results: Mapping[Path, Mapping[str, Any]]) -> None:
    """Raise RunError if runs of one list name had different images. results: by folder, what it says of its data."""
    first: dict[tuple[str, str], Planned] = {}
    for run in done:
        for kind in run.kinds:
            other = first.setdefault((run.lists, kind), run)
            had = [results[one.folder] for one in (other, run)]
            if had[0][f"{kind}_hash"] != had[1][f"{kind}_hash"]:
                counts = [f"{each[kind]} of hash {each[f'{kind}_hash'][:HASH]}…" for each in had]
                raise RunError(
                    f"{other.name} and {run.name} had different {kind} images under one list name, {run.lists} "
                    f"({' and '.join(counts)}), and cannot be compared; give each list a name of its own in the "
                    f"campaign, or remove the run that had the wrong one: {other.folder} or {run.folder}"
                )


def _refuse_changed_lists(done: Sequence[Planned], results: Mapping[Path, Mapping[str, Any]]) -> tuple[str, ...]:
    """Raise RunError if the lists of a finished run are others by now; return why they could not be read."""
    now: dict[str, Mapping[str, Any] | None] = {}
    unseen: dict[str, None] = {}
    for run in done:
        key = json.dumps([run.config.data.model_dump(mode="json"), run.config.guard.held_out])
        if key not in now:
            try:
                now[key] = lists_now(run.config)
            except UserError as error:
                now[key] = None
                unseen[f"list {run.lists}: the data cannot be read, so it is not known whether the list is still the "
                       f"one that its runs had ({' '.join(str(error).split())})"] = None  # fmt: skip
        found, had = now[key], results[run.folder]
        changed = [kind for kind in run.kinds if found and found[f"{kind}_hash"] != had[f"{kind}_hash"]]
        if found and changed:
            told = "; ".join(f"{kind} images: {had[kind]} -> {found[kind]}, of other ids" for kind in changed)
            raise RunError(f"{run.folder} was trained with other lists than are there now ({told}); bring those back, "
                           "give the campaign another out, or remove this run")  # fmt: skip
    return tuple(unseen)


def _start(run: Planned, threads: int) -> subprocess.Popen[bytes]:
    """Start or resume a run in a process of its own; what it prints goes to a file beside its folder."""
    run.folder.parent.mkdir(parents=True, exist_ok=True)
    if RunFolder.is_run(run.folder):
        command = ["train", "--resume", str(run.folder)]
    else:
        settings = run.folder.with_suffix(".yaml")
        write_atomically(settings, yaml.safe_dump(dump(run.config), sort_keys=False, allow_unicode=True))
        command = ["train", str(settings), "--overwrite"]  # of what a kill left before the run had its config
    with _output(run).open("wb") as output:
        return subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "des4", *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )


def _output(run: Planned) -> Path:
    return run.folder.with_suffix(".out")


def _reason(run: Planned) -> str:
    lines = _output(run).read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "stopped without a word")
    return f"{last} (all that it printed: {_output(run)})"


def _step(run: Planned) -> int:
    """The last step that a run has logged."""
    lines = RunFolder(run.folder).metrics()
    return int(lines[-1]["step"]) if lines else 0
