"""A run that plans itself: `des4 train data=FOLDER minutes=10`.

Where no config says how long to train, or by which method, the config that `des4 data check` would suggest fills in
what was not given; every key that was given stays. A budget in minutes becomes a number of steps: a training is built,
takes a few steps and is thrown away, and the steps that fit are what the run then records, so that it resumes exactly.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from des4 import build
from des4.config import Overrides, RunConfig, dump, given_settings, load_config
from des4.data_tools.checks.advice import DRAWN_EACH_TIME, EVAL_SHARE, EVALUATIONS, Machine, Setting, suggest
from des4.data_tools.checks.survey import DataCheck
from des4.data_tools.importing import prepared
from des4.datasets import FORMATS, open_files
from des4.datasets.files import FileDataset, FilesConfig
from des4.engine import Evaluator, TrainStep, choose_precision
from des4.engine.cost import Part, at_step, parts_of_run
from des4.engine.process import prepare_process, wait_for
from des4.models import ModelConfig
from des4.ops.reduce import gather_over_ranks
from des4.runlog import read_json, write_json
from des4.types import Batch, ConfigError, DataError

PROBED = 200
"""Headers of images that are read for their sizes, evenly spaced over the list."""

TRIAL_SHARE, TRIAL_STEPS = 0.05, 10
"""Part of a budget, and most steps, that are spent on timing."""

TRIAL_VAL = 3
PICTURES = 26
"""Images that are predicted for the report: samples and worst ones."""

PLACEHOLDER_STEPS = 1000
"""Steps of the training that is only timed."""

_LEADERS = {
    "method.name": "method.",
    "model.encoder": "model.",
    "optim.name": "optim.",
    "train.batch_size": "train.accumulate",
}
"""Keys that make others of the plan meaningless, where they are given another value than the plan's."""


@dataclass(frozen=True)
class Plan:
    """What a training is to be. settings: those of the config that were decided here. began: when, by `perf_counter`.

    minutes: the budget in which `config.train.steps` is still to be found; None if it is known. warnings: what a look
    at the data found, if there was one.
    """

    config: RunConfig
    settings: tuple[Setting, ...]
    began: float
    minutes: float | None = None
    warnings: tuple[str, ...] | None = None

    def lines(self) -> list[str]:
        """Say what was decided and why, a line for each reason."""
        groups = groupby(self.settings, key=lambda setting: setting.reason)
        return [f"{' '.join(f'{one.key}={_shown(one.value)}' for one in group)}: {reason}" for reason, group in groups]


def plan(source: str | Path | Mapping[str, Any] | RunConfig, overrides: Overrides = ()) -> Plan:
    """Read settings as `load_config` does, and fill in what a training needs and nobody gave.

    Raises ConfigError, and DataError where the data have to be looked at and cannot be.
    """
    began = time.perf_counter()
    given = given_settings(source, overrides)
    minutes = given.pop("train.minutes", None)
    lengths = [key for key in ("train.steps", "train.epochs") if given.get(key) is not None]
    if minutes is None and lengths and given.get("method.name") is not None:
        return Plan(load_config(source, overrides), (), began)
    if minutes is not None:
        if clash := [key for key in lengths if given_settings({}, overrides).get(key) is not None]:
            raise ConfigError(f"train.minutes: is a budget that says how many steps there are; leave out {clash[0]}")
        load_config({"method": "supervised", "data": "scenes", "train.minutes": minutes})  # is it a number?
        given = {key: value for key, value in given.items() if key not in lengths} | {"train.steps": PLACEHOLDER_STEPS}
    settings = _decide(given, minutes)
    if minutes is not None:  # what the time allows is found by `within_budget`
        settings = [setting for setting in settings if setting.key not in ("train.steps", "train.eval_every")]
    config = load_config({setting.key: setting.value for setting in settings}, given)
    decided = tuple(setting for setting in settings if setting.key not in given)
    return Plan(config, decided, began, minutes)


