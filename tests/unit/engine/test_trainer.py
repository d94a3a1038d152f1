import itertools
import json
import math
import re
import signal
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from des4.engine import (
    EvalConfig,
    Evaluator,
    Guards,
    Interrupted,
    OptimConfig,
    PolySchedule,
    Recorder,
    TrainConfig,
    Trainer,
    TrainStep,
    Validation,
    build_optimiser,
    choose_device,
    choose_precision,
)  # fmt: skip
from des4.engine.callbacks import Callback, Callbacks
from des4.engine.checkpoint import read_meta
from des4.engine.drift import DriftGuard
from des4.engine.step import Outcome
from des4.methods import Method
from des4.models import PrototypeClassifier, PrototypeFeed, TargetTally
from des4.runlog import RunFolder
from des4.types import IGNORE, STOP_SIGNALS, Batch, ConfigError, Labeled, RunError, Unlabeled

CPU = torch.device("cpu")


class Toy(nn.Module):
    """A pointwise student, an EMA teacher, dropout from the global generator, and a step in the state.

    Its labels pass for pseudo-labels, and its first channel for their confidence.
    """

    threshold = 0.0

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.student = nn.Conv2d(3, 2, 1)
        self.teacher = nn.Conv2d(3, 2, 1).requires_grad_(False)
        self.register_buffer("step", torch.tensor(0))
        self.tally = TargetTally(2)

    def prepared(self, batch):
        return batch

    def forward(self, batch):
        logits = self.student(nn.functional.dropout(batch.labeled.image, 0.3))
        loss = nn.functional.cross_entropy(logits, batch.labeled.label)
        confidence = batch.labeled.image[:, 0]
        self.tally.collect(logits, batch.labeled.label, confidence, confidence > 0.2, confidence > 0.1)
        return {"labeled": loss, "weights": 0.1 * self.student.weight.square().sum()}

    def after_step(self):
        with torch.no_grad():
            self.teacher.weight.lerp_(self.student.weight, 0.1)
        self.tally.commit()
        self.step += 1

    def discard(self):
        self.tally.discard()

    def predictors(self):
        return {"teacher": self.teacher, "student": self.student}

    def pseudo_labeler(self):
        return "teacher", self.teacher

    networks = Method.networks

    def stats(self):
        return {"step_of_method": self.step, "one": 1.0, "per_class": torch.tensor([1.0, torch.nan])}


class Fed(Toy):
    """A toy with prototypes, which its images move as features."""

    def __init__(self):
        super().__init__()
        self.head = PrototypeClassifier(2, 3, momentum=0.5)
        self.feed = PrototypeFeed(torch.tensor([3, 2]), "multi_entropy")

    def forward(self, batch):
        image = batch.labeled.image.nan_to_num()
        self.feed.collect(image, self.head(image), batch.labeled.label)
        return super().forward(batch)

    def after_step(self):
        self.feed.commit(self.head, torch.Generator().manual_seed)
        super().after_step()

    def discard(self):
        self.feed.discard()
        super().discard()


class Numbered:
    """Batch m is a function of m; `bad` is the number of one with a NaN. Disturbs the global generator."""

    def __init__(self, bad=-1, on_batch=lambda m: None):
        self.bad, self.on_batch = bad, on_batch

    def batches(self, start, device):
        for m in itertools.count(start):
            torch.rand(m % 3 + 1 if m > start else 50)
            self.on_batch(m)
            generator = torch.Generator().manual_seed(m)
            image = torch.rand(2, 3, 4, 4, generator=generator)
            image[0, 0, 0, 0] = torch.nan if m == self.bad else 0.5
            yield Batch(Labeled(image, (image[:, 0] > 0.5).long(), torch.arange(2), (f"left-{m}", f"right-{m}")))


DATASET = SimpleNamespace(
    classes=("dark", "light"),
    image=lambda i: torch.full((3, 4, 4), 200, dtype=torch.uint8),
    label=lambda i: torch.ones(4, 4, dtype=torch.uint8),
)


OUTCOME = Outcome({"labeled": torch.tensor(1.0)}, norm=torch.tensor(1.0), skipped=torch.tensor(0.0))


def save_weights(path, network, state):
    save_file(state, path)


