"""`choose_next`: score the unlabeled images of a run, pick a batch, and write a folder in which to label it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from des4 import api
from des4.acquisition.folder import Batch, write_batch
from des4.acquisition.pool import DatasetPool, FilePool, JoinedPool, Pool
from des4.acquisition.rules import Labeled, Rule, Scores, pick
from des4.acquisition.scoring import Ledger, as_scores, row_width, score
from des4.config import Overrides
from des4.data.class_pixels import class_pixels
from des4.data_tools.prelabels import Shapes
from des4.datasets import content_hash
from des4.datasets.files.finding import as_text, is_writable
from des4.predict import Predictor
from des4.predict.files import free_folder
from des4.predict.sources import find_images
from des4.runlog import read_json, write_json
from des4.types import DataError, Dataset, RunError
from des4.weights import run_of

SUMMARY, LEDGER = "next.json", "scores.part"
MOST_LABELED = 2000
"""Labeled images whose features are taken, at most, evenly spaced in their list."""
Expect = Callable[[int], None]
Progress = Callable[[float], None]


@dataclass(frozen=True)
class Settings:
    """How images are picked, and what is written. shapes: of predicted masks, for annotation tools; None: none.

    tolerance: pixels by which the outlines of polygons may be moved so that they have few points.
    """

    count: int = 20
    rule: Rule = "balanced"
    seed: int = 0
    shapes: Shapes | None = "polygons"
    tolerance: float = 1.0


@dataclass
class Chosen:
    """What came of it. out: the folder. names: of the images, best first. skipped: name → why it could not be read.

    train: the command that trains again once they are labeled.
    """

    out: Path
    names: list[str]
    train: str
    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def choose_next(
    run: str | Path | Predictor,
    paths: Sequence[str | Path] = (),
    *,
    settings: Settings | None = None,
    data: str | Path | None = None,
    overrides: Overrides = (),
    out: str | Path | None = None,
    resume: bool = False,
    expect: Expect = lambda images: None,
    progress: Progress = lambda share: None,
) -> Chosen:
    """Pick the images to label next, with the network of a run, and write them into a folder.

    run: a run folder, weights file or checkpoint, or its predictor. paths: images, folders and patterns to pick from;
    none: the unlabeled images of the run's own data, or of `data`. overrides: of `data` and `eval` settings. out: a
    new folder; None: `next/<run>`, or the next free one. resume: go on with a scoring that was stopped. expect: called
    with the number of images; progress: with the part of one that is done. Raises ConfigError, DataError, RunError or
    WeightsError.
    """
    settings = settings or Settings()
    predictor = run if isinstance(run, Predictor) else Predictor(run)
    source = predictor.path if isinstance(run, Predictor) else Path(run)
    folder = run_of(predictor.path)
    notes: list[str] = []
    dataset = _dataset(predictor, source, data, overrides, bool(paths), notes)
    candidates, unnamed = _candidates(predictor, dataset, paths, notes)
    pool: Pool = candidates
    if settings.rule == "random":
        pool = candidates.part(_by_chance(candidates.names, settings.count, settings.seed))
    labeled = _labeled_names(dataset) if dataset and settings.rule in ("balanced", "diversity") else []
    known = DatasetPool(dataset, labeled) if dataset else None
    place = Path(out) if out else free_folder((folder or source).resolve().stem, resume, Path("next"))
    about = {
        **predictor.about(),
        "settings": asdict(settings),
        "pool": {"images": len(candidates.names), "hash": content_hash(candidates.names)},
        "labeled": {"images": len(labeled), "hash": content_hash(labeled)},
    }
    _prepare(place, about, resume, dataset, paths)
    both = JoinedPool(known, pool) if known and labeled else pool
    enough = settings.count if settings.rule == "random" else None  # nobody has to look at the others
    expect(len(both.names) if enough is None else min(enough, len(both.names)))
    try:
        ledger = Ledger(place / LEDGER, row_width(len(predictor.classes)))
        try:
            progress(len(ledger.rows))
            notes += score(predictor, both, ledger, progress, enough)
        finally:
            ledger.close()
        first = len(labeled)
        rows = {number: row for number, row in ledger.rows.items() if number >= first}
        scores = as_scores(both.names, rows, len(predictor.classes))
        if not scores.names:
            raise DataError(f"none of the {len(pool.names)} images could be read; the first: "
                            f"{next(iter(ledger.skipped().values()), '')}")  # fmt: skip
        have = _labeled(dataset, as_scores(both.names, {n: r for n, r in ledger.rows.items() if n < first},
                                            len(predictor.classes)), scores, notes)  # fmt: skip
        picks = pick(scores, have, settings.count, settings.rule, settings.seed)
        skipped = unnamed | {both.names[number]: reason for number, reason in sorted(ledger.skipped().items())}
        batch = Batch(
            predictor, pool, dataset if not paths else None, scores, have, picks, settings.rule, settings.seed,
            settings.shapes, settings.tolerance, (folder or source).resolve().name, skipped, notes,
        )  # fmt: skip
        train = write_batch(batch, place)
        write_json(place / SUMMARY, {**about, "finished": True, **batch.as_data()})
        ledger.remove()
    except OSError as error:
        raise RunError(f"{place}: cannot be written to ({error.strerror or error}); "
                       "free some disk space, then go on with --resume") from None  # fmt: skip
    return Chosen(place, [scores.names[one.index] for one in picks], train, skipped, notes)


def _dataset(
    predictor: Predictor,
    source: Path,
    data: str | Path | None,
    overrides: Overrides,
    has_paths: bool,
    notes: list[str],
) -> Dataset | None:
    """Open the data that say what is labeled; None for a lone weights file. Sets the predictor's `eval`."""
    if data is None and run_of(predictor.path) is None:
        if not has_paths:
            raise RunError(f"{source}: lies in no run folder, so its data are not known; give data=FOLDER, or images")
        predictor.configure(overrides)
        notes.append("No labeled images are known: rarity is against what is predicted in the pool.")
        return None
    dataset, config = api.data_of(predictor, source, data, predictor.take_auto(overrides), ("labeled",))
    predictor.eval = config.eval
    return dataset


