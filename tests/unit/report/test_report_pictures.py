from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from des4.report.pictures import NEUTRAL, colourise, grid, overlay

PALETTE = ((10, 0, 0), (0, 200, 0))
LABEL = np.array([[0, 1], [255, 7]], dtype=np.uint8)
IMAGE = np.full((2, 2, 3), 100, dtype=np.uint8)


def test_colourise_gives_each_class_its_colour_and_everything_else_the_neutral_one() -> None:
    colours = colourise(LABEL, PALETTE)
    assert colours.dtype == np.uint8
    assert colours.tolist() == [[[10, 0, 0], [0, 200, 0]], [list(NEUTRAL), list(NEUTRAL)]]
    assert colourise(np.array([[-1]]), PALETTE).tolist() == [[list(NEUTRAL)]]


def test_overlay_blends_labeled_pixels_and_leaves_the_others() -> None:
    assert overlay(IMAGE, LABEL, PALETTE, 0.25).tolist() == [[[78, 75, 75], [75, 125, 75]], [[100] * 3, [100] * 3]]
    assert (overlay(IMAGE, LABEL, PALETTE, 0) == IMAGE).all()


def test_grid_holds_every_picture_and_the_colours_of_its_legend(tmp_path: Path) -> None:
    rows = [[IMAGE, LABEL, LABEL], [np.zeros((30, 50, 3), np.uint8), np.ones((30, 50), np.int64), np.zeros((30, 50))]]
    columns = ["image", "truth", "prediction"]
    grid([[r[0], r[1], r[2].astype(int)] for r in rows], columns, PALETTE, ["a", "<b>"], tmp_path / "x.png", ["1", "2"])
    with Image.open(tmp_path / "x.png") as sheet:
        colours = {colour for _, colour in sheet.getcolors(1 << 24)}
        assert sheet.width > sheet.height / 2 > 100
    assert {*PALETTE, (100, 100, 100)} <= colours


def test_grid_refuses_rows_that_do_not_fit_its_columns(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rows of 2"):
        grid([[IMAGE]], ["image", "truth"], PALETTE, ["a", "b"], tmp_path / "x.png")
    with pytest.raises(ValueError, match="1 captions for 2 rows"):
        grid([[IMAGE], [IMAGE]], ["image"], PALETTE, ["a", "b"], tmp_path / "x.png", ["one"])