def trainer(run, steps=10, method=None, loader=None, optim=None, evaluate=True, guards=None, restarts=(), **config):
    method, optim = method or Toy(), optim or OptimConfig(lr=0.1)
    method.part_starts = (0, *restarts)
    config = TrainConfig(**{"log_every": 1, "checkpoint_every": 5, **config})
    schedule = PolySchedule(steps, optim.power, restarts=restarts)
    evaluator = Evaluator(DATASET, ["a", "b"], EvalConfig(), CPU, tail=[0]) if evaluate else None
    recorder = Recorder(
        run, method, schedule, config, save_weights=save_weights,
        validation=Validation(schedule, config.eval_every or 0, config.stop_after, evaluator, guards),
        about={"method": "toy", "tail_classes": ["dark"], "caution": None},
    )  # fmt: skip
    take_step = TrainStep(
        method, build_optimiser(method, optim, 2), CPU, precision=choose_precision(config.precision, CPU),
        clip=optim.clip, parts=max(config.accumulate, run.micro_batches() or 1), on_smaller=recorder.note_parts,
    )  # fmt: skip
    return Trainer(take_step, loader or Numbered(), schedule, recorder, config)


@pytest.fixture
def new_run(tmp_path):
    def make(name="run"):
        run = RunFolder.create(tmp_path / name)
        run.write_config({})
        return run

    return make


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def comparable(run):
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in run.metrics()]


def signal_at(last, number):
    return lambda m: m == last and signal.raise_signal(number)


def test_a_run_folder_is_filled_as_promised(new_run):
    run = new_run()
    results = trainer(run, eval_every=4).fit()
    assert results == run.results()
    assert (results["step"], results["steps"], results["seed"]) == (10, 10, 0)
    assert (results["evaluated"], results["method"], results["tail_classes"]) == ("teacher", "toy", ["dark"])
    assert list(results["models"]) == ["teacher", "student"]
    assert results["miou"] == results["models"]["teacher"]["miou"]
    assert sum(map(sum, results["models"]["student"]["confusion"])) == 32
    assert results["iou"].keys() == {"dark", "light"}
    assert results["pseudo_labels"]["threshold"] == 0 and results["pseudo_labels"]["coverage"]["light"] == 1
    assert results["best"]["step"] in (4, 8, 10) and results["best"]["chosen_on"] == "val"
    rows = run.metrics()
    training, validation = [r for r in rows if "loss" in r], [r for r in rows if "loss" not in r]
    assert [row["step"] for row in training] == list(range(1, 11))
    assert [row["step"] for row in validation] == [4, 8, 10]
    assert training[0]["loss"] == pytest.approx(training[0]["loss/labeled"] + training[0]["loss/weights"])
    assert (training[4]["step_of_method"], training[4]["one"], training[4]["per_class"]) == (5, 1, [1, None])
    assert training[0]["lr"] == pytest.approx(1.0) and training[0]["images_per_second"] > 0
    keys = {"val/teacher/miou", "val/student/tail_miou", "val/student/iou/dark", "pseudo/precision/light"}
    assert keys <= validation[0].keys()
    assert {path.name for path in run.weights.iterdir()} == {"last.safetensors", "best.safetensors"}
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["step-10", "step-8"]


def test_the_loss_falls_and_last_holds_the_headline(new_run):
    run, method = new_run(), Toy()
    trainer(run, 60, method).fit()
    losses = [row["loss"] for row in run.metrics() if "loss" in row]
    assert sum(losses[-10:]) < sum(losses[:10])
    assert same(load_file(run.weights / "last.safetensors"), method.teacher.state_dict())


@pytest.mark.parametrize("optim", [OptimConfig(lr=0.1, clip=0.5), OptimConfig(name="adamw", lr=0.1)])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_killed_run_resumes_bit_exactly(new_run, optim, accumulate):
    class Killed(BaseException):
        pass

    def kill(m):
        if m == 7:
            raise Killed

    options = {"steps": 10, "optim": optim, "accumulate": accumulate, "batch_size": 2, "eval_every": 3}
    straight, resumed = Toy(), Toy()
    trainer(whole := new_run("whole"), method=straight, **options).fit()
    with pytest.raises(Killed):
        trainer(halves := new_run("halves"), loader=Numbered(on_batch=kill), **options).fit()
    assert max(row["step"] for row in halves.metrics()) == 7
    torch.manual_seed(99)
    trainer(halves, method=resumed, **options).fit()
    assert same(straight.state_dict(), resumed.state_dict())
    states = [load_file(run.checkpoints / "step-10" / "state.safetensors") for run in (whole, halves)]
    assert same(*states)  # momentum as well
    assert comparable(whole) == comparable(halves)
    results = [{**run.results(), "seconds": 0} for run in (whole, halves)]
    assert results[0] == results[1]


