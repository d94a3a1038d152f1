"""The paper's tables as docs/protocols.md gives them: every row and column loads, and finds its lists in real layouts.

Everything that names real images needs the published lists, which are not part of the project.
"""

from __future__ import annotations

import io
import math
import os
import re
import zlib
from collections.abc import Callable, Iterable
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from trees import cityscapes_tree, folder_tree, index_mask, put, voc_tree, write_lines
from typer.testing import CliRunner

from des4 import build, cli
from des4.config import RunConfig, load_config
from des4.data_tools.checks.check import check
from des4.datasets import DATASETS, recognise_lists
from des4.datasets.lists import read_list, sample_name
from des4.datasets.protocols import PROTOCOLS, find_lists
from des4.types import DataError

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "protocols.md").read_text(encoding="utf-8")
SPLITS = ROOT.parent / "shared" / "data" / "splits"
needs_splits = pytest.mark.skipif(not SPLITS.is_dir(), reason="the published lists are not here")

Des4 = Callable[..., Result]


def table(heading: str) -> list[list[str]]:
    """Return the rows of the first table under a heading of the page, without marks of code."""
    (section,) = [part for part in PAGE.split("\n##") if part.lstrip("# ").startswith(heading)]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


COLUMNS = {
    (dataset, what): (overrides.split(), int(steps))
    for dataset, heading in (("voc", "Columns: VOC"), ("cityscapes", "Columns: Cityscapes"))
    for what, overrides, steps in table(heading)
}
ROWS = {what: [] if overrides == "none" else overrides.split() for what, overrides in table("Rows")}


def config_of(dataset: str, *overrides: str) -> RunConfig:
    return load_config(ROOT / "configs" / dataset / "des4.yaml", overrides)


# ── what the page says ───────────────────────────────────────────────────────────────────────────────────────────────


def test_every_column_of_the_papers_tables_is_there() -> None:
    named = [re.findall(r"protocol=(\S+)", " ".join(overrides))[0] for overrides, _ in COLUMNS.values()]
    classic, u2pl = (92, 183, 366, 732, 1464), (662, 1323, 2646, 5291)
    wanted = {*(f"voc/classic/{n}" for n in classic), *(f"voc/u2pl/{n}" for n in u2pl), "voc/usrn/331"}
    wanted |= {f"cityscapes/u2pl/{n}" for n in (186, 372, 744, 1488)}
    assert sorted(named) == sorted(wanted)
    with_coco = {
        name for name, (overrides, _) in zip(named, COLUMNS.values(), strict=True) if "weights=" in str(overrides)
    }
    assert with_coco == {n for n in wanted if n in ("voc/classic/92", "voc/classic/183") or n.startswith("city")}


@pytest.mark.parametrize(("column", "row"), list(product(COLUMNS, ROWS)), ids=str)
def test_every_cell_is_a_command(column: tuple[str, str], row: str) -> None:
    overrides, steps = COLUMNS[column]
    config = config_of(column[0], "data=TREE", "lists=LISTS", *overrides, *ROWS[row])
    protocol = PROTOCOLS[config.data.protocol]
    assert str(protocol.labeled) in column[1]
    assert config.train.total_steps(protocol.labeled, protocol.unlabeled) == steps
    alone = math.ceil(config.train.epochs * protocol.labeled / 16)
    assert config.train.total_steps(protocol.labeled, 0) == alone  # what `supervised` trains for


@pytest.mark.parametrize("dataset", ["voc", "cityscapes"])
def test_the_settings_that_the_paper_states(dataset: str) -> None:
    config = config_of(dataset, "data=TREE")
    crop, lr, decay, epochs = {"voc": (513, 0.001, 1e-4, 80), "cityscapes": (769, 0.01, 6e-4, 200)}[dataset]
    assert (config.views.crop_size, config.optim.lr, config.optim.weight_decay) == (crop, lr, decay)
    assert (config.train.epochs, config.train.batch_size, config.optim.name, config.optim.power) == (
        epochs,
        16,
        "sgd",
        0.9,
    )
    assert config.model.encoder.startswith("resnet101")
    method = config.method.model_dump()
    paper = {"labeled_weight": 1, "unlabeled_weight": 1.5, "encoder_momentum": 0.99, "zones": 5, "alpha": 0.1}
    assert paper.items() <= method.items()
    assert config.model.prototype_momentum == 0.99


