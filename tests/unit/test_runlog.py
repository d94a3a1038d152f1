import json
import math

import pytest

from des4.runlog import RunFolder
from des4.types import RunError


@pytest.fixture
def run(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    run.write_config({"train": {"steps": 3}})
    return run


def test_a_new_run_has_its_folders_and_reads_back_what_was_written(run):
    assert all(folder.is_dir() for folder in (run.weights, run.plots, run.checkpoints))
    run.write_env({"torch": "2"})
    run.write_results({"miou": 0.5, "iou": {"sky": math.nan}})
    again = RunFolder.open(run.path)
    assert again.config() == {"train": {"steps": 3}}
    assert again.env() == {"torch": "2"}
    assert again.results() == {"miou": 0.5, "iou": {"sky": None}}
    assert not list(run.path.glob("*.partial")) and not list(run.path.glob(".*"))


def test_an_existing_folder_is_refused_and_the_message_names_the_ways_out(run, tmp_path):
    with pytest.raises(RunError, match=r"--resume.*--overwrite"):
        RunFolder.create(run.path)
    (tmp_path / "empty").mkdir()
    RunFolder.create(tmp_path / "empty")


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunError, match="out=FOLDER"):
            RunFolder.create(path)


def test_overwrite_replaces_a_run_and_leaves_foreign_files_alone(run):
    run.log(1, {"loss": 2.0})
    (run.weights / "last.safetensors").touch()
    (run.path / "notes.txt").write_text("mine")
    again = RunFolder.create(run.path, overwrite=True)
    assert again.metrics() == []
    assert not list(again.weights.iterdir())
    assert not (run.path / "config.yaml").exists()
    assert (run.path / "notes.txt").read_text() == "mine"


def test_overwrite_follows_no_link(run, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").touch()
    run.weights.rmdir()
    run.weights.symlink_to(tmp_path / "elsewhere")
    RunFolder.create(run.path, overwrite=True)
    assert (tmp_path / "elsewhere" / "kept").exists()
    assert not run.weights.is_symlink()


@pytest.mark.parametrize("names", [("photo.jpg",), ("config.yaml",), ("config.yaml", "train.log")])
def test_overwrite_refuses_a_folder_that_is_no_run(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("precious")
    with pytest.raises(RunError, match="not a des4 run"):
        RunFolder.create(tmp_path, overwrite=True)
    assert all((tmp_path / name).read_text() == "precious" for name in names)


def test_open_refuses_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(RunError, match="not a des4 run"):
        RunFolder.open(tmp_path)


def test_metrics_are_json_lines_without_nan(run):
    run.log(1, {"loss": 0.5, "zones": [1.0, math.inf]})
    text = (run.path / "metrics.jsonl").read_text()
    assert json.loads(text) == {"step": 1, "loss": 0.5, "zones": [1.0, None]}


def test_a_torn_last_line_is_dropped_and_a_bad_one_before_it_named(run):
    run.log(1, {"loss": 0.5})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    assert run.metrics() == [{"step": 1, "loss": 0.5}]
    run.truncate_metrics(5)
    run.log(2, {"loss": 0.25})
    assert [row["step"] for row in run.metrics()] == [1, 2]
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('broken\n{"step": 3}\n')
    with pytest.raises(RunError, match="line 3"):
        run.metrics()


def test_truncation_drops_what_lies_after_the_step(run):
    for step in (10, 20, 30):
        run.log(step, {"loss": 1.0})
    run.truncate_metrics(20)
    assert [row["step"] for row in run.metrics()] == [10, 20]


def test_the_log_has_a_time_on_every_line_and_prints_it_bare(run, capsys):
    run.say("hello")
    run.say("quiet", echo=False)
    assert capsys.readouterr().out == "hello\n"
    lines = (run.path / "train.log").read_text().splitlines()[1:]
    assert [line[20:] for line in lines] == ["hello", "quiet"]


def test_missing_and_damaged_files_give_one_clear_line(run):
    with pytest.raises(RunError, match="has not finished"):
        run.results()
    (run.path / "results.json").write_text("[")
    (run.path / "env.json").write_text("[]")
    (run.path / "config.yaml").write_text("a: [")
    for read in (run.results, run.env, run.config):
        with pytest.raises(RunError) as error:
            read()
        assert "\n" not in str(error.value)
    (run.path / "config.yaml").write_text("")
    with pytest.raises(RunError, match="no settings"):
        run.config()
