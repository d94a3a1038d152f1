"""RunConfig: reading, short names, overrides, messages. Whatever the text, it ends in a config or a ConfigError."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from des4.config import KEYS, MAX_BYTES, OTHERS_NAMES, RunConfig, as_arguments, differences, dump, load_config
from des4.types import ConfigError

BASE: dict[str, Any] = {"method": "des4", "data": "scenes"}


def message(source: Any, overrides: Any = ()) -> str:
    with pytest.raises(ConfigError) as error:
        load_config(source, overrides)
    return str(error.value)


def test_shorthands_say_the_same_as_sections() -> None:
    long = {
        "method": {"name": "des4"},
        "data": {"name": "scenes"},
        "model": {"encoder": "resnet101"},
        "train": {"steps": 7, "seed": 3},
    }
    assert load_config({**BASE, "model": "resnet101", "steps": 7, "seed": 3}) == load_config(long)
    assert load_config({}, ["method=des4", "data=scenes", "model=resnet101", "steps=7", "seed=3"]) == load_config(long)


def test_data_is_a_folder_unless_named() -> None:
    assert load_config(BASE, {"data": "pictures"}).data.root == Path("pictures")
    assert load_config(BASE, {"data": Path("pictures")}).data.name == "folder"
    assert load_config({"method": "des4", "data": {"root": "pictures"}}).data.name == "folder"
    assert load_config(BASE, ["data=pictures", "val=lists/val.txt"]).data.val == Path("lists/val.txt")


def test_the_format_of_a_folder_is_seen_unless_it_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / "voc" / folder).mkdir(parents=True)
    (tmp_path / "voc" / "JPEGImages" / "2007_000032.jpg").touch()
    for text in ("data=voc", "data=./voc", "root=voc"):
        data = load_config({"method": "des4"}, [text]).data
        assert (data.name, data.root) == ("voc", Path("voc")), text
    assert load_config({"method": "des4"}, ["data=pictures"]).data.name == "folder"
    for pair in (["data=voc", "data.name=cvat"], ["data.name=cvat", "data=voc"]):
        data = load_config(BASE, pair).data
        assert (data.name, data.root) == ("cvat", Path("voc"))
    assert load_config(BASE, ["data=scenes"]).data.name == "scenes"


@pytest.mark.parametrize("name", ["2024", "2024-11-05", "1e3", "007", "yes", "12:30:00", "3.10", "a b", "photos"])
def test_a_folder_is_a_folder_whatever_its_name_looks_like(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name / "images").mkdir(parents=True)
    for key in ("data", "data.root", "root"):
        assert load_config({"method": "des4"}, [f"{key}={name}", f"out={name}", f"val={name}"]).data.root == Path(name)
    config = load_config({"method": "des4"}, [f"data={name}", f"out={name}", f"val={name}", "labeled=null"])
    assert (config.out, config.data.val, config.data.labeled) == (Path(name), Path(name), None)
    if name in ("2024", "2024-11-05"):
        (tmp_path / "config.yaml").write_text(f"method: des4\ndata: {{root: {name}}}\n")
        assert load_config(tmp_path / "config.yaml").data.root == Path(name)
    assert load_config(BASE, ["data=scenes", "data.labeled=8"]).data.labeled == 8


def test_a_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "photos" / "images").mkdir(parents=True)
    assert load_config({"method": "des4"}, ["data=~/photos"]).data.root == tmp_path / "photos"


def test_the_form_of_a_list_is_told() -> None:
    text = message({"method": "des4", "data": "photos"}, ["value_range=5", "bands=x", "log_to=3"])
    assert sorted(text.split("\n")) == [
        "data.bands: must be a list of whole numbers, not 'x'",
        "data.value_range: must be a list of 2 numbers or several such lists, not 5",
        "train.log_to: must be a list of names, not 3",
    ]


def test_other_tools_names_are_answered_with_ours():
    for theirs, ours in (("imgsz", "crop_size"), ("learning-rate", "lr"), ("train.num_epochs", "epochs")):
        with pytest.raises(ConfigError, match=f"{theirs}: unknown key; here it is called {ours}"):
            load_config(BASE, [f"{theirs}=3"])
    known = {key.split(".")[-1] for key in KEYS} | set(KEYS) | {"data", "out", "seed"}
    assert set(OTHERS_NAMES.values()) <= known
    assert not [name for name in OTHERS_NAMES if name in known]


@pytest.mark.parametrize(
    ("text", "section", "name", "value"),
    [
        ("sampling=quantity", "method", "sampling", "quantity"),
        ("crop_size=[64, 96]", "views", "crop_size", (64, 96)),
        ("lr=1e-4", "optim", "lr", 1e-4),  # YAML 1.1 reads this as text
        ("train.epochs=null", "train", "epochs", None),
        ("decay_norms=false", "optim", "decay_norms", False),
        ("eval.mode=sliding", "eval", "mode", "sliding"),
    ],
)
def test_command_line_values_are_yaml(text: str, section: str, name: str, value: object) -> None:
    assert getattr(getattr(load_config(BASE, [text]), section), name) == value


def test_later_overrides_win_and_keep_their_neighbours() -> None:
    config = load_config({**BASE, "train": {"steps": 5, "batch_size": 4}}, ["steps=6", "train.steps=7"])
    assert (config.train.steps, config.train.batch_size) == (7, 4)


def test_another_method_starts_its_section_afresh() -> None:
    source = {"method": {"name": "des4", "decoupled": False}, "data": "scenes"}
    assert load_config(source, ["method=des4"]).method.decoupled is False  # type: ignore[attr-defined]
    assert load_config(source, ["method=supervised"]).method.name == "supervised"
    swapped = load_config(source, ["method.threshold=0.9", "method=fixmatch"])  # the order of arguments is free
    assert (swapped.method.name, swapped.method.threshold) == ("fixmatch", 0.9)  # type: ignore[attr-defined]


def test_a_file_reads_as_its_mapping(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("method: {name: des4, alpha: 0.2}\ndata: scenes\nsteps: 3\ntrain.batch_size: 2\n")
    config = load_config(path, {"seed": 4})
    assert (config.method.alpha, config.train.steps, config.train.batch_size, config.train.seed) == (0.2, 3, 2, 4)  # type: ignore[attr-defined]


def test_dump_is_plain_and_complete() -> None:
    config = load_config(BASE, {"out": Path("runs/x"), "crop_size": [32, 48]})
    tree = yaml.safe_load(yaml.safe_dump(dump(config)))
    assert set(tree) == set(RunConfig.model_fields)
    assert load_config(tree) == load_config(config) == config


def test_settings_as_arguments_are_read_back() -> None:
    given = {"data": "2024", "data.labeled": "a: b.txt", "data.val": "~x, y", "data.bands": [4, 3], "data.exif": "auto",
             "data.skip_broken": True, "data.cache": 0.5, "data.shards": None}  # fmt: skip
    told = as_arguments(given)
    assert "data=2024" in told and 'data.labeled="a: b.txt"' in told
    read = load_config({"method": "des4"}, told)
    assert read == load_config({"method": "des4"}, given)


def test_differences_name_the_keys() -> None:
    config = load_config(BASE)
    assert differences(config, config) == []
    assert differences(config, load_config(config, ["lr=0.5", "seed=1"])) == [
        "optim.lr: 0.001 -> 0.5",
        "train.seed: 0 -> 1",
    ]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("stesp=3", "stesp: unknown key; did you mean steps?"),
        ("method.decopled=true", "method.decopled: unknown key; did you mean method.decoupled?"),
        ("trian.steps=3", "trian: unknown key; did you mean train?"),
        ("xyzzy=3", "xyzzy: unknown key"),
        ("train.batch_size=x", "train.batch_size: must be a valid integer, not 'x'"),
        ("lr=-1", "optim.lr: must be greater than 0, not -1"),
        ("guard.held_out=.inf", "guard.held_out: must be a finite number, not inf"),
        ("train.minutes=.nan", "train.minutes: must be a finite number, not nan"),
        ("eval.mode=hole", "eval.mode: must be 'whole' or 'sliding', not 'hole'"),
        ("method=des5", "did you mean des4?"),
        ("data.root=x", "data.root: not a setting of scenes"),
        ("momentum=0.9", "momentum: several sections have this key; write method.momentum or optim.momentum"),
        ("steps", "steps: not of the form key=value"),
        ("steps=[", "steps: line 1: not YAML"),
        ("views=3", "views: must be a valid dictionary"),
        ("crop_size=0", "views.crop_size: must be greater than 0, not 0"),
        ("crop_size=33x33", "must be a whole number or a list of 2 whole numbers, such as 256, not '33x33'"),
        ("crop_size=[33,33,33]", "must be a whole number or a list of 2 whole numbers, such as 256, not [33, 33, 33]"),
        ("scale=1", "views.scale: must be a list of 2 numbers, such as [0.5,2.0], not 1"),
        ("scale=[a,b]", "views.scale: must be a list of 2 numbers, such as [0.5,2.0], not ['a', 'b']"),
        ("eval.scales=2", "eval.scales: must be a list of numbers, such as [1.0], not 2"),
        ("eval.scales=[9]", "eval.scales: must be less than or equal to 4, not 9"),
        ("data=", "data: is empty; say data=FOLDER"),
        ("method=", "method: is empty; say method=NAME"),
    ],
)
def test_a_mistake_is_one_line_with_its_key(override: str, expected: str) -> None:
    text = message(BASE, [override])
    assert expected in text
    assert "\n" not in text


def test_all_mistakes_are_listed() -> None:
    lines = message({"method": "des4", "lr": -1, "train": {"stepz": 2}}, ["nope=1"]).split("\n")
    assert sorted(line.partition(":")[0] for line in lines) == ["data", "nope", "optim.lr", "train.stepz"]


def test_missing_sections_say_what_to_write() -> None:
    assert message({}).split("\n")[0].startswith("method: missing; say method=NAME, NAME being one of supervised")
    assert "data=scenes" in message({"method": "des4"})
    assert message({"method": {"alpha": 1}, "data": "scenes"}).startswith("method: missing")
    assert message({"method": "des4", "data": {}}) == "data.root: missing; say data.root=…"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- a\n- b", "a config is a mapping"),
        ("", "a config is a mapping"),
        ("a: [", "not YAML"),
        ("method: !!python/object/apply:os.system [ls]", "aliases and tags are not accepted"),
        ("a: &x 1\nb: *x", "aliases and tags are not accepted"),
        ("a: " + "[" * 50 + "]" * 50, "nested deeper"),
        ("a: 2001-99-99", "not YAML"),
        ("#" * (MAX_BYTES + 1), "at most"),
    ],
)
def test_hostile_files(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    assert expected in message(path)
    assert str(path) in message(path)


def test_unreadable_files(tmp_path: Path) -> None:
    assert "No such file" in message(tmp_path / "none.yaml")
    folder = tmp_path / "my photos"
    folder.mkdir()
    assert message(folder).startswith(f"{folder}: cannot read this config file: it is a folder")
    assert message(folder).endswith(f"a data folder is given as 'data={folder}'")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\xff")
    assert "not UTF-8" in message(tmp_path / "binary.yaml")


def test_every_key_is_known_by_its_full_name() -> None:
    """A key that no resolution rule reaches could be listed, suggested and yet refused."""
    for key in KEYS:
        with pytest.raises(ConfigError) as error:
            load_config({}, {key: object()})
        assert f"{key}: unknown" not in str(error.value)


NAMES = [*KEYS, "method", "data", "steps", "", ".", "a.b"]

yaml_text = st.one_of(
    st.text(max_size=60),
    st.text("ab:-[]{}#&*!|>'\"%@,?0123456789.=<~_ \n\t", max_size=60),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_subnormal=False) | st.text(max_size=8) | st.dates(),
        lambda child: st.lists(child, max_size=3) | st.dictionaries(st.sampled_from(NAMES), child, max_size=3),
        max_leaves=8,
    ).map(lambda tree: yaml.safe_dump(tree, allow_unicode=True)),
)


@settings(max_examples=400, deadline=None)
@given(yaml_text, st.sampled_from(NAMES))
def test_any_text_ends_in_a_config_or_an_error(tmp_path_factory: pytest.TempPathFactory, text: str, key: str) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    for source, overrides in ((path, ()), (BASE, [f"{key}={text}"])):
        try:
            config = load_config(source, overrides)
        except ConfigError as error:
            assert str(error).strip()
        else:
            assert load_config(dump(config)) == config


def test_an_automatic_batch_is_the_one_the_rate_was_chosen_for():
    auto = {**BASE, "batch_size": "auto"}
    assert (load_config(auto).train.batch_size, load_config(auto).train.accumulate) == (16, "auto")
    chosen = load_config({**auto, "reference_batch": 8, "accumulate": 2})
    assert (chosen.train.batch_size, chosen.train.accumulate) == (8, 2)
    assert load_config(dump(chosen)) == chosen
    assert "train.batch_size" in message({**BASE, "batch_size": "car"})
