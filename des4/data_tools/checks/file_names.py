"""What the names of files show, without opening any: capitals, masks without an image, files that nobody reads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from des4.data_tools.checks.findings import Finding
from des4.datasets.files import FileDataset, is_writable
from des4.datasets.walk import walk
from des4.images.pictures import IMAGE_SUFFIXES

_NO_IMAGES = frozenset({".csv", ".db", ".html", ".ini", ".json", ".md", ".tsv", ".txt", ".xml", ".yaml", ".yml"})
"""Extensions of files that may lie beside images and are none."""


def judge_file_names(dataset: FileDataset, faults: list[Finding]) -> list[Finding]:
    """Say what is odd about the names of images and masks, without opening any; `faults` are those of the reader."""
    images, masks = dataset.catalogue.images, dataset.catalogue.masks
    refused = {finding.path for finding in faults if finding.code == "orphan-mask"}
    findings: list[Finding] = []
    alike: dict[str, str] = {}
    for sample_id in sorted(images):
        other = alike.setdefault(_folded(sample_id), sample_id)
        if other != sample_id:
            text = f"its name differs from {images[other].name} in capitals alone"
            remedy = "rename one of them: on many disks they are one file"
            findings.append(Finding("warning", "case-clash", images[sample_id], text, remedy))
    for sample_id in sorted(set(masks) - set(images)):
        path = masks[sample_id].path
        if twin := alike.get(_folded(sample_id)):
            text = f"its name differs from that of the image {images[twin].name} in capitals alone"
            remedy = "give both the same name, else the image has no mask"
            findings.append(Finding("error" if path in refused else "warning", "case-clash", path, text, remedy))
            refused.discard(path)
        elif path not in refused:
            text, remedy = "no image belongs to this mask", "image and mask must have the same stem"
            findings.append(Finding("warning", "orphan-mask", path, text, remedy))
    return findings + [finding for finding in faults if finding.code != "orphan-mask" or finding.path in refused]


def _folded(name: str) -> str:
    """Write a name as a disk may that knows no capitals."""
    return name.casefold()


def unread_files(dataset: FileDataset) -> Iterator[Finding]:
    """Yield the files beside images and masks whose extension no reader knows, such as .heic."""
    kinds = ", ".join(sorted(IMAGE_SUFFIXES))
    for folder in _folders(dataset):
        for place, _, names in walk(folder):
            for name in names:
                path = place / name
                if path.suffix.lower() not in IMAGE_SUFFIXES | _NO_IMAGES and is_writable(name):
                    yield Finding("warning", "unread-file", path, "is left out", f"images are read from {kinds}")


def _folders(dataset: FileDataset) -> list[Path]:
    """List the folders right under the root in which images or masks lie."""
    catalogue = dataset.catalogue
    paths = [*catalogue.images.values(), *(mask.path for mask in catalogue.masks.values())]
    root = f"{dataset.root}{os.sep}"
    inside = (text[len(root) :] for text in map(str, paths) if text.startswith(root))  # as Paths, a million take long
    return [dataset.root / top for top in sorted({name.partition(os.sep)[0] for name in inside if os.sep in name})]