def test_the_page_counts_fine_images_as_the_table_of_protocols_does() -> None:
    sizes = (165, 331, 662, 1323, 2646, 5291)
    for family, *cells in table("Families")[-3:]:
        name = family.split("`")[0]
        told = {size: int(cell) for size, cell in zip(sizes, cells, strict=True) if cell}
        assert told == {p.labeled: p.fine for p in PROTOCOLS.values() if p.family == name}


# ── on trees laid out as the real ones ───────────────────────────────────────────────────────────────────────────────


def stems(path: Path) -> list[str]:
    return [sample_name(name) for name, _ in read_list(path)]


@cache
def picture(name: str, suffix: str) -> bytes:
    """Encode a picture that no other name has: 32 blocks of 8 × 8 pixels, grey by the bits of the name's checksum."""
    bits = np.unpackbits(np.frombuffer(zlib.crc32(name.encode()).to_bytes(4), np.uint8)).reshape(4, 8)
    buffer = io.BytesIO()
    Image.fromarray(bits.repeat(8, 0).repeat(8, 1) * np.uint8(150) + np.uint8(50)).save(buffer, suffix)
    return buffer.getvalue()


@cache
def mask(first: int, second: int) -> bytes:
    buffer = io.BytesIO()
    labels = np.full((32, 64), first, np.uint8)
    labels[16:] = second
    Image.fromarray(labels).save(buffer, "PNG")
    return buffer.getvalue()


class Tree:
    """Writes many small files, equal ones once: the others are links to the first."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.first: dict[bytes, Path] = {}

    def put(self, name: str, content: bytes) -> None:
        path = self.root / name
        if content in self.first:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(self.first[content], path)
        else:
            self.first[content] = put(path, content)


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VOC2012 with SBD's masks: all names, small pictures that differ where a check looks at them, every class."""
    tree = Tree(tmp_path_factory.mktemp("voc") / "VOC2012")
    lists = SPLITS / "pascal" / "u2pl"
    val, looked_at = stems(lists / "val.txt"), stems(lists / "92" / "labeled.txt")
    train, rest = (stems(lists / "1464" / f"{kind}.txt") for kind in ("labeled", "unlabeled"))
    distinct = {*val, *looked_at}
    for number, name in enumerate((*train, *val, *rest)):
        tree.put(f"JPEGImages/{name}.jpg", picture(name if name in distinct else "", "JPEG"))
        tree.put(f"SegmentationClassAug/{name}.png", mask(0, 1 + number % 20))
        if number < len(train) + len(val):
            tree.put(f"SegmentationClass/{name}.png", mask(0, 1 + number % 20))
    for kind, ids in (("train", train), ("val", val), ("trainval", [*train, *val])):
        write_lines(tree.root / "ImageSets" / "Segmentation" / f"{kind}.txt", ids)
    return tree.root


@pytest.fixture(scope="module")
def cityscapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """leftImg8bit and gtFine of train and val, with raw label numbers."""
    tree = Tree(tmp_path_factory.mktemp("cityscapes") / "cityscapes")
    lists = SPLITS / "cityscapes" / "u2pl"
    numbers = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
    looked_at, val, rest = (
        [name for name, _ in read_list(lists / path)] for path in ("186/labeled.txt", "val.txt", "186/unlabeled.txt")
    )
    for number, path in enumerate((*looked_at, *val, *rest)):
        tree.put(path, picture(path if number < len(looked_at) + len(val) else "", "PNG"))
        stem = path.replace("leftImg8bit/", "gtFine/").removesuffix("_leftImg8bit.png")
        tree.put(f"{stem}_gtFine_labelIds.png", mask(7, numbers[number % 19]))
    return tree.root


