"""labelme's JSON: a file for each image, beside it, which `labelme FOLDER` opens together with the image.

https://github.com/wkentaro/labelme, files of version 5. A mask (its shape type `mask`) is a PNG in base64 that lies at
its first point; the second point is its last pixel. `des4.datasets.labelme` reads all of it.
"""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

from des4.data_tools.prelabels.marks import Marked, Region, rounded

_VERSION = "5.5.0"


def write_labelme(marked: Marked, images: Path) -> Path:
    """Write the file of an image that lies in the folder `images`, and return its path."""
    document: dict[str, Any] = {
        "version": _VERSION,
        "flags": {},
        "shapes": [_shape(region) for region in marked.regions],
        "imagePath": marked.image.name,
        "imageData": None,
        "imageHeight": marked.size[0],
        "imageWidth": marked.size[1],
    }
    path = (images / marked.image).with_suffix(".json")
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def _shape(region: Region) -> dict[str, Any]:
    if region.points is not None:
        kind, mask, points = "polygon", None, [list(point) for point in rounded(region.points)]
    else:
        bitmap, left, top = region.cut()
        height, width = bitmap.shape
        buffer = io.BytesIO()
        Image.fromarray(bitmap).save(buffer, "PNG")
        kind, mask = "mask", base64.b64encode(buffer.getvalue()).decode()
        points = [[left, top], [left + width - 1, top + height - 1]]
    return {
        "label": region.name,
        "points": points,
        "group_id": None,
        "description": "",
        "shape_type": kind,
        "flags": {},
        "mask": mask,
    }
