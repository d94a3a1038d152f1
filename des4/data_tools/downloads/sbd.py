"""VOC's augmented masks, made from the archive that SBD's authors publish.

SBD (Hariharan et al., ICCV 2011) outlines 11,355 images of VOC 2011, VOC's classes under VOC's numbers; a mask is
`GTcls.Segmentation` of `dataset/cls/<id>.mat`. The field joins the two under the name SegmentationClassAug, by this
rule: VOC's own mask where there is one (its 2,913 of train and val, with 255 along the outlines), SBD's for the other
9,118 images (without 255). Together 12,031; without VOC's val, the 10,582 of "train_aug".
"""

from __future__ import annotations

import io
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from des4.data_tools.downloads.archives import DEFAULT_LIMITS, Limits, read_files, write_file
from des4.data_tools.progress import NO_BAR, Bar
from des4.datasets.palettes import voc_palette
from des4.images.pictures import read_header
from des4.types import DataError

NUM_CLASSES = 21


def write_augmented_masks(
    archive: Path, voc: Path, into: Path, *, limits: Limits = DEFAULT_LIMITS, bar: Bar = NO_BAR
) -> dict[str, str]:
    """Write SegmentationClassAug into the folder `into`, which is made; return file name → SHA-256 (hex).

    archive: SBD's benchmark.tgz. voc: the folder VOC2012. Masks are palette PNGs of class indices, as VOC's are; VOC's
    own are copied byte by byte. Raises DataError.
    """
    into.mkdir(parents=True)
    own = {path.name: path for path in sorted((voc / "SegmentationClass").glob("*.png"))}
    written = {}
    for name, content in read_files(archive, lambda name: _id(name) is not None, limits=limits, bar=bar):
        target = f"{_id(name)}.png"
        if target not in own:
            labels = read_labels(content, f"{archive}: {name}")
            _check(labels, voc / "JPEGImages" / f"{_id(name)}.jpg", f"{archive}: {name}")
            written[target] = write_file(into / target, _png(labels))
    if not written:
        raise DataError(f"{archive}: holds no masks (dataset/cls/….mat) beyond VOC's own; is it SBD's benchmark.tgz?")
    for target, path in own.items():
        written[target] = write_file(into / target, path.read_bytes())
    return written


def _id(name: str) -> str | None:
    """Return the id of an image if the name is that of its mask; the demo beside the data has a few more."""
    return match[1] if (match := re.fullmatch(r"(?:.*/)?dataset/cls/(\d{4}_\d{6})\.mat", name)) else None


def require_scipy() -> None:
    """Raise DataError unless SBD's MATLAB files can be read here."""
    if find_spec("scipy") is None:
        raise DataError('SBD\'s masks: reading its MATLAB files needs SciPy; pip install "des4[voc]"')


def read_labels(data: bytes, where: str) -> NDArray[Any]:
    """Read the label map, (H, W), from the bytes of a MATLAB file. where: what they come from. Raises DataError.

    For files of an archive whose SHA-256 is published: SciPy sets no limit to what a file may unpack to.
    """
    from scipy.io import loadmat

    try:
        labels: NDArray[Any] = loadmat(io.BytesIO(data), variable_names=["GTcls"])["GTcls"]["Segmentation"].item()
        if labels.dtype.kind not in "iu" or not labels.size:
            raise ValueError("no array of whole numbers")
    except Exception as error:  # SciPy promises no type for what it raises on damaged files
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"{where}: holds no readable GTcls.Segmentation ({reason}); fetch the archive anew") from error
    return labels


def _check(labels: NDArray[Any], image: Path, where: str) -> None:
    """Raise DataError unless these are VOC's classes, pixel for pixel of their image."""
    if labels.ndim != 2 or labels.max() >= NUM_CLASSES or labels.min() < 0:
        raise DataError(f"{where}: is no mask of the {NUM_CLASSES} classes; fetch the archive anew")
    if (size := read_header(image).size) != labels.shape:
        raise DataError(f"{where}: is {labels.shape} in height and width, {image} is {size}; one of them is another's")


def _png(labels: NDArray[Any]) -> bytes:
    picture = Image.fromarray(labels.astype(np.uint8))
    picture.putpalette([value for colour in voc_palette(256) for value in colour])
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()