@needs_splits
@pytest.mark.parametrize(
    ("protocol", "lists"),
    [
        ("voc/classic/183", "pascal/u2pl"),
        ("voc/u2pl/2646", "pascal/u2pl"),
        ("voc/u2pl/662", "pascal/unimatch"),
        ("voc/blended/1323", ""),
        ("cityscapes/u2pl/744", "cityscapes/u2pl"),
        ("cityscapes/cps/372", "cityscapes"),
    ],
)
def test_a_tree_takes_the_lists_of_a_protocol(protocol: str, lists: str, request: pytest.FixtureRequest) -> None:
    dataset = protocol.partition("/")[0]
    root = request.getfixturevalue(dataset)
    config = config_of(dataset, f"data={root}", f"lists={SPLITS / lists}", f"protocol={protocol}")
    data = DATASETS[config.data.name](config.data)
    known = PROTOCOLS[protocol]
    assert config.data.name == dataset
    assert recognise_lists(data.labeled, data.unlabeled) == known
    assert len(data.val) == {"voc": 1449, "cityscapes": 500}[dataset]
    said = {note.partition(":")[0]: note for note in data.notes}
    assert said["lists"].startswith(f"lists: {protocol}, {known.fraction}")
    assert "val" not in said
    fine = f"labeled: {known.fine} of {known.labeled} images are finely annotated (they are in VOC's own train list)"
    assert said.get("labeled") == (fine if dataset == "voc" else None)


@needs_splits
@pytest.mark.parametrize("column", COLUMNS, ids=str)
def test_every_column_finds_its_lists(column: tuple[str, str], request: pytest.FixtureRequest) -> None:
    config = config_of(column[0], "data=TREE", *COLUMNS[column][0])
    protocol = PROTOCOLS[config.data.protocol]
    if protocol.family == "voc/usrn":
        with pytest.raises(DataError, match="its lists are published in Dayan-Guan/USRN"):
            find_lists(protocol, SPLITS)
        return
    found = {kind: set(stems(path)) for kind, path in find_lists(protocol, SPLITS).items()}
    assert {kind: len(ids) for kind, ids in found.items()} == {
        "labeled": protocol.labeled, "unlabeled": protocol.unlabeled,
    }  # fmt: skip
    assert found["labeled"] | found["unlabeled"] <= names_in(request.getfixturevalue(column[0]))


@cache
def names_in(tree: Path) -> set[str]:
    return {sample_name(name) for _, _, names in os.walk(tree) for name in names}


@needs_splits
@pytest.mark.parametrize(
    ("dataset", "protocol"),
    [("voc", "voc/classic/92"), ("cityscapes", "cityscapes/u2pl/186")],
    ids=["voc", "cityscapes"],
)
def test_a_check_finds_nothing_wrong(dataset: str, protocol: str, request: pytest.FixtureRequest) -> None:
    config = config_of(dataset, f"data={request.getfixturevalue(dataset)}", f"lists={SPLITS}", f"protocol={protocol}")
    done = check(config.data, quick=True)
    assert [finding for finding in done.findings if finding.severity == "error"] == []
    assert done.exit_code() == 0
    assert done.counts["labeled"] == PROTOCOLS[protocol].labeled
    build.dataset(config)  # looks at every labeled and val header


@needs_splits
def test_the_presets_draw_from_the_real_pools(voc: Path, tmp_path: Path) -> None:
    """Without lists the training images of VOC Train are the ones that 1.4k/9k labels, and so is preset 1464."""
    done = CliRunner().invoke(
        cli.app, ["data", "splits", str(voc), "--preset", "voc_train", "--out", str(tmp_path / "o")]
    )
    assert done.exit_code == 0, done.output
    for count in (92, 183, 366, 732, 1464):
        lists = [stems(tmp_path / "o" / str(count) / f"{kind}.txt") for kind in ("labeled", "unlabeled")]
        assert [len(ids) for ids in lists] == [count, 10_582 - count]
        name = recognise_lists(*lists)
        assert name == (PROTOCOLS["voc/classic/1464"] if count == 1464 else None)


