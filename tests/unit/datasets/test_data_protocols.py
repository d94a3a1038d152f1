"""Published lists: their table, how they are found, and what a data set says of them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trees import CITYSCAPES, TREES

from des4.config import load_config
from des4.datasets import FORMATS, Folder, FolderConfig, open_files
from des4.datasets.lists import content_hash, read_list, sample_name
from des4.datasets.protocols import (
    FAMILIES,
    PROTOCOLS,
    VAL_LISTS,
    Protocol,
    describe_lists,
    find_lists,
    list_hash,
    read_lists,
    recognise_lists,
    require_protocol,
)
from des4.types import ConfigError, DataError

SPLITS = Path(__file__).parents[4] / "shared" / "data" / "splits"
needs_splits = pytest.mark.skipif(not SPLITS.is_dir(), reason="the published lists are not here")
PUBLISHED = sorted(SPLITS.rglob("*.txt"))
PROTOCOL_OF = ("pascal", "cityscapes")
"""Data sets whose lists belong to a protocol; those of others were drawn by nobody who published them."""


def names(path: Path) -> tuple[str, ...]:
    return tuple(name for name, _ in read_list(path))


# ── names and hashes ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "form",
    [
        "jena_000032_000019",
        "leftImg8bit/train/jena/jena_000032_000019_leftImg8bit.png",
        "/images/train/jena_000032_000019.PNG",
        "images/train/jena_000032_000019_leftImg8bit.png",
    ],
)
def test_a_sample_has_one_name_in_every_form(form):
    assert sample_name(form) == "jena_000032_000019"


def test_only_image_suffixes_are_dropped():
    assert sample_name("train/photo.v2") == "photo.v2"
    assert sample_name("train/photo.v2.jpg") == "photo.v2"


def test_the_hash_of_a_list_is_that_of_its_sorted_sample_names():
    assert list_hash(["JPEGImages/b.jpg", "a"]) == content_hash(["a", "b"])


# ── the table ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_protocol_has_a_family_and_hashes_of_its_own():
    assert {protocol.family for protocol in PROTOCOLS.values()} == set(FAMILIES)
    hashes = [h for p in PROTOCOLS.values() for h in (p.labeled_hash, p.unlabeled_hash)]
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in (*hashes, *(h for _, h in VAL_LISTS.values())))
    assert len(set(hashes)) == len(hashes)
    assert all(source for family in FAMILIES.values() for source in family.sources)


def test_the_fractions_of_the_paper_are_there():
    counts = {family: [p.labeled for p in PROTOCOLS.values() if p.family == family] for family in FAMILIES}
    assert counts["voc/classic"] == [92, 183, 366, 732, 1464]
    assert counts["voc/u2pl"] == counts["voc/blended"] == [662, 1323, 2646, 5291]
    assert 331 in counts["voc/usrn"]
    assert counts["cityscapes/u2pl"] == counts["cityscapes/cps"] == [186, 372, 744, 1488]
    assert PROTOCOLS["voc/u2pl/1323"].unlabeled == 9259
    assert PROTOCOLS["cityscapes/u2pl/1488"].unlabeled == 1487


def test_fine_images_are_those_of_the_familys_rule():
    fine = {name: p.fine for name, p in PROTOCOLS.items()}
    assert all(p.fine == min(p.labeled, 1464) for p in PROTOCOLS.values() if p.family in ("voc/classic", "voc/u2pl"))
    assert [fine[f"voc/blended/{n}"] for n in (662, 1323, 2646, 5291)] == [93, 193, 388, 742]
    assert [fine[f"voc/usrn/{n}"] for n in (165, 331, 662)] == [18, 39, 85]
    assert all(p.fine is None for p in PROTOCOLS.values() if p.name.startswith("cityscapes"))


# ── published lists, as they are ─────────────────────────────────────────────────────────────────────────────────────


@needs_splits
def test_every_published_list_is_read_unchanged():
    assert len(PUBLISHED) > 60
    assert dict(read_lists(SPLITS, range(20_000))) == {path: names(path) for path in PUBLISHED}
    assert [path.parent.name for path, _ in read_lists(SPLITS, [92])] == ["1_4", "92", "92"]
    for path in PUBLISHED:
        lines = path.read_text().split("\n")
        lines = lines[:-1] if lines[-1] == "" else lines  # some end with a newline, some do not
        entries = read_list(path)
        assert len(entries) == len(lines), path
        for line, (image, mask) in zip(lines, entries, strict=True):
            assert line == (image if mask is None else f"{image} {mask}"), path
            assert sample_name(image) in image


@needs_splits
@pytest.mark.parametrize(
    "folder", [path.parent.relative_to(SPLITS).as_posix() for path in PUBLISHED if path.name == "labeled.txt"]
)
def test_every_published_pair_of_lists_is_recognised(folder: str):
    """The folder of a list says its family and size; a set of images that two groups publish has one name."""
    labeled, unlabeled = names(SPLITS / folder / "labeled.txt"), names(SPLITS / folder / "unlabeled.txt")
    found = recognise_lists(labeled, unlabeled)
    if not folder.startswith(PROTOCOL_OF):
        assert found is None
        return
    group, size = folder.split("/")[1:]
    if folder.startswith("cityscapes"):
        family = "cityscapes/u2pl" if group == "u2pl" else "cityscapes/unimatch" if size == "1_30" else "cityscapes/cps"
    elif len(labeled) in (92, 183, 366, 732, 1464):
        family = "voc/classic"
    else:
        family = "voc/blended" if size.startswith("1_") else "voc/u2pl"
    assert found == PROTOCOLS[f"{family}/{len(labeled)}"]
    assert recognise_lists(labeled) == found
    assert recognise_lists(labeled[1:], unlabeled) is None
    assert recognise_lists([*labeled[1:], "other"], unlabeled) is None
    assert recognise_lists(labeled, [*unlabeled[1:], "other"]) is None


@needs_splits
def test_the_val_lists_are_those_of_both_groups():
    published = [path for path in PUBLISHED if path.relative_to(SPLITS).parts[0] in PROTOCOL_OF]
    for path in (path for path in published if path.name == "val.txt"):
        assert (len(names(path)), list_hash(names(path))) in VAL_LISTS.values()


@needs_splits
def test_fine_images_are_counted_as_the_table_says():
    fine = set(names(SPLITS / "pascal" / "u2pl" / "1464" / "labeled.txt"))
    for path in PUBLISHED:
        if "pascal" in path.parts and path.name == "labeled.txt":
            protocol = recognise_lists(names(path))
            assert protocol is not None
            assert protocol.fine == len({sample_name(name) for name in names(path)} & fine)


@needs_splits
def test_lists_of_one_protocol_are_found_in_any_published_layout():
    stems, pairs = SPLITS / "pascal" / "u2pl", SPLITS / "pascal" / "unimatch"
    protocol = PROTOCOLS["voc/u2pl/662"]
    assert find_lists(protocol, stems) == {k: stems / "662" / f"{k}.txt" for k in ("labeled", "unlabeled")}
    assert find_lists(protocol, pairs) == {k: pairs / "u2pl_1_16" / f"{k}.txt" for k in ("labeled", "unlabeled")}
    with pytest.raises(DataError, match="662 images of voc/usrn/662"):
        find_lists(PROTOCOLS["voc/usrn/662"], SPLITS)


# ── finding and requiring, with lists of our own ─────────────────────────────────────────────────────────────────────


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))
    return path


FINE = [f"2007_{number:06}" for number in range(9)]
COARSE = [f"2008_{number:06}" for number in range(10_573)]
OURS = Protocol("voc/blended/9", "1/1176", 9, list_hash(FINE), list_hash(COARSE))
"""A pair of lists that nobody published, of the size of VOC's pool."""


