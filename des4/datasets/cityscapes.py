"""Cityscapes: 5,000 street scenes, 19 of the 34 annotated classes.

```
leftImg8bit/{train,val,test,train_extra}/<city>/<city>_<sequence>_<frame>_leftImg8bit.png
gtFine/{train,val}/<city>/<city>_<sequence>_<frame>_gtFine_{labelIds,labelTrainIds}.png
```

Cordts et al., CVPR 2016. Names, numbers and colours are those of mcordts/cityscapesScripts (helpers/labels.py).
An id is `train/<city>/<city>_<sequence>_<frame>`, and the mask is found by it, whichever file a list names:
`labelTrainIds` where it is there, else `labelIds`, whose numbers become the 19 classes here. Both give the same labels.
Licence plates (number −1) are drawn in neither: those pixels have the class of the vehicle.

Without lists labeled is `train`, val is `val`, and unlabeled whatever of `train` has no mask, with `train_extra` if
asked. `test` has no public labels; its images are read only if a list names them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from des4.datasets.files import Catalogue, FileDataset, FilesConfig, existing_root, scan, stem_of
from des4.datasets.masks import IndexMask, Table, table_of_numbers
from des4.types import IGNORE, DataError

_CLASSES = (
    (7, "road", (128, 64, 128)),
    (8, "sidewalk", (244, 35, 232)),
    (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)),
    (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
)
"""Number in labelIds, name and colour of each class, in the order of the train ids 0-18."""

_NUMBERS = 34
"""labelIds holds 0-33; what is no class above is void, or too rare to be scored."""


class CityscapesConfig(FilesConfig):
    """A Cityscapes tree."""

    name: Literal["cityscapes"] = "cityscapes"
    train_extra: bool = False
    """Whether the images of `train_extra` (19,998) are unlabeled images, where no list says which are."""


class Cityscapes(FileDataset):
    """The data set of a CityscapesConfig. Raises DataError as FileDataset does."""

    Config = CityscapesConfig

    def __init__(self, config: CityscapesConfig) -> None:
        root = existing_root(config, "leftImg8bit/ and gtFine/", ("leftImg8bit", "gtFine"))
        images = scan(root / "leftImg8bit", {".png"}, strip="_leftImg8bit")
        masks = {split: _masks(root / "gtFine", split) for split in ("train", "val")}
        pools = ("train", "train_extra") if config.train_extra else ("train",)
        if missing := [pool for pool in pools if not (root / "leftImg8bit" / pool).is_dir()]:
            raise DataError(f"{root / 'leftImg8bit' / missing[0]}: no such folder; restore it from Cityscapes' archive")
        catalogue = Catalogue(
            images=images,
            masks=masks["train"] | masks["val"],
            classes=tuple(name for _, name, _ in _CLASSES),
            palette=tuple(colour for _, _, colour in _CLASSES),
            labeled=sorted(masks["train"]),
            unlabeled=[sample_id for sample_id in images if sample_id.split("/")[0] in pools],
            val=sorted(masks["val"]),
            identify=_identify,
        )
        super().__init__(config, catalogue)

    @staticmethod
    def recognises(root: Path) -> bool:
        """Whether `root` is laid out like this."""
        return (root / "leftImg8bit").is_dir() and (root / "gtFine").is_dir()


def _masks(folder: Path, split: str) -> dict[str, IndexMask]:
    """Find the masks of a split; labelTrainIds goes before labelIds, for it needs no translation."""
    numbers, train_ids = (
        scan(folder / split, {".png"}, strip=f"_gtFine_{kind}") for kind in ("labelIds", "labelTrainIds")
    )
    found = {stem: IndexMask(path, _TRAIN_IDS) for stem, path in numbers.items()}
    found |= {stem: IndexMask(path) for stem, path in train_ids.items()}
    return {f"{split}/{stem}": mask for stem, mask in found.items()}


def _identify(name: str) -> str:
    return stem_of(name).removeprefix("/").removeprefix("leftImg8bit/").removesuffix("_leftImg8bit")


def _train_ids() -> Table:
    classes = {number: index for index, (number, _, _) in enumerate(_CLASSES)}
    return table_of_numbers({IGNORE: IGNORE} | dict.fromkeys(range(_NUMBERS), IGNORE) | classes)


_TRAIN_IDS = _train_ids()