def test_every_step_draws_its_own_dropout(new_run):
    class Drawing(Toy):
        drawn = ()

        def forward(self, batch):
            self.drawn = (*self.drawn, torch.rand(()).item())
            return super().forward(batch)

    trainer(new_run(), 3, method := Drawing()).fit()
    assert len(set(method.drawn)) == 3


def test_what_targets_say_is_logged_alike_by_a_run_that_was_stopped_between_two_lines(new_run):
    class Killed(BaseException):
        pass

    def kill(m):
        if m == 7:
            raise Killed

    def options():
        drift = DriftGuard({"dark": 0.25, "light": 0.75}, 2.0, 10, 4)
        return {"steps": 10, "log_every": 4, "checkpoint_every": 3, "guards": Guards(drift)}

    trainer(whole := new_run("whole"), **options()).fit()
    with pytest.raises(Killed):
        trainer(halves := new_run("halves"), loader=Numbered(on_batch=kill), **options()).fit()
    trainer(halves, **options()).fit()
    assert comparable(whole) == comparable(halves)
    rows = [row for row in whole.metrics() if "loss" in row]
    assert [row["step"] for row in rows] == [4, 8, 10]
    batches = [batch.labeled for batch in itertools.islice(Numbered().batches(0, CPU), 10)]
    for row, seen in zip(rows, (batches[:4], batches[4:8], batches[8:]), strict=True):
        confidence = torch.cat([one.image[:, 0] for one in seen]).double()
        light = torch.cat([one.label for one in seen])[confidence > 0.2].double().mean().item()
        assert row["drift/shares"] == pytest.approx([1 - light, light])
        assert row["drift/confidence"] == pytest.approx(confidence[confidence > 0.1].mean().item())
        assert row["drift/kept"] == pytest.approx(((confidence > 0.2).sum() / (confidence > 0.1).sum()).item())
        assert 0 <= row["drift/agreement"] <= 1
    drift = whole.results()["drift"]
    assert drift == halves.results()["drift"]
    assert drift["ratio"]["dark"] == pytest.approx(rows[-1]["drift/shares"][0] / 0.25)


def test_a_drifting_class_is_named_in_the_log(new_run):
    class Drifting(Numbered):
        def batches(self, start, device):
            for m in itertools.count(start):
                image = torch.full((1, 3, 4, 30), 0.5)
                label = (torch.arange(120).view(1, 4, 30) >= 40 + m).long()  # ever more dark pixels
                yield Batch(Labeled(image, label, torch.arange(1), (f"{m}",)))

    guards = Guards(DriftGuard({"dark": 0.25, "light": 0.75}, 2.0, 34, 1))
    results = trainer(run := new_run(), 34, loader=Drifting(), guards=guards).fit()
    (warned,) = results["drift"]["warned"]
    assert warned["name"] == "dark" and warned["ratio"] > 2
    log = (run.path / "train.log").read_text()
    assert log.count("warning: pseudo-labels drift: dark has 2") == 1


def test_pseudo_labels_are_measured_where_the_truth_is_known(new_run):
    truth = Evaluator(DATASET, ["u", "v", "w"], EvalConfig(), CPU)
    results = trainer(run := new_run(), guards=Guards(None, truth, truth), eval_every=5).fit()
    rows = [row for row in run.metrics() if "truth/miou" in row]
    assert [row["step"] for row in rows] == [5, 10]
    assert rows[-1]["truth/precision/light"] == results["truth"]["precision"]["light"]
    assert not any(key.startswith("truth/coverage") for row in rows for key in row)  # there is no threshold
    assert (results["truth"]["images"], results["truth"]["model"]) == (3, "teacher")
    assert results["truth"]["share"] == {"dark": 0.0, "light": 1.0}
    assert sum(results["truth"]["predicted_share"].values()) == pytest.approx(1)
    assert results["truth"]["iou"] == results["models"]["teacher"]["iou"]  # its pictures are the val pictures
    assert results["held_out"]["images"] == ["u", "v", "w"]
    assert results["held_out"]["models"]["student"]["miou"] == results["models"]["student"]["miou"]
    assert rows[-1]["held_out/teacher/miou"] == results["held_out"]["models"]["teacher"]["miou"]
    plain = trainer(new_run("without")).fit()
    assert (plain["truth"], plain["held_out"], plain["drift"]) == (None, None, None)


