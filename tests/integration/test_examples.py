"""The scripts in examples/, on data small enough to work out by hand."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from trees import index_mask, put

from des4 import api
from des4.datasets.lists import read_list

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"

LoadScript = Callable[[str], ModuleType]


@pytest.fixture
def ratios(load_script: LoadScript) -> ModuleType:
    return load_script("examples/voc_class_ratios.py")


def test_class_ratios_by_hand(ratios: ModuleType, tmp_path: Path) -> None:
    masks = {name: put(tmp_path / f"{name}.png", index_mask(*labels)) for name, labels in
             {"a": (0, 1, 255), "b": (0, 0, 2), "c": (20, 20, 0)}.items()}  # fmt: skip
    pair = [("voc/u2pl/662", "labeled", ["a", "b"]), ("voc/u2pl/662", "unlabeled", ["c"])]
    counted = ratios.count(masks, [*pair, ("all training images", "", ["a", "b", "c"])])
    labeled = counted[0]
    assert labeled.pixels[:3].tolist() == [23 + 47, 24, 1] and labeled.pixels.sum() == 95
    assert labeled.ratio[:4].tolist() == [1 / 70, 1 / 24, 1, 0]
    assert (labeled.imbalance, labeled.by_share) == (70, [2, 1, 0])
    page = ratios.tables(counted)
    assert "| voc/u2pl/662 | labeled | 2 | 73.7 % | bicycle 1.05 % | 70 | 0.0143 | 0.00 | 18 |" in page
    assert "### voc/u2pl\n\n| class | 2: pixels | R |" in page and "| aeroplane | 24 | 0.0417 |" in page
    ratios.write_csv(tmp_path / "x.csv", counted)
    rows = list(csv.DictReader((tmp_path / "x.csv").open(encoding="utf-8")))
    assert len(rows) == 3 * 21 and rows[1]["class"] == "aeroplane" and rows[1]["pixels"] == "24"
    ratios.draw(tmp_path / "x.png", counted)
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.width > 1000 and len(np.unique(np.asarray(picture))) > 10


def test_class_ratios_name_what_is_missing(ratios: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"b\.png: no such mask"):
        ratios.count({"a": tmp_path / "a.png"}, [("x", "", ["a", "b"])])
    with pytest.raises(SystemExit, match="holds no published list"):
        list(ratios.published_lists(tmp_path))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published lists and masks are not here")
def test_the_published_table_holds_for_the_smallest_list(ratios: ModuleType) -> None:
    names = [name for name, _ in read_list(SHARED / "splits" / "pascal" / "u2pl" / "92" / "labeled.txt")]
    masks = {name: SHARED / "voc_masks" / f"{name}.png" for name in names}
    (counted,) = ratios.count(masks, [("voc/classic/92", "labeled", names)])
    rows = csv.DictReader((ROOT / "docs" / "results" / "voc_class_ratios.csv").open(encoding="utf-8"))
    told = [row for row in rows if (row["list"], row["kind"]) == ("voc/classic/92", "labeled")]
    assert [int(row["pixels"]) for row in told] == counted.pixels.tolist()
    assert [row["ratio"] for row in told] == [f"{value:.6f}" for value in counted.ratio]


def test_the_picture_of_the_readme_at_toy_size(
    load_script: LoadScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "write_report", lambda run: run.write_page(""))  # most of the time of a toy run
    tiny = ["encoder=test_efficientnet", "weights=none", "channels=8", "low_channels=8", "embedding_dim=8",
            "crop_size=33", "batch_size=2", "steps=2", "data.size=48", "data.unlabeled=2", "data.val=3"]  # fmt: skip
    picture = tmp_path / "picture.webp"
    arguments = [*tiny, "--runs", str(tmp_path / "runs"), "--out", str(picture)]
    monkeypatch.setattr(sys, "argv", ["readme_picture.py", *arguments])
    script = load_script("examples/readme_picture.py")
    script.main()
    with Image.open(picture) as drawn:
        assert drawn.format == "WEBP" and drawn.width > 4 * 300  # image, truth and two predictions
    monkeypatch.setattr(script.des4, "train", None)  # runs that are there are not trained again
    script.main()
