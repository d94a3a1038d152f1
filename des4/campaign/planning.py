"""The runs of a campaign: methods × lists × seeds, each with its settings and its folder.

Runs of one list name are compared pair by pair, so what decides which images they have belongs to the list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from des4.campaign.config import CampaignConfig
from des4.config import RunConfig, given_settings, load_config
from des4.datasets.files import NAME_LISTS
from des4.methods import METHODS
from des4.report.compare import KINDS
from des4.types import ConfigError

OF_THE_LIST = ("data.labeled", "data.unlabeled", "data.val")
"""Settings that a method may not have for itself."""

DECIDES_IMAGES = {**NAME_LISTS, "labeled": (*NAME_LISTS["labeled"], "seed")}
"""Kind of list → settings of `data` that decide which images are on it; `seed` is that of drawn scenes."""


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
        reads = METHODS[self.config.method.name].VIEWS.reads_unlabeled
        return tuple(kind for kind in KINDS if kind != "unlabeled" or reads)


def plan(campaign: CampaignConfig, overrides: Sequence[str] = ()) -> list[Planned]:
    """List the runs of a campaign, lists first, so that a table fills row by row. overrides: settings of every run.

    Raises ConfigError where a run's settings are wrong, a method has lists of its own, or an override would make one
    run of several, all of them before the first is trained.
    """
    _refuse_overrides_that_merge(campaign, overrides)
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


def _refuse_overrides_that_merge(campaign: CampaignConfig, overrides: Sequence[str]) -> None:
    """Raise ConfigError for what tells the runs apart: as one for all, several seeds, say, would be the same run."""
    given = given_settings({}, overrides)
    of_lists = {f"data.{key}" for keys in DECIDES_IMAGES.values() for key in keys}
    places = {"out": "out", "train.seed": "seeds"}
    places |= {k: "lists" for where in campaign.lists.values() for k in given_settings(where) if k in of_lists}
    for own in campaign.methods.values():
        file = own.get("config")
        settings = given_settings({k: v for k, v in own.items() if k not in ("lists", "config")})
        if "method.name" in settings or (file and "method.name" in given_settings(Path(file))):
            places["method.name"] = "methods"
    for key, place in places.items():
        if key in given:
            raise ConfigError(f"{key}={given[key]}: tells the runs of a campaign apart, so it cannot be one for all of "
                              f"them; change {place} in the campaign file")  # fmt: skip


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
        for key in (key for kind in run.kinds for key in DECIDES_IMAGES[kind]):
            value = getattr(run.config.data, key, None)
            other, wanted = first.setdefault((run.lists, key), (run, value))
            if value != wanted:
                raise ConfigError(
                    f"lists.{run.lists}: data.{key} is {wanted} for {other.method} and {value} for {run.method}, and "
                    "methods of one list are compared on the same images; write it under lists or settings"
                )
