import json
import math
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from des4.runlog import RunFolder, replacing
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
    logs = [run.path / name for name in ("loggers", "tensorboard", "wandb")]
    for folder in logs:
        folder.mkdir()
        (folder / "events").touch()
    again = RunFolder.create(run.path, overwrite=True)
    assert not any(folder.exists() for folder in logs)
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


def test_overwrite_takes_what_an_earlier_overwrite_was_killed_over(run):
    run.write_results({"miou": 0.5})
    run.replace_config({"train": {"steps": 4}})
    (run.path / "config.yaml").unlink()  # the log, which marks the folder, goes last
    again = RunFolder.create(run.path, overwrite=True)
    assert sorted(path.name for path in again.path.iterdir() if path.is_file()) == [".lock", "train.log"]


def test_a_run_killed_before_it_had_a_config_says_how_to_start_it_again(tmp_path):
    RunFolder.create(tmp_path / "run")
    with pytest.raises(RunError, match="stopped before it had trained anything; start it again with --overwrite"):
        RunFolder.open(tmp_path / "run")
    RunFolder.create(tmp_path / "run", overwrite=True)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "train.log").touch()  # killed before it was marked
    RunFolder.create(tmp_path / "new")


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


def test_metrics_cut_at_any_byte_keep_every_line_before(run):
    for step in (1, 2):
        run.log(step, {"loss": 0.5, "class/Straße\u2028": 1.0})
    path = run.path / "metrics.jsonl"
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for size in range(first, len(whole) + 1):
        path.write_bytes(whole[:size])
        assert [row["step"] for row in run.metrics()] == ([1, 2] if size >= len(whole) - 1 else [1])
        run.truncate_metrics(1)
        run.log(2, {"loss": 0.5, "class/Straße\u2028": 1.0})
        assert path.read_bytes() == whole


@pytest.mark.parametrize("line", ["[1]", "{}", '{"step": null}', "\0\0", ""])
def test_a_line_that_is_no_row_is_named(run, line):
    (run.path / "metrics.jsonl").write_text(f'{line}\n{{"step": 2}}\n')
    with pytest.raises(RunError, match="line 1, is no line of metrics"):
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


def test_results_that_the_run_did_not_write_are_refused_with_what_to_do(run):
    run.write_results({"miou": 0.5, "iou": {}})
    with pytest.raises(RunError, match=r"lacks tail_miou, tail_classes, .*remove it.*des4 train --resume"):
        run.figures()


def test_a_kill_leaves_no_results_beside_settings_they_are_not_of(run, monkeypatch):
    run.write_results({"miou": 0.25})

    def killed(self, *arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(run), "write_config", killed)
    with pytest.raises(KeyboardInterrupt):
        run.replace_config({"train": {"steps": 4}})
    assert not (run.path / "results.json").exists()


def test_a_resume_is_marked_in_the_log_even_after_a_torn_line(run):
    with (run.path / "train.log").open("a") as file:
        file.write("2026-01-01 00:00:00 step 4/9  lo")
    run.say_resumed()
    run.say("step 4/9  loss 1")
    torn, mark, line = (run.path / "train.log").read_text().splitlines()[1:]
    assert torn.endswith("lo")
    assert "resumed" in mark
    assert line.endswith("step 4/9  loss 1")


def test_other_settings_leave_the_earlier_ones_and_their_results(run):
    run.replace_config({"train": {"steps": 4}})
    run.write_results({"miou": 0.25})
    run.replace_config({"train": {"steps": 5}})
    assert run.config() == {"train": {"steps": 5}}
    kept = {path.name: path.read_text() for path in run.path.glob("*.[0-9].*")}
    assert kept.keys() == {"config.1.yaml", "config.2.yaml", "results.2.json"}
    assert ["steps: 3" in kept["config.1.yaml"], "steps: 4" in kept["config.2.yaml"]] == [True, True]
    with pytest.raises(RunError, match="has not finished"):
        run.results()


# ── disks ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_replaced_file_is_the_old_one_or_the_new_one(tmp_path):
    path = tmp_path / "weights"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as partial:
        partial.write_text("ne")
        1 / 0  # noqa: B018
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("weights", "old")]
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("weights", "new")]


def test_several_processes_may_note_micro_batches_at_once(run):
    assert run.micro_batches() is None
    with replacing(run.path / "parts.json", shared=True) as partial:
        partial.write_text("{}")
        assert str(os.getpid()) in partial.name
    run.write_micro_batches(4)
    assert run.micro_batches() == 4 and not list(run.path.glob("*.partial"))
    (run.path / "parts.json").write_text('{"parts": 2}')  # of an earlier version
    assert run.micro_batches() == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a Linux device that is always full")
def test_a_full_disk_gives_one_clear_line_whatever_is_written(run):
    run.write_results({"miou": 0.5})
    for name in ("metrics.jsonl", ".results.json.partial", ".config.yaml.partial", ".env.json.partial"):
        (run.path / name).symlink_to("/dev/full")
    (run.path / "train.log").unlink()
    (run.path / "train.log").symlink_to("/dev/full")
    for write in (
        lambda: run.log(1, {"loss": 0.5}),
        lambda: run.say("hello"),
        lambda: run.write_results({"miou": 1}),
        lambda: run.write_config({"train": {"steps": 9}}),
        lambda: run.write_env({}),
    ):
        with pytest.raises(
            RunError, match=r"cannot be written \(No space left on device\); free some disk space"
        ) as error:
            write()
        assert "\n" not in str(error.value)
    assert run.results() == {"miou": 0.5}
    assert run.config() == {"train": {"steps": 3}}


# ── one at a time ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def fork():
    """Function that calls another in a process of its own and waits for one byte of it; the process lives on."""
    children = []

    def start(work):
        inside, outside = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                work(lambda text: os.write(outside, text))
                time.sleep(60)
            finally:
                os._exit(0)
        children.append(child)
        return child, os.read(inside, 1)

    yield start
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def claim(run):
    """Return what a process does that claims the run: it says whether it could, and stays."""

    def work(say):
        try:
            with run.claimed():
                say(b"1")
                time.sleep(60)
        except RunError:
            say(b"0")

    return work


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks there")
def test_a_run_is_trained_by_one_process_at_a_time(run, fork):
    with run.claimed():
        assert fork(claim(run))[1] == b"0"
        fork(lambda say: say(b"."))  # lives on, as the loader's workers may
    child, claimed = fork(claim(run))
    assert claimed == b"1"
    with pytest.raises(RunError, match=f"another process is training in {run.path}"), run.claimed():
        pass
    with pytest.raises(RunError, match="another process is training"):
        RunFolder.create(run.path, overwrite=True)
    assert (run.path / "config.yaml").exists()
    os.kill(child, signal.SIGKILL)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    with run.claimed():
        pass
