"""Compare runs honestly: mean ± standard deviation over seeds, and a word on everything that makes a comparison unfair.

Runs with the same lists whose configs differ in nothing but `train.seed`, `out` and what is merely watched form a
group. Scores are those of the last checkpoint, of the model each run is judged by; the best checkpoint was chosen on
the reported list and has no place here.

Published lists come in families that share sizes and fractions but not images (docs/protocols.md). Each family has its
own table, and so have the runs with lists that nobody published; a picture holds one family alone.
"""

from __future__ import annotations

import html
import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Group as Lines
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from des4.report.group_names import name_groups
from des4.report.page import flatten
from des4.report.plots import group_bars, percent

if TYPE_CHECKING:
    from des4.runlog import RunFolder

PROTOCOL = (
    "data.root", "model.encoder", "model.weights", "train.batch_size", "train.unlabeled_batch_size", "views.crop_size"
)  # fmt: skip
"""Settings that runs must share to be compared, beside all of `eval`, the steps, the lists, the classes, and what they
began as. Lists are known by the names of their images; in another folder these may have other masks."""
NOT_TRAINED = ("train.seed", "out", "guard.drift_factor", "guard.truth_images")
"""Settings in which runs of one group may differ."""
KINDS = ("labeled", "unlabeled", "val")
"""Of lists."""
MARK = '<meta name="generator" content="des4 compare">'
"""By this a page is known as ours, so that a later comparison may replace it."""
HASH = 8
"""Digits of a list's hash by which a group is known; results.json has all of them."""
OTHER_LISTS = "unpublished lists"
"""Title of the runs whose lists belong to no protocol, where others do."""

Rows = list[list[str]]


class Finished(NamedTuple):
    """A run with its flat config and its results."""

    run: RunFolder
    config: Mapping[str, Any]
    results: Mapping[str, Any]


@dataclass(frozen=True)
class Score:
    """What a figure was in each run of a group: fractions, nan where the class does not occur."""

    values: tuple[float, ...]

    @property
    def present(self) -> list[float]:
        """The values that are numbers."""
        return [value for value in self.values if not math.isnan(value)]

    @property
    def mean(self) -> float:
        """Mean of the values present, nan if there is none."""
        return statistics.fmean(self.present) if self.present else math.nan

    @property
    def sd(self) -> float:
        """Standard deviation with n - 1, nan for fewer than two values."""
        return statistics.stdev(self.present) if len(self.present) > 1 else math.nan

    def __str__(self) -> str:
        return percent(self.mean, 2) + ("" if math.isnan(self.sd) else f" ± {percent(self.sd, 2)}")


@dataclass(frozen=True)
class RunGroup:
    """Runs that differ only in their seed.

    label: the method and the settings that tell this group from others. model: the model they are judged by. protocol:
    of their lists, as `voc/u2pl/1323`; empty for lists that nobody published. runs: in the order given.
    """

    label: str
    model: str
    protocol: str
    seeds: tuple[int, ...]
    miou: Score
    tail_miou: Score
    iou: dict[str, Score]
    runs: tuple[RunFolder, ...]


@dataclass(frozen=True)
class Comparison:
    """Groups by family of lists, and what the reader must know; `rich` prints a family's groups as tables.

    settings: of each family, in what its groups differ beyond their names, a row a setting; [] if that is all.
    """

    families: Mapping[str, tuple[RunGroup, ...]]
    warnings: tuple[str, ...]
    settings: Mapping[str, Rows]

    @property
    def groups(self) -> tuple[RunGroup, ...]:
        """All groups."""
        return tuple(group for groups in self.families.values() for group in groups)

    def markdown(self) -> str:
        """Return the tables and warnings as Markdown."""
        blocks = []
        for title, *tables in self.sections():
            blocks += [f"### {markdown_text(title)}"] if title else []
            blocks += ["\n".join(markdown_rows(rows)) for rows in tables if rows]
        if self.warnings:
            blocks.append("\n".join(f"- Warning: {markdown_text(text)}" for text in self.warnings))
        return "\n\n".join(blocks) + "\n"

    def plot(self, path: Path) -> None:
        """Draw mIoU and tail mIoU of each group, with sd and every run, as PNG.

        Raises RunError for several families.
        """
        from des4.types import RunError  # imports torch, which a report does without

        if len(self.families) > 1:
            raise RunError(f"{path}: one picture cannot hold several families of lists "
                           f"({_and(self.families)}); draw the runs of each by themselves")  # fmt: skip
        group_bars({g.label: {"mIoU": g.miou.values, "tail mIoU": g.tail_miou.values} for g in self.groups}, path)

    def _repr_markdown_(self) -> str:
        """What a notebook shows."""
        return self.markdown()

    def __rich__(self) -> RenderableType:
        lines: list[RenderableType] = []
        for title, *tables in self.sections():
            lines += [Text(title, style="bold")] if title else []
            lines += [as_table(rows) for rows in tables if rows]
        return Lines(*lines, *(Text(f"! {text}", style="yellow") for text in self.warnings))

    def sections(self) -> Iterator[tuple[str, Rows, Rows, Rows]]:
        """Yield each family's title and its tables: scores, IoU by class and, if there is more to say, settings.

        Nameless lists need no title where there are no others.
        """
        for family, groups in self.families.items():
            protocols = dict.fromkeys(group.protocol for group in groups)
            title = next(iter(protocols)) if len(protocols) == 1 else family
            rows = self.settings[family]
            settings = [["what differs", *(group.label for group in groups)], *rows] if rows else []
            yield (
                title or (OTHER_LISTS if len(self.families) > 1 else ""),
                _summary(groups),
                _by_class(groups),
                settings,
            )


