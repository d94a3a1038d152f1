"""A data set checked before any training: every file opened, every label counted, and all that is wrong with them.

An ordinary load stops at the first fault. Here all of them are collected, and nothing is ever written into the data.
"""

from __future__ import annotations

import logging
import os
import shlex
import warnings
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from des4.data_tools.checks.file_names import judge_file_names, unread_files
from des4.data_tools.checks.findings import Finding, from_error, in_order
from des4.data_tools.checks.inspection import Look, Role, look
from des4.data_tools.checks.survey import DataCheck, Survey
from des4.datasets import FORMATS
from des4.datasets.faults import collecting
from des4.datasets.files import FileDataset, FilesConfig
from des4.types import DataError

Item = TypeVar("Item")
Progress = Callable[[Iterator[Look], int], Iterable[Look]]
"""Walks over the looks, of which there are so many in all, and may show how far it is."""


def check(config: FilesConfig, *, quick: bool = False, progress: Progress = lambda looks, _: looks) -> DataCheck:
    """Check a data set in files.

    quick: do not open the unlabeled images. Files are read by as many threads as there are processors; beside what
    they decode at the moment, an image costs some 300 bytes.
    """
    with collecting() as faults:
        reader: Any = next(cls for cls in FORMATS.values() if cls.Config is type(config))
        try:
            dataset: FileDataset = reader(config)
        except DataError as error:
            faulty = [from_error("error", fault.code, fault.error) for fault in faults]
            layout = from_error("error", "layout", error)
            return DataCheck(config, {}, 0, (), 0.0, {}, in_order([*faulty, layout]))
        findings = [from_error("error", fault.code, fault.error) for fault in faults]
        roles: tuple[Role, ...] = ("labeled", "val") if quick else ("labeled", "val", "unlabeled")
        return check_open(dataset, config, roles, findings, progress)


def check_open(
    dataset: FileDataset,
    config: FilesConfig,
    roles: Collection[Role],
    faults: Sequence[Finding] = (),
    progress: Progress = lambda looks, _: looks,
) -> DataCheck:
    """Check the samples of some roles in a data set that is open. faults: what its reader found.

    Raises DataError if the images are of bands that cannot be read.
    """
    dataset.chosen  # noqa: B018  # seen once, before threads ask for it
    survey = Survey(dataset, named=bool(dataset.catalogue.classes))
    survey.findings += judge_file_names(dataset, list(faults))
    survey.findings += unread_files(dataset)
    samples = _samples(dataset, roles)
    with _silent_decoders():
        looks = _in_parallel(lambda sample: look(dataset, *sample), samples, os.cpu_count() or 1)
        for found in progress(looks, len(samples)):
            survey.add(found)
    unread = 0 if "unlabeled" in roles else len(dataset.unlabeled)
    return survey.result(config, unread)


def refuse_errors(
    dataset: FileDataset, config: FilesConfig, roles: Collection[Role], progress: Progress = lambda looks, _: looks
) -> DataCheck:
    """Check the samples that a training or an evaluation stands on. Raises DataError with the first error there is.

    It is what `des4 data check` calls an error, found by the same code.
    """
    done = check_open(dataset, config, roles, progress=progress)
    errors = [finding for finding in done.findings if finding.severity == "error"]
    if errors:
        more = f" ({len(errors) - 1} more: des4 data check {shlex.quote(str(config.root))})" if errors[1:] else ""
        raise DataError(f"{errors[0]}{more}")
    return done


def warnings_by_kind(done: DataCheck) -> tuple[str, ...]:
    """Say in a line what each kind of warning is, with the first of them and how many there are."""
    kinds: dict[str, list[Finding]] = {}
    for finding in done.findings:
        if finding.severity == "warning":
            kinds.setdefault(finding.code, []).append(finding)
    return tuple(f"{found[0]}{f' ({len(found) - 1} more like it)' * (len(found) > 1)}" for found in kinds.values())


@contextmanager
def _silent_decoders() -> Iterator[None]:
    """Keep Pillow from printing what it thinks of odd files; the findings say it."""
    log = logging.getLogger("PIL")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _samples(dataset: FileDataset, roles: Collection[Role]) -> list[tuple[str, Role]]:
    """List each sample once, by the role that asks most of it."""
    lists: tuple[tuple[Role, Sequence[str]], ...] = (
        ("unlabeled", dataset.unlabeled),
        ("val", dataset.val),
        ("labeled", dataset.labeled),
    )
    found: dict[str, Role] = {}
    for role, ids in lists:
        if role in roles:
            found |= dict.fromkeys(ids, role)
    return sorted(found.items(), key=lambda item: (item[1] == "unlabeled", item[1], item[0]))


def _in_parallel(work: Callable[[Any], Item], items: Iterable[Any], threads: int) -> Iterator[Item]:
    """Do the work on each item, in order, a few items ahead. Decoding leaves Python's lock, so threads serve."""
    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[Future[Item]] = deque()
        for item in items:
            ahead.append(pool.submit(work, item))
            if len(ahead) > 2 * threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
