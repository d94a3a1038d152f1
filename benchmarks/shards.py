"""What a million images in tar shards cost: time to open, memory, and reading at random.

python benchmarks/shards.py [--entries N] [--shards N] [--reads N]

Writes tiny JPEGs (1 KB each with their header) into a temporary folder; 1,000,000 take a gigabyte and a few minutes.
Each figure is taken in a process of its own, so that memory is what that step adds.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import random
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from des4.data.order import Order
from des4.datasets import Folder, FolderConfig
from des4.datasets.lists import content_hash
from des4.datasets.shards import Shards


def write_shards(folder: Path, entries: int, shards: int) -> None:
    """Write `entries` images into `shards` tar files, and a data folder with two masks beside them."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(buffer, "JPEG", quality=10, optimize=True)
    data = buffer.getvalue()[:512]
    (folder / "shards").mkdir()
    for shard in range(shards):
        with tarfile.open(folder / "shards" / f"crawl-{shard:05}.tar", "w") as tar:
            for number in range(shard, entries, shards):
                info = tarfile.TarInfo(f"{number:09}.jpg")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    for side in ("images", "masks"):
        (folder / "data" / side).mkdir(parents=True)
        for name in "ab":
            Image.fromarray(np.eye(8, dtype=np.uint8)).save(folder / "data" / side / f"{name}.png")


def megabytes() -> float:
    """Memory of this process that is its own, in MB."""
    resident, shared = (int(text) for text in Path("/proc/self/statm").read_text().split()[1:3])
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE") / 1e6


def alone(task: Callable[[Path], Any], folder: Path) -> tuple[float, float]:
    """Do a task in a fresh process; return the seconds it took and the megabytes it holds."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measured, (task, folder))


def measured(task: Callable[[Path], Any], folder: Path) -> tuple[float, float]:
    before, start = megabytes(), time.perf_counter()
    held = task(folder)
    seconds, after = time.perf_counter() - start, megabytes()
    del held
    return seconds, after - before


def opened(folder: Path) -> Shards:
    return Shards([folder / "shards"], folder / "cache" / "indexes")


def data_set(folder: Path) -> Folder:
    config = {"root": folder / "data", "shards": folder / "shards", "cache_dir": folder / "cache", "num_classes": 2}
    return Folder(FolderConfig.model_validate(config))


def first_batch(folder: Path) -> tuple[Order, list[tuple[int, str]]]:
    order = Order(opened(folder), "seed")
    return order, order.batch(0, 16)


def list_hash(folder: Path) -> str:
    return content_hash(opened(folder))


def strings(folder: Path) -> tuple[list[str], list[str]]:
    """What a list of ids and one permutation of it would take."""
    ids = sorted(opened(folder))
    order = ids.copy()
    random.Random(0).shuffle(order)
    return ids, order


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--reads", type=int, default=20_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_shards(folder, args.entries, args.shards)
        print(f"{args.entries} images in {args.shards} shards")
        tasks: dict[str, Callable[[Path], Any]] = {
            "first opening, which indexes": opened,
            "opening with indexes": opened,
            "… as part of a data set": data_set,
            "… with the order of an epoch": first_batch,
            "hash of the list": list_hash,
            "for comparison: lists of strings": strings,
        }
        for what, task in tasks.items():
            seconds, held = alone(task, folder)
            print(f"{what:34} {seconds:8.2f} s {held:8.1f} MB")
        size = sum(path.stat().st_size for path in (folder / "cache" / "indexes").iterdir())
        print(f"{'indexes on disk':34} {'':10} {size / 1e6:8.1f} MB")
        shards = opened(folder)
        ids = [shards[random.randrange(len(shards))] for _ in range(args.reads)]
        start = time.perf_counter()
        for sample_id in ids:
            shards.read(sample_id)
        print(f"{'a random read':34} {(time.perf_counter() - start) / len(ids) * 1e6:8.1f} µs")


if __name__ == "__main__":
    main()
