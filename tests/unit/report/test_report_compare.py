from __future__ import annotations

import math
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from des4.report.compare import Score, compare
from des4.runlog import RunFolder
from des4.types import RunError

MakeRun = Callable[..., RunFolder]


def test_mean_and_sd_of_three_seeds_by_hand(make_run: MakeRun) -> None:
    result = compare([make_run(f"r{s}", seed=s, miou=m) for s, m in enumerate((0.50, 0.56, 0.53))])
    (group,) = result.groups
    assert (group.label, group.model, group.seeds) == ("des4", "teacher", (0, 1, 2))
    assert group.miou.mean == pytest.approx(0.53)
    assert group.miou.sd == pytest.approx(0.03)  # sqrt((0.03² + 0.03² + 0) / 2)
    assert str(group.tail_miou) == "33.00 ± 3.00"
    assert group.iou["road"].mean == pytest.approx(80 / 110)
    assert str(group.iou["$5 [bold]|note"]) == "–"
    assert result.warnings == ()


def test_a_class_missing_in_one_run_is_averaged_over_the_others() -> None:
    assert str(Score((0.5, math.nan, 0.7))) == "60.00 ± 14.14"
    assert str(Score((0.5, math.nan))) == "50.00"


def test_groups_are_labeled_by_method_and_by_what_differs(make_run: MakeRun) -> None:
    runs = [
        make_run("a"),
        make_run("b", method__sampling="quantity"),
        make_run("c", method__name="fixmatch", method__threshold=0.95),
        make_run("d", method__sampling="quantity", seed=1),
    ]
    groups = compare(runs).groups
    assert [g.label for g in groups] == ["des4 · sampling=multi_entropy", "des4 · sampling=quantity", "fixmatch"]
    assert [g.seeds for g in groups] == [(0,), (0, 1), (0,)]


def test_every_breach_of_the_protocol_is_named(make_run: MakeRun) -> None:
    other = make_run(
        "b", seed=1, train__steps=200, train__batch_size=16, views__crop_size=513, model__encoder="resnet101",
        eval__mode="sliding", data__root="elsewhere", data={"labeled": 5, "labeled_hash": "other"},
    )  # fmt: skip
    result = compare([make_run("a"), other])
    named = [w for w in result.warnings if w.startswith("not one protocol: ")]
    assert [w.split(": ")[1].removesuffix(" differs") for w in named] == [
        "labeled list", "steps", "data.root", "views.crop_size", "model.encoder", "train.batch_size", "eval.mode"
    ]  # fmt: skip
    assert "labeled-hash (4 images), other (5 images)" in named[0]


def test_a_run_that_began_as_another_and_other_classes_are_named(make_run: MakeRun) -> None:
    begun = make_run("b", train__start_from="runs/labels")
    (said,) = (w for w in compare([make_run("a", train__start_from=None), begun]).warnings if "not one" in w)
    assert said == "not one protocol: train.start_from differs: absent, runs/labels"
    other = make_run("c")
    other.write_results(other.results() | {"pixel_share": {"road": 1.0}})
    (said,) = (w for w in compare([make_run("d"), other]).warnings if "not one" in w)
    assert said == "not one protocol: list of classes differs: 3: $5 [bold]|note, <b>sign</b>, road, 1: road"


def test_runs_with_other_images_under_one_path_are_no_seeds_of_one_group(make_run: MakeRun) -> None:
    """Their mean would be one over different lists."""
    result = compare([make_run("a"), make_run("b", seed=1, data={"val_hash": "other"})])
    assert [g.label for g in result.groups] == ["des4 · val list=4 images, val-hash", "des4 · val list=4 images, other"]
    assert any("val list" in warning for warning in result.warnings)


def test_what_the_names_leave_out_stands_in_a_table(make_run: MakeRun) -> None:
    runs = [
        make_run("a"),
        make_run("b", method__sampling="quantity", train__steps=200),
        make_run("c", method__name="fixmatch", method__threshold=0.95, train__steps=200),
    ]
    result = compare(runs)
    ((*_, rows),) = result.sections()
    assert rows == [
        ["what differs", "des4 · sampling=multi_entropy", "des4 · sampling=quantity", "fixmatch"],
        ["method.sampling", "multi_entropy", "quantity", "–"],
        ["train.steps", "100", "200", "200"],
    ]
    assert "| train.steps | 100 | 200 | 200 |" in result.markdown()
    assert next(compare(runs[1:]).sections())[-1] == [], "the names say all of it"


