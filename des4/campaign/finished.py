"""What is done of a campaign, whether it may be compared, and its report.

Runs of one list name have to have had the same images: the hashes in their results.json are compared with each other,
and with those of the lists that are there now.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from des4.campaign.config import CampaignConfig
from des4.campaign.planning import Planned
from des4.config import differences, dump, load_config, newer_settings
from des4.methods import METHODS
from des4.opening import lists_now
from des4.report.campaign import CampaignReport
from des4.report.campaign_scores import Finished
from des4.report.compare import HASH, is_shared
from des4.report.group_names import full
from des4.report.page import flatten
from des4.runlog import RunFolder
from des4.types import ConfigError, RunError, UserError

SHAPING = ("method", "supervision", "views", "model", "optim")
"""Sections of a config whose settings shape what a network learns."""


@dataclass(frozen=True)
class Look:
    """What there is of a campaign.

    folders: of the runs that are done, by path. doubts: what could not be seen of finished runs, one line a reason:
    lists that could not be read again, and settings that are newer than a run.
    """

    folders: dict[Path, RunFolder]
    doubts: tuple[str, ...]


def look(runs: Sequence[Planned]) -> Look:
    """Find the runs that are done, and see that they may be compared.

    Raises RunError for a folder that holds a run with other settings, for a finished run whose lists have changed
    since, and for finished runs of one list name that had different images.
    """
    folders = {run.folder: RunFolder.open(run.folder) for run in runs if _is_done(run)}
    done = [run for run in runs if run.folder in folders]
    results = {run.folder: folders[run.folder].figures()["data"] for run in done}
    refuse_mixed_lists(done, results)
    return Look(folders, (*_refuse_changed_lists(done, results), *_older(done, folders)))


def _is_done(run: Planned) -> bool:
    """Whether the run has its results, with these settings. Raises RunError for a folder with other settings.

    Settings that are newer than the run have their defaults there. A campaign may have been moved as a whole.
    """
    if not RunFolder.is_run(run.folder):
        return False
    try:
        before = load_config(RunFolder.open(run.folder).config()).model_copy(update={"out": run.config.out})
    except ConfigError as error:
        unknown = str(error).splitlines()[0]
        raise RunError(f"{run.folder} has settings that this version does not know ({unknown}); give the campaign "
                       "another out, or remove this run") from error  # fmt: skip
    if changed := differences(before, run.config):
        raise RunError(f"{run.folder} was trained with other settings ({'; '.join(changed[:3])}); give the campaign "
                       "another out, or remove this run")  # fmt: skip
    return (run.folder / "results.json").exists()


def _older(done: Sequence[Planned], folders: Mapping[Path, RunFolder]) -> list[str]:
    """Say which runs were trained before there were settings that shape what is learned."""
    found: dict[str, list[str]] = {}
    for run in done:
        newer = newer_settings(folders[run.folder].config(), run.config)
        if shaping := [key for key in newer if key.partition(".")[0] in SHAPING]:
            found.setdefault(", ".join(shaping), []).append(run.name)
    return [
        f"trained before there was {keys}, and taken for runs with its default of today: {', '.join(names)}; give the "
        "campaign another out to train them anew"
        for keys, names in found.items()
    ]


def refuse_mixed_lists(done: Sequence[Planned], results: Mapping[Path, Mapping[str, Any]]) -> None:
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


def lists_key(run: Planned) -> str:
    """What decides which images a run has."""
    return json.dumps([run.config.data.model_dump(mode="json"), run.config.guard.held_out])


def _refuse_changed_lists(done: Sequence[Planned], results: Mapping[Path, Mapping[str, Any]]) -> tuple[str, ...]:
    """Raise RunError if the lists of a finished run are others by now; return why they could not be read."""
    now: dict[str, Mapping[str, Any] | None] = {}
    unseen: dict[str, None] = {}
    for run in done:
        if (key := lists_key(run)) not in now:
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


def _unfair(done: Sequence[Planned]) -> list[str]:
    """Say in which settings that should be one for all the methods of a list differ, by the first such list."""
    told: dict[tuple[str, str], dict[str, str]] = {}
    for run in done:
        for key, value in flatten(dump(run.config)).items():
            is_read = key != "train.unlabeled_batch_size" or "unlabeled" in run.kinds
            if is_read and (is_shared(key) or key == "train.start_from"):
                told.setdefault((key, run.lists), {})[run.method] = full(value)
    found: dict[str, str] = {}
    for (key, _), values in told.items():
        if len(set(values.values())) > 1:
            found.setdefault(key, "; ".join(f"{method} {value}" for method, value in values.items()))
    return [f"not one protocol: {key} differs: {values}" for key, values in found.items()]


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
    doubts = (*found.doubts, *_unfair([run for run in runs if run.folder in found.folders]))
    return CampaignReport(done, campaign.reference, campaign.full, len(runs), tuple(rebuilt), doubts)
