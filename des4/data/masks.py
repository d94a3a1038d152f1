"""Masks in image files: class indices, or colours that stand for classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from des4.data.images import check_mask_format, read_header, read_mask


@dataclass(frozen=True)
class IndexMask:
    """A single-channel or palette PNG of class indices, 255 = ignore.

    table: (256,) uint8, what each stored value means; None: itself. Cityscapes' raw ids become train ids so.
    """

    path: Path
    table: Tensor | None = None

    def size(self) -> tuple[int, int]:
        """Return (height, width) from the header. Raises DataError unless the file is such a PNG."""
        header = read_header(self.path)
        check_mask_format(self.path, header)
        return header.size

    def read(self) -> Tensor:
        """Read it, (H, W) uint8. Raises DataError."""
        label = read_mask(self.path)
        return label if self.table is None else self.table[label.int()]