def test_one_seed_a_repeated_seed_and_an_unfinished_run_are_warned_of(make_run: MakeRun) -> None:
    assert "one seed only" in compare([make_run("a")]).warnings[0]
    assert "seed 0 occurs more than once" in compare([make_run("b"), make_run("c")]).warnings[0]
    run = make_run("d")
    run.write_results({**run.results(), "step": 7})
    assert "stopped at step 7 of 100" in compare([run]).warnings[0]


def test_it_renders_as_text_markdown_and_picture(make_run: MakeRun, tmp_path: Path) -> None:
    result = compare(
        [make_run("a", miou=0.5), make_run("b", seed=1, miou=0.6), make_run("c", scored=False, eval__mode="x")]
    )
    console = Console(width=160, record=True, file=StringIO())
    console.print(result)
    text = console.export_text()
    assert "55.00 ± 7.07" in text and "<b>sign</b>" in text and "$5 [bold]|note" in text and "one seed only" in text
    markdown = result.markdown()
    assert "| des4 · mode=whole | teacher | 2 | 55.00 ± 7.07 | 35.00 ± 7.07 |" in markdown
    assert r"$5 [bold]\|note" in markdown and "&lt;b&gt;sign" in markdown and "- Warning: " in markdown
    result.plot(tmp_path / "compare.png")
    assert (tmp_path / "compare.png").stat().st_size > 5000


def test_families_of_lists_never_share_a_table(make_run: MakeRun, tmp_path: Path) -> None:
    """U2PL's and CPS's 1/8 have the same size, and are other images: their figures do not belong side by side."""
    result = compare(
        [
            make_run("a", miou=0.5, data={"protocol": "voc/u2pl/1323"}),
            make_run("b", seed=1, miou=0.6, data={"protocol": "voc/blended/1323", "labeled_hash": "other"}),
            make_run("c", seed=1, miou=0.7, data={"protocol": "voc/u2pl/1323"}),
            make_run("d", seed=1, miou=0.8, data={"labeled_hash": "own", "protocol": None}),
        ]
    )
    assert {family: [g.seeds for g in groups] for family, groups in result.families.items()} == {
        "voc/u2pl": [(0, 1)], "voc/blended": [(1,)], "": [(1,)],
    }  # fmt: skip
    markdown = result.markdown()
    titles = [line for line in markdown.splitlines() if line.startswith("#")]
    assert titles == ["### voc/u2pl/1323", "### voc/blended/1323", "### unpublished lists"]
    assert [part.count("| teacher |") for part in markdown.split("### ")[1:]] == [1, 1, 1]
    assert "60.00 ± 14.14" in markdown.split("### ")[1] and "60.00 |" in markdown.split("### ")[2]
    assert result.warnings[0].startswith("voc/u2pl, voc/blended and unpublished lists are lists of different images")
    assert result.warnings[1].startswith("voc/blended: des4: one seed only")
    assert not any("labeled list differs" in warning for warning in result.warnings)
    console = Console(width=160, record=True, file=StringIO())
    console.print(result)
    assert console.export_text().count("mIoU %") == 6
    with pytest.raises(RunError, match="one picture cannot hold several families of lists"):
        result.plot(tmp_path / "compare.png")
    assert not (tmp_path / "compare.png").exists()


def test_one_family_is_named_and_keeps_one_table(make_run: MakeRun, tmp_path: Path) -> None:
    """Two sizes of one family may stand together, with a warning."""
    runs = [make_run("a", data={"protocol": "voc/classic/92", "labeled_hash": "92"}),
            make_run("b", seed=1, data={"protocol": "voc/classic/183", "labeled_hash": "183"})]  # fmt: skip
    result = compare(runs)
    assert [g.protocol for g in result.groups] == ["voc/classic/92", "voc/classic/183"]
    assert result.markdown().startswith("### voc/classic\n")
    assert compare(runs[:1]).markdown().startswith("### voc/classic/92\n")
    assert any("labeled list differs" in warning for warning in result.warnings)
    result.plot(tmp_path / "compare.png")
    assert (tmp_path / "compare.png").exists()


def test_settings_that_name_no_method_are_an_error(make_run: MakeRun) -> None:
    run = make_run("a")
    run.write_config({"train": {"steps": 3}})
    with pytest.raises(RunError, match=r"config\.yaml names no method"):
        compare([run])


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(ValueError, match="no runs"):
        compare([])
