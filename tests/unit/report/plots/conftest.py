"""What a diagram that has been written looks like."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def is_picture() -> Callable[[Path], bool]:
    """Return what says whether a file is a PNG with something drawn on it."""

    def look(path: Path) -> bool:
        with Image.open(path) as image:
            return image.format == "PNG" and min(image.size) > 200 and len(set(image.convert("L").tobytes())) > 5

    return look