def compare(runs: Sequence[RunFolder], names: Sequence[str] = ()) -> Comparison:
    """Group finished runs, summarise each group and name what is unfair about comparing them.

    names: of the runs, where they are known by something better than their settings; a group has that of its first run.
    Raises RunError where a run has no results, ValueError for no runs.
    """
    if not runs:
        raise ValueError("no runs to compare")
    families: dict[str, list[Finished]] = {}
    warnings = []
    named = {run.path: name for run, name in zip(runs, names, strict=True)} if names else {}
    for run in runs:
        config, results = flatten(run.config()), run.figures()
        _refuse_nameless(run, config)
        families.setdefault(_protocol_name(results).rpartition("/")[0], []).append(Finished(run, config, results))
        if results["step"] != results["steps"]:
            warnings.append(f"{run.path} stopped at step {results['step']} of {results['steps']}")
    if len(families) > 1:
        warnings.append(f"{_and(families)} are lists of different images: what stands in one table "
                        "does not compare with what stands in another")  # fmt: skip
    found = {family: _groups(members, named) for family, members in families.items()}
    groups = {family: made for family, (made, _) in found.items()}
    for family, members in families.items():
        about = [
            *_seed_warnings(groups[family]),
            *_protocol_warnings([_protocol(one.config, one.results) for one in members]),
        ]
        warnings += [f"{family or OTHER_LISTS}: {text}" for text in about] if len(families) > 1 else about
    warnings += dict.fromkeys(text for run in runs if (text := run.results().get("caution")))
    return Comparison(groups, tuple(warnings), {family: rows for family, (_, rows) in found.items()})


def _refuse_nameless(run: RunFolder, config: Mapping[str, Any]) -> None:
    """Raise RunError if settings name no method: somebody has changed the file, and a group is called by its method."""
    from des4.types import RunError  # imports torch, which a report does without

    if "method.name" not in config:
        raise RunError(f"{run.path / 'config.yaml'} names no method, so it is not as the run wrote it; bring it back")


def _groups(runs: Sequence[Finished], named: Mapping[Path, str]) -> tuple[tuple[RunGroup, ...], Rows]:
    """Put runs together that have the same lists, and one config but for what is no part of the training.

    Also return in what the groups differ beyond their names.
    """
    members: dict[str, list[Finished]] = {}
    for one in runs:
        members.setdefault(json.dumps(_facts(one, whole=True), sort_keys=True), []).append(one)
    found = name_groups([_facts(group[0]) for group in members.values()])
    labels = [named.get(group[0].run.path, label) for label, group in zip(found.names, members.values(), strict=True)]
    return tuple(_group(label, group) for label, group in zip(labels, members.values(), strict=True)), found.rows


def _facts(one: Finished, whole: bool = False) -> dict[str, Any]:
    """Return what makes runs a group. whole: with the hashes of the lists as they are, not as they are shown."""
    data = one.results["data"]
    settings = {key: value for key, value in one.config.items() if key not in NOT_TRAINED}
    protocol = {"data.protocol": name} if (name := _protocol_name(one.results)) else {}
    digits = None if whole else HASH
    lists = {f"{kind} list": f"{data[kind]} images, {data[f'{kind}_hash'][:digits]}" for kind in KINDS}
    return settings | protocol | lists


