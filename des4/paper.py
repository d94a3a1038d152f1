"""The paper's tables 1 to 5, and which runs belong into which of their cells.

The figures, and what each cell is trained with, stand in `configs/paper.yaml`; the campaign files in `configs/paper/`
of the repository train the cells. A run counts in a cell if its lists are the column's (known by their content), its
val images are those that published scores are from, it was trained to its end, and its settings are the cell's in all
that changes a result. COCO weights are any file: nobody can tell them by their name.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from des4.config import RunConfig, differences, load_config, read_yaml
from des4.datasets.protocols import PROTOCOLS, VAL_LISTS
from des4.methods import METHODS
from des4.report.compare import Score, seeds_that_repeat
from des4.report.paper import PaperReport, PaperRow, PaperTable
from des4.runlog import RunFolder
from des4.types import Config, ConfigError, RunError

FILE = Path(__file__).parent / "configs" / "paper.yaml"

FREE = frozenset({
    "out", "train.seed", "data.root", "data.labeled", "data.unlabeled", "data.val", "data.lists", "data.protocol",
    "data.cache", "data.cache_dir",
    "train.workers", "train.device", "train.log_every", "train.eval_every", "train.checkpoint_every",
    "train.max_skipped_steps", "train.deterministic", "train.compile", "train.shard", "train.accumulate",
    "train.precision", "model.checkpointing", "guard.drift_factor", "guard.truth_images",
    "train.steps", "train.epochs", "train.epochs_of",  # what they come to is compared
})  # fmt: skip
"""Settings that a run of a cell may have as it likes: where the data lie, and how a machine does the same."""

VAL_HASH = {
    "voc": VAL_LISTS["voc"][1],
    "cityscapes": "d0cae4a1fef73bc68324c049a996f306b364c40833db32307fd1474e74237b74",
}
"""Data set → hash, as results.json has it, of the ids of the val images that published scores are from."""

Settings = dict[str, Any]


class Column(Config):
    """A column of mIoU. settings: of its runs, beyond those of the data set."""

    protocol: str
    settings: Settings = Field(default_factory=dict)


class Row(Config):
    """What trains a row. voc, cityscapes: further settings there. about: what is to be known of it here."""

    name: str
    settings: Settings
    voc: Settings = Field(default_factory=dict)
    cityscapes: Settings = Field(default_factory=dict)
    about: str = ""

    @property
    def method(self) -> str:
        """Name of its method."""
        return str(self.settings["method"])

    def on(self, data: str) -> Settings:
        """Its settings on a data set."""
        return self.settings | (self.voc if data == "voc" else self.cityscapes)


class Table(Config):
    """A table as printed. by_class: protocol of a table whose columns are classes."""

    number: int
    title: str
    data: Literal["voc", "cityscapes"]
    columns: dict[str, Column] | list[str]
    by_class: str | None = None
    figures: dict[str, list[float | None]]
    notes: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _is_a_table(self) -> Self:
        if wrong := [row for row, figures in self.figures.items() if len(figures) != len(self.columns)]:
            raise ValueError(f"{', '.join(wrong)}: not one figure a column")
        if isinstance(self.columns, list) != (self.by_class is not None):
            raise ValueError("columns that are classes have one protocol, by_class")
        return self

    @property
    def trained(self) -> list[Column]:
        """What its runs are trained with, one entry for each list."""
        return list(self.columns.values()) if isinstance(self.columns, dict) else [Column(protocol=str(self.by_class))]


class Paper(Config):
    """All of `configs/paper.yaml`."""

    settings: dict[Literal["voc", "cityscapes"], Settings]
    rows: dict[str, Row]
    tables: list[Table]

    def config(self, table: Table, row: str, column: Column) -> RunConfig:
        """Settings of a cell's runs."""
        place = {"data.name": table.data, "data.root": ".", "data.protocol": column.protocol}
        return load_config([self.settings[table.data], place, column.settings, self.rows[row].on(table.data)])


@dataclass(frozen=True)
class Cell:
    """A cell with runs of its own: the place of its table in the file, the name of its row and its column's number."""

    table: int
    row: str
    column: int


@cache
def paper() -> Paper:
    """Read the tables."""
    return Paper.model_validate(read_yaml(FILE))


def find_runs(folders: Iterable[Path]) -> Iterator[RunFolder]:
    """Yield the runs in folders and below them, by path, each once. Raises RunError where there is no such folder."""
    seen = set()
    for folder in folders:
        if not folder.is_dir():
            raise RunError(f"{folder}: no such folder of runs; give one that holds some, or none for `runs`")
        for place, below, _ in os.walk(folder):
            below.sort()
            if RunFolder.is_run(place):
                below.clear()
                if (run := Path(place).resolve()) not in seen:
                    yield RunFolder.open(place)
                seen.add(run)


