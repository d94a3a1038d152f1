"""Thirty bad files, as people have them: each in a data folder that is otherwise good."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = (40, 56)
"""Height and width of the pictures."""

CLASSES = ("road", "tree", "sky")


def picture(number: int, channels: int = 3) -> NDArray[np.uint8]:
    """Paint a picture of its own for each number."""
    return np.random.default_rng(number).integers(0, 256, (*SIZE, channels), dtype=np.uint8)


def labels(size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """Paint a mask of three bands, and an ignored pixel."""
    mask = np.repeat(np.arange(3, dtype=np.uint8), -(-size[0] // 3))[: size[0], None].repeat(size[1], 1)
    mask[0, 0] = 255
    return mask


def encoded(image: Image.Image | NDArray[np.uint8], kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def good_folder(root: Path) -> Path:
    """Write four labeled, two val and two unlabeled images, and the names of three classes."""
    (root / "images").mkdir(parents=True)
    (root / "classes.txt").write_text("\n".join(CLASSES))
    for number, name in enumerate(("a", "b", "c", "d", "val/e", "val/f", "g", "h")):
        put(root / "images" / f"{name}.png", encoded(picture(number), "PNG"))
        if number < 6:
            put(root / "masks" / f"{name}.png", encoded(labels(), "PNG"))
    return root


@dataclass(frozen=True)
class Bad:
    """A bad file. write: puts it, and what belongs to it, under a root. says: words of the finding."""

    path: str
    severity: str
    code: str
    says: str
    write: Callable[[Path], object]

    def __str__(self) -> str:
        return self.path


def image(path: str, severity: str, code: str, says: str, data: Callable[[], bytes]) -> Bad:
    """Return a bad image without a mask."""
    return Bad(f"images/{path}", severity, code, says, lambda root: put(root / "images" / path, data()))


def labeled(path: str, code: str, says: str, data: Callable[[], bytes]) -> Bad:
    """Return a bad image with a good mask."""

    def write(root: Path) -> None:
        put(root / "images" / path, data())
        put(root / "masks" / Path(path).with_suffix(".png"), encoded(labels(), "PNG"))

    return Bad(f"images/{path}", "error", code, says, write)


def mask(path: str, severity: str, code: str, says: str, data: Callable[[], bytes]) -> Bad:
    """Return a bad mask of a good image."""

    def write(root: Path) -> None:
        put(root / "images" / path, encoded(picture(zlib.crc32(path.encode())), "PNG"))
        put(root / "masks" / path, data())

    return Bad(f"masks/{path}", severity, code, says, write)


def rotated(orientation: int = 6) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture(100), "JPEG", exif=exif.tobytes())


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def frames(kind: str) -> bytes:
    images = [Image.fromarray(picture(number)) for number in (101, 102)]
    return encoded(images[0], kind, save_all=True, append_images=images[1:])


def bomb() -> bytes:
    """Return the header of a PNG of 20000×20000 pixels, and nothing else."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99))


def transparent() -> bytes:
    pixels = picture(103, 4)
    pixels[..., 3] = 255
    pixels[:9, :9, 3] = 0
    return encoded(pixels, "PNG")


def with_label(label: int, count: int = 7) -> bytes:
    array = labels()
    array[1, :count] = label
    return encoded(array, "PNG")


def sixteen_bit(largest: int) -> bytes:
    return encoded(Image.fromarray(np.linspace(0, largest, 40 * 56).reshape(SIZE).astype(np.uint16)), "PNG")


CORPUS: tuple[Bad, ...] = (
    image("empty.jpg", "warning", "empty-file", "is empty", lambda: b""),
    image("half.jpg", "warning", "damaged-file", "cannot be read", lambda: half(encoded(picture(104), "JPEG"))),
    image("cut.png", "warning", "damaged-file", "cannot be read", lambda: half(encoded(picture(105), "PNG"))),
    image("torn.webp", "warning", "damaged-file", "cannot be read", lambda: half(encoded(picture(106), "WEBP"))),
    labeled("cut_labeled.jpg", "damaged-file", "cannot be read", lambda: half(encoded(picture(107), "JPEG"))),
    image("words.jpg", "warning", "not-an-image", "cannot be read", lambda: b"These are words."),
    image("page.jpg", "warning", "not-an-image", "is a web page", lambda: b"<!DOCTYPE html><title>404</title>"),
    image("pointer.png", "warning", "not-an-image", "Git LFS", lambda: b"version https://git-lfs.github.com/spec/v1\n"),
    image("named.jpg", "warning", "wrong-extension", "is a PNG file", lambda: encoded(picture(108), "PNG")),
    image("bomb.png", "warning", "too-large", "100 million pixels", bomb),
    image("moving.webp", "warning", "several-frames", "several frames", lambda: frames("WEBP")),
    image("pages.tif", "warning", "several-frames", "several frames", lambda: frames("TIFF")),
    image("deep.png", "warning", "deep-image", "more than 8 bits", lambda: sixteen_bit(65535)),
    image("float.tif", "warning", "deep-image", "more than 8 bits",
          lambda: encoded(Image.fromarray(picture(109)[..., 0].astype(np.float32)), "TIFF")),
    image("print.jpg", "warning", "cmyk", "CMYK",
          lambda: encoded(Image.fromarray(picture(110)).convert("CMYK"), "JPEG")),
    image("glass.png", "warning", "alpha", "transparent", transparent),
    image("turned.jpg", "note", "exif-rotation", "rotation", rotated),
    labeled("turned_labeled.jpg", "exif-rotation", "rotation", lambda: rotated(3)),
    image("thumbnail.png", "warning", "tiny-image", "12×9", lambda: encoded(picture(111)[:9, :12], "PNG")),
    image("black.png", "warning", "blank-image", "one colour", lambda: encoded(np.zeros((*SIZE, 3), np.uint8), "PNG")),
    image("phone.heic", "warning", "unread-file", "left out", lambda: b"\0\0\0\x18ftypheic"),
    mask("jpeg.png", "error", "mask-not-png", "JPEG", lambda: encoded(labels(), "JPEG")),
    mask("colours.png", "error", "mask-in-colour", "in colour",
         lambda: encoded(np.eye(3, dtype=np.uint8)[labels() % 3] * 200, "PNG")),
    mask("layers.png", "error", "mask-in-colour", "mode RGBA", transparent),
    mask("objects.png", "error", "deep-mask", "label 33000", lambda: sixteen_bit(33000)),
    mask("small.png", "error", "size-mismatch", "is 28×20 pixels", lambda: encoded(labels((20, 28)), "PNG")),
    mask("beyond.png", "error", "label-outside", "7 pixels", lambda: with_label(3)),
    mask("nothing.png", "warning", "mask-ignored", "teaches nothing",
         lambda: encoded(np.full(SIZE, 255, np.uint8), "PNG")),
    mask("empty_mask.png", "error", "empty-file", "is empty", lambda: b""),
    mask("cut_mask.png", "error", "damaged-file", "cannot be read", lambda: half(encoded(picture(112)[..., 0], "PNG"))),
)  # fmt: skip