def test_shares_of_the_truth_are_those_of_the_masks_and_those_of_the_predictions():
    class Dark(nn.Module):
        def forward(self, image):
            return torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(len(image), 2, 4, 4)

    rows = torch.tensor([0, 1, 1, IGNORE], dtype=torch.uint8)
    data = SimpleNamespace(classes=DATASET.classes, image=DATASET.image, label=lambda i: rows[:, None].expand(4, 4))
    guards = Guards(None, Evaluator(data, ["u"], EvalConfig(), CPU))
    guards.evaluate({}, {"teacher": Dark()}, 0.0)
    truth = guards.results()["truth"]
    assert truth["share"] == pytest.approx({"dark": 1 / 3, "light": 2 / 3})
    assert truth["predicted_share"] == {"dark": 1.0, "light": 0.0}


STILL = {"steps": 20, "optim": OptimConfig(lr=1e-9), "eval_every": 2, "stop_after": 2, "checkpoint_every": 3}
"""A run that learns nothing, so that every validation gives one score."""


def test_a_run_that_stands_still_stops_early_if_it_is_asked_to(new_run):
    results = trainer(run := new_run(), method=(method := Toy()), **STILL).fit()
    assert (results["step"], results["steps"], method.step) == (6, 20, 6)
    assert results["early_stop"] == {"step": 6, "stop_after": 2, "best_step": 2, "chosen_on": "val"}
    assert results["caution"] == ("the run's length was chosen on the val images that score it (train.stop_after=2)")
    assert [row["val/without_gain"] for row in run.metrics() if "val/without_gain" in row] == [0, 1, 2]
    assert same(load_file(run.weights / "last.safetensors"), method.teacher.state_dict())
    log = (run.path / "train.log").read_text()
    assert "stopped early at step 6/20: 2 validations without a better mIoU than that of step 2" in log
    assert {**trainer(run, **STILL).fit(), "seconds": 0} == {**results, "seconds": 0}  # nothing is trained again
    onwards = trainer(run, **{**STILL, "stop_after": None}).fit()
    assert (onwards["step"], onwards["early_stop"], onwards["caution"]) == (20, None, None)
    assert [row["step"] for row in run.metrics() if "loss" in row] == list(range(1, 21))


@pytest.mark.parametrize("last", [3, 5, 6])
def test_what_is_seen_inside_is_the_same_after_a_kill(new_run, last):
    """Only validations are watched; the drift of prototypes is held against the validation before, across a kill."""
    options = {"eval_every": 3, "checkpoint_every": 1}

    def kill(m):
        if m == last:
            signal.raise_signal(signal.SIGTERM)

    def seen(run):
        return [row for row in run.metrics() if any(key.startswith("inside/") for key in row)]

    trainer(straight := new_run("straight"), method=Fed(), **options).fit()
    with pytest.raises(Interrupted):
        trainer(halves := new_run("halves"), method=Fed(), loader=Numbered(on_batch=kill), **options).fit()
    trainer(halves, method=Fed(), **options).fit()
    assert seen(straight) == seen(halves)
    assert [row["step"] for row in seen(straight)] == [3, 6, 9, 10]
    first, second = seen(straight)[:2]
    assert first["inside/feed/moved"] == [None, None] and all(
        0 < degrees < 90 for degrees in second["inside/feed/moved"]
    )
    assert len(first["inside/feed/cosine"]) == 1 and sum(first["inside/feed/pixels"]) == 32


@pytest.mark.parametrize("last", [4, 5])
def test_an_early_stop_is_the_same_after_a_kill(new_run, last):
    """In the middle of a part, and between the step it stops at and the validation that says so."""
    trainer(whole := new_run("whole"), method=(straight := Toy()), **STILL).fit()
    with pytest.raises(Interrupted):
        trainer(halves := new_run("halves"), loader=Numbered(on_batch=signal_at(last, signal.SIGTERM)), **STILL).fit()
    trainer(halves, method=(resumed := Toy()), **STILL).fit()
    assert same(straight.state_dict(), resumed.state_dict())
    assert comparable(whole) == comparable(halves)
    assert {**halves.results(), "seconds": 0} == {**whole.results(), "seconds": 0}


def test_a_method_that_learns_in_parts_comes_to_its_last_one(new_run):
    results = trainer(run := new_run(), restarts=(9,), **STILL).fit()
    assert results["early_stop"] == {"step": 14, "stop_after": 2, "best_step": 10, "chosen_on": "val"}
    log = (run.path / "train.log").read_text()
    assert re.search(r"step 5/20 .* min left at most at the pace of part 1 of 2\n", log)
    assert re.search(r"step 11/20 .* min left at most\n", log)


def test_an_early_stop_needs_validations():
    with pytest.raises(ValueError, match="with eval_every=0 there is one alone"):
        TrainConfig(steps=3, eval_every=0, stop_after=2)


