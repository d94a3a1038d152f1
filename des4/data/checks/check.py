"""A data set checked before any training: every file opened, every label counted, and all that is wrong with them.

An ordinary load stops at the first fault. Here all of them are collected, and nothing is ever written into the data.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from des4.data import FORMATS
from des4.data.checks.file_names import judge_file_names, unread_files
from des4.data.checks.findings import from_error, in_order
from des4.data.checks.inspection import Look, Role, look
from des4.data.checks.survey import DataCheck, Survey
from des4.data.faults import collecting
from des4.data.formats.files import FileDataset, FilesConfig
from des4.types import DataError

Item = TypeVar("Item")
Progress = Callable[[Iterator[Look], int], Iterable[Look]]
"""Walks over the looks, of which there are so many in all, and may show how far it is."""


def check(config: FilesConfig, *, quick: bool = False, progress: Progress = lambda looks, _: looks) -> DataCheck:
    """Check a data set in files.

    quick: do not open the unlabelled images. Files are read by as many threads as there are processors; beside what
    they decode at the moment, an image costs some 300 bytes.
    """
    with collecting() as faults, _silent_decoders():
        reader: Any = next(cls for cls in FORMATS.values() if cls.Config is type(config))
        try:
            dataset: FileDataset = reader(config)
        except DataError as error:
            faulty = [from_error("error", fault.code, fault.error) for fault in faults]
            layout = from_error("error", "layout", error)
            return DataCheck(config, {}, 0, (), 0.0, {}, in_order([*faulty, layout]))
        survey = Survey(dataset, named=bool(dataset.classes))
        survey.findings += judge_file_names(dataset, [from_error("error", fault.code, fault.error) for fault in faults])
        survey.findings += unread_files(dataset)
        samples = _samples(dataset, quick)
        looks = _in_parallel(lambda sample: look(dataset, *sample), samples, os.cpu_count() or 1)
        for found in progress(looks, len(samples)):
            survey.add(found)
        unread = len(set(dataset.unlabelled) - {sample_id for sample_id, _ in samples})
        return survey.result(config, unread)


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


def _samples(dataset: FileDataset, quick: bool) -> list[tuple[str, Role]]:
    """List each sample once, by the role that asks most of it."""
    roles: dict[str, Role] = dict.fromkeys(() if quick else dataset.unlabelled, "unlabelled")
    roles |= dict.fromkeys(dataset.val, "val")
    roles |= dict.fromkeys(dataset.labelled, "labelled")
    return sorted(roles.items(), key=lambda item: (item[1] == "unlabelled", item[1], item[0]))


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
