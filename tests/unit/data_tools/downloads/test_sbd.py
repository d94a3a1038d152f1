"""SegmentationClassAug from SBD's archive: VOC's own masks where there are some, SBD's for all other images."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mat_files import mat_file, sbd_mask
from PIL import Image
from trees import SIZE, VOC_SBD, VOC_TRAIN, VOC_VAL, voc_tree

from des4.data_tools.downloads import sbd
from des4.data_tools.downloads.sbd import read_labels, require_scipy, write_augmented_masks
from des4.datasets.palettes import voc_palette
from des4.images.pictures import read_mask
from des4.types import DataError

MASKS = Path(__file__).parents[5] / "shared" / "data" / "voc_masks"


def archive_of(path: Path, masks: dict[str, bytes]) -> Path:
    """Pack masks as SBD's benchmark.tgz does, between files that nobody needs."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        others = {f"dataset/img/{name}.jpg": b"image" for name in masks} | {
            "benchmark_code_RELEASE/demo/datadir/cls/2008_000051.mat": b""
        }
        for name, data in {**others, **{f"dataset/cls/{name}.mat": data for name, data in masks.items()}}.items():
            info = tarfile.TarInfo(f"benchmark_RELEASE/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    path.write_bytes(gzip.compress(buffer.getvalue()))
    return path


def labels(first: int) -> np.ndarray:  # type: ignore[type-arg]
    """A mask in which no two neighbours and no two corners are equal, so that a turned one is noticed."""
    return ((np.arange(SIZE[0] * SIZE[1]).reshape(SIZE) + first) % 21).astype(np.uint8)


def test_the_rule(tmp_path: Path) -> None:
    voc_tree(tmp_path / "voc", aug=False)
    ids = (*VOC_SBD, VOC_TRAIN[0], VOC_VAL[0])  # SBD outlined some images of train and val as well
    archive = archive_of(tmp_path / "sbd.tgz", {name: sbd_mask(labels(i)) for i, name in enumerate(ids)})
    written = write_augmented_masks(archive, tmp_path / "voc", tmp_path / "aug")
    assert sorted(written) == sorted(f"{name}.png" for name in (*VOC_TRAIN, *VOC_VAL, *VOC_SBD))
    assert sorted(written) == sorted(path.name for path in (tmp_path / "aug").iterdir())
    for i, name in enumerate(VOC_SBD):
        assert read_mask(tmp_path / "aug" / f"{name}.png").tolist() == labels(i).tolist()
    for name in (*VOC_TRAIN, *VOC_VAL):
        own = tmp_path / "voc" / "SegmentationClass" / f"{name}.png"
        assert (tmp_path / "aug" / f"{name}.png").read_bytes() == own.read_bytes()


def test_masks_are_palette_pngs_in_vocs_colours(tmp_path: Path) -> None:
    voc_tree(tmp_path / "voc", aug=False)
    archive = archive_of(tmp_path / "sbd.tgz", {VOC_SBD[0]: sbd_mask(labels(0))})
    write_augmented_masks(archive, tmp_path / "voc", tmp_path / "aug")
    with Image.open(tmp_path / "aug" / f"{VOC_SBD[0]}.png") as image:
        assert image.mode == "P"
        colours = np.array(image.convert("RGB")).reshape(-1, 3)
        assert colours.tolist() == [list(voc_palette(21)[label]) for label in labels(0).flatten()]


def test_masks_that_cannot_be(tmp_path: Path) -> None:
    voc_tree(tmp_path / "voc", aug=False)
    for number, (mask, reason) in enumerate(
        (
            (sbd_mask(labels(0).T.copy()), r"\(8, 6\) in height and width"),
            (sbd_mask(labels(0) + 1), "no mask of the 21 classes"),
            (b"", "holds no readable GTcls.Segmentation"),
        )
    ):
        archive = archive_of(tmp_path / "sbd.tgz", {VOC_SBD[0]: mask})
        with pytest.raises(DataError, match=reason) as error:
            write_augmented_masks(archive, tmp_path / "voc", tmp_path / f"aug{number}")
        assert f"dataset/cls/{VOC_SBD[0]}.mat" in str(error.value)


def refusal(data: bytes) -> str:
    with pytest.raises(DataError) as error:
        read_labels(data, "file.mat")
    (message,) = str(error.value).splitlines()
    assert message.startswith("file.mat: holds no readable GTcls.Segmentation (")
    return message


def test_files_without_a_mask() -> None:
    for data in (
        b"\x89HDF\r\n\x1a\n" + b"\0" * 200,
        mat_file(),
        mat_file(GTinst={"Segmentation": labels(0)}),
        mat_file(GTcls={"Boundaries": labels(0)}),
        mat_file(GTcls=labels(0)),
    ):
        refusal(data)
    assert "no array of whole numbers" in refusal(mat_file(GTcls={"Segmentation": np.eye(3) / 2}))
    assert "no array of whole numbers" in refusal(mat_file(GTcls={"Segmentation": np.empty((0, 0), np.uint8)}))


def test_damaged_files() -> None:
    data = sbd_mask(labels(0))
    assert read_labels(data, "file.mat").tolist() == labels(0).tolist()
    for length in (130, 140, len(data) // 2):
        refusal(data[:length])
    refusal(data[:150] + bytes([data[150] ^ 1]) + data[151:])


@given(st.binary(max_size=200), st.booleans())
def test_noise_ends_in_one_line(noise: bytes, headed: bool) -> None:
    refusal(mat_file()[:128] + noise if headed else noise)


def test_without_scipy_nothing_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    require_scipy()
    monkeypatch.setattr(sbd, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"des4\[voc\]"):
        require_scipy()


def test_an_archive_of_something_else(tmp_path: Path) -> None:
    voc_tree(tmp_path / "voc", aug=False)
    with pytest.raises(DataError, match=r"is it SBD's benchmark\.tgz"):
        write_augmented_masks(archive_of(tmp_path / "x.tgz", {}), tmp_path / "voc", tmp_path / "aug")


@pytest.mark.skipif(not MASKS.is_dir(), reason="the masks of VOC are not here")
def test_the_rule_is_that_of_the_masks_in_use() -> None:
    """VOC's own masks have 255 along the outlines, SBD's have none: 2,913 and 9,118 in the field's distribution."""
    paths = sorted(MASKS.iterdir())
    assert len(paths) == 12_031
    sample = paths[::40]
    own = [path for path in sample if bool((read_mask(path) == 255).any())]
    lists = MASKS.parent / "splits" / "pascal" / "unimatch"
    named = {
        Path(line.split()[0]).stem
        for file in (lists / "1464" / "labeled.txt", lists / "val.txt")
        for line in file.open()
    }
    assert {path.stem for path in own} == {path.stem for path in sample} & named
    assert own
