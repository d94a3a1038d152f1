"""What is trained: campaigns at two resolutions, as one list of trainings, the most valuable first."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from des4.campaign import CampaignConfig, Planned, plan
from des4.config import read_yaml
from des4.types import ConfigError

ROOT = Path(__file__).parents[2]
FAST = {"train.workers": 0, "train.eval_every": 0, "train.checkpoint_every": 10**6, "train.precision": "fp32"}
"""Of every training: its images are in memory, scores are wanted at the end alone, and small kernels gain nothing by
16 bits, which cost kernels that convert."""
WHOLE = {
    "camvid": {"views.crop_size": 256, "views.scale": [0.6, 1.2], "eval.resize": 1.0},
    "clothing": {"views.crop_size": 208, "views.scale": [0.65, 1.3], "eval.resize": 1.0},
}
"""What makes a training at half or three quarters of the size one at full size."""


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
            content = filled(read_yaml(stage.file), place, stage.data)
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


def filled(value: Any, place: Path, data: str) -> Any:
    """Put the folders of the packed data in the place of CAMVID, CLOTHING and LISTS, and those of the project."""
    if isinstance(value, dict):
        return {key: filled(item, place, data) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, place, data) for item in value]
    if not isinstance(value, str):
        return value
    first, slash, rest = value.partition("/")
    if first == data.upper():
        return str(place / data / rest)
    if first == "LISTS":
        return str(place / "lists" / data / rest)
    return str(ROOT / value) if first == "configs" and slash else value