def test_a_checkpoint_says_how_the_network_in_it_is_built(new_run):
    learner = trainer(run := new_run(), evaluate=False)
    learner.recorder.network = {"classes": 2}
    learner.fit()
    meta = read_meta(run.checkpoints / "step-10")
    assert (meta["step"], meta["steps"]) == (10, 10)
    assert meta["network"] == {"prefix": "teacher", "info": {"classes": 2}}


@contextmanager
def handled(number, handler):
    """Inside, a signal is handled so."""
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


@pytest.fixture
def terminal():
    """One whose end is told, as `nohup`, under which these tests may run, does not."""
    with handled(signal.SIGHUP, signal.SIG_DFL):
        yield


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGUSR1, 138)]
)
def test_a_signal_ends_the_step_saves_and_says_how_to_go_on(new_run, number, code):
    run, straight, resumed = new_run(), Toy(), Toy()
    handlers = [signal.getsignal(each) for each in STOP_SIGNALS]
    with pytest.raises(Interrupted, match=r"step 4; continue with: des4 train --resume .*run") as stopped:
        trainer(run, loader=Numbered(on_batch=signal_at(3, number))).fit()
    assert stopped.value.code == code
    assert [signal.getsignal(each) for each in STOP_SIGNALS] == handlers
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-4"]
    trainer(run, method=resumed).fit()
    trainer(new_run("straight"), method=straight).fit()
    assert same(straight.state_dict(), resumed.state_dict())


def test_nohup_has_its_way(new_run):
    with handled(signal.SIGHUP, signal.SIG_IGN):
        trainer(run := new_run(), loader=Numbered(on_batch=signal_at(3, signal.SIGHUP))).fit()
    assert run.results()["step"] == 10


@pytest.fixture
def ctrl_c():
    """Python's own Ctrl-C, which a shell's background jobs start without."""
    with handled(signal.SIGINT, signal.default_int_handler):
        yield