# ── the verbs ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Des4:
    """Call the command line in an empty working directory."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("COLUMNS", "120")
    return lambda *arguments: CliRunner().invoke(cli.app, [str(a) for a in arguments])


def test_splits_prints_its_classes_and_the_settings_to_train_with(run: Des4, tmp_path: Path) -> None:
    folder_tree(tmp_path / "photos")
    done = run("data", "splits", tmp_path / "photos", "--fraction", "1/2", "--count", 1, "--seed", 3, "--out", "lists")
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["images", "%", "1_2", "1"] in lines
    assert ["labeled", "3", "1"] in lines and ["unlabeled", "3", "5"] in lines
    assert [line[0] for line in lines if line[:1] in (["road"], ["sky"])] == ["road", "sky"]
    (told,) = [line for line in done.stdout.splitlines() if line.startswith("written to lists")]
    settings = told.partition("train with: ")[2].split()
    settings.append("allow_leak=true")  # the pictures of these trees are all the same
    config = load_config({"method": "supervised", "steps": 1}, settings)
    data = build.dataset(config)
    assert [len(ids) for ids in (data.labeled, data.unlabeled, data.val)] == [3, 3, 2]


def test_splits_names_the_classes_that_a_draw_lacks(run: Des4, tmp_path: Path) -> None:
    folder_tree(tmp_path / "photos")
    for number in range(4):
        put(tmp_path / "photos" / "masks" / "train" / f"{number}.png", index_mask(0, 0))
    put(tmp_path / "photos" / "masks" / "train" / "4.png", index_mask(0, 1))
    photos = tmp_path / "photos"
    random = [run("data", "splits", photos, "--count", 2, "--seed", s, "--out", f"r{s}").stdout for s in range(8)]
    lacks = "! 2: no labeled image shows sky; draw more images, or draw --stratified"
    assert {lacks in text for text in random} == {True, False}
    stratified = run("data", "splits", photos, "--count", 2, "--stratified", "--out", "s").stdout
    assert "!" not in stratified and "sky" in stratified
    put(photos / "masks" / "train" / "4.png", index_mask(0, 0))
    never = run("data", "splits", photos, "--count", 2, "--stratified", "--out", "n").stdout
    assert [line for line in never.splitlines() if "!" in line] == ["! no image with a mask shows sky"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--fraction", "2"], "--fraction 2: is no fraction"),
        ([], "say how many images are labeled"),
        (["--preset", "voc"], "--preset voc: is none of voc_train"),
        (["--preset", "cityscapes"], "the preset draws from 2975"),
        (["--count", "1", "--format", "nothing"], "nothing"),
    ],
)
def test_splits_refuses_in_one_line_and_writes_nothing(
    run: Des4, tmp_path: Path, arguments: list[str], reason: str
) -> None:
    folder_tree(tmp_path / "photos")
    done = run("data", "splits", tmp_path / "photos", *arguments, "--out", "lists")
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1 and reason in done.stderr
    assert not Path("lists").exists()


def test_protocols_are_listed_and_found(run: Des4, tmp_path: Path) -> None:
    done = run("data", "protocols")
    assert done.exit_code == 0, done.output
    assert all(name in done.stdout for name in PROTOCOLS)
    assert "charlesCXK/TorchSemiSeg" in done.stdout
    (tmp_path / "lists").mkdir()
    nothing = run("data", "protocols", tmp_path / "lists")
    assert nothing.exit_code == 0 and re.search(r"voc/classic/92 .* – *$", nothing.stdout, re.MULTILINE)
    missing = run("data", "protocols", tmp_path / "gone")
    assert missing.exit_code == 2 and "no such folder of lists" in missing.stderr


@needs_splits
def test_protocols_of_a_folder_are_found(run: Des4) -> None:
    lines = run("data", "protocols", SPLITS / "cityscapes" / "u2pl").stdout.splitlines()
    (held,) = [line.split() for line in lines if line.strip().startswith("cityscapes/u2pl/372 ")]
    assert held == ["cityscapes/u2pl/372", "1/8", "372", "–", "2603", "372"]


def test_small_trees_of_the_real_layouts_are_not_mistaken_for_a_protocol(tmp_path: Path) -> None:
    makers: Iterable[tuple[str, Callable[[Path], None]]] = (("voc", voc_tree), ("cityscapes", cityscapes_tree))
    for dataset, make in makers:
        make(tmp_path / dataset)
        data = build.dataset(config_of(dataset, f"data={tmp_path / dataset}", "allow_leak=true"))  # of equal pictures
        assert recognise_lists(data.labeled, data.unlabeled) is None
        assert not any(note.startswith("lists:") for note in data.notes)
