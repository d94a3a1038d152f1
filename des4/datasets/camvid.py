"""CamVid as Cambridge distributes it: 701 frames of five drives, masks in 32 colours, read as the field's 11 classes.

```
701_StillsRaw_full/0001TP_006690.png      960×720
LabeledApproved_full/0001TP_006690_L.png  the same size, one colour a class
```

Brostow et al., Pattern Recognition Letters 2009. Grouping and split are those of the 11-class form that came with
SegNet (Badrinarayanan et al., TPAMI 2017), 480×360 pixels, which is a plain `folder` data set. Its authors did not
write the grouping down, and several circulate. Here is the one of Kundu et al., CVPR 2016: those masks too leave
bridges, prams and trolleys without a class. They have not been compared pixel by pixel.

The split of the frames is 367 for training, 101 val, 233 test: test is `Seq05VD` and the second half of `0001TP`, val
is the part of `0016E5` that was annotated at 15 Hz.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from des4.datasets.files import Catalogue, FileDataset, FilesConfig, existing_root, scan, stem_of
from des4.datasets.masks import Colour, ColourMask, table_of_colours
from des4.types import IGNORE, DataError

Split = Literal["train", "val", "test"]

_IMAGES, _MASKS = "701_StillsRaw_full", "LabeledApproved_full"

_CLASSES: dict[str, dict[str, Colour]] = {
    "sky": {"Sky": (128, 128, 128)},
    "building": {"Building": (128, 0, 0), "Wall": (64, 192, 0)},
    "pole": {"Column_Pole": (192, 192, 128)},
    "road": {
        "Road": (128, 64, 128),
        "LaneMkgsDriv": (128, 0, 192),
        "LaneMkgsNonDriv": (192, 0, 64),
        "RoadShoulder": (128, 128, 192),
    },
    "pavement": {"Sidewalk": (0, 0, 192), "ParkingBlock": (64, 192, 128)},
    "tree": {"Tree": (128, 128, 0), "VegetationMisc": (192, 192, 0)},
    "sign": {"SignSymbol": (192, 128, 128), "Misc_Text": (128, 128, 64), "TrafficLight": (0, 64, 64)},
    "fence": {"Fence": (64, 64, 128)},
    "car": {"Car": (64, 0, 128), "SUVPickupTruck": (64, 128, 192), "Truck_Bus": (192, 128, 192)},
    "pedestrian": {"Pedestrian": (64, 64, 0)},
    "bicyclist": {"Bicyclist": (0, 128, 192), "MotorcycleScooter": (192, 0, 192)},
}
"""The 11 classes, each with the original classes in it and their colours; the first colour is the class's own."""

_NO_CLASS: dict[str, Colour] = {
    "Void": (0, 0, 0),
    "Animal": (64, 128, 64),
    "Archway": (192, 0, 128),
    "Bridge": (0, 128, 64),
    "CartLuggagePram": (64, 0, 192),
    "Child": (192, 128, 64),
    "OtherMoving": (128, 64, 64),
    "TrafficCone": (0, 0, 64),
    "Train": (192, 64, 128),
    "Tunnel": (64, 0, 64),
}
"""Original classes that are ignored."""


class CamvidConfig(FilesConfig):
    """A CamVid tree in its original form."""

    name: Literal["camvid"] = "camvid"
    val_split: Literal["val", "test"] = "val"
    """Which frames are scored, 101 of `val` or 233 of `test`; neither is ever trained on unless a list says so."""


class Camvid(FileDataset):
    """The data set of a CamvidConfig. Raises DataError as FileDataset does, and for a file that is no CamVid frame."""

    Config = CamvidConfig

    def __init__(self, config: CamvidConfig) -> None:
        root = existing_root(config, f"{_IMAGES}/ and {_MASKS}/", (_IMAGES, _MASKS))
        images = scan(root / _IMAGES, {".png"})
        masks = scan(root / _MASKS, {".png"}, strip="_L")
        splits = {sample_id: _split(sample_id, path) for sample_id, path in images.items()}
        table = table_of_colours(_meanings())
        catalogue = Catalogue(
            images=images,
            masks={sample_id: ColourMask(path, table) for sample_id, path in masks.items()},
            classes=tuple(_CLASSES),
            palette=tuple(next(iter(group.values())) for group in _CLASSES.values()),
            labeled=[sample_id for sample_id in masks if splits.get(sample_id) == "train"],
            unlabeled=[sample_id for sample_id, split in splits.items() if split == "train"],
            val=[sample_id for sample_id in masks if splits.get(sample_id) == config.val_split],
            identify=_identify,
        )
        super().__init__(config, catalogue)

    @staticmethod
    def recognises(root: Path) -> bool:
        """Whether `root` is laid out like this."""
        return (root / _IMAGES).is_dir() and (root / _MASKS).is_dir()


def _split(sample_id: str, path: Path) -> Split:
    """Say from its sequence and number in which split a frame is. Raises DataError if it is none of CamVid's."""
    frame = re.fullmatch(r"(0001TP|0006R0|0016E5|Seq05VD)_f?(\d+)", sample_id)
    if frame is None:
        raise DataError(f"{path}: is not named as a frame of CamVid; keep other pictures in a folder of their own")
    sequence, number = frame[1], int(frame[2])
    if sequence == "Seq05VD" or (sequence == "0001TP" and number > 8520):
        return "test"
    return "val" if sequence == "0016E5" and 7959 <= number <= 8159 else "train"


def _identify(name: str) -> str:
    """Reduce a listed path to the frame's name."""
    return stem_of(name).rpartition("/")[2].removesuffix("_L")


def _meanings() -> dict[Colour, int]:
    meanings = dict.fromkeys(_NO_CLASS.values(), IGNORE)
    for index, group in enumerate(_CLASSES.values()):
        meanings |= dict.fromkeys(group.values(), index)
    return meanings
