"""What `des4 next` writes.

next.txt  next.csv  next.json  next.html  contact.png  classes.txt
lists/…                                      how the lists read once the images are labeled
images/…                                     copies, with labelme's JSON beside them
cvat/…  label_studio/…                       what those tools import
"""

from __future__ import annotations

import csv
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from des4.acquisition.pool import Pool
from des4.acquisition.rules import Labeled, Pick, Rule, Scores, reasons
from des4.acquisition.scoring import most_entropy
from des4.config import as_arguments
from des4.data_tools.prelabels import CvatTask, LabelStudioTasks, Shapes, mark, write_labelme
from des4.datasets import FileDataset, recognise
from des4.datasets.files import NAME_LISTS
from des4.predict import Prediction, Predictor
from des4.predict.prediction import reduction
from des4.report.next_page import SIDE, Card, Facts, contact_sheet, next_page
from des4.runlog import write_atomically
from des4.types import Dataset

RULE_TEXTS: dict[Rule, str] = {
    "balanced": "Picked one after the other: the largest distance to all images that are labeled or picked, times the "
    "mean of two ranks. One is of doubt, the entropy averaged over the predicted classes; the other of gain, by how "
    "much the labeled pixels of each class would grow.",
    "entropy": "Picked by doubt alone: the entropy of the pixels, averaged over the predicted classes.",
    "rarity": "Picked by gain alone: by how much the labeled pixels of each class would grow.",
    "diversity": "Picked by distance alone: one after the other, the image that is farthest from all that are labeled "
    "or picked.",
    "random": "Drawn by chance.",
}
THUMBNAIL = (2 * SIDE) ** 2
"""Pixels of a picture before it is made as small as the page shows it."""
MOST_POINTS = 5000
"""Images on the plane of the page, at most."""
NUM_CLASSES = 6
"""Classes named below the pictures of an image."""
OF_LISTS = {key for keys in NAME_LISTS.values() for key in keys} - {"shards"}
"""Settings of the data for which the new lists stand, which name no image in shards."""
BROADEST = 254
"""Classes that annotation formats can hold here."""


@dataclass(frozen=True)
class Batch:
    """Picked images and all that is known of them. dataset: that they are of; None: files. run: its name."""

    predictor: Predictor
    pool: Pool
    dataset: Dataset | None
    scores: Scores
    labeled: Labeled
    picks: Sequence[Pick]
    rule: Rule
    seed: int
    shapes: Shapes | None
    tolerance: float
    run: str
    skipped: dict[str, str]
    notes: list[str]

    def why(self, chosen: Pick) -> list[str]:
        """Return the reasons for an image."""
        return reasons(self.scores, self.labeled, chosen, self.rule, self.predictor.classes)

    def as_data(self) -> dict[str, Any]:
        """Return picks and reasons as JSON holds them."""
        scores, classes = self.scores, self.predictor.classes
        picks = [
            {
                "image": scores.names[one.index],
                "value": one.value,
                "doubt": one.doubt,
                "gain": one.gain,
                "distance": one.distance,
                "ranks": dict(zip(("doubt", "gain", "distance"), one.ranks, strict=True)),
                "nearest": one.nearest,
                "entropy": float(scores.entropy[one.index]),
                "shares": dict(zip(classes, scores.shares[one.index].tolist(), strict=True)),
                "reasons": self.why(one),
            }
            for one in self.picks
        ]
        return {"rule": RULE_TEXTS[self.rule], "picks": picks, "skipped": self.skipped, "notes": self.notes}


def write_batch(batch: Batch, out: Path) -> str:
    """Write everything but next.json; return the command that trains with the new masks. Raises OSError."""
    names = [batch.scores.names[one.index] for one in batch.picks]
    classes = batch.predictor.classes
    _write_lines(out / "next.txt", names)
    _write_lines(out / "classes.txt", classes)
    train = _write_lists(batch, names, out)
    _write_table(batch, out / "next.csv")
    cards = list(_look_again(batch, out))
    contact_sheet(cards, batch.predictor.palette, out / "contact.png")
    write_atomically(out / "next.html", next_page(_facts(batch, train), cards, batch.predictor.palette))
    return train


def _write_lists(batch: Batch, names: Sequence[str], out: Path) -> str:
    """Write the lists of the next training, and return its command."""
    data = batch.dataset
    if not isinstance(data, FileDataset):
        return "des4 train data=FOLDER   # once images and masks lie in images/ and masks/ of your data folder"
    chosen = set(names)
    lists = out / "lists"  # not beside images/, where they would be those of the folder itself
    lists.mkdir(exist_ok=True)
    _write_lines(lists / "labeled.txt", [*data.labeled, *data.held_out, *names])
    _write_lines(lists / "unlabeled.txt", (name for name in data.unlabeled_files if name not in chosen))
    kinds = ["labeled", "unlabeled"]
    if data.val:
        _write_lines(lists / "val.txt", data.val)
        kinds.append("val")
    settings = {f"data.{kind}": str(lists / f"{kind}.txt") for kind in kinds} | _other_settings(data)
    return " ".join(["des4 train", *map(shlex.quote, as_arguments({"data": str(data.root)} | settings)), "minutes=30"])