def _decide(given: Mapping[str, Any], minutes: float | None) -> list[Setting]:
    """Suggest settings for the data that are given; none for data that are not in files."""
    name = given.get("data.name")
    if name not in FORMATS or given.get("data.root") is None:
        return []
    data = {key: value for key, value in given.items() if key.startswith("data.")}
    config = load_config({"method": "supervised"}, data).data
    assert isinstance(config, FilesConfig)  # noqa: S101  # as every format of FORMATS
    suggested = suggest(_glance(config), Machine.here(), minutes)
    values = {setting.key: setting.value for setting in suggested}
    wanted = values | dict(given)
    dropped = tuple(prefix for leader, prefix in _LEADERS.items() if wanted.get(leader) != values.get(leader))
    settings = [one for one in suggested if one.key.startswith("data.") or not one.key.startswith(dropped)]
    default = ModelConfig()
    if given.get("model.encoder", default.encoder) != default.encoder:
        why = f"the pip extra `pretrained` holds weights of {default.encoder} alone; timm downloads these once"
        settings.append(Setting("model.weights", "timm", why))
    return settings


def _glance(config: FilesConfig) -> DataCheck:
    """Look at lists and at the sizes of some images; `build.training` looks at the rest. Raises DataError."""
    dataset = open_files(prepared(config).model_copy(update={"cache": 0.0}))  # it makes a folder
    counts: Any = {role: len(getattr(dataset, role)) for role in ("labeled", "unlabeled", "val")}
    return DataCheck(config, counts, 0, (), 0.0, _sizes(dataset), (), dataset=dataset)


