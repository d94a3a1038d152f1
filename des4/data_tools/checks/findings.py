"""What a check of a data set finds: one Finding a fault, of a kind that scripts can rely on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from des4.types import DataError

Severity = Literal["error", "warning", "note"]
"""error: a training refuses the data, or learns something wrong from it. warning: it goes on, and the data are probably
not what they should be. note: worth knowing, nothing to mend."""

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

KINDS: dict[str, str] = {
    # the folder and its lists
    "layout": "The folder cannot be read as this format",
    "unwritable-name": "A name that cannot be written into a list",
    "same-stem": "Two files of one name",
    "case-clash": "Names that differ only in case",
    "orphan-mask": "A mask that no image claims",
    "unread-file": "A file of a kind that is not read",
    "unreadable-list": "A list that cannot be read",
    "repeated-line": "A sample that is listed twice",
    "missing-file": "A file that is not there or cannot be opened",
    "in-val-too": "A training image that is a val image",
    "wrong-protocol": "Lists that are not those of the protocol",
    "too-few-labeled": "Too few masks to train and to validate",
    "few-val": "Few images to score on",
    "no-unlabeled": "No unlabeled images",
    "decided": "Decided beyond what the files say",
    # image files, and masks as far as they are image files
    "empty-file": "A file without content",
    "not-an-image": "A file that is no image",
    "damaged-file": "A truncated or damaged file",
    "too-large": "More pixels than are decoded",
    "several-frames": "Several frames in one file",
    "deep-image": "More than 8 bits a channel",
    "other-bands": "Other bands, or values of another type, than the other images",
    "wrong-extension": "The extension names another format",
    "exif-rotation": "A rotation in the EXIF data",
    "cmyk": "Colours for printing (CMYK)",
    "alpha": "Transparent pixels",
    "tiny-image": "A very small image",
    "blank-image": "An image of one colour",
    # labels over the whole data set, before what they explain of each mask
    "shifted-labels": "Labels that are shifted against the classes",
    "stretched-labels": "Labels that are stretched for display",
    "binary-mask": "Masks of 0 and 255 alone",
    "no-labeled-pixel": "Masks of 255 alone",
    "one-class": "Masks of one class alone",
    "class-named-ignore": "A class whose name says it is none",
    "class-missing": "A class that never occurs",
    "class-only-in-val": "A class that occurs in val alone",
    "class-not-in-val": "A class that does not occur in val",
    "class-in-few-images": "A class that few labeled images show",
    # masks
    "mask-not-png": "A mask that is no PNG",
    "mask-in-colour": "A mask in colour where class indices are due",
    "deep-mask": "A mask of 16 bits with labels beyond 255",
    "bad-mask": "A mask that cannot be read",
    "size-mismatch": "A mask of another size than its image",
    "label-outside": "Labels that are no class",
    "mask-ignored": "A mask that labels next to nothing",
    "one-class-mask": "Masks that hold class 0 alone",
    "region-without-pixels": "A region that covers no pixel",
    "region-hidden": "A region that others cover wholly",
    "mask-palettes-differ": "One colour, several class indices",
    # the same picture more than once
    "leak": "A training picture that is a val picture",
    "duplicate": "The same picture more than once",
}
"""Code → what findings of this kind are, as a heading."""


@dataclass(frozen=True)
class Finding:
    """One fault. code: a key of KINDS. path: the file or folder it is in. message, remedy: half a sentence each."""

    severity: Severity
    code: str
    path: Path
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" + (f"; {self.remedy}" if self.remedy else "")


def from_error(severity: Severity, code: str, error: DataError, path: Path | None = None) -> Finding:
    """Take a DataError apart, which reads `PATH: what is wrong; what to do`. path: the file, if it is known."""
    text = str(error)
    named = str(path) if path and text.startswith(f"{path}: ") else text.partition(": ")[0]
    message, _, remedy = text.removeprefix(f"{named}: ").rpartition("; ")
    return Finding(severity, code, path or Path(named), message or remedy, remedy if message else "")


def in_order(findings: list[Finding]) -> tuple[Finding, ...]:
    """Sort findings: errors first, then by kind as KINDS lists them, then by path. What was found twice stands once."""
    kinds = list(KINDS)
    return tuple(
        sorted(dict.fromkeys(findings), key=lambda f: (SEVERITIES.index(f.severity), kinds.index(f.code), str(f.path)))
    )