def _group(label: str, members: Sequence[Finished]) -> RunGroup:
    results = [one.results for one in members]
    names = dict.fromkeys(name for r in results for name in r["iou"])
    return RunGroup(
        label=label,
        protocol=_protocol_name(results[0]),
        model=" / ".join(dict.fromkeys(r["evaluated"] for r in results)),
        seeds=tuple(r["seed"] for r in results),
        miou=_score(r["miou"] for r in results),
        tail_miou=_score(r["tail_miou"] for r in results),
        iou={name: _score(r["iou"].get(name) for r in results) for name in names},
        runs=tuple(one.run for one in members),
    )


def _score(values: Iterable[float | None]) -> Score:
    return Score(tuple(math.nan if value is None else float(value) for value in values))


def _protocol_name(results: Mapping[str, Any]) -> str:
    return results["data"].get("protocol") or ""  # runs of the first version have none


def _protocol(config: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, str]:
    """Collect what runs must share to be compared."""
    data = results["data"]
    facts = {f"{kind} list": f"{data[kind + '_hash']} ({data[kind]} images)" for kind in KINDS}
    facts["list of classes"] = f"{len(results['pixel_share'])}: {', '.join(sorted(results['pixel_share']))}"
    facts["steps"] = str(results["steps"])
    if begun := config.get("train.start_from"):  # whose steps come on top
        facts["train.start_from"] = str(begun)
    return facts | {k: str(v) for k, v in config.items() if is_shared(k)}


def is_shared(key: str) -> bool:
    """Whether runs must share this setting to be compared."""
    return key.startswith("eval.") or key in PROTOCOL


def _protocol_warnings(facts: Sequence[Mapping[str, str]]) -> list[str]:
    warnings = []
    for key in dict.fromkeys(key for fact in facts for key in fact):
        values = list(dict.fromkeys(fact.get(key, "absent") for fact in facts))
        if len(values) > 1:
            warnings.append(f"not one protocol: {key} differs: {', '.join(values)}")
    return warnings


def _seed_warnings(groups: Sequence[RunGroup]) -> list[str]:
    warnings = []
    for group in groups:
        if len(group.seeds) == 1:
            warnings.append(f"{group.label}: one seed only, so nothing is known about its spread; run at least three")
        if repeated := seeds_that_repeat(group.seeds):
            warnings.append(f"{group.label}: {repeated}")
    return warnings


def seeds_that_repeat(seeds: Iterable[int]) -> str:
    """Say which seeds several runs have that are counted together; empty if none."""
    repeated = sorted(seed for seed, count in Counter(seeds).items() if count > 1)
    named = ", ".join(map(str, repeated))
    return f"seed {named} occurs more than once; such runs are no independent evidence" if repeated else ""


def _and(families: Iterable[str]) -> str:
    *first, last = (family or OTHER_LISTS for family in families)
    return f"{', '.join(first)} and {last}"


def _summary(groups: Sequence[RunGroup]) -> Rows:
    head = ["group", "model", "seeds", "mIoU %", "tail mIoU %"]
    return [head] + [[g.label, g.model, str(len(g.seeds)), str(g.miou), str(g.tail_miou)] for g in groups]


def _by_class(groups: Sequence[RunGroup]) -> Rows:
    names = dict.fromkeys(name for group in groups for name in group.iou)
    rows = [[name, *(str(g.iou.get(name, Score(()))) for g in groups)] for name in names]
    return [["IoU %", *(g.label for g in groups)], *rows]


def as_table(rows: Sequence[Sequence[str]]) -> Table:
    """Make a rich table. Text keeps `[x]` in a class name from being read as markup; long words are broken, not cut."""
    table = Table(header_style="bold", border_style="dim")
    for i, heading in enumerate(rows[0]):
        table.add_column(Text(heading), justify="right" if i else "left", overflow="fold")
    for row in rows[1:]:
        table.add_row(*map(Text, row))
    return table


def markdown_rows(rows: Sequence[Sequence[str]]) -> list[str]:
    """Write a heading and its rows as the lines of a Markdown table."""
    rule = "| --- |" + " ---: |" * (len(rows[0]) - 1)
    lines = ["| " + " | ".join(map(markdown_text, row)) + " |" for row in rows]
    return [lines[0], rule, *lines[1:]]


def markdown_text(text: str) -> str:
    """Write text so that Markdown shows it as it is, in a table too."""
    return html.escape(text, quote=False).replace("|", r"\|")