def _sizes(dataset: FileDataset) -> dict[tuple[int, int], int]:
    """Count (height, width) of images, evenly spaced; those that cannot be read are named elsewhere."""
    sizes: Counter[tuple[int, int]] = Counter()
    ids: Sequence[str] = [*dataset.labeled, *dataset.unlabeled_files]
    for sample_id in ids[:: max(1, len(ids) // PROBED)]:
        try:
            sizes[dataset.header(dataset.image_file(sample_id)).upright] += 1
        except DataError:
            continue
    return dict(sizes)


def within_budget(planned: Plan) -> Plan:
    """Find the steps that fit into the budget of a plan, if it has one, by taking a few.

    All processes of a training call this together. Raises ConfigError if no step fits, and what `build.training` does.
    """
    return planned if planned.minutes is None else _with_length(planned, *_fitting(planned, planned.minutes))


def within_kept_budget(planned: Plan, file: Path) -> Plan:
    """Do as `within_budget`, and keep the answer: who asks the same again, to go on, has as many steps as before.

    Raises RunError for a file that holds something else.
    """
    if planned.minutes is None:
        return planned
    question = {"minutes": planned.minutes, "settings": json.dumps(dump(planned.config), default=str)}
    kept = read_json(file) if file.exists() else {}
    if {key: kept.get(key) for key in question} == question:
        why = f"{planned.minutes:g} minutes were found to give this when it began ({file})"
        return _with_length(planned, [Setting(key, value, why) for key, value in kept["found"].items()])
    decided = within_budget(planned)
    length = {one.key: one.value for one in decided.settings[len(planned.settings) :]}
    write_json(file, {**question, "found": length})
    return decided


def _with_length(planned: Plan, found: Sequence[Setting], warnings: tuple[str, ...] | None = None) -> Plan:
    train = planned.config.train.model_copy(update={one.key.removeprefix("train."): one.value for one in found})
    config = planned.config.model_copy(update={"train": train})
    settings = (*planned.settings, *found)
    return replace(planned, config=config, settings=settings, minutes=None, warnings=warnings)


def _fitting(planned: Plan, minutes: float) -> tuple[list[Setting], tuple[str, ...]]:
    """Return the length of the training that fits, and what a look at the data found."""
    prepare_process()
    start = time.perf_counter()
    training = build.training(planned.config)
    built = time.perf_counter() - start  # which is to be done once more
    times_of_parts, image = _timed(training, 60 * minutes)
    step = sum(part.share * seconds for part, seconds in times_of_parts)
    num_val, warnings = len(training.dataset.val), training.warnings
    num_scored = num_val + training.guards.num_images
    del training
    validation = image * (num_scored + min(DRAWN_EACH_TIME, num_val))
    spent = time.perf_counter() - planned.began
    left = 60 * minutes - spent - built - image * min(PICTURES, num_val)
    slowest: float = min(gather_over_ranks(left - validation))  # that of the end is always there
    longest_step, longest = max(gather_over_ranks(step)), max(gather_over_ranks(validation))
    given = planned.config.train.eval_every
    if given is None:
        times = max(1, min(EVALUATIONS, int(EVAL_SHARE * slowest / longest)))
        steps = int((slowest - (times - 1) * longest) / longest_step)
    else:
        steps = int(slowest / (longest_step + (longest / given if given else 0)))
    if steps < 1:
        raise ConfigError(
            f"train.minutes={minutes:g}: a step takes {step:.1f} s and a validation {validation:.0f} s, and no "
            "step fits; give more minutes, or make the work smaller with crop_size, batch_size or encoder"
        )
    of_parts = ", ".join(f"{seconds:.2f}" for _, seconds in times_of_parts)
    mean = f" in the mean of {len(times_of_parts)} parts of the run ({of_parts})" if len(times_of_parts) > 1 else ""
    why = f"a step takes {step:.2f} s{mean}, and {minutes:g} minutes were given"
    found = [Setting("train.steps", steps, why)]
    if given is None:
        every = -(-steps // times)
        share = 100 * times * validation / (60 * minutes)
        why = f"a validation takes {validation:.1f} s; {times} of them are {share:.1f} % of the time"
        found.append(Setting("train.eval_every", every, why))
    return found, warnings


def _timed(training: build.Training, seconds: float) -> tuple[list[tuple[Part, float]], float]:
    """Take some steps of each part of the run and evaluate some images: seconds a step by part, and a val image.

    seconds: the budget. The first step of a part, which sets things up, counts only if there is time for no other.
    """
    config, method = training.config.train, training.method.train()
    take_step = TrainStep(
        method,
        training.optimiser,
        training.device,
        precision=choose_precision(config.precision, training.device),
        clip=training.config.optim.clip,
        parts=training.parts,
        sync_norm=config.sync_norm,
        on_smaller=lambda parts, reason: None,  # the run will find out, and say so
    )
    parts = parts_of_run(method)
    found = []
    for part in parts:
        stream = training.loader.batches(part.first, training.device)
        with at_step(method, part.first), closing(stream) as batches:  # type: ignore[type-var]  # it is a generator
            times = _times(take_step, batches, training.device, TRIAL_SHARE * seconds / len(parts))
        found.append((part, sum(times) / len(times)))
    ids = training.dataset.val[:TRIAL_VAL]
    start = time.perf_counter()
    Evaluator(training.dataset, ids, training.config.eval, training.device)(method.predictors(), method.threshold)
    return found, (time.perf_counter() - start) / len(ids)


def _times(take_step: TrainStep, batches: Iterator[Batch], device: torch.device, seconds: float) -> list[float]:
    """Take steps for so long, up to TRIAL_STEPS and one that sets things up; return how long each of the others took.

    All processes take as many.
    """
    began = time.perf_counter()
    times: list[float] = []
    while len(times) <= TRIAL_STEPS:
        start = time.perf_counter()
        take_step(next(batches))
        wait_for(device)
        times.append(time.perf_counter() - start)
        if max(gather_over_ranks(time.perf_counter() - began + times[-1])) > seconds:
            break
    return times[1:] or times


def _shown(value: Any) -> str:
    return str(value).replace(" ", "") if isinstance(value, list | tuple) else str(value)