@pytest.mark.usefixtures("ctrl_c")
def test_an_echo_of_a_signal_changes_nothing_but_insisting_does(new_run, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("des4.engine.signals.time.monotonic", lambda: clock[0])

    def twice(seconds):
        def kill(m):
            if m == 3:
                signal.raise_signal(signal.SIGINT)
                clock[0] += seconds
                signal.raise_signal(signal.SIGINT)

        return kill

    with pytest.raises(Interrupted, match="step 4"):
        trainer(new_run("echo"), loader=Numbered(on_batch=twice(0.1))).fit()
    with pytest.raises(KeyboardInterrupt):
        trainer(new_run("insist"), loader=Numbered(on_batch=twice(5))).fit()


@pytest.mark.usefixtures("ctrl_c")
def test_no_handler_of_errors_takes_a_signal_for_one(new_run):
    class Slow(Callback):
        optional = True

        def on_scored(self, done, count):
            signal.raise_signal(signal.SIGINT)

    watched = trainer(new_run("callback"), eval_every=4)
    watched.recorder.callbacks = Callbacks([Slow()])
    with pytest.raises(Interrupted, match="step 4"):
        watched.fit()

    def decoder(*_):
        with suppress(Exception):  # as where a decoder may raise anything
            signal.raise_signal(signal.SIGINT)

    reading = trainer(new_run("decoder"), eval_every=4)
    reading.method.teacher.register_forward_hook(decoder)
    with pytest.raises(Interrupted, match="step 4"):
        reading.fit()


def test_a_signal_in_the_evaluation_stops_it_and_resuming_makes_up_for_it(new_run):
    run = new_run()
    stopped = trainer(run, eval_every=4)
    stopped.method.teacher.register_forward_hook(lambda *_: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(Interrupted, match="step 4"):
        stopped.fit()
    assert not [row for row in run.metrics() if "loss" not in row]
    trainer(run, eval_every=4).fit()
    assert [row["step"] for row in run.metrics() if "loss" not in row] == [4, 8, 10]


def test_a_signal_after_the_evaluation_stops_before_another_step(new_run):
    class Signalling(Callback):
        def on_validation(self, validated):
            signal.raise_signal(signal.SIGTERM)

    training = trainer(run := new_run(), eval_every=4)
    training.recorder.callbacks = Callbacks([Signalling()], run.path, say=run.say)
    with pytest.raises(Interrupted, match="step 4"):
        training.fit()
    assert [row["step"] for row in run.metrics() if "loss" not in row] == [4]


def test_a_signal_in_a_step_after_an_evaluation_waits_for_the_steps_end(new_run):
    run = new_run()
    with pytest.raises(Interrupted, match="step 7"):
        trainer(run, eval_every=4, loader=Numbered(on_batch=signal_at(6, signal.SIGTERM))).fit()
    assert (run.checkpoints / "step-7").is_dir()


def test_a_step_that_is_not_finite_is_skipped_named_and_not_counted(new_run):
    run = new_run()
    results = trainer(run, 10, method := Toy(), Numbered(bad=3), log_every=5).fit()
    assert results["skipped_steps"] == [4]
    assert "step 4 is not finite (labeled nan, weights" in (log := (run.path / "train.log").read_text())
    assert "its images: left-3, right-3" in log
    assert all(row["loss"] > 0 for row in run.metrics() if "loss" in row)  # the means are those of the others
    assert all(tensor.isfinite().all() for tensor in method.state_dict().values())


def test_too_many_steps_that_are_not_finite_stop_the_run(new_run):
    run, method = new_run(), Toy()
    with pytest.raises(RunError, match=r"step 4 .*left-3, right-3.* 1 such steps in a row"):
        trainer(run, 10, method, Numbered(bad=3), max_skipped_steps=0).fit()
    with pytest.raises(Interrupted, match="step 3"):
        trainer(new_run("clean"), 10, clean := Toy(), Numbered(on_batch=signal_at(2, signal.SIGTERM))).fit()
    assert same(method.student.state_dict(), clean.student.state_dict())  # the weights are those after step 3
    assert run.metrics()[-1]["step"] == 3
    assert not list(run.checkpoints.iterdir())


def test_a_gradient_that_is_not_finite_is_skipped_too(new_run):
    method = Toy()
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    method.student.weight.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(RunError, match=r"step 3 .*gradient norm (inf|nan).* 3 such steps in a row"):
        trainer(new_run(), method=method, max_skipped_steps=2).fit()
    follows = {**method.teacher.state_dict(prefix="teacher."), "step": method.step}
    assert same(before | follows, method.state_dict())
    assert all(tensor.isfinite().all() for tensor in method.teacher.state_dict().values())


class WithHoles(Numbered):
    """Batches 2, 3, 5 and 6 met an unreadable image; 3 and 6 met one that was met before."""

    def batches(self, start, device):
        names = {2: "a", 3: "a", 5: "b", 6: "a"}
        for m, batch in enumerate(super().batches(start, device), start):
            yield replace(batch, skipped={names[m]: f"{names[m]}.jpg: cannot be read"} if m in names else {})


def test_skipped_images_are_named_once_and_counted(new_run):
    run = new_run()
    results = trainer(run, loader=WithHoles()).fit()
    reasons = {"a": "a.jpg: cannot be read", "b": "b.jpg: cannot be read"}
    assert results["data"]["skipped"] == {"count": 2, "images": reasons}
    log = (run.path / "train.log").read_text()
    assert [log.count(f"skipped: {reason}\n") for reason in reasons.values()] == [1, 1]
    stopped = new_run("stopped")
    with pytest.raises(Interrupted, match="step 5"):
        trainer(stopped, loader=WithHoles(on_batch=signal_at(4, signal.SIGTERM))).fit()
    assert trainer(stopped, loader=WithHoles()).fit()["data"] == results["data"]
    log = (stopped.path / "train.log").read_text()
    assert [log.count(f"skipped: {reason}\n") for reason in reasons.values()] == [1, 1]
    assert trainer(new_run("intact")).fit()["data"] == {"skipped": {"count": 0, "images": {}}}


def test_images_that_other_processes_met_are_named_at_the_next_log_line(new_run, monkeypatch):
    """The first process writes the log; here another has met one image before step 2, and the first one another."""
    run = new_run()
    training = trainer(run, 4, log_every=2, loader=WithHoles())
    recorder = training.recorder
    theirs = [["c.jpg: cannot be read"], []]
    monkeypatch.setattr("des4.engine.recorder.num_ranks", lambda: 2)
    monkeypatch.setattr("des4.engine.recorder.gather_over_ranks", lambda own: [list(own), theirs.pop(0)])
    batch = Batch(Labeled(torch.zeros(1), torch.zeros(1), torch.zeros(1)), skipped={"a": "a.jpg: cannot be read"})
    recorder.note_broken(batch)
    assert "skipped" not in (run.path / "train.log").read_text()
    recorder._say_broken()
    recorder._say_broken()
    said = [line for line in (run.path / "train.log").read_text().splitlines() if "skipped" in line]
    assert [line.partition("skipped: ")[2] for line in said] == ["a.jpg: cannot be read", "c.jpg: cannot be read"]


class Roomy(Toy):
    """A method that fails with more than `room` images at a time."""

    room = 1

    def forward(self, batch):
        if len(batch.labeled.image) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore")
        return super().forward(batch)


def test_without_memory_the_batch_is_split_and_the_run_remembers(new_run):
    run = new_run()
    trainer(run, 4, method := Roomy()).fit()
    trainer(new_run("split"), 4, split := Toy(), accumulate=2).fit()
    assert same(method.state_dict(), split.state_dict())
    log = (run.path / "train.log").read_text()
    said = "out of memory (CUDA out of memory. Tried to allocate 2.00 GiB): from now on a batch is split into 2 parts"
    assert log.count(said) == 1 and run.micro_batches() == 2
    trainer(run, 4, Roomy()).fit()
    assert (run.path / "train.log").read_text().count(said) == 1


def test_memory_for_no_image_at_all_is_one_line(new_run):
    (method := Roomy()).room = 0
    with pytest.raises(RunError, match=r"out of memory with parts of 1 labeled images.*crop_size") as error:
        trainer(new_run(), method=method).fit()
    assert "\n" not in str(error.value)


def test_clipping_bounds_the_step(new_run):
    method = Toy()
    before = method.student.weight.detach().clone()
    trainer(new_run(), 1, method, optim=OptimConfig(lr=0.1, clip=1e-4, weight_decay=0)).fit()
    assert 0 < (method.student.weight - before).norm() <= 1e-4 * 1.001  # the multiplier 10 makes the rate 1


@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16", "fp16"])
def test_every_precision_trains_and_resumes(new_run, precision):
    whole, halves = new_run("whole"), new_run("halves")
    trainer(whole, 6, one := Toy(), precision=precision).fit()
    with pytest.raises(Interrupted):
        trainer(halves, 6, precision=precision, loader=Numbered(on_batch=signal_at(2, signal.SIGTERM))).fit()
    trainer(halves, 6, two := Toy(), precision=precision).fit()
    assert same(one.state_dict(), two.state_dict())
    assert whole.results()["skipped_steps"] == []
    assert all(0 < row["loss"] < 2 for row in whole.metrics() if "loss" in row)


def test_bf16_keeps_the_loss_in_full_precision(new_run):
    run = new_run()
    trainer(run, 3, precision="bf16").fit()
    assert all(row["loss"] > 0 for row in run.metrics() if "loss" in row)


def test_without_an_evaluator_there_is_no_figure(new_run):
    run = new_run()
    results = trainer(run, 2, evaluate=False).fit()
    assert results["miou"] is None and results["best"] is None and results["models"] == {}
    assert [path.name for path in run.weights.iterdir()] == ["last.safetensors"]


def test_a_finished_run_can_be_fitted_again(new_run):
    run = new_run()
    first = trainer(run).fit()
    rows = run.metrics()
    again = trainer(run, method=(method := Toy()))
    assert {**again.fit(), "seconds": 0} == {**first, "seconds": 0}
    assert run.metrics() == rows and method.step == 10


def test_a_schedule_shorter_than_what_is_done_is_refused(new_run):
    run = new_run()
    trainer(run).fit()
    with pytest.raises(RunError, match="step 10"):
        trainer(run, 5).fit()


def test_a_checkpoint_of_another_network_is_refused_in_one_line(new_run):
    run, other = new_run(), Toy()
    trainer(run).fit()
    other.student = nn.Conv2d(3, 2, 3)
    with pytest.raises(RunError, match="does not fit") as error:
        trainer(run, method=other).fit()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("last", [3, 4])
def test_a_run_stopped_between_two_lines_of_the_log_repeats_none_and_loses_none(new_run, last):
    options = {"log_every": 3, "evaluate": False}
    trainer(whole := new_run("whole"), loader=Numbered(bad=4), **options).fit()
    stopped = new_run("stopped")
    with pytest.raises(Interrupted):
        trainer(stopped, loader=Numbered(bad=4, on_batch=signal_at(last, signal.SIGTERM)), **options).fit()
    trainer(stopped, loader=Numbered(bad=4), **options).fit()
    assert comparable(stopped) == comparable(whole)
    assert stopped.results()["skipped_steps"] == [5]


def test_lines_of_the_log_stand_for_the_steps_since_the_last(new_run):
    fine, coarse = new_run("fine"), new_run("coarse")
    trainer(fine, evaluate=False).fit()
    trainer(coarse, evaluate=False, log_every=4).fit()
    losses = [row["loss"] for row in fine.metrics()]
    assert [row["step"] for row in coarse.metrics()] == [4, 8, 10]
    assert coarse.metrics()[1]["loss"] == pytest.approx(sum(losses[4:8]) / 4)
    assert json.dumps(coarse.metrics())  # plain values


def test_speed_counts_all_images_of_all_processes_and_the_wait_for_the_device(new_run, monkeypatch):
    recorder = trainer(run := new_run(), evaluate=False).recorder
    labeled = Labeled(torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4), torch.arange(2))
    unlabeled = Unlabeled(torch.zeros(3, 3, 4, 4), (), torch.ones(3, 4, 4), torch.arange(3))
    clock = iter((10.0, 13.0))
    monkeypatch.setattr("des4.engine.recorder.time.perf_counter", lambda: next(clock))
    monkeypatch.setattr("des4.engine.recorder.num_ranks", lambda: 2)
    recorder.note_step(1, Batch(labeled, unlabeled), OUTCOME, seconds=2.0, lr=0.1)
    (row,) = run.metrics()
    assert (row["images_per_second"], row["seconds"]) == (2 * (2 + 3) / (2.0 + 3.0), 5.0)


def test_the_pace_is_that_of_the_steps_after_the_first(new_run, monkeypatch):
    recorder = trainer(run := new_run(), 10, evaluate=False, log_every=100).recorder
    batch = Batch(Labeled(torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4), torch.arange(2)))
    monkeypatch.setattr("des4.engine.recorder.time.perf_counter", lambda: 0.0)
    recorder.begin(0)
    for step, seconds in enumerate((600.0, 60.0, 60.0, 60.0, 60.0), 1):
        recorder.note_step(step, batch, OUTCOME, seconds, lr=0.1)
    assert "step 5/10  about 5.0 min left" in (run.path / "train.log").read_text()


