"""One sample looked at: its image decoded, its mask counted, and whatever is wrong or odd about either."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from des4.data_tools.checks.findings import Finding, Severity, from_error
from des4.datasets.files import FileDataset, Mask
from des4.datasets.masks import IndexMask
from des4.images.bands import UnlikeOthersError
from des4.images.pictures import IMAGE_SUFFIXES, MAX_PIXELS, Header, decode_header, opened
from des4.images.tiff import bits_of, is_picture, tags_of
from des4.types import DataError

Role = Literal["labeled", "val", "unlabeled"]

TINY = 32
"""Pixels of a short side below which an image is called very small: two cells of a map at stride 16."""

_FORMATS = {
    ".jpg": {"JPEG", "MPO"},
    ".jpeg": {"JPEG", "MPO"},
    ".png": {"PNG"},
    ".bmp": {"BMP", "DIB"},
    ".tif": {"TIFF"},
    ".tiff": {"TIFF"},
    ".webp": {"WEBP"},
}
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\x00", b"MM\x00*", b"RIFF")
_DEEP = ("I", "F")  # modes that begin so hold more than 8 bits a channel


@dataclass(frozen=True)
class Look:
    """What one sample showed.

    size: (height, width) of the image, upright; None if it cannot be read. digest: of its pixels; None if they are all
    of one colour. labels: pixels of each label 0..255 of the mask. mask_digest: of these labels in their places.
    colours: of the labels of a palette mask.
    """

    sample_id: str
    role: Role
    findings: tuple[Finding, ...] = ()
    size: tuple[int, int] | None = None
    digest: bytes | None = None
    labels: tuple[int, ...] | None = None
    mask_digest: bytes | None = None
    colours: dict[int, tuple[int, int, int]] = field(default_factory=dict)


def refusal(dataset: FileDataset, role: Role) -> Severity:
    """How bad a sample is that cannot be read: a training skips unlabeled ones, and labeled ones if it may."""
    return "warning" if role == "unlabeled" or (role == "labeled" and dataset.skip_broken) else "error"


def look(dataset: FileDataset, sample_id: str, role: Role) -> Look:
    """Read a sample; the mask of an unlabeled one is not opened."""
    findings: list[Finding] = []
    header, size, digest = _look_at_image(dataset, sample_id, role, findings)
    turned = "EXIF asks for a rotation; the image is turned upright when read"
    if role == "unlabeled":
        if header is not None and header.rotated:
            findings.append(Finding("note", "exif-rotation", dataset.image_file(sample_id), turned))
        return Look(sample_id, role, tuple(findings), size, digest)
    mask = dataset.mask(sample_id)
    try:
        label = mask.read()
    except DataError as error:
        findings.append(replace(_mask_failure(mask, error), severity=refusal(dataset, role)))
        return Look(sample_id, role, tuple(findings), size, digest)
    misfits = [*_misfit(dataset, sample_id, role, header, tuple(label.shape))] if header is not None else []
    if header is not None and header.rotated and not misfits:
        drawn = "which its mask is already" if dataset.orientation(sample_id) == 1 else "and its mask with it"
        findings.append(Finding("note", "exif-rotation", dataset.image_file(sample_id), f"{turned}, {drawn}"))
    findings += misfits
    findings += [
        Finding("warning", odd.code, mask.path, f"on {dataset.image_file(sample_id).name} {odd.message}", odd.remedy)
        for odd in mask.oddities()
    ]
    # Pillow counts without a copy of eight bytes a pixel, which bincount would need.
    labels = tuple(Image.fromarray(label.contiguous().numpy()).histogram())
    colours = _colours(mask, labels)
    return Look(sample_id, role, tuple(findings), size, digest, labels, _digest(label.contiguous().numpy()), colours)


# ── images ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _look_at_image(
    dataset: FileDataset, sample_id: str, role: Role, findings: list[Finding]
) -> tuple[Header | None, tuple[int, int] | None, bytes | None]:
    """Return header, size and digest of an image, or None, and add what is wrong with it to `findings`."""
    path = dataset.image_file(sample_id)
    refused = refusal(dataset, role)
    try:
        data = dataset.image_bytes(sample_id)
    except DataError as error:
        findings.append(from_error(refused, "missing-file", error, path))
        return None, None, None
    try:
        pixels, header = dataset.decode(path, data), dataset.header(path, data)
    except DataError as error:
        findings.append(_image_failure(refused, path, data, error))
        return None, None, None
    if dataset.chosen is None:
        findings += _oddities(path, data, header)
    height, width = pixels.shape[1:]
    if min(height, width) < TINY:
        remedy = "is it a thumbnail? use the original"
        findings.append(Finding("warning", "tiny-image", path, f"is {width}×{height} pixels", remedy))
    values = pixels.permute(1, 2, 0).numpy()
    if (values == values[:1, :1]).all():
        remedy = "replace the image or take it out"
        findings.append(Finding("warning", "blank-image", path, "all pixels have one colour", remedy))
        return header, (height, width), None
    return header, (height, width), _digest(values)


def _oddities(path: Path, data: bytes, header: Header) -> Iterator[Finding]:
    """Yield what is odd about an image that can be read."""
    if header.format not in _FORMATS.get(path.suffix.lower(), {header.format}):
        yield _wrong_extension(path, header.format)
    if header.mode == "CMYK":
        yield Finding(
            "warning", "cmyk", path, "has colours for printing (CMYK), turned into RGB without a colour profile",
            "save it as RGB with a program that knows the profile",
        )  # fmt: skip
    picture = Image.open(io.BytesIO(data))
    if picture.has_transparency_data:
        lowest: Any = picture.convert("RGBA").getchannel("A").getextrema()[0]
        if lowest < 255:
            yield Finding(
                "warning", "alpha", path, "has transparent pixels, whose hidden colour will be seen",
                "save it without transparency, on the background you want",
            )  # fmt: skip


def _image_failure(severity: Severity, path: Path, data: bytes, error: DataError) -> Finding:
    """Say of which kind the failure to decode an image is."""
    code = "other-bands" if isinstance(error, UnlikeOthersError) else _failure(path, data)
    finding = from_error(severity, code, error, path)
    if finding.code == "empty-file":
        return Finding(severity, "empty-file", path, "is empty", finding.remedy)
    if finding.code == "too-large":
        text = f"has more than {MAX_PIXELS // 10**6} million pixels"
        return Finding(severity, "too-large", path, text, "cut it into tiles")
    if finding.code == "not-an-image":
        start = data[:512].lstrip().lower()
        if start.startswith(b"version https://git-lfs"):
            return Finding(severity, "not-an-image", path, "is a Git LFS pointer, not the image", "run `git lfs pull`")
        if start.startswith((b"<!doctype", b"<html")):
            return Finding(severity, "not-an-image", path, "is a web page", "download the image itself")
    return finding


def _failure(path: Path, data: bytes) -> str:
    """Name the kind of damage of a file that cannot be decoded."""
    if not data:
        return "empty-file"
    if (tags := tags_of(data)) and not is_picture(tags):
        return "deep-image" if bits_of(tags) > 8 else "other-bands"
    try:
        picture = Image.open(io.BytesIO(data))
        frames = getattr(picture, "n_frames", 1)
    except Image.DecompressionBombError:
        return "too-large"
    except Exception:  # decoders raise anything on damaged files
        return "damaged-file" if data.startswith(_SIGNATURES) else "not-an-image"
    if picture.width * picture.height > MAX_PIXELS:
        return "too-large"
    if frames > 1 and picture.format != "MPO":
        return "several-frames"
    try:
        return "deep-image" if decode_header(path, data).bits > 8 else "damaged-file"
    except DataError:
        return "damaged-file"


def _wrong_extension(path: Path, found: str) -> Finding:
    return Finding(
        "warning", "wrong-extension", path, f"is a {found} file, whatever its name says",
        "give it the extension of its format: other programs go by the name",
    )  # fmt: skip


# ── masks ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _misfit(
    dataset: FileDataset, sample_id: str, role: Role, header: Header, size: tuple[int, ...]
) -> Iterator[Finding]:
    """Yield the finding if a mask, which can be read, does not fit its image, which can be read too.

    size: of the mask.
    """
    severity = refusal(dataset, role)
    try:
        dataset.check_sample(sample_id)
    except DataError as error:
        if size == header.size == header.upright:  # it would fit, turned or not
            yield from_error(severity, "exif-rotation", error, dataset.image_file(sample_id))
            return
        finding = from_error(severity, "size-mismatch", error, dataset.mask(sample_id).path)
        remedy = "width and height are swapped: turn the mask, or save it again"
        yield replace(finding, remedy=remedy) if size == header.upright[::-1] else finding


def _mask_failure(mask: Mask, error: DataError) -> Finding:
    """Say of which kind the failure to read a mask is."""
    path = mask.path
    if not path.is_file():
        return from_error("error", "missing-file", error, path)
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return from_error("error", "bad-mask", error, path)
    data = path.read_bytes()
    try:
        picture = opened(path, data)
        frames = getattr(picture, "n_frames", 1)
        fits = picture.width * picture.height <= MAX_PIXELS
        if fits:
            picture.load()
    except Exception:  # decoders raise anything on damaged files
        return _image_failure("error", path, data, error)
    if not fits or (frames > 1 and picture.format != "MPO"):
        return _image_failure("error", path, data, error)
    finding = from_error("error", "bad-mask", error, path)
    if picture.format != "PNG":
        return replace(finding, code="mask-not-png")
    if not isinstance(mask, IndexMask):
        return finding
    if picture.mode.startswith(_DEEP):
        remedy = "are these numbers of objects (instances)? export one number a class; "
        remedy += "if they are classes, name them in data.values; " * (mask.table is None) + finding.remedy
        return replace(finding, code="deep-mask", remedy=remedy)
    if picture.mode not in ("1", "L", "P"):
        return replace(finding, code="mask-in-colour", remedy=_colour_remedy(picture))
    return finding


def _colour_remedy(picture: Image.Image) -> str:
    """Say what a mask in colour looks like, and what that asks for."""
    counted = picture.convert("RGB").getcolors(256)
    if counted is None:
        return "it holds more than 256 colours, as a photograph or an overlay does: export the class indices"
    colours: list[Any] = [colour for _, colour in counted]
    if all(red == green == blue for red, green, blue in colours):
        return "its channels are equal but for the transparency, so save it without"
    shown = ", ".join(f"{red} {green} {blue}" for red, green, blue in sorted(colours)[:3])
    return (
        f"its {len(colours)} colours seem to stand for classes: write each class with its colour into classes.txt, as "
        f"`road 128 64 128` (here are {shown}{', …' * (len(colours) > 3)})"
    )


def _colours(mask: Mask, labels: tuple[int, ...]) -> dict[int, tuple[int, int, int]]:
    """Return the colours that a palette mask gives to the labels it holds, if no other of them has the same."""
    if not isinstance(mask, IndexMask) or mask.table is not None:
        return {}
    with Image.open(mask.path) as picture:
        flat = picture.getpalette("RGB") if picture.mode == "P" else None
    if flat is None:
        return {}
    used = (label for label, count in enumerate(labels) if count and 3 * label + 2 < len(flat))
    colours = {label: (flat[3 * label], flat[3 * label + 1], flat[3 * label + 2]) for label in used}
    often = Counter(colours.values())
    return {label: colour for label, colour in colours.items() if often[colour] == 1}


def _digest(array: NDArray[Any]) -> bytes:
    """Hash an array with its shape."""
    hashed = blake2b(repr(array.shape).encode(), digest_size=16)
    hashed.update(np.ascontiguousarray(array).data)
    return hashed.digest()
