"""What the samples of a data set show together: pixels of each class, sizes, pictures that occur twice.

Pictures are the same if their decoded pixels are: copies under other names or in other lossless formats are found,
re-compressed ones are not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from des4.data_tools.checks.findings import Finding, in_order
from des4.data_tools.checks.inspection import Look, Role, refusal
from des4.data_tools.checks.labels import judge_names, judge_occurrence, judge_presence, judge_values, judge_variety
from des4.datasets.files import FileDataset, FilesConfig, numbered_classes
from des4.datasets.palettes import Palette, distinct_palette
from des4.ops.tail import FEW_VAL, few_images, tail_classes
from des4.types import IGNORE

USELESS = 0.001
"""Share of labeled pixels below which a mask is called useless."""

SMOOTH = 20
"""Labels outside the classes beyond which a mask looks as if its labels had been averaged."""


@dataclass(frozen=True)
class ClassCount:
    """What the masks hold of one class. pixels, images: by role; the role `labeled` or `val`."""

    name: str
    pixels: dict[str, int]
    images: dict[str, int]
    tail: bool


@dataclass(frozen=True, eq=False)
class DataCheck:
    """What a check found.

    counts: samples by role. unread: unlabeled images that were not opened. classes: by index, none if no mask could be
    read. ignored: share of the labeled images' pixels that is labeled IGNORE. sizes: (height, width) → images.
    examples: class index → the labeled image with most pixels of it. dataset: None if the layout could not be read.
    """

    config: FilesConfig
    counts: dict[Role, int]
    unread: int
    classes: tuple[ClassCount, ...]
    ignored: float
    sizes: dict[tuple[int, int], int]
    findings: tuple[Finding, ...]
    examples: dict[int, str] = field(default_factory=dict)
    dataset: FileDataset | None = None

    def exit_code(self, strict: bool = False) -> Literal[0, 1, 2]:
        """2 if there is an error, 1 if there is a warning and `strict` is set, else 0."""
        severities = {finding.severity for finding in self.findings}
        if "error" in severities:
            return 2
        return 1 if strict and "warning" in severities else 0

    @property
    def format(self) -> str:
        """Name of the format."""
        return str(type(self.config).model_fields["name"].default)

    @property
    def imbalance(self) -> float | None:
        """How many times as many labeled pixels the most frequent class has as the rarest one that occurs."""
        pixels = [count.pixels["labeled"] for count in self.classes if count.pixels["labeled"]]
        return max(pixels) / min(pixels) if len(pixels) > 1 else None

    @cached_property
    def palette(self) -> Palette:
        """Colours of the classes."""
        return (self.dataset.palette if self.dataset else ()) or distinct_palette(
            [count.name for count in self.classes]
        )


class Survey:
    """Adds up the looks, one at a time, so that memory does not grow with the pixels."""

    def __init__(self, dataset: FileDataset, named: bool) -> None:
        self.dataset, self.named = dataset, named
        self.findings: list[Finding] = []
        self.pixels = {"labeled": np.zeros(256, np.int64), "val": np.zeros(256, np.int64)}
        self.images = {"labeled": np.zeros(256, np.int64), "val": np.zeros(256, np.int64)}
        self.sizes: Counter[tuple[int, int]] = Counter()
        self.most = np.zeros(256, np.int64)
        self.examples: dict[int, str] = {}
        self.pictures: dict[bytes, tuple[str, Role, bytes | None]] = {}
        self.colours: dict[tuple[int, int, int], dict[int, Path]] = {}
        self.only_zero: list[Path] = []

    def add(self, found: Look) -> None:
        """Take in what one sample showed."""
        self.findings += found.findings
        if found.size is not None:
            self.sizes[found.size] += 1
        if found.labels is not None:
            self._add_labels(found, np.array(found.labels))
        if found.digest is not None:
            self._compare(found, found.digest)

    def _add_labels(self, found: Look, labels: NDArray[np.int64]) -> None:
        path = self.dataset.mask(found.sample_id).path
        self.pixels[found.role] += labels
        self.images[found.role] += labels > 0
        if found.role == "labeled":
            self.examples |= dict.fromkeys(np.flatnonzero(labels > self.most).tolist(), found.sample_id)
            np.maximum(self.most, labels, out=self.most)
        if labels[:IGNORE].sum() < USELESS * labels.sum():
            share = 100 * labels[IGNORE] / labels.sum()
            text = f"{share:.4g} % of its pixels are labeled {IGNORE} (ignore), so it teaches nothing"
            self.findings.append(
                Finding("warning", "mask-ignored", path, text, "label it, or let the image be unlabeled")
            )
        if labels[0] and not labels[1:].any():
            self.only_zero.append(path)
        for label, colour in found.colours.items():
            self.colours.setdefault(colour, {}).setdefault(label, path)
        num_classes = len(self.dataset.classes)
        outside = [index for index in np.flatnonzero(labels[:IGNORE]).tolist() if index >= num_classes]
        if self.named and outside:
            shown = ", ".join(map(str, outside[:8])) + (", …" if len(outside) > 8 else "")
            count = labels[outside].sum()
            text = f"{count} pixels have labels that are no class: {shown} (classes 0..{num_classes - 1})"
            remedy = "mend the mask or the class list"
            if len(outside) > SMOOTH:
                remedy = "so many values are those of a grey picture, or of a mask resized smoothly or saved as JPEG"
            self.findings.append(Finding(refusal(self.dataset, found.role), "label-outside", path, text, remedy))

    def _compare(self, found: Look, digest: bytes) -> None:
        """Say if the same picture was there before: in val and training it makes the score worthless."""
        first = self.pictures.setdefault(digest, (found.sample_id, found.role, found.mask_digest))
        other, role, mask_digest = first
        if other == found.sample_id:
            return
        path, twin = self.dataset.image_file(found.sample_id), self.dataset.image_file(other)
        text = f"shows the same picture as {twin}"
        roles = {role, found.role}
        if "val" in roles and len(roles) == 2:
            side = next(iter(roles - {"val"}))
            refused = side == "labeled" and not self.dataset.allow_leak
            self.findings.append(
                Finding(
                    "error" if refused else "warning", "leak", path,
                    f"{text}: one is {side}, the other val, and a score on training images says nothing",
                    "take one of them out" + ", or say data.allow_leak=true" * refused,
                )
            )  # fmt: skip
        elif "unlabeled" in roles:
            self.findings.append(Finding("note", "duplicate", path, f"{text} ({' and '.join(sorted(roles))})"))
        else:
            differ = ", and their masks differ" if mask_digest != found.mask_digest else ""
            remedy = "keep the better mask" if differ else "keep one of them"
            self.findings.append(Finding("warning", "duplicate", path, text + differ, remedy))

    def result(self, config: FilesConfig, unread: int) -> DataCheck:
        """Judge the whole."""
        dataset = self.dataset
        both = self.pixels["labeled"] + self.pixels["val"]
        classes = dataset.classes or numbered_classes(max(2, 1 + int(np.flatnonzero(both[:IGNORE]).max(initial=0))))
        pixels = {role: counts[: len(classes)] for role, counts in self.pixels.items()}
        images = {role: counts[: len(classes)] for role, counts in self.images.items()}
        tail = tail_classes(torch.from_numpy(pixels["labeled"]))
        labeled = int(self.pixels["labeled"].sum())
        self.findings += self._judge(config, both, classes, pixels, images, tail)
        return DataCheck(
            config=config,
            counts={"labeled": len(dataset.labeled), "unlabeled": len(dataset.unlabeled), "val": len(dataset.val)},
            unread=unread,
            classes=tuple(
                ClassCount(
                    name,
                    {role: int(counts[index]) for role, counts in pixels.items()},
                    {role: int(counts[index]) for role, counts in images.items()},
                    index in tail,
                )
                for index, name in enumerate(classes)
            ),
            ignored=int(self.pixels["labeled"][IGNORE]) / labeled if labeled else 0.0,
            sizes=dict(self.sizes),
            findings=in_order(self.findings),
            examples={index: name for index, name in self.examples.items() if index < len(classes)},
            dataset=dataset,
        )

    def _judge(
        self,
        config: FilesConfig,
        both: NDArray[np.int64],
        classes: Sequence[str],
        pixels: dict[str, NDArray[np.int64]],
        images: dict[str, NDArray[np.int64]],
        tail: Sequence[int],
    ) -> Iterator[Finding]:
        """Yield what only the whole shows."""
        root = config.root
        if both.any():
            values = judge_values(both.tolist(), classes, self.named, root)
            yield from values
            yield from judge_presence(self.pixels["labeled"].tolist(), self.pixels["val"].tolist(), root)
            if all(finding.code != "binary-mask" for finding in values):  # then 255 is a class
                yield from judge_variety(self.pixels["labeled"].tolist(), classes, root)
            yield from judge_occurrence(
                classes, pixels["labeled"].tolist(), pixels["val"].tolist(), images["labeled"].tolist(), tail, root
            )
        yield from judge_names(classes, root)
        for colour, indices in self.colours.items():
            if len(indices) > 1:
                (one, path), (two, other) = sorted(indices.items())[:2]
                text = f"the colour {colour} means {two} here and {one} in {path.name}, so the palette may be another's"
                remedy = "export both masks with one palette, in the order of the classes"
                yield Finding("warning", "mask-palettes-differ", other, text, remedy)
        if self.only_zero:
            text = f"holds class 0 ({classes[0]}) alone, as {len(self.only_zero)} masks do"
            yield Finding("note", "one-class-mask", self.only_zero[0], text, "look whether they were ever drawn")
        if not self.dataset.unlabeled:
            text = "every image has a mask or is val: only method=supervised can be trained"
            yield Finding("warning", "no-unlabeled", root, text, "add images without masks")
        if 0 < len(self.dataset.val) < FEW_VAL:
            text = few_images(len(self.dataset.val))
            yield Finding("warning", "few-val", root, text, "give val more masks, or read the score as a hint")
        for note in self.dataset.notes:
            yield Finding("note", "decided", root, note)