def test_the_length_of_a_training():
    assert TrainConfig(steps=7).total_steps(10, 100) == 7
    assert TrainConfig(epochs=1.5, batch_size=4).total_steps(10, 100) == 38
    assert TrainConfig(epochs=2, batch_size=4, unlabeled_batch_size=10).total_steps(10, 100) == 20
    assert TrainConfig(epochs=2, batch_size=4).total_steps(10, 0) == 5
    assert TrainConfig(epochs=2, batch_size=4).total_steps(10, 100, reads_unlabeled=False) == 5
    assert TrainConfig(epochs=2, batch_size=4, epochs_of="labeled").total_steps(10, 100) == 5
    as_others = TrainConfig(epochs=2, batch_size=4, epochs_of="unlabeled")
    assert as_others.total_steps(10, 100, reads_unlabeled=False) == 50
    with pytest.raises(ConfigError, match="there are no unlabeled images"):
        as_others.total_steps(10, 0)
    for config in (TrainConfig(), TrainConfig(steps=1, epochs=1)):
        with pytest.raises(ConfigError, match=r"train\.steps"):
            config.total_steps(10, 100)


def test_shares_and_parts_divide_the_batch():
    assert TrainConfig(batch_size=8, accumulate=2).shares() == (8, 8)
    assert TrainConfig(batch_size=8, unlabeled_batch_size=12, accumulate=2).shares(2) == (4, 6)
    for config in (TrainConfig(batch_size=8, accumulate=3), TrainConfig(unlabeled_batch_size=3, accumulate=2)):
        with pytest.raises(ConfigError, match=r"accumulate=\d does not divide"):
            config.shares()
    with pytest.raises(ConfigError, match="on 4 processes does not divide a batch of 6"):
        TrainConfig(batch_size=6).shares(4)


def test_choosing_a_device():
    assert choose_device("cpu") == CPU
    if not torch.cuda.is_available():
        assert choose_device("auto") == CPU
        with pytest.raises(ConfigError, match="no GPU"):
            choose_device("cuda")


def test_the_best_of_undefined_scores_has_none():
    validation = Validation(PolySchedule(8, 0.9))
    assert validation.best() is None
    validation.scores = {4: -1.0}  # as no class occurs
    assert validation.best() == {"step": 4, "miou": None, "chosen_on": "val"}
    validation.scores[8] = 0.25
    assert validation.best() == {"step": 8, "miou": 0.25, "chosen_on": "val"}


def test_an_equal_score_is_no_better_and_an_undefined_one_the_worst():
    validation = Validation(PolySchedule(8, 0.9))
    for step, miou, best in ((2, math.nan, True), (4, 0.25, True), (6, 0.25, False), (7, math.nan, False)):
        scored = SimpleNamespace(headline="teacher", results={"teacher": SimpleNamespace(miou=miou)})
        assert validation.is_best(scored) is best
        validation.take(step, scored)
    assert validation.best()["step"] == 4
    assert validation.without_gain() == (4, 2)