def test_lists_are_found_by_content_and_other_files_are_passed_by(tmp_path):
    write(tmp_path / "README.txt", "these", "are", "these")
    (tmp_path / "noise.txt").write_bytes(b"\xff\xfe\x00")
    write(tmp_path / "a" / "other.txt", *COARSE[:9])
    one = write(tmp_path / "z" / "some_name.txt", *(f"/JPEGImages/{n}.jpg /Masks/{n}.png" for n in reversed(FINE)))
    with pytest.raises(DataError) as error:
        find_lists(OURS, tmp_path)
    assert "\n" not in str(error.value)
    assert "holds no unlabeled list with the 10573 images of voc/blended/9; its lists are published in" in str(
        error.value
    )
    two = write(tmp_path / "z" / "rest.txt", *COARSE)
    assert find_lists(OURS, tmp_path) == {"labeled": one, "unlabeled": two}


def test_a_list_of_the_right_length_is_named_where_it_differs(tmp_path):
    write(tmp_path / "a" / "other.txt", *COARSE[:9])
    with pytest.raises(DataError, match=r"no labeled list .* \(a/other.txt names other images\); .*TorchSemiSeg"):
        find_lists(OURS, tmp_path)
    with pytest.raises(DataError, match="no such folder of lists"):
        find_lists(OURS, tmp_path / "gone")


def test_a_protocol_that_the_lists_are_not_is_refused_in_one_line():
    with pytest.raises(DataError) as error:
        require_protocol("voc/classic/92", FINE, COARSE, Path("photos"))
    assert re.fullmatch(
        r"photos: the 9 labeled images are not the 92 of voc/classic/92 \(hash [0-9a-f]{12}…, not 325a965b6206…\); "
        r"its lists are published in Haochen-Wang409/U2PL .*",
        str(error.value),
    )


