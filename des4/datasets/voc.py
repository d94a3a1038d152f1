"""Pascal VOC 2012, segmentation, with SBD's masks where they are.

```
JPEGImages/2007_000032.jpg …         17,125 images, most of them for detection only
SegmentationClass/2007_000032.png …  VOC's own 2,913 masks of train and val: palette PNGs
SegmentationClassAug/…               as the field distributes SBD: index PNGs, 12,031 with those of train and val
ImageSets/Segmentation/{train,val}.txt
```

Everingham et al., IJCV 2010; Hariharan et al., ICCV 2011 (SBD). The root is that folder, or one that holds it as
`VOC2012` or `VOCdevkit/VOC2012`. An id is VOC's (`2007_000032`), and a mask is found by it: published lists write
`SegmentationClass/2007_000032.png` wherever the mask lies. Where an image has a mask in both folders, VOC's own is
read: SBD outlined some images of train and val anew, and the field trains and scores on VOC's own (its distribution of
SBD's masks holds them already).

Without lists val is VOC's, labeled is every other image with a mask (1,464; with SegmentationClassAug 10,582), and
unlabeled is what is left of train and SBD. VOC's val images are in training only if a list puts them there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from des4.datasets.class_files import CLASS_FILES
from des4.datasets.files import (
    Catalogue,
    FileDataset,
    FilesConfig,
    existing_root,
    if_file,
    scan,
    stem_of,
)
from des4.datasets.lists import read_list
from des4.datasets.masks import IndexMask
from des4.datasets.palettes import voc_palette
from des4.datasets.walk import is_hidden
from des4.types import DataError

CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)

_OWN, _AUG = "SegmentationClass", "SegmentationClassAug"
_TRAIN_LISTS = ("train", "trainaug", "train_aug")
"""Lists of ImageSets/Segmentation that name training images; VOC has the first, the others come with SBD's masks."""


class VocConfig(FilesConfig):
    """A Pascal VOC 2012 tree."""

    name: Literal["voc"] = "voc"
    masks: Literal["auto", "SegmentationClassAug", "SegmentationClass"] = "auto"
    """Which masks there are: VOC's own (`SegmentationClass`), or SBD's as well (`SegmentationClassAug`); `auto`: the
    latter if that folder is there."""
    detection_images: bool = False
    """Whether images that neither VOC nor SBD segmented are unlabeled images, where no list says which are."""


class Voc(FileDataset):
    """The data set of a VocConfig. Raises DataError as FileDataset does, and for a tree without its val list."""

    Config = VocConfig

    def __init__(self, config: VocConfig) -> None:
        root = existing_root(config, "JPEGImages/ and SegmentationClass/")
        tree = _tree(root)
        if tree is None:
            raise DataError(f"{root}: is no Pascal VOC 2012 tree; give the folder that holds JPEGImages/")
        images = scan(tree / "JPEGImages", {".jpg"})
        own, aug = (scan(tree / folder, {".png"}) for folder in (_OWN, _AUG))
        masks = own if _chosen(config, tree) == _OWN else aug | own
        val = _val(config, tree)
        train = _train_lists(tree)
        pool = {*own, *aug}.union(*train.values())
        training = (images.keys() if config.detection_images else images.keys() & pool) - set(val)
        catalogue = Catalogue(
            images=images,
            masks={sample_id: IndexMask(path) for sample_id, path in masks.items()},
            classes=CLASSES,
            palette=voc_palette(len(CLASSES)),
            labeled=sorted(masks.keys() - set(val)),
            unlabeled=sorted(training),
            val=val,
            identify=_identify,
            fine=train.get("train"),
        )
        super().__init__(config, catalogue)
        self.notes += (*_notes(config, tree, set(val) & {*self.labeled, *self.unlabeled_files}),)

    @staticmethod
    def recognises(root: Path) -> bool:
        """Whether `root` is such a tree, ids and lists included: users keep data of their own in VOC's layout too."""
        tree = _tree(root)
        return tree is not None and _holds_voc_ids(tree / "JPEGImages") and _has_lists(root, tree)


def _tree(root: Path) -> Path | None:
    """Find the folder that holds JPEGImages and masks; a labelmap.txt marks data exported by an annotation tool."""
    for tree in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
        has_masks = any((tree / folder).is_dir() for folder in (_OWN, _AUG))
        if has_masks and (tree / "JPEGImages").is_dir() and not (tree / "labelmap.txt").exists():
            return tree
    return None


def _has_lists(root: Path, tree: Path) -> bool:
    """Whether lists are there to say who is val, and no names of classes, which VOC's are known without."""
    own = any((tree / name).is_file() for name in CLASS_FILES)
    known = (tree / _AUG).is_dir() or _own_list(tree, "val").parent.is_dir() or (root / "val.txt").is_file()
    return known and not own


def _holds_voc_ids(folder: Path) -> bool:
    """Look at one image's name: VOC's are a year and a number."""
    with os.scandir(folder) as entries:
        names = (entry.name for entry in entries if not is_hidden(entry.name))
        stem = next((name[:-4] for name in names if name.endswith(".jpg")), "")
    return re.fullmatch(r"\d{4}_\d{6}", stem) is not None


def _chosen(config: VocConfig, tree: Path) -> str:
    """Name the folder of masks that the config asks for, and that is there."""
    if config.masks == "auto":
        return _AUG if (tree / _AUG).is_dir() else _OWN
    if not (tree / config.masks).is_dir():
        raise DataError(f"{tree / config.masks}: no such folder of masks; add it, or leave data.masks to 'auto'")
    return config.masks


def _val(config: VocConfig, tree: Path) -> tuple[str, ...]:
    """Return VOC's val ids. Raises DataError if nothing says which they are."""
    if path := if_file(_own_list(tree, "val")):
        return _ids(path)
    if config.val or if_file(config.root / "val.txt"):
        return ()
    raise DataError(
        f"{_own_list(tree, 'val')}: no such list, and without it VOC's val images look like training images; "
        "restore it from VOC's archive, or name a list with data.val"
    )


def _train_lists(tree: Path) -> dict[str, tuple[str, ...]]:
    return {name: _ids(path) for name in _TRAIN_LISTS if (path := if_file(_own_list(tree, name)))}


def _own_list(tree: Path, name: str) -> Path:
    return tree / "ImageSets" / "Segmentation" / f"{name}.txt"


def _ids(path: Path) -> tuple[str, ...]:
    return tuple(_identify(name) for name, _ in read_list(path))


def _identify(name: str) -> str:
    """Reduce a listed path to VOC's id: lists name images under several folders, with and without a leading slash."""
    return stem_of(name).rpartition("/")[2]


def _notes(config: VocConfig, tree: Path, val_in_training: set[str]) -> Iterator[str]:
    if config.masks == "auto" and (tree / _AUG).is_dir():
        yield f"masks: VOC's own and {_AUG}'s; data.masks={_OWN} would leave the latter out"
    if val_in_training:
        yield f"training: {len(val_in_training)} of VOC's val images are on the training lists"
