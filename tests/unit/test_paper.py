"""Which runs count in which cells of the paper's tables, and the campaign files that train them."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from des4 import campaign, paper
from des4.cli import app
from des4.config import differences, dump, load_config
from des4.datasets.lists import content_hash, read_list, sample_name
from des4.datasets.protocols import PROTOCOLS, VAL_LISTS
from des4.methods import METHODS
from des4.report.paper import PaperTable
from des4.runlog import RunFolder
from des4.types import RunError

ROOT = Path(__file__).parents[2]
SPLITS = ROOT.parent / "shared" / "data" / "splits"
AUG = 1
"""Place of VOC Aug among the tables."""

Make = Callable[..., RunFolder]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def make(name: str, table: int, row: str, column: int, miou: float = 0.7, **changes: Any) -> RunFolder:
        """Write a run of a cell. changes: settings by dotted key with `__`, and what else results.json says."""
        cell = paper.paper().tables[table]
        where = cell.trained[column]
        settings = {key.replace("__", "."): changes.pop(key) for key in list(changes) if "__" in key}
        config = load_config(paper.paper().config(cell, row, where), settings)
        protocol = PROTOCOLS[where.protocol]
        unlabeled = protocol.unlabeled if METHODS[config.method.name].VIEWS.reads_unlabeled else 0
        steps = config.train.total_steps(protocol.labeled, unlabeled)
        run = RunFolder.create(tmp_path / "runs" / name)
        run.write_config(dump(config))
        results = {
            "miou": miou,
            "tail_miou": None,
            "iou": {"boat": 0.5, "person": None},
            "tail_classes": [],
            "pixel_share": {},
            "evaluated": "student",
            "method": config.method.name,
            "seed": config.train.seed,
            "step": steps,
            "steps": steps,
            "data": {"protocol": where.protocol, "val_hash": paper.VAL_HASH[cell.data]} | changes.pop("data", {}),
        }
        run.write_results(results | changes)
        return run

    return make


def test_rows_and_methods_agree_on_what_is_a_reconstruction() -> None:
    for name, row in paper.paper().rows.items():
        assert ("a reconstruction" in row.about) == METHODS[row.method].RECONSTRUCTION, name


def lines(table: PaperTable) -> dict[str, list[str]]:
    return {name: cells for row in table.rows for name, cells in row.lines}


def test_a_run_below_two_of_the_folders_counts_once(make: Make, tmp_path: Path) -> None:
    run = make("des4/a", 0, "ours", 0)
    again = Path(f"{tmp_path}/runs/../runs/des4")
    assert [found.path for found in paper.find_runs([tmp_path / "runs", again, run.path])] == [run.path]


# ── the tables ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_cell_can_be_trained_and_its_lists_have_the_size_it_says() -> None:
    for table in paper.paper().tables:
        for number, column in enumerate(table.trained):
            if isinstance(table.columns, dict):
                assert f"({PROTOCOLS[column.protocol].labeled})" in list(table.columns)[number]
            for row in table.figures:
                config = paper.paper().config(table, row, column)
                assert config.method.name == paper.paper().rows[row].method


@pytest.mark.parametrize("data", ["voc", "cityscapes"])
def test_the_settings_beneath_are_those_of_the_config_files(data: str) -> None:
    place = {"data": {"name": data, "root": "."}}
    assert load_config([paper.paper().settings[data], place]) == load_config(  # type: ignore[index]
        [ROOT / "configs" / data / "des4.yaml", place]
    )


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_a_campaign_file_trains_every_cell_of_its_table_and_supervised_training_for_as_long(number: int) -> None:
    file = campaign.read_campaign(ROOT / "configs" / "paper" / f"table{number}.yaml")
    runs = campaign.plan(file)
    planned = [run.config for run in runs if run.method != "supervised_as_long"]
    short = {run.lists: run.config for run in runs if run.method == "supervised"}
    long = {run.lists: run.config for run in runs if run.method == "supervised_as_long"}
    assert short.keys() == long.keys() and (file.reference == "supervised_as_long") == bool(long)
    for lists, config in long.items():
        changed = [text for text in differences(short[lists], config) if not text.startswith("out: ")]
        assert changed == ["train.epochs_of: auto -> unlabeled"]
    cells = [
        paper.paper().config(table, row, column)
        for table in paper.paper().tables
        if table.number == number
        for column in table.trained
        for row in table.figures
    ]

    def essence(config: Any) -> str:
        place = {"data.root": ".", "data.lists": None, "out": None, "train.seed": 0}
        return str(dump(load_config(config, place)))

    assert sorted(map(essence, planned)) == sorted(map(essence, cells))
    assert file.table == number and file.out == Path("runs/paper") and file.reports.name == f"table{number}"


def test_figures_are_printed_as_in_the_paper() -> None:
    train, aug, city, *_ = paper.report([]).tables
    assert lines(train)["MT (Tarvainen & Valpola 2017)"] == ["69.16", "63.01", "55.81", "48.70", "–"]
    assert lines(aug)["Ours"] == ["82.11", "81.61", "81.02", "77.28"]
    assert lines(city)["USRN (Guan et al. 2022)"] == ["–", "75.0"]
    assert not any(row.has_runs for table in (train, aug, city) for row in table.rows)


@pytest.mark.skipif(not SPLITS.is_dir(), reason="the published lists are not here")
def test_val_hashes_are_of_the_ids_of_the_published_lists() -> None:
    city = [name for name, _ in read_list(SPLITS / "cityscapes" / "u2pl" / "val.txt")]
    ids = [name.removeprefix("leftImg8bit/").removesuffix("_leftImg8bit.png") for name in city]
    assert content_hash(ids) == paper.VAL_HASH["cityscapes"]
    assert content_hash(map(sample_name, city)) == VAL_LISTS["cityscapes"][1]


# ── runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_runs_stand_below_the_figures_of_their_cell_in_every_table(make: Make) -> None:
    runs = [make("a", AUG, "ours", 1, 0.80), make("b", AUG, "ours", 1, 0.82, train__seed=1)]
    found = paper.report(runs)
    assert lines(found.tables[AUG])["Ours, here"] == ["–", "81.00 ± 1.41 (2)", "–", "–"]
    assert lines(found.tables[3])["D.T., S.H., P.R., here"] == ["81.00 ± 1.41 (2)", "–"]
    assert lines(found.tables[4])["ME balance, here"] == ["81.00 ± 1.41 (2)", "–"]
    assert found.left_out == []


def test_an_ablation_is_no_run_of_the_method(make: Make) -> None:
    found = paper.report([make("a", 3, "shared", 0)])
    assert "Ours, here" not in lines(found.tables[AUG])
    assert lines(found.tables[3])["D.T., S.H., here"] == ["70.00 (1)", "–"]
    assert found.left_out == []


def test_a_machine_may_do_it_its_own_way(make: Make) -> None:
    free = {"train__workers": 9, "train__accumulate": 2, "train__precision": "bf16", "data__root": "there"}
    steps = {"train__epochs": None, "train__steps": 39680}
    found = paper.report([make("a", AUG, "ours", 1, **free, **steps)])
    assert lines(found.tables[AUG])["Ours, here"][1] == "70.00 (1)"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"optim__lr": 0.01}, "optim.lr: 0.001 -> 0.01"),
        ({"method__alpha": 0.2}, "method.alpha: 0.1 -> 0.2"),
        ({"supervision__class_weighting": 1.0}, "supervision.class_weighting: 0.0 -> 1.0"),
        ({"train__oracle": True}, "train.oracle: False -> True"),
        ({"model__weights": "none"}, "model.weights: timm -> none"),
        ({"train__epochs": None, "train__steps": 100}, "steps: 39680 -> 100"),
        ({"step": 100}, "it stopped at step 100"),
        ({"data": {"val_hash": "other"}}, "its val images are not those of published scores"),
    ],
)
def test_what_differs_is_not_shown_but_named(make: Make, changes: dict[str, Any], reason: str) -> None:
    found = paper.report([make("a", AUG, "ours", 1, **changes)])
    assert not any(row.has_runs for table in found.tables for row in table.rows)
    (line,) = found.left_out
    assert line.endswith(reason) and "table 1, Ours, voc/u2pl/2646" in line


def test_lists_of_another_family_and_other_methods_are_nobodys(make: Make) -> None:
    runs = [
        make("a", AUG, "ours", 1, data={"protocol": "voc/blended/2646"}),
        make("b", AUG, "ours", 1, data={"protocol": None}),
        make("c", AUG, "ours", 1, method="fixmatch"),
    ]
    found = paper.report(runs)
    assert not any(row.has_runs for table in found.tables for row in table.rows) and found.left_out == []


def test_coco_weights_are_any_file_and_imagenets_are_not(make: Make) -> None:
    found = paper.report(
        [make("a", 0, "ours", 2, model__weights="mine.pth"), make("b", 0, "ours", 3, model__weights="timm")]
    )
    assert lines(found.tables[0])["Ours, here"] == ["–", "–", "70.00 (1)", "–", "–"]
    assert found.left_out[0].endswith("model.weights: coco_resnet101.safetensors -> timm")


def test_table_5_shows_classes(make: Make) -> None:
    found = paper.report([make("a", 5, "ours", 0)], [5])
    (table,) = found.tables
    heading, *rows = table.laid_out()
    assert heading[-2:] == ["Ours", "Ours, here"]
    cells = {name: values for name, *values in rows}
    assert cells["boat*"][-2:] == ["68.2", "50.00 (1)"] and cells["person"][-2:] == ["85.5", "– (1)"]


# ── the verb ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_verb_looks_below_its_folders_and_writes_text_markdown_and_a_page(make: Make, tmp_path: Path) -> None:
    make("deep/er", AUG, "ours", 0, 0.8)
    unfinished = make("unfinished", AUG, "ours", 0)
    (unfinished.path / "results.json").unlink()
    page = tmp_path / "paper.html"
    done = CliRunner().invoke(app, ["compare", "paper", str(tmp_path / "runs"), "--markdown", "--html", str(page)])
    assert done.exit_code == 0, done.output
    assert "| Ours, here | 80.00 (1) | – | – | – |" in done.output and "### Table 5" in done.output
    text = page.read_text(encoding="utf-8")
    assert "<td>80.00 (1)</td>" in text and '<a href="#table-5">' in text
    assert "Rows called <code>here</code>" in text and "`" not in text.partition("</style>")[2]
    screen = StringIO()
    Console(width=160, file=screen).print(paper.report(paper.find_runs([tmp_path / "runs"])))
    assert "80.00 (1)" in screen.getvalue()


def test_without_runs_the_published_figures_are_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["compare", "paper"])
    assert done.exit_code == 0 and "82.11" in done.output
    missing = CliRunner().invoke(app, ["compare", "paper", "gone"])
    assert missing.exit_code == 2 and "gone: no such folder of runs" in missing.output
    for arguments in (["paper", "--plot", "a.png"], ["paper", "steps=2"], ["runs", "--html", "a.html"]):
        assert CliRunner().invoke(app, ["compare", *arguments]).exit_code == 2
    with pytest.raises(RunError):
        list(paper.find_runs([tmp_path / "gone"]))


def test_two_runs_of_one_seed_are_named(make: Make) -> None:
    runs = [make(name, AUG, "ours", 1, 0.5, **{"seed": 3}) for name in ("a", "b")]
    found = paper.report(runs)
    text, *_ = found.doubts  # of each table that they stand in
    Console(width=300, file=(screen := StringIO())).print(found)
    assert text.startswith("table 1, ") and text.endswith("seed 3 occurs more than once; such runs are no independent "
                                                          "evidence")  # fmt: skip
    assert text in found.markdown() and text in found.page() and "! table 1, " in screen.getvalue()
    assert not paper.report(runs[:1]).doubts


def test_runs_of_other_versions_are_named(make: Make) -> None:
    run = make("a", AUG, "ours", 1)
    run.write_config({**run.config(), "colour": 1})
    assert "its settings are not those of this version" in paper.report([run]).left_out[0]