def _other_settings(data: FileDataset) -> dict[str, Any]:
    """Return the settings of the data that are not their defaults and say nothing of the lists, by dotted key."""
    given = data.config.model_dump(mode="json", exclude_defaults=True, exclude={"root", "name", *OF_LISTS})
    name = data.Config.model_fields["name"].default
    told = {} if recognise(data.root) == name else {"data.name": name}  # the folder does not say it
    return told | {f"data.{key}": value for key, value in given.items()}


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def _write_table(batch: Batch, path: Path) -> None:
    """Write a row for each image of the pool: its scores at the beginning, and its place among the picks."""
    scores = batch.scores
    place = {one.index: number for number, one in enumerate(batch.picks, 1)}
    header = ["image", "picked", "doubt", "entropy", *(f"share/{name}" for name in batch.predictor.classes)]
    doubt = scores.doubt
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*header, *(f"entropy/{name}" for name in batch.predictor.classes)])
        for index, name in enumerate(scores.names):
            by_class = ("" if np.isnan(value) else f"{value:.4f}" for value in scores.class_entropy[index])
            figures = [f"{doubt[index]:.4f}", f"{scores.entropy[index]:.4f}"]
            shares = (f"{value:.6f}" for value in scores.shares[index])
            writer.writerow([name, place.get(index, ""), *figures, *shares, *by_class])


def _look_again(batch: Batch, out: Path) -> Iterable[Card]:
    """Segment the picked images once more; write images and predicted masks, and yield what the page shows."""
    predictor, classes = batch.predictor, batch.predictor.classes
    shapes = batch.shapes if len(classes) <= BROADEST else None
    if shapes is None and batch.shapes is not None:
        batch.notes.append(
            f"No masks were written for annotation tools: {len(classes)} classes are more than {BROADEST}."
        )
    cvat = CvatTask(out / "cvat", classes, predictor.palette)
    tasks = LabelStudioTasks(classes, predictor.palette, shapes or "polygons", batch.run)
    for one in batch.picks:
        name = batch.scores.names[one.index]
        place = batch.pool.copy(name, out / "images")
        found = predictor.segment_opened(batch.pool.open(name))
        if shapes is not None:
            sure = 1 - float(batch.scores.entropy[one.index])
            marked = mark(place, found.labels, classes, sure, shapes, batch.tolerance)
            write_labelme(marked, out / "images")
            cvat.add(marked, found.labels)
            tasks.add(marked)
        yield _card(batch, one, name, found)
    if shapes is not None:
        cvat.close()
        tasks.write(out / "label_studio")


def _card(batch: Batch, one: Pick, name: str, found: Prediction) -> Card:
    picture, labels = found.reduced(THUMBNAIL)
    entropy: NDArray[np.float32] | None = None
    if found.has_entropy:
        step = reduction((found.labels.shape[0], found.labels.shape[1]), THUMBNAIL)
        entropy = found.entropy[::step, ::step] / np.float32(most_entropy(len(found.classes)))
    shares = batch.scores.shares[one.index]
    largest = np.argsort(-shares)[:NUM_CLASSES]
    figures = {"doubt": (f"{one.doubt:.2f}", one.ranks[0]), "gain": (f"{one.gain:.3g}", one.ranks[1])}
    if one.distance is not None:
        figures["distance"] = (f"{one.distance:.3g}", one.ranks[2])
    return Card(
        name,
        picture,
        labels,
        entropy,
        batch.why(one),
        figures,
        [(found.classes[c], float(shares[c]), found.palette[c]) for c in largest.tolist() if shares[c] > 0],
    )


def _facts(batch: Batch, train: str) -> Facts:
    scores, labeled = batch.scores, batch.labeled
    picked = scores.shares[[one.index for one in batch.picks]].mean(0)
    classes = [
        (name, float(labeled.share[c]), float(scores.shares[:, c].mean()), float(picked[c]))
        for c, name in enumerate(batch.predictor.classes)
    ]
    places, kinds = _plane(batch)
    known = batch.dataset
    count = len(known.labeled) + len(known.held_out) if known is not None else len(labeled.names)
    return Facts(
        batch.run,
        len(scores.names) + len(batch.skipped),
        count,
        batch.skipped,
        batch.rule,
        RULE_TEXTS[batch.rule] + (f" Seed {batch.seed}." if batch.rule == "random" else ""),
        sorted(classes, key=lambda row: -row[1]),
        places,
        kinds,
        train,
        batch.notes,
    )


def _plane(batch: Batch) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Return places of images on the plane in which their features differ most (PCA), and what kind they are of."""
    scores = batch.scores
    kinds = np.zeros(len(scores.names), np.int8)
    picked = [one.index for one in batch.picks]
    kinds[picked] = 2
    shown = np.union1d(np.arange(0, len(kinds), -(-len(kinds) // MOST_POINTS)), picked)
    features = np.concatenate([batch.labeled.features, scores.features[shown]])
    # picked ones in their order, which their numbers show
    order = np.concatenate([np.ones(len(batch.labeled.features), np.int8), kinds[shown]])
    centred = features - features.mean(0)
    _, _, axes = np.linalg.svd(centred[:: -(-len(centred) // MOST_POINTS)], full_matrices=False)
    places = centred @ axes[:2].T
    if places.shape[1] < 2:
        return np.empty((0, 2), np.float32), np.empty(0, np.int8)
    rest = order != 2
    last = (scores.features[picked] - features.mean(0)) @ axes[:2].T
    return (
        np.concatenate([places[rest], last]).astype(np.float32),
        np.concatenate([order[rest], np.full(len(picked), 2, np.int8)]),
    )
