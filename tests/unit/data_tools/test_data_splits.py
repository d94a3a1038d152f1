"""Draws of labeled images: sizes, rules, nesting, and the folder that holds them."""

from __future__ import annotations

import errno
import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from trees import index_mask, photo, put, voc_tree

from des4.data_tools.mask_folder import write_masks
from des4.data_tools.new_folder import refuse_place
from des4.data_tools.split_folder import Recipe, write_splits
from des4.data_tools.splits import PRESETS, Contents, counts_of, draw, pool_of, preset_named, read_contents, stratified
from des4.datasets import Folder, FolderConfig, Voc, VocConfig, open_files
from des4.datasets.lists import content_hash, read_list
from des4.types import ConfigError, DataError

CLASSES = ("ground", "common", "rare")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty images with masks, two of them with the rare class, two images without, and two val images."""
    root = tmp_path_factory.mktemp("photos")
    (root / "classes.txt").write_text("\n".join(CLASSES))
    for number in range(20):
        put(root / "images" / f"train/{number:02}.jpg", photo(".jpg"))
        bottom = 2 if number in (3, 11) else 1 if number % 2 else 0
        put(root / "masks" / f"train/{number:02}.png", index_mask(0, bottom))
    for name in ("train/x", "train/y z", "val/a", "val/b"):
        put(root / "images" / f"{name}.jpg", photo(".jpg"))
        if name.startswith("val"):
            put(root / "masks" / f"{name}.png", index_mask(0, 1))
    return root


@pytest.fixture(scope="module")
def dataset(root: Path) -> Folder:
    return Folder(FolderConfig(root=root))


# ── sizes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("pool", "sizes"),
    [
        (1464, {"1/2": 732, "1/4": 366, "1/8": 183, "1/16": 92}),
        (10_582, {"1/2": 5291, "1/4": 2646, "1/8": 1323, "1/16": 662, "1/32": 331}),
        (2975, {"1/2": 1488, "1/4": 744, "1/8": 372, "1/16": 186, "1/30": 100}),
        (20, {"1/8": 3, "0.125": 3, "1": 20, "0.3": 6}),
    ],
)
def test_fractions_are_rounded_up_as_published_lists_do(pool, sizes):
    counts = counts_of(pool, sizes)
    assert list(counts.values()) == list(sizes.values())
    assert list(counts) == [text.replace("/", "_") for text in sizes]


def test_the_presets_are_the_sizes_of_the_paper():
    fractions = {"voc_train": (16, 8, 4, 2, 1), "voc_aug": (32, 16, 8, 4, 2), "cityscapes": (16, 8, 4, 2)}
    assert set(PRESETS) == set(fractions)
    for name, preset in PRESETS.items():
        assert preset.counts == tuple(counts_of(preset.pool, [f"1/{n}" for n in fractions[name]]).values())


@pytest.mark.parametrize(
    ("fractions", "numbers", "message"),
    [
        (["eighth"], [], "--fraction eighth: is no fraction"),
        (["1/0"], [], "--fraction 1/0"),
        (["9/8"], [], "above 0 and at most 1"),
        (["0"], [], "above 0 and at most 1"),
        ([], [0], "--count 0: there are 20 images"),
        ([], [21], "give 1 to 20"),
        ([], [], "say how many images are labeled"),
        (["1"], [1], "--count 1: both 1 and 20 images would be drawn into the folder 1; write the fraction as 1/1"),
    ],
)
def test_impossible_sizes_are_refused(fractions, numbers, message):
    with pytest.raises(ConfigError, match=message):
        counts_of(20, fractions, numbers)


def test_a_draw_may_be_asked_for_twice():
    assert counts_of(20, ["1/2", "1/2", "1/1"], [10, 10, 1]) == {"1_2": 10, "1_1": 20, "10": 10, "1": 1}


def test_an_unknown_preset_is_refused():
    with pytest.raises(ConfigError, match="voc_train, voc_aug, cityscapes"):
        preset_named("voc")


def test_a_preset_wants_its_whole_pool(tmp_path):
    voc_tree(tmp_path)
    data = Voc(VocConfig(root=tmp_path))
    with pytest.raises(DataError, match="has 5 training images with masks, and the preset draws from 10582"):
        pool_of(data, PRESETS["voc_aug"])
    with pytest.raises(DataError, match="has 3 finely annotated training images, and the preset draws from 1464"):
        pool_of(data, PRESETS["voc_train"])


# ── draws ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("by_class", [False, True])
def test_a_draw_divides_the_training_images(dataset, by_class):
    pool = pool_of(dataset)
    contents = read_contents(dataset, pool) if by_class else None
    counts = {"a": 3, "b": 12, "all": 20}
    draws = draw(dataset, pool, counts, contents=contents)
    assert [(one.name, len(one.labeled)) for one in draws] == list(counts.items())
    for one in draws:
        assert set(one.labeled) <= set(pool)
        assert sorted((*one.labeled, *one.unlabeled)) == sorted((*pool, "train/x", "train/y z"))
        assert list(one.labeled) == sorted(one.labeled) and list(one.unlabeled) == sorted(one.unlabeled)
    assert draws == draw(dataset, pool[::-1], counts, contents=contents)
    assert draws[0] == draw(dataset, pool, {"a": 3}, contents=contents)[0]
    others = [draw(dataset, pool, counts, seed=seed, contents=contents)[1] for seed in range(1, 4)]
    assert any(set(one.labeled) != set(draws[1].labeled) for one in others)


@pytest.mark.parametrize("by_class", [False, True])
def test_nested_draws_lie_in_one_another(dataset, by_class):
    pool = pool_of(dataset)
    contents = read_contents(dataset, pool) if by_class else None
    counts = {"1_4": 5, "1_2": 10, "1_8": 3}
    for seed in range(5):
        quarter, half, eighth = draw(dataset, pool, counts, seed=seed, nested=True, contents=contents)
        assert set(eighth.labeled) < set(quarter.labeled) < set(half.labeled)
    loose = [draw(dataset, pool, counts, seed=seed, contents=contents) for seed in range(5)]
    assert any(not set(eighth.labeled) < set(quarter.labeled) for quarter, _, eighth in loose)


def test_what_is_drawn_never_changes(dataset):
    """A published draw must be repeatable by its seed: these ids are what version 0.1 drew."""
    pool = pool_of(dataset)
    by_class = read_contents(dataset, pool)
    assert [i[-2:] for i in draw(dataset, pool, {"a": 4})[0].labeled] == ["00", "10", "11", "14"]
    assert [i[-2:] for i in draw(dataset, pool, {"a": 4}, contents=by_class)[0].labeled] == ["06", "09", "11", "19"]


def test_a_stratified_draw_holds_the_rare_class_in_its_due_number(dataset):
    pool = pool_of(dataset)
    contents = read_contents(dataset, pool)
    assert {name: part.images for name, part in contents.parts(pool).items()} == {"ground": 20, "common": 8, "rare": 2}
    for seed in range(10):
        three, ten = draw(dataset, pool, {"3": 3, "10": 10}, seed=seed, contents=contents)
        assert contents.parts(three.labeled)["rare"].images >= 1
        parts = contents.parts(ten.labeled)
        assert (parts["common"].images, parts["rare"].images) == (4, 1)
    lucky = [draw(dataset, pool, {"3": 3}, seed=seed)[0].labeled for seed in range(10)]
    assert any(contents.parts(labeled)["rare"].images == 0 for labeled in lucky)


@st.composite
def presences(make):
    rows, classes = make(st.integers(1, 40)), make(st.integers(1, 6))
    rates = np.array([make(st.sampled_from([0.02, 0.1, 0.5, 0.9])) for _ in range(classes)])
    return np.random.default_rng(make(st.integers(0, 2**32))).random((rows, classes)) < rates


@settings(deadline=None)
@given(presences(), st.data())
def test_stratified_keeps_its_promises(presence, data):
    count = data.draw(st.integers(1, len(presence)))
    rows = stratified(presence, count, random.Random(data.draw(st.integers(0, 9))))
    assert len(rows) == count == len(set(rows))
    occurring = presence.any(0)
    if count >= occurring.sum():
        assert (presence[rows].any(0) == occurring).all()
    elif count == 1:
        assert presence[rows].any() or not presence.any()


def test_stratified_is_nearer_to_the_pool_than_chance():
    """Images of each class against their due number, averaged over classes and draws of an eighth."""
    presence = np.random.default_rng(0).random((800, 12)) < 0.5 ** np.arange(12)
    presence = presence[:, presence.sum(0) >= 16]
    due = presence.sum(0) / 8

    def distance(rows):
        return np.abs(presence[rows].sum(0) / due - 1).mean()

    ours = np.mean([distance(stratified(presence, 100, random.Random(seed))) for seed in range(10)])
    chance = np.mean([distance(random.Random(seed).sample(range(800), 100)) for seed in range(10)])
    assert ours < chance / 3


# ── contents ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_parts_are_counted_by_hand():
    contents = Contents(("a", "b", "c"), ("x", "y"), np.array([[6, 2], [0, 8], [4, 0]]))
    parts = contents.parts(["c", "b"])
    assert (parts["x"].images, parts["x"].pixels, parts["x"].share) == (1, 4, 4 / 12)
    assert (parts["y"].images, parts["y"].pixels, parts["y"].share) == (1, 8, 8 / 12)


def test_masks_are_read_without_what_is_ignored(dataset):
    pixels = read_contents(dataset, ["train/03", "train/00"]).pixels
    assert pixels.tolist() == [[23, 0, 24], [47, 0, 0]]  # 6 × 8, one pixel ignored


# ── the folder ───────────────────────────────────────────────────────────────────────────────────────────────────────


def written(out: Path, dataset: Folder):
    pool = pool_of(dataset)
    contents = read_contents(dataset, pool)
    draws = draw(dataset, pool, {"1_4": 5, "2": 2}, seed=7, nested=True, contents=contents)
    recipe = Recipe(("--fraction 1/4", "--count 2"), "stratified", True, 7, len(pool))
    return draws, write_splits(out, dataset, draws, contents, recipe)


def test_the_lists_read_back_as_what_was_drawn(tmp_path, dataset, root):
    draws, facts = written(tmp_path / "new" / "lists", dataset)
    out = tmp_path / "new" / "lists"
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*")) == [
        "1_4/labeled.txt", "1_4/unlabeled.txt", "2/labeled.txt", "2/unlabeled.txt",
        "README.md", "splits.json", "val.txt",
    ]  # fmt: skip
    assert not list(out.parent.glob(".*"))
    for one in draws:
        lists = {kind: out / one.name / f"{kind}.txt" for kind in ("labeled", "unlabeled")}
        again = open_files(FolderConfig(root=root, val=out / "val.txt", **lists))
        assert (again.labeled, again.unlabeled, again.val) == (one.labeled, one.unlabeled, dataset.val)
    assert json.loads((out / "splits.json").read_text()) == json.loads(json.dumps(facts))
    quarter = facts["draws"]["1_4"]
    assert quarter["labeled"] == {"images": 5, "hash": content_hash(draws[0].labeled)}
    assert quarter["classes"]["ground"]["images"] == 5
    assert (facts["rule"], facts["nested"], facts["seed"], facts["pool"]) == ("stratified", True, 7, 20)
    assert facts["val"] == {"images": 2, "hash": content_hash(dataset.val)}
    readme = (out / "README.md").read_text()
    assert "des4 data splits DATA --out DIR --fraction 1/4 --count 2 --seed 7 --stratified --nested\n" in readme
    assert f"| `2` | 2 | `{content_hash(draws[1].labeled)}` | 20 | `" in readme
    assert "| ground | 5 · " in readme


def test_classes_never_shown_are_known_only_where_all_masks_were_read(tmp_path, dataset):
    _, facts = written(tmp_path / "all", dataset)
    assert facts["never_shown"] == []
    pool = pool_of(dataset)
    draws = draw(dataset, pool, {"2": 2}, seed=7)
    contents = read_contents(dataset, draws[0].labeled)
    write_splits(tmp_path / "some", dataset, draws, contents, Recipe(("--count 2",), "random", False, 7, len(pool)))
    assert json.loads((tmp_path / "some" / "splits.json").read_text())["never_shown"] is None


def test_the_command_of_the_readme_has_the_settings_of_the_data(tmp_path, dataset):
    recipe = Recipe(("--count 2",), "random", False, 0, 20, ("--format=folder", "labeled=my list.txt"))
    draws = draw(dataset, pool_of(dataset), {"2": 2})
    facts = write_splits(tmp_path / "lists", dataset, draws, read_contents(dataset, draws[0].labeled), recipe)
    command = "des4 data splits DATA --format=folder 'labeled=my list.txt' --out DIR --count 2 --seed 0\n"
    assert command in (tmp_path / "lists" / "README.md").read_text()
    assert facts["settings"] == ("--format=folder", "labeled=my list.txt")


@pytest.mark.parametrize("name", [" lead", "trail ", '"q"', "'q'", '"a" "b"'])
def test_names_that_a_list_cannot_hold_are_refused(tmp_path, name):
    for stem in ("a", "b", "c", name):
        put(tmp_path / "data" / "images" / f"{stem}.jpg", photo(".jpg"))
        put(tmp_path / "data" / "masks" / f"{stem}.png", index_mask(0, 1))
    with pytest.raises(DataError, match="no list can name the image") as error:
        written(tmp_path / "lists", Folder(FolderConfig(root=tmp_path / "data")))
    assert repr(name) in str(error.value) and not (tmp_path / "lists").exists()


def test_val_that_was_drawn_is_written_too(tmp_path):
    for number in range(10):
        put(tmp_path / "data" / "images" / f"{number}.jpg", photo(".jpg"))
        put(tmp_path / "data" / "masks" / f"{number}.png", index_mask(0, 1))
    data = Folder(FolderConfig(root=tmp_path / "data"))
    assert len(data.val) == 3  # 30 % of ten
    draws, _ = written(tmp_path / "lists", data)
    assert tuple(name for name, _ in read_list(tmp_path / "lists" / "val.txt")) == data.val
    assert not {i for one in draws for i in (*one.labeled, *one.unlabeled)} & set(data.val)


def test_finely_annotated_images_are_counted(tmp_path):
    voc_tree(tmp_path / "voc")
    data = Voc(VocConfig(root=tmp_path / "voc"))
    _, facts = written(tmp_path / "lists", data)
    assert all(0 <= one["labeled"]["fine"] <= one["labeled"]["images"] for one in facts["draws"].values())
    assert sum(one["labeled"]["fine"] for one in facts["draws"].values()) >= 3  # 5 of 5 images, 3 of them fine


def test_nothing_is_overwritten_and_nothing_written_into_the_data(tmp_path, dataset, root):
    before = sorted(root.rglob("*"))
    kept = tmp_path / "lists" / "mine.txt"
    kept.parent.mkdir()
    kept.write_text("mine")
    for out, reason in (
        (kept.parent, "is there already"),
        (kept, "is there already"),
        (root / "lists", "inside the data"),
    ):
        with pytest.raises(DataError, match=reason) as error:
            written(out, dataset)
        assert "\n" not in str(error.value)
    assert kept.read_text() == "mine" and list(tmp_path.iterdir()) == [kept.parent]
    assert sorted(root.rglob("*")) == before
    (tmp_path / "empty").mkdir()
    refuse_place(tmp_path / "empty", dataset)
    with pytest.raises(DataError, match="cannot be written"):
        written(kept / "lists", dataset)


def test_a_broken_mask_stops_the_draw_before_anything_is_written(tmp_path):
    root = tmp_path / "data"
    for number in range(4):
        put(root / "images" / f"{number}.jpg", photo(".jpg"))
        put(root / "masks" / f"{number}.png", index_mask(0, 1))
    (root / "classes.txt").write_text("a\nb\n")
    Image.new("L", (3, 3)).save(root / "masks" / "1.png")
    data = Folder(FolderConfig(root=root, val_seed=2))
    with pytest.raises(DataError, match=r"1\.png: is 3×3 pixels"):
        read_contents(data, ["1"])


# ── masks ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_masks_are_drawn_all_or_none(tmp_path, monkeypatch):
    root, out = tmp_path / "data", tmp_path / "drawn"
    for number in range(4):
        put(root / "images" / f"{number}.jpg", photo(".jpg"))
        put(root / "masks" / f"{number}.png", index_mask(0, 1))
    whole = (root / "masks" / "3.png").read_bytes()
    (root / "classes.txt").write_text("a\nb\n")
    data = Folder(FolderConfig(root=root))
    (root / "masks" / "3.png").write_bytes(whole[:30])
    with pytest.raises(DataError, match=r"3\.png"):
        write_masks(data, out)
    assert list(tmp_path.iterdir()) == [root]
    (root / "masks" / "3.png").write_bytes(whole)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        with pytest.raises(DataError, match=r"drawn: cannot be written \(No space left on device\)"):
            write_masks(data, out)
    assert list(tmp_path.iterdir()) == [root]
    with pytest.raises(DataError, match="inside the data"):
        write_masks(data, root / "drawn")
    assert write_masks(data, out) == 4
    assert sorted(path.name for path in out.iterdir()) == ["0.png", "1.png", "2.png", "3.png"]
    with pytest.raises(DataError, match="is there already"):
        write_masks(data, out)