def _candidates(
    predictor: Predictor, dataset: Dataset | None, paths: Sequence[str | Path], notes: list[str]
) -> tuple[DatasetPool | FilePool, dict[str, str]]:
    """Return the images that may be picked, and why others may not be. Raises DataError if there is none."""
    if paths:
        jobs, said = find_images(paths)
        notes += said
        named = [job for job in jobs if is_writable(str(job.source))]
        unnamed = [as_text(job.source) for job in jobs if not is_writable(str(job.source))]
        reason = "the name is no text in UTF-8 on one line, so no list can hold it; rename the file or its folder"
        if not named:
            raise DataError(f"{unnamed[0]}: {reason}")
        return FilePool(named, predictor.info.bands), {path: f"{path}: {reason}" for path in unnamed}
    assert dataset is not None  # noqa: S101  # `_dataset` refuses a lone weights file without paths
    labeled = {*dataset.labeled, *dataset.held_out}  # which a list of unlabeled images may name too
    names = tuple(name for name in dataset.unlabeled if name not in labeled)
    if not names:
        raise DataError("the data hold no image without a label; give a folder of images, or other data with "
                        "data=FOLDER")  # fmt: skip
    return DatasetPool(dataset, names), {}


def _by_chance(names: Sequence[str], count: int, seed: int) -> list[str]:
    """Return the names in an order of chance, the first `count` of which are those to pick if all can be read."""
    chance = random.Random(f"next/{seed}")
    first = chance.sample(range(len(names)), min(count, len(names)))
    drawn = frozenset(first)
    rest = [number for number in range(len(names)) if number not in drawn]
    chance.shuffle(rest)
    return [names[number] for number in (*first, *rest)]


def _labeled_names(dataset: Dataset) -> list[str]:
    ids = [*dataset.labeled, *dataset.held_out]
    return ids[:: -(-len(ids) // MOST_LABELED)] if ids else []


def _labeled(dataset: Dataset | None, seen: Scores, pool: Scores, notes: list[str]) -> Labeled:
    """Count the shares of classes in the labeled masks; without data take what is predicted in the pool for an image.

    seen: of the labeled images, for their features.
    """
    if dataset is None:
        return Labeled(pool.shares.mean(0, dtype=np.float64), pool.features[:0])
    images = np.zeros(pool.shares.shape[1])
    for _, counts in class_pixels(dataset, [*dataset.labeled, *dataset.held_out]):
        pixels = counts.numpy()
        images += pixels / max(int(pixels.sum()), 1)
    count = len(dataset.labeled) + len(dataset.held_out)
    if count > MOST_LABELED:
        notes.append(f"Distances are to {len(seen.names)} of the {count} labeled images, evenly spaced in their list.")
    return Labeled(images, seen.features, seen.names)


def _prepare(
    out: Path, about: dict[str, Any], resume: bool, dataset: Dataset | None, paths: Iterable[str | Path]
) -> None:
    """Make the output folder, or see that it is ours to go on with. Raises RunError."""
    roots = [getattr(dataset, "root", None), *(path for path in map(Path, paths) if path.is_dir())]
    for root in filter(None, roots):
        if out.resolve().is_relative_to(root.resolve()):
            raise RunError(f"{out} lies inside {root}, into which nothing is written; choose another folder")
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file; choose another folder")
    if out.is_dir() and any(out.iterdir()):
        if not (out / SUMMARY).is_file():
            raise RunError(f"{out} is not empty; choose another folder")
        before = read_json(out / SUMMARY)
        if before.get("finished"):
            raise RunError(f"{out} is finished, and nothing in it is replaced; choose another folder")
        if not resume:
            raise RunError(f"{out} holds a scoring that was stopped; go on with --resume, or choose another folder")
        if changed := [key for key, value in about.items() if before.get(key) != value]:
            raise RunError(f"{out}: was begun with other settings, weights or images ({', '.join(changed)}); give the "
                           "same ones, or another folder")  # fmt: skip
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{out}: the folder cannot be made: {error.strerror}") from None
    write_json(out / SUMMARY, {**about, "finished": False})
