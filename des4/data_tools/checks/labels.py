"""What the labels of a whole data set give away: maps that are shifted or stretched, classes that never occur."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from des4.data_tools.checks.findings import Finding
from des4.types import IGNORE

FEW_IMAGES = 3
"""A tail class seen in fewer labeled images than this is named: its score says more about them than about it."""

_NO_CLASS = frozenset(
    {"255", "dont care", "don't care", "do not care", "dontcare", "ignore", "ignored", "none", "undefined", "unknown"}
    | {"unlabeled", "unlabelled", "void"}
)


def judge_values(counts: Sequence[int], classes: Sequence[str], named: bool, path: Path) -> list[Finding]:
    """Say whether the labels look like a map of another convention than 0..C-1 and 255 = ignore.

    counts: pixels of each label 0..255 over all masks. classes: names. named: False if they were merely counted in the
    masks. path: the data set, or its list of classes.
    """
    used = [label for label, count in enumerate(counts) if count and label != IGNORE]
    if used == [0] and counts[IGNORE]:
        return [
            Finding(
                "error", "binary-mask", path,
                f"all masks hold 0 and {IGNORE} alone, and {IGNORE} means 'ignore': there is nothing to tell apart",
                f"say data.values=0,{IGNORE} if {IGNORE} is the foreground, or store it as 1",
            )
        ]  # fmt: skip
    if not named and used:
        return _judge_counted(used, classes, path)
    if len(used) < 2 or used[-1] < len(classes):
        return []
    step = math.gcd(*used)
    if step > 1 and used[-1] // step < len(classes):
        shown = ", ".join(map(str, used[:5])) + (", …" if len(used) > 5 else "")
        values = [step * index for index in range(len(classes))]
        otherwise = f", or divide each by {step}"
        rounded = values[-1] in (IGNORE - 1, IGNORE + 1) and values[-1] not in used
        if rounded and counts[IGNORE]:  # stretched to the end of 8 bits
            values[-1] = IGNORE
            otherwise = f" if {IGNORE} is the last class, or number them 0..{len(classes) - 1}"
        return [
            Finding(
                "error", "stretched-labels", path,
                f"the labels are multiples of {step} ({shown}), as if stretched so that they can be seen",
                f"say data.values={','.join(map(str, values))}{otherwise}",
            )
        ]  # fmt: skip
    if used[-1] > len(classes):
        return []
    said = f"{len(classes)} classes are numbered 0..{len(classes) - 1}, but the labels are {used[0]}..{used[-1]}"
    shift = f"say data.values=1-{len(classes)} data.ignore=0, or subtract 1 from every label and store 0 as {IGNORE}"
    if used[0]:
        return [Finding("error", "shifted-labels", path, f"{said}: they begin at 1, as those of ADE20K do", shift)]
    meaning = (
        f"if 0 stands for 'no class', as in ADE20K, {shift}; if it is a class, such as 'background', name it first"
    )
    return [Finding("error", "shifted-labels", path, f"{said}: one more than there are names", meaning)]


def judge_presence(labeled: Sequence[int], val: Sequence[int], path: Path) -> list[Finding]:
    """Say whether all labeled masks, or all val masks, hold nothing but 255.

    labeled, val: their pixels of each label 0..255.
    """
    said = ((labeled, "labeled", "there is nothing to learn"), (val, "val", "nothing could be scored"))
    return [
        Finding(
            "error", "no-labeled-pixel", path, f"all {role} masks hold {IGNORE} (ignore) alone: {consequence}",
            f"label their pixels, or let other images be {role}",
        )
        for counts, role, consequence in said
        if counts[IGNORE] and not any(counts[:IGNORE])
    ]  # fmt: skip


def judge_variety(counts: Sequence[int], classes: Sequence[str], path: Path) -> list[Finding]:
    """Say whether the labeled masks hold one class alone, so that there is nothing to learn.

    counts: their pixels of each label 0..255. A map of 0 and 255 is for `judge_values`, which knows the val masks too.
    """
    used = [label for label, count in enumerate(counts) if count and label != IGNORE]
    if len(used) != 1 or used[0] >= len(classes):
        return []  # nothing at all, or no class, is said elsewhere
    text = f"all labeled masks hold class {used[0]} ({classes[used[0]]}) alone: there is nothing to tell apart"
    return [Finding("error", "one-class", path, text, "draw the other classes, or label images that show them")]


def _judge_counted(used: list[int], classes: Sequence[str], path: Path) -> list[Finding]:
    """Judge labels whose classes nobody has named, so that the largest one says how many there are."""
    if used == [0]:
        text = "the masks hold no class but 0"
        return [Finding("error", "class-missing", path, text, f"number classes 0, 1, …, and {IGNORE} = ignore")]
    if used[0] > 0:
        text = f"no pixel has the label 0, so that {classes[0]} would be a class that nothing teaches"
        return [Finding("warning", "shifted-labels", path, text, "subtract 1 from every label if classes begin at 1")]
    return []


def judge_names(classes: Sequence[str], path: Path) -> list[Finding]:
    """Name classes that by their name are none."""
    return [
        Finding(
            "warning", "class-named-ignore", path,
            f"class {index} is called '{name}', and would be trained and scored as a class",
            f"store it as {IGNORE} and take it off the class list, if nobody is to learn it",
        )
        for index, name in enumerate(classes)
        if name.strip().lower().replace("_", " ") in _NO_CLASS
    ]  # fmt: skip


def judge_occurrence(
    classes: Sequence[str], labeled: Sequence[int], val: Sequence[int], images: Sequence[int], tail: Sequence[int],
    path: Path,
) -> list[Finding]:  # fmt: skip
    """Name classes that are missing where they are needed.

    labeled, val: (C,) pixels. images: (C,) labeled images that show the class. tail: indices of the rare classes.
    """
    findings = []
    for index, name in enumerate(classes):
        found = bool(labeled[index]), bool(val[index])
        if found == (False, False):
            said = "class-missing", "occurs in no labeled and no val mask", "take it off the class list, or label some"
        elif found == (False, True):
            said = "class-only-in-val", "occurs in val masks alone, so it cannot be learnt", "label some images of it"
        elif found == (True, False):
            said = "class-not-in-val", "occurs in no val mask, so it is not scored", "move some images of it to val"
        else:
            continue
        findings.append(Finding("warning", said[0], path, f"class {index} ({name}) {said[1]}", said[2]))
    for index in tail:
        if 0 < images[index] < FEW_IMAGES:
            shown = f"{images[index]} labeled image" + ("s" if images[index] > 1 else "")
            text = f"class {index} ({classes[index]}) is seen in {shown} alone"
            findings.append(Finding("note", "class-in-few-images", path, text, "label more of it if you can"))
    return findings