def report(runs: Iterable[RunFolder], numbers: Sequence[int] = ()) -> PaperReport:
    """Lay runs beside the paper's tables. numbers: of the tables; none = all. Unfinished runs are passed by.

    A run of the paper's lists that counts nowhere is named, with what keeps it from the nearest cell.
    """
    wanted = [n for n, table in enumerate(paper().tables) if not numbers or table.number in numbers]
    scores: dict[Cell, list[Mapping[str, Any]]] = {}
    left_out = []
    for run in runs:
        if not (run.path / "results.json").exists():
            continue
        results, counts, told = run.figures(), False, []
        for cell in _cells_of(results, wanted):
            if differing := differences_to(cell, run, results):
                told.append((len(differing), cell, differing))
            else:
                scores.setdefault(cell, []).append(results)
                counts = True
        if told and not counts:
            left_out.append(_left_out(run, *min(told, key=lambda one: one[0])[1:]))
    return PaperReport([_laid(n, scores) for n in wanted], left_out, _seeds_that_repeat(scores))


def _cells_of(results: Mapping[str, Any], wanted: Sequence[int]) -> list[Cell]:
    """Cells with a run's lists and method, whatever its settings are."""
    protocol, method = results["data"].get("protocol"), results["method"]
    return [
        Cell(n, row, number)
        for n in wanted
        for number, column in enumerate(paper().tables[n].trained)
        if column.protocol == protocol
        for row in paper().tables[n].figures
        if paper().rows[row].method == method
    ]


def differences_to(cell: Cell, run: RunFolder, results: Mapping[str, Any]) -> list[str]:
    """List what keeps a run with the lists and the method of a cell from counting there."""
    table = paper().tables[cell.table]
    column = table.trained[cell.column]
    planned, protocol = paper().config(table, cell.row, column), PROTOCOLS[column.protocol]
    try:
        own = load_config(run.config())
    except ConfigError as error:
        return [f"its settings are not those of this version ({str(error).splitlines()[0]})"]
    found = [line for line in differences(planned, own) if line.partition(":")[0] not in FREE]
    if column.settings.get("model.weights") and own.model.weights not in ("none", "timm", "package"):
        found = [line for line in found if not line.startswith("model.weights:")]
    reads = METHODS[planned.method.name].VIEWS.reads_unlabeled
    steps = planned.train.total_steps(protocol.labeled, protocol.unlabeled, reads)
    if results["steps"] != steps:
        found.append(f"steps: {steps} -> {results['steps']}")
    if results["step"] != results["steps"]:
        found.append(f"it stopped at step {results['step']}")
    if results["data"]["val_hash"] != VAL_HASH[table.data]:
        found.append("its val images are not those of published scores")
    return found


def _left_out(run: RunFolder, cell: Cell, differing: Sequence[str]) -> str:
    more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
    return f"{run.path} is not of {_place(cell)}: {'; '.join(differing[:3])}{more}"


def _place(cell: Cell) -> str:
    table = paper().tables[cell.table]
    return f"table {table.number}, {paper().rows[cell.row].name}, {table.trained[cell.column].protocol}"


def _seeds_that_repeat(scores: Mapping[Cell, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Say in which cells several runs have one seed, and which."""
    repeated = {cell: seeds_that_repeat(run["seed"] for run in runs) for cell, runs in scores.items()}
    return [f"{_place(cell)}: {text}" for cell, text in repeated.items() if text]


def _laid(number: int, scores: Mapping[Cell, Sequence[Mapping[str, Any]]]) -> PaperTable:
    """Make a table of what was found for its cells."""
    table = paper().tables[number]
    rows = []
    for row, figures in table.figures.items():
        if isinstance(table.columns, list):
            runs = scores.get(Cell(number, row, 0), ())
            found = [_score(r["iou"].get(name.removesuffix("*")) for r in runs) for name in table.columns]
        else:
            found = [_score(r["miou"] for r in scores.get(Cell(number, row, c), ())) for c in range(len(table.columns))]
        rows.append(PaperRow(paper().rows[row].name, _how(paper().rows[row], table.data), figures, found))
    unit, by_class = ("IoU %", True) if table.by_class else ("mIoU %", False)
    return PaperTable(table.number, table.title, unit, list(table.columns), rows, table.notes, by_class)


def _score(values: Iterable[float | None]) -> Score:
    return Score(tuple(math.nan if value is None else float(value) for value in values))


def _how(row: Row, data: str) -> str:
    """Say what trains a row here, as settings."""
    settings = " ".join(f"{key.removeprefix('method.')}={_plain(value)}" for key, value in row.on(data).items())
    return f"{settings}; {row.about}" if row.about else settings


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
