"""What a large COCO annotation file costs: time to open, memory kept and at most, and painting a label map from it.

python benchmarks/coco.py [--images N] [--annotations N] [--reads N]

Writes a file of polygons of 10 to 50 corners, on images of 640×480, into a temporary folder. Each opening is taken in a
process of its own, and compared with `json.load`; painting is compared with the COCO API (pycocotools), and the label
maps must be equal. Seconds of opening are the processor's, since other programs may run.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_api
from timing import medians, prepare

from des4.datasets.annotations.coco_file import CocoMask, read_coco

WIDTH, HEIGHT, CLASSES = 640, 480, 80


def write_file(path: Path, images: int, annotations: int) -> None:
    """Write an annotation file; a tenth of the images has no annotation."""
    rng = np.random.default_rng(0)
    with path.open("w") as file:
        listed = [{"id": n, "file_name": f"{n:012d}.jpg", "height": HEIGHT, "width": WIDTH} for n in range(images)]
        file.write(f'{{"images": {json.dumps(listed)}, "annotations": [')
        for number in range(annotations):
            annotation = {
                "id": number,
                "image_id": int(rng.integers(images * 9 // 10)),
                "category_id": int(rng.integers(CLASSES)),
                "segmentation": [outline(rng).ravel().tolist()],
                "iscrowd": 0,
            }
            file.write("," * bool(number) + json.dumps(annotation))
        file.write(f'], "categories": {json.dumps([{"id": n, "name": f"class {n}"} for n in range(CLASSES)])}}}')


def outline(rng: np.random.Generator) -> np.ndarray:
    """Draw a star-shaped polygon of 5 to 150 pixels, (N, 2)."""
    turns = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(10, 50)))
    radii = rng.uniform(5, 150) * rng.uniform(0.7, 1, len(turns))
    return np.round(rng.uniform([0, 0], [WIDTH, HEIGHT]) + radii[:, None] * np.c_[np.cos(turns), np.sin(turns)], 2)


def alone(task: Callable[[Path], Any], path: Path) -> tuple[float, float, float]:
    """Do a task in a fresh process; return its seconds, and the megabytes that it holds and held at most."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measured, (task, path))


def measured(task: Callable[[Path], Any], path: Path) -> tuple[float, float, float]:
    before, start = megabytes(), time.process_time()
    held = task(path)
    seconds, after = time.process_time() - start, megabytes()
    del held
    return seconds, after - before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3 - before


def megabytes() -> float:
    """Memory of this process, in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def plain(path: Path) -> Any:
    """Read the file as most programs do."""
    with path.open() as file:
        return json.load(file)


def painted_by_the_api(annotations: list[Any]) -> np.ndarray:
    """Paint a label map with the COCO API, from the largest region to the smallest."""
    codes = [coco_api.merge(coco_api.frPyObjects(one["segmentation"], HEIGHT, WIDTH)) for one in annotations]
    label = np.zeros((HEIGHT, WIDTH), np.uint8)
    for place in np.argsort(-coco_api.area(codes).astype(np.int64), kind="stable"):
        label[coco_api.decode(codes[place]) == 1] = annotations[place]["category_id"]
    return label


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--annotations", type=int, default=200_000)
    parser.add_argument("--reads", type=int, default=50)
    args = parser.parse_args()
    prepare(threads=1)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "instances.json")
        write_file(path, args.images, args.annotations)
        print(f"{args.images} images, {args.annotations} polygons, {path.stat().st_size / 1e6:.0f} MB of JSON")
        for what, task in {"des4": read_coco, "json.load": plain}.items():
            seconds, held, most = alone(task, path)
            print(f"{what:9} {seconds:6.2f} s  {held:6.1f} MB held  {most:6.1f} MB at most")
        file = read_coco(path)
        labels = file.category.astype(np.uint8)
        masks = [CocoMask(file, row, labels, 0) for row in range(args.reads)]
        parsed = [
            file.json.parts(map(tuple, file.spans[slice(*file.first[m.row : m.row + 2])].tolist())) for m in masks
        ]
        for mask, annotations in zip(masks, parsed, strict=True):
            assert (mask.read().numpy() == painted_by_the_api(annotations)).all()
        seconds = medians(
            {
                "des4, parsing included": lambda: [mask.read() for mask in masks],
                "pycocotools": lambda: [painted_by_the_api(annotations) for annotations in parsed],
            },
            repeats=5,
        )
        for what, median in seconds.items():
            print(f"a label map, {what}: {median / args.reads * 1e3:.2f} ms")


if __name__ == "__main__":
    main()
