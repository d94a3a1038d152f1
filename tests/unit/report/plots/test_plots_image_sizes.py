from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from des4.report.plots.image_sizes import sizes as draw


@pytest.mark.parametrize("sides", [[(1, 1), (2, 1)], [(100, 200), (4000, 3000), (4000, 3001)]])
def test_sizes_are_drawn(tmp_path: Path, sides: list[tuple[int, int]]) -> None:
    sizes = [{"width": width, "height": height, "images": 3} for width, height in sides]
    draw(sizes, tmp_path / "sizes.png")
    drawn = np.asarray(Image.open(tmp_path / "sizes.png").convert("RGB"))
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 20
