"""Label Studio's tasks with predictions, as its import takes them, and the labeling interface that they fit.

https://labelstud.io/guide/predictions. A prediction becomes an annotation when somebody opens the task and submits it;
only annotations are exported, and `des4.datasets.label_studio` reads that export. Images are named as files of its
local storage (`/data/local-files/?d=…`), whose root is the folder that holds `images/`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from des4.data_tools.prelabels.marks import Marked, Region, Shapes, background_of, rounded
from des4.datasets.annotations.rle import packed_words
from des4.datasets.palettes import Palette

_TAGS = {"polygons": "PolygonLabels", "masks": "BrushLabels"}


class LabelStudioTasks:
    """Collects tasks; `write` makes `tasks.json` and `interface.xml` of them."""

    def __init__(self, classes: Sequence[str], palette: Palette, shapes: Shapes, model: str) -> None:
        self._classes, self._palette, self._model = classes, palette, model
        self._tag = _TAGS[shapes]
        self._tasks: list[dict[str, Any]] = []

    def add(self, marked: Marked) -> None:
        """Add an image's task."""
        results = [self._result(number, region, marked.size) for number, region in enumerate(marked.regions)]
        prediction = {"model_version": self._model, "score": round(marked.score, 4), "result": results}
        address = f"/data/local-files/?d={quote(f'images/{marked.image}')}"
        self._tasks.append({"data": {"image": address}, "predictions": [prediction]})

    def write(self, folder: Path) -> None:
        """Write both files into a folder, which is made."""
        folder.mkdir(parents=True, exist_ok=True)
        lines = (json.dumps(task, ensure_ascii=False) for task in self._tasks)
        (folder / "tasks.json").write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
        (folder / "interface.xml").write_text(self._interface(), encoding="utf-8")

    def _result(self, number: int, region: Region, size: tuple[int, int]) -> dict[str, Any]:
        height, width = size
        kind = self._tag.lower()
        value: dict[str, Any]
        if region.points is not None:
            scale = np.array([100 / width, 100 / height])
            value = {"points": [[x * scale[0], y * scale[1]] for x, y in rounded(region.points)], "closed": True}
        else:
            assert region.bitmap is not None  # noqa: S101  # one of the two is there
            pixels = np.repeat(region.bitmap.ravel().astype(np.uint8) * 255, 4)
            value = {"format": "rle", "rle": packed_words(pixels)}
        return {
            "id": f"r{number}",
            "from_name": "label",
            "to_name": "image",
            "type": kind,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": value | {kind: [region.name]},
        }

    def _interface(self) -> str:
        """Return what is pasted into the project's labeling interface."""
        nothing = background_of(self._classes)
        named = sorted(range(len(self._classes)), key=lambda index: index == nothing)
        labels = "\n".join(
            f'    <Label value={quoteattr(self._classes[index])} background="#{bytes(self._palette[index]).hex()}"/>'
            for index in named
        )
        return (
            '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
            f'  <{self._tag} name="label" toName="image">\n{labels}\n  </{self._tag}>\n</View>\n'
        )