def test_lists_that_nobody_published_are_described_by_their_fine_images_alone():
    assert list(describe_lists(FINE, COARSE, [])) == []
    assert list(describe_lists(FINE, COARSE, [], fine=FINE[:4])) == [
        "labeled: 4 of 9 images are finely annotated (they are in VOC's own train list)"
    ]


@needs_splits
def test_what_is_said_of_published_lists():
    folder = SPLITS / "pascal" / "unimatch"
    labeled, unlabeled = (names(folder / "1_8" / f"{kind}.txt") for kind in ("labeled", "unlabeled"))
    val = names(folder / "val.txt")
    said = list(describe_lists(labeled, unlabeled, val))
    assert said == [
        "lists: voc/blended/1323, 1/8 (fine and coarse masks drawn alike)",
        "labeled: 193 of 1323 images are finely annotated (they are in VOC's own train list)",
    ]
    *same, about_val = describe_lists(labeled, unlabeled, val[1:])
    assert same == said
    assert about_val == "val: not the 1449 images that published scores on voc are from"
    first, *_ = describe_lists(labeled, unlabeled[1:], val)
    assert "the labeled images are those of voc/blended/1323, the 9258 unlabeled ones are not its 9259" in first


# ── in a config and a data set ───────────────────────────────────────────────────────────────────────────────────────


def config_error(*settings: str) -> str:
    with pytest.raises(ConfigError) as error:
        load_config({"method": "supervised", "data": "photos", "steps": 1}, settings)
    return str(error.value)


def test_the_config_knows_the_protocols():
    config = load_config({"method": "supervised", "data": "photos"}, ["protocol=voc/u2pl/1323", "lists=U2PL"])
    assert (config.data.protocol, config.data.lists) == ("voc/u2pl/1323", Path("U2PL"))
    assert config_error("protocol=voc/u2pl/1322") == (
        "data.protocol: must be one of `des4 data protocols`, perhaps voc/u2pl/1323, not 'voc/u2pl/1322'"
    )
    assert "say which of its lists with protocol=NAME" in config_error("lists=U2PL")
    assert "leave out labeled" in config_error("lists=U2PL", "protocol=voc/u2pl/1323", "labeled=a.txt")


def test_a_data_set_refuses_other_lists_than_the_protocols(tmp_path):
    for stem in ("a", "b", "c"):
        for folder in ("images", "masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / folder / f"{stem}.png")
    (tmp_path / "classes.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match="labeled images are not the 92 of voc/classic/92"):
        Folder(FolderConfig(root=tmp_path, protocol="voc/classic/92"))
    with pytest.raises(DataError, match="holds no labeled list with the 92 images"):
        Folder(FolderConfig(root=tmp_path, protocol="voc/classic/92", lists=tmp_path))


@needs_splits
def test_one_fraction_of_cityscapes_is_two_protocols():
    """U2PL's and CPS's lists of one size overlap no more than random draws do."""
    common = {}
    for size, name in ((186, "1_16"), (372, "1_8"), (744, "1_4"), (1488, "1_2")):
        ours, theirs = (
            {sample_name(n) for n in names(SPLITS / "cityscapes" / group / folder / "labeled.txt")}
            for group, folder in (("u2pl", str(size)), ("unimatch", name))
        )
        common[size] = len(ours & theirs)
    assert common == {186: 8, 372: 48, 744: 182, 1488: 720}


VOC_FORMS = ("{}", "JPEGImages/{}.jpg SegmentationClass/{}.png", "/JPEGImages/{}.jpg /SegmentationClassAug/{}.png")
CITY_FORMS = (
    "leftImg8bit/{}_leftImg8bit.png",
    "leftImg8bit/{}_leftImg8bit.png gtFine/{}_gtFine_labelTrainIds.png",
    "{}",
)


@pytest.mark.parametrize(
    ("name", "ids", "forms"),
    [("voc", ("2007_000039", "2008_000002"), VOC_FORMS), ("cityscapes", (CITYSCAPES[1], CITYSCAPES[3]), CITY_FORMS)],
    ids=["voc", "cityscapes"],
)
def test_one_list_in_every_form_has_one_hash(tmp_path, name, ids, forms):
    TREES[name](tmp_path / "tree")
    hashes = set()
    for number, form in enumerate(forms):
        listed = write(tmp_path / f"{number}.txt", *(form.format(sample_id, sample_id) for sample_id in ids))
        data = open_files(FORMATS[name].Config(root=tmp_path / "tree", labeled=listed))
        assert data.labeled == ids
        hashes.add(content_hash(data.labeled))
    assert len(hashes) == 1
