"""CVAT: "CVAT for images 1.1" (polygons or masks to correct), and "Segmentation mask 1.1" (the label map itself).

    annotations.xml                                              upload as "CVAT 1.1"
    labelmap.txt  SegmentationClass/….png  ImageSets/…           zipped: upload as "Segmentation mask 1.1"

https://docs.cvat.ai/docs/dataset_management/formats. `des4.datasets.cvat` reads the second, and
`des4 data import` the first. Counts of a mask in the XML go row by row through its box, the first of pixels that are
not in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from des4.data_tools.prelabels.marks import Marked, Region, rounded
from des4.datasets.palettes import Palette, distinct_palette


class CvatTask:
    """Collects images, and writes the masks of each at once; `close` writes the rest. folder: is made.

    palette: black stands for no class in CVAT; where it does not here, or a colour stands twice, others are taken.
    """

    def __init__(self, folder: Path, classes: Sequence[str], palette: Palette) -> None:
        self._folder, self._classes = folder, classes
        bright = [colour for colour, name in zip(palette, classes, strict=True) if name != "background"]
        sound = len(set(palette)) == len(palette) and (0, 0, 0) not in bright
        self._colours = np.array(palette if sound else distinct_palette(classes), np.uint8)
        self._images: list[str] = []
        self._names: list[str] = []

    def add(self, marked: Marked, labels: NDArray[Any]) -> None:
        """Add an image with its regions and its label map (H, W)."""
        height, width = marked.size
        shapes = "".join(f"    {_shape(region, order)}\n" for order, region in enumerate(marked.regions))
        name = quoteattr(str(marked.image))
        number = len(self._images)
        self._images.append(
            f'  <image id="{number}" name={name} width="{width}" height="{height}">\n{shapes}  </image>\n'
        )
        stem = marked.image.with_suffix("")
        self._names.append(str(stem))
        path = self._folder / "SegmentationClass" / f"{stem}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(self._colours[labels]).save(path)

    def close(self) -> None:
        """Write the annotations, the label map and the list."""
        listed = "".join(
            f"      <label><name>{escape(name)}</name><color>#{bytes(colour).hex()}</color><attributes/></label>\n"
            for name, colour in zip(self._classes, self._colours, strict=True)
        )
        text = [
            '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n',
            f"  <meta>\n    <task>\n      <labels>\n{listed}      </labels>\n    </task>\n  </meta>\n",
            *self._images,
            "</annotations>\n",
        ]
        (self._folder / "annotations.xml").write_text("".join(text), encoding="utf-8")
        lines = ["# label:color_rgb:parts:actions"]
        lines += [
            f"{name}:{','.join(map(str, colour.tolist()))}::"
            for name, colour in zip(self._classes, self._colours, strict=True)
        ]
        (self._folder / "labelmap.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        subset = self._folder / "ImageSets" / "Segmentation" / "default.txt"
        subset.parent.mkdir(parents=True, exist_ok=True)
        subset.write_text("".join(f"{name}\n" for name in self._names), encoding="utf-8")


def _shape(region: Region, order: int) -> str:
    about = f'label={quoteattr(region.name)} source="auto" occluded="0"'
    if region.points is not None:
        points = ";".join(f"{x:.2f},{y:.2f}" for x, y in rounded(region.points))
        return f'<polygon {about} points="{points}" z_order="{order}"/>'
    bitmap, left, top = region.cut()
    height, width = bitmap.shape
    changes = np.flatnonzero(np.diff(bitmap.ravel().astype(np.int8), prepend=0))
    counts = np.diff(changes, prepend=0, append=bitmap.size).tolist()
    box = f'left="{left}" top="{top}" width="{width}" height="{height}"'
    return f'<mask {about} rle="{", ".join(map(str, counts))}" {box} z_order="{order}"/>'
