"""Images a second of the loader, against torchvision v2 and against a pillow + numpy pipeline of the same views.

python benchmarks/loader.py [--size WIDTH HEIGHT] [--format jpg|png] [--crop N] [--images N] [--repeats N]

Writes images and masks of the embedded scenes, enlarged, into a temporary folder, and reads them as a user's data set:
random scale 0.5-2.0, crop, flip. `weak` is an image, `labeled` an image with its mask; `weak + strong` is an image in
two views, the second with colour jitter, grey and blur as `unimatch` draws them. `cached` is des4 with data.cache. One
process and one thread on all sides; where des4 makes unlabeled views, one of its images is a labeled one.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter
from timing import machine, medians, prepare
from torch import Tensor
from torchvision import tv_tensors
from torchvision.io import ImageReadMode, decode_image, read_file
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from des4.data import Loader, ViewsConfig
from des4.datasets import Folder, FolderConfig, Scenes, ScenesConfig
from des4.types import IGNORE, ViewSpec


def write_folder(root: Path, count: int, size: tuple[int, int], suffix: str) -> None:
    """Write a data folder of `count` labeled, as many unlabeled, and one val image."""
    scenes = Scenes(ScenesConfig(labeled=count, unlabeled=count, val=1))
    for name in ("images", "masks", "images/val", "masks/val"):
        (root / name).mkdir()
    for number, sample in enumerate((*scenes.labeled, *scenes.unlabeled, *scenes.val)):
        name = f"{'val/' if sample in scenes.val else ''}{number:04}"
        image = Image.fromarray(scenes.image(sample).permute(1, 2, 0).numpy())
        image.resize(size, Image.Resampling.BILINEAR).save(root / f"images/{name}.{suffix}", quality=95)
        if sample not in scenes.unlabeled:
            mask = Image.fromarray(scenes.label(sample).numpy())
            mask.resize(size, Image.Resampling.NEAREST).save(root / f"masks/{name}.png")


class Plain:
    """The pipeline as scripts of this field write it: decode, resize whole, pad, crop, flip, to tensor, normalise."""

    def __init__(self, root: Path, suffix: str, crop: int) -> None:
        self.root, self.suffix, self.crop, self.rng = root, suffix, crop, random.Random(0)

    def labeled(self, name: str) -> tuple[Tensor, ...]:
        image = Image.open(self.root / f"images/{name}.{self.suffix}").convert("RGB")
        image, label = self._geometry(image, Image.open(self.root / f"masks/{name}.png"))
        return self._normalised(image), torch.from_numpy(np.array(label)).long()

    def weak(self, name: str) -> tuple[Tensor, ...]:
        (image,) = self._geometry(Image.open(self.root / f"images/{name}.{self.suffix}").convert("RGB"))
        return (self._normalised(image),)

    def weak_and_strong(self, name: str) -> tuple[Tensor, ...]:
        (image,) = self._geometry(Image.open(self.root / f"images/{name}.{self.suffix}").convert("RGB"))
        return self._normalised(image), self._normalised(self._colours(image))

    def _geometry(self, *parts: Image.Image) -> list[Image.Image]:
        factor = self.rng.uniform(0.5, 2.0)
        width, height = (round(side * factor) for side in parts[0].size)
        top, left = (self.rng.randint(0, max(0, side - self.crop)) for side in (height, width))
        mirrored = self.rng.random() < 0.5
        placed = []
        for part in parts:
            is_mask = part.mode != "RGB"
            method = Image.Resampling.NEAREST if is_mask else Image.Resampling.BILINEAR
            pixels = np.asarray(part.resize((width, height), method))
            pad = [(0, max(0, self.crop - height)), (0, max(0, self.crop - width))] + [(0, 0)] * (not is_mask)
            pixels = np.pad(pixels, pad, constant_values=IGNORE if is_mask else 0)
            pixels = pixels[top : top + self.crop, left : left + self.crop]
            placed.append(Image.fromarray(np.ascontiguousarray(pixels[:, ::-1] if mirrored else pixels)))
        return placed

    def _colours(self, image: Image.Image) -> Image.Image:
        if self.rng.random() < 0.8:
            for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
                image = enhance(image).enhance(self.rng.uniform(0.5, 1.5))
            hue, saturation, value = image.convert("HSV").split()
            turned = np.asarray(hue) + np.uint8(self.rng.randint(-64, 64) % 256)
            image = Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")
        if self.rng.random() < 0.2:
            image = image.convert("L").convert("RGB")
        if self.rng.random() < 0.5:
            image = image.filter(ImageFilter.GaussianBlur(self.rng.uniform(0.1, 2.0)))
        return image

    def _normalised(self, image: Image.Image) -> Tensor:
        pixels = (np.asarray(image) / 255.0 - 0.5) / 0.5
        return torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32))


class Torchvision:
    """The same with torchvision v2, on bytes as long as possible."""

    def __init__(self, root: Path, suffix: str, crop: int) -> None:
        self.root, self.suffix, self.crop, self.rng = root, suffix, crop, random.Random(0)
        self.colours = v2.Compose(
            [
                v2.RandomApply([v2.ColorJitter(0.5, 0.5, 0.5, 0.25)], 0.8),
                v2.RandomGrayscale(0.2),
                v2.RandomApply([v2.GaussianBlur(13, (0.1, 2.0))], 0.5),
            ]
        )

    def labeled(self, name: str) -> tuple[Tensor, ...]:
        image, label = self._geometry(
            self._image(name), tv_tensors.Mask(decode_image(read_file(str(self.root / f"masks/{name}.png"))))
        )
        return F.to_dtype(image, scale=True), label.long()

    def weak(self, name: str) -> tuple[Tensor, ...]:
        (image,) = self._geometry(self._image(name))
        return (F.to_dtype(image, scale=True),)

    def weak_and_strong(self, name: str) -> tuple[Tensor, ...]:
        (image,) = self._geometry(self._image(name))
        return F.to_dtype(image, scale=True), F.to_dtype(self.colours(image), scale=True)

    def _image(self, name: str) -> Tensor:
        return tv_tensors.Image(
            decode_image(read_file(str(self.root / f"images/{name}.{self.suffix}")), ImageReadMode.RGB)
        )

    def _geometry(self, *parts: Tensor) -> list[Tensor]:
        factor = self.rng.uniform(0.5, 2.0)
        size = [round(side * factor) for side in parts[0].shape[1:]]
        fills = {tv_tensors.Image: 0, tv_tensors.Mask: IGNORE}
        parts = [F.resize(part, size) for part in parts]  # masks by the nearest pixel, images with antialias
        pad = [0, 0, max(0, self.crop - size[1]), max(0, self.crop - size[0])]
        parts = [F.pad(part, pad, fill=fills[type(part)]) for part in parts]
        top, left = (self.rng.randint(0, side - self.crop) for side in parts[0].shape[1:])
        parts = [F.crop(part, top, left, self.crop, self.crop) for part in parts]
        return [F.horizontal_flip(part) for part in parts] if self.rng.random() < 0.5 else parts


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=2, default=(500, 375), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--format", choices=("jpg", "png"), default="jpg")
    parser.add_argument("--crop", type=int, default=513)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    prepare(1)
    warnings.simplefilter("ignore")  # torchvision's decoders are deprecated, and still its fastest
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        root.mkdir()
        write_folder(root, args.images, tuple(args.size), args.format)
        plain = Folder(FolderConfig(root=root))
        cached = Folder(FolderConfig(root=root, cache=4, cache_dir=Path(folder) / "cache"))

        def des4(dataset: Folder, spec: ViewSpec, labeled_batch: int = 1) -> Callable[[], object]:
            loader = Loader(
                dataset, ViewsConfig(crop_size=args.crop), spec, labeled_batch=labeled_batch,
                unlabeled_batch=max(1, args.images - labeled_batch), seed=0, workers=0, fill=(0.5, 0.5, 0.5),
            )  # fmt: skip
            turn = iter(range(10**6))
            return lambda: loader[next(turn)]

        def others(method: str, ids: Sequence[str]) -> dict[str, Callable[[], object]]:
            def stacked(view: Callable[[str], tuple[Tensor, ...]]) -> Callable[[], object]:
                return lambda: [torch.stack(part) for part in zip(*map(view, ids), strict=True)]

            rivals = {"torchvision v2": Torchvision, "pillow + numpy": Plain}
            return {
                name: stacked(getattr(rival(root, args.format, args.crop), method)) for name, rival in rivals.items()
            }

        weak, strong = ViewSpec(strong=1), ViewSpec(strong=1, photometric="unimatch")
        print(f"{machine()}; {args.format} {args.size[0]} × {args.size[1]} → {args.crop}² crops")
        for what, variants in {
            "weak": {"des4": des4(plain, weak), "cached": des4(cached, weak), **others("weak", plain.unlabeled)},
            "labeled": {
                "des4": des4(plain, ViewSpec(), args.images),
                "cached": des4(cached, ViewSpec(), args.images),
                **others("labeled", plain.labeled),
            },
            "weak + strong": {"des4": des4(plain, strong), **others("weak_and_strong", plain.unlabeled)},
        }.items():
            seconds = medians(variants, args.repeats)
            for name, value in seconds.items():
                ratio = value / seconds["des4"]
                print(f"{what:14} {name:15} {args.images / value:8.1f} images/s, {ratio:5.2f} of the time of des4")


if __name__ == "__main__":
    main()
