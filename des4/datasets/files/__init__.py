"""Data sets in files: what all formats share once a reader has found the images and the masks.

A reader (one file a format: `folder`, `voc`, …) turns a layout into a `Catalogue`, the one internal form.
`FileDataset` takes from it who is labeled, unlabeled and val (`roles`), and reads the pixels. Nothing is written into
the data. The mask of an unlabeled image is not opened, unless `reveal` allows it. Unlabeled images in tar shards come
to those in files.
"""

from des4.datasets.files.catalogue import Catalogue, Mask, Oddity
from des4.datasets.files.config import NAME_LISTS, FilesConfig, spread
from des4.datasets.files.dataset import FileDataset, numbered_classes
from des4.datasets.files.finding import composed, existing_root, if_file, is_writable, scan, stem_of
from des4.datasets.files.roles import TEST_FOLDERS, VAL_FOLDERS, share_for_val, split_of

__all__ = [
    "NAME_LISTS",
    "TEST_FOLDERS",
    "VAL_FOLDERS",
    "Catalogue",
    "FileDataset",
    "FilesConfig",
    "Mask",
    "Oddity",
    "composed",
    "existing_root",
    "if_file",
    "is_writable",
    "numbered_classes",
    "scan",
    "share_for_val",
    "split_of",
    "spread",
    "stem_of",
]
