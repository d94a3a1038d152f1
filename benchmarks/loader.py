"""Images a second of the loader against a plain pillow + numpy pipeline of the same views.

python benchmarks/loader.py [--size WIDTH HEIGHT] [--crop N] [--images N] [--repeats N]

Writes JPEG images and PNG masks of the embedded scenes, enlarged, into a temporary folder, and reads them as a
user's data set: random scale 0.5-2.0, crop, flip; one labelled view each. Single process on both sides.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timing import machine, medians, prepare

from des4.data import Folder, FolderConfig, Loader, Scenes, ScenesConfig, ViewsConfig
from des4.types import IGNORE, ViewSpec


def write_folder(root: Path, count: int, size: tuple[int, int]) -> None:
    """Write a data folder of `count` images."""
    scenes = Scenes(ScenesConfig(labeled=count, unlabeled=1, val=1))
    for name in ("images", "masks"):
        (root / name).mkdir()
    for number, sample in enumerate(scenes.labelled):
        image = Image.fromarray(scenes.image(sample).permute(1, 2, 0).numpy())
        mask = Image.fromarray(scenes.label(sample).numpy())
        image.resize(size, Image.Resampling.BILINEAR).save(root / f"images/{number:04}.jpg", quality=95)
        mask.resize(size, Image.Resampling.NEAREST).save(root / f"masks/{number:04}.png")


def plain(root: Path, names: list[str], crop: int, rng: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
    """The pipeline as scripts of this field write it: decode, resize whole, pad, crop, flip, to tensor, normalise."""
    images, labels = [], []
    for name in names:
        image = Image.open(root / f"images/{name}.jpg").convert("RGB")
        mask = Image.open(root / f"masks/{name}.png")
        factor = rng.uniform(0.5, 2.0)
        size = (round(image.width * factor), round(image.height * factor))
        image, mask = image.resize(size, Image.Resampling.BILINEAR), mask.resize(size, Image.Resampling.NEAREST)
        pixels, label = np.asarray(image), np.asarray(mask)
        pad = ((0, max(0, crop - size[1])), (0, max(0, crop - size[0])))
        pixels, label = np.pad(pixels, (*pad, (0, 0))), np.pad(label, pad, constant_values=IGNORE)
        top, left = rng.randint(0, label.shape[0] - crop), rng.randint(0, label.shape[1] - crop)
        pixels, label = pixels[top : top + crop, left : left + crop], label[top : top + crop, left : left + crop]
        if rng.random() < 0.5:
            pixels, label = pixels[:, ::-1], label[:, ::-1]
        images.append(torch.from_numpy(((pixels / 255.0 - 0.5) / 0.5).transpose(2, 0, 1).astype(np.float32)))
        labels.append(torch.from_numpy(label.astype(np.int64)))
    return torch.stack(images), torch.stack(labels)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=2, default=(500, 375), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--crop", type=int, default=513)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    prepare(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_folder(root, args.images, tuple(args.size))
        dataset = Folder(FolderConfig(root=root, val_fraction=0.1))
        names = [Path(sample).name for sample in dataset.labelled]
        views = ViewsConfig(crop_size=args.crop)
        loader = Loader(
            dataset,
            views,
            ViewSpec(),
            labelled_batch=len(names),
            unlabelled_batch=1,
            seed=0,
            workers=0,
            fill=(0.5, 0.5, 0.5),
        )
        turn, rng = iter(range(10**6)), random.Random(0)
        seconds = medians(
            {"des4": lambda: loader[next(turn)], "pillow + numpy": lambda: plain(root, names, args.crop, rng)},
            args.repeats,
        )
    print(f"{machine()}; JPEG {args.size[0]} × {args.size[1]} → {args.crop}² crops, labelled views")
    for name, value in seconds.items():
        print(f"{name:16} {len(names) / value:8.1f} images/s")
    print(f"des4 / pillow + numpy: {seconds['pillow + numpy'] / seconds['des4']:.2f}")


if __name__ == "__main__":
    main()
