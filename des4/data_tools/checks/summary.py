"""What a check found as plain data: the JSON of `des4 data check`, and what its table and its page are made from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from des4.data_tools.checks.advice import Setting
from des4.data_tools.checks.findings import KINDS, SEVERITIES
from des4.data_tools.checks.survey import DataCheck
from des4.ops.pixels import picture
from des4.types import DataError

Pixels = NDArray[np.uint8]


def summarise(check: DataCheck, settings: Sequence[Setting]) -> dict[str, Any]:
    """Return everything but pictures, as JSON knows it. Shares are fractions of the pixels that are not ignored."""
    severities = [finding.severity for finding in check.findings]
    return {
        "root": str(check.config.root),
        "format": check.format,
        "images": {**dict.fromkeys(_ROLES, 0), **check.counts, "unread": check.unread},
        "classes": _classes(check),
        "imbalance": check.imbalance,
        "ignored_share": check.ignored,
        "sizes": [
            {"width": width, "height": height, "images": count}
            for (height, width), count in sorted(check.sizes.items(), key=lambda item: (-item[1], item[0]))
        ],
        "findings": [
            {
                "severity": finding.severity,
                "code": finding.code,
                "kind": KINDS[finding.code],
                "path": str(finding.path),
                "message": finding.message,
                "remedy": finding.remedy,
            }
            for finding in check.findings
        ],
        **{f"{severity}s": severities.count(severity) for severity in SEVERITIES},
        "suggested": [
            {
                "key": setting.key,
                "value": setting.value if isinstance(setting.value, int | float | str | list) else str(setting.value),
                "reason": setting.reason,
            }
            for setting in settings
        ],
    }


def examples(check: DataCheck, most: int = 6) -> list[tuple[str, Pixels, Pixels]]:
    """Read labeled samples to look at: for each class, rarest first, the one with most of it, until there are enough.

    Returns captions, images (H, W, 3) and masks (H, W); what cannot be read is left out.
    """
    if check.dataset is None:
        return []
    chosen: dict[str, list[str]] = {}
    for index in sorted(check.examples, key=lambda index: check.classes[index].pixels["labeled"]):
        chosen.setdefault(check.examples[index], []).append(check.classes[index].name)
    pictures: list[tuple[str, Pixels, Pixels]] = []
    for sample_id, names in chosen.items():
        if len(pictures) == most:
            break
        try:
            image, label = check.dataset.image(sample_id), check.dataset.stored_label(sample_id)
        except DataError:  # it is among the findings
            continue
        if image.shape[1:] == label.shape:
            caption = f"{sample_id}: of all the labeled images it has most {', '.join(names)}"
            shown = picture(image.permute(1, 2, 0).contiguous().numpy(), check.dataset.bands)
            pictures.append((caption, shown, label.numpy()))
    return pictures


_ROLES = ("labeled", "unlabeled", "val")


def _classes(check: DataCheck) -> list[dict[str, Any]]:
    total = {role: sum(count.pixels[role] for count in check.classes) for role in ("labeled", "val")}
    return [
        {
            "name": count.name,
            "tail": count.tail,
            **{
                role: {
                    "pixels": count.pixels[role],
                    "share": count.pixels[role] / total[role] if total[role] else 0.0,
                    "images": count.images[role],
                }
                for role in total
            },
        }
        for count in check.classes
    ]
