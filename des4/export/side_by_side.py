"""The network and its exported files on the same images: speed, size, accuracy, and how far they agree."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from des4.engine.inference import resized
from des4.export.formats import (
    FORMATS,
    Images,
    Model,
    Run,
    exported_program,
    made_from,
    onnx_session,
    openvino_session,
    program_run,
    require,
)
from des4.export.network import Deployed
from des4.metrics import Results, confusion_matrix
from des4.models import Segmenter
from des4.ops.resize import upsample
from des4.types import Dataset, RunError
from des4.weights import load_weights, weights_hash

WARM_UP = 2
"""Images before the clock runs, so that memory and kernels are there."""


@dataclass(frozen=True)
class Measured:
    """One row of the table. name: `torch`, or the format. megabytes: of its files, in 10⁶ bytes. miou: in [0, 1].

    images_per_second: one image at a time, on the CPU. equal: the share of pixels labeled as torch labels them.
    """

    name: str
    megabytes: float
    images_per_second: float
    miou: float
    equal: float


def measure(
    weights: Path,
    folder: Path,
    dataset: Dataset,
    images: int,
    *,
    threads: int = 0,
    progress: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> list[Measured]:
    """Score a network and the files that were exported from it on the first validation images.

    Each image is resized by the network's `eval.resize` first, outside of the time, and scored at its own size. folder:
    with the exported files. threads: of each library; 0 = its own choice. progress: walks over the names of what is
    measured. A .pt2 file is not opened, for torch unpickles what it reads in one: the network is exported anew, in
    memory, as it was for the file. Raises RunError without any file, and for one that was made from other weights;
    ConfigError where a library is missing.
    """
    segmenter, info = load_weights(weights)
    digest = weights_hash(weights)
    ids = list(dataset.val[:images])
    candidates: dict[str, tuple[Path, Callable[[], Run]]] = {
        "torch": (weights, lambda: _torch_run(Deployed(segmenter, len(info.classes), info.bands))),
    }
    for name, session in (("onnx", onnx_session), ("int8", onnx_session), ("openvino", openvino_session)):
        path = folder / FORMATS[name].name
        file = path / "model.xml" if name == "openvino" else path
        if file.is_file():
            require(name)
            if made_from(path) != digest:
                raise RunError(f"{path}: was not made from {weights}; make it anew with des4 export --overwrite, or "
                               "give the weights that it was made from")  # fmt: skip
            candidates[name] = path, lambda file=file, session=session: session(file, threads)  # type: ignore[misc]
    if (path := folder / FORMATS["torch"].name).is_file():
        model = Model(segmenter, info, weights, lambda: iter(()))
        candidates["torch.export"] = path, lambda: program_run(exported_program(model))
    if len(candidates) == 1:
        raise RunError(f"{folder}: holds no exported file that can be measured; make some with des4 export")
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        reference: list[NDArray[np.integer]] = []
        measured = []
        for name in progress(candidates):
            path, start = candidates[name]
            size = _megabytes_of(segmenter) if path == weights else _megabytes(path)
            measured.append(_measure(name, size, start(), dataset, ids, info.eval.resize, reference))
        return measured
    finally:
        torch.set_num_threads(before)


def _measure(
    name: str,
    megabytes: float,
    run: Run,
    dataset: Dataset,
    ids: list[str],
    factor: float,
    reference: list[NDArray[np.integer]],
) -> Measured:
    """factor: by which images are resized. reference: the labels of the first that is measured, which fills it."""
    num_classes, seconds, equal, pixels = len(dataset.classes), 0.0, 0, 0
    confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    first = not reference
    for image in (_picture(dataset, sample_id, factor) for sample_id in ids[:WARM_UP]):
        run(image)
    for number, sample_id in enumerate(ids):
        image = _picture(dataset, sample_id, factor)
        start = time.perf_counter()
        labels, probs = run(image)
        seconds += time.perf_counter() - start
        truth = dataset.label(sample_id)
        if labels.shape[1:] != truth.shape:
            labels = upsample(torch.from_numpy(probs), (truth.shape[0], truth.shape[1])).argmax(1).numpy()
        if first:
            reference.append(labels)
        equal += int((labels == reference[number]).sum())
        pixels += labels.size
        confusion += confusion_matrix(truth, torch.from_numpy(labels[0].astype(np.int64)), num_classes)
    miou = Results(confusion, tuple(dataset.classes)).miou
    return Measured(name, megabytes, len(ids) / seconds, miou, equal / pixels)


def training_images(dataset: Dataset, most: int, factor: float = 1.0) -> Iterator[Images]:
    """Yield (H, W, bands) of labeled images, as an exported network takes them, at most so many, resized by a factor.

    They are evenly spaced in their list.
    """
    spacing = max(1, -(-len(dataset.labeled) // most))
    for sample_id in dataset.labeled[::spacing]:
        yield _picture(dataset, sample_id, factor)[0]


def _picture(dataset: Dataset, sample_id: str, factor: float) -> Images:
    """Return (1, H, W, bands) of an image, resized by a factor, as an exported network takes it.

    Stored values of bands are resized as an evaluation does: within their ranges, with those of gaps at the lower end.
    """
    image, bands = dataset.image(sample_id), dataset.bands
    if bands is None or bands.are_bytes:
        values = image if factor == 1 else resized(image[None].float(), factor)[0].round().byte()
    elif factor == 1:
        values = dataset.stored_image(sample_id).float()
    else:
        low, high = torch.tensor(bands.ranges)[:, :, None, None].unbind(1)
        values = low + resized(image[None], factor)[0] * (high - low)
    return np.ascontiguousarray(values.permute(1, 2, 0).numpy())[None]


def _torch_run(network: Deployed) -> Run:
    def run(images: Images) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        with torch.inference_mode():
            labels, probs = network(torch.from_numpy(images))
        return labels.numpy(), probs.numpy()

    return run


def _megabytes_of(network: Segmenter) -> float:
    """Size of a network's tensors; its file may hold a whole training."""
    held: int = sum(tensor.nbytes for tensor in network.state_dict().values())
    return held / 1e6


def _megabytes(path: Path) -> float:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6
