import itertools
import os
import shutil
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from des4.engine.checkpoint import Checkpoints, optimiser_state, restore_optimiser
from des4.engine.optim import OptimConfig, build_optimiser
from des4.methods.base import Network
from des4.types import RunError

CPU = torch.device("cpu")


def silent(text):
    raise AssertionError(text)


def tensors(value):
    shared = torch.full((2, 3), float(value))
    return {"a": shared, "b": shared, "transposed": shared.T, "scalar": torch.tensor(value), "flags": shared > 1}


def test_what_is_saved_is_loaded(tmp_path):
    checkpoints = Checkpoints(tmp_path / "new")
    assert checkpoints.load(silent) is None
    checkpoints.save(7, tensors(2), {"seconds": 0.1})
    loaded = checkpoints.load(silent)
    assert (loaded.step, loaded.meta) == (7, {"step": 7, "seconds": 0.1})
    assert loaded.tensors.keys() == tensors(2).keys()
    assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in tensors(2).items())
    files = {path.name for path in (tmp_path / "new" / "step-7").iterdir()}
    assert files == {"state.safetensors", "meta.json", "manifest.json"}


def test_a_state_is_on_the_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    done, rename = [], Path.rename

    def renamed(path, target):
        done.append(f"{path.name} to {target.name}")
        return rename(path, target)

    monkeypatch.setattr("des4.engine.checkpoint.sync", lambda path: done.append(path.name))
    monkeypatch.setattr(Path, "rename", renamed)
    Checkpoints(tmp_path / "checkpoints").save(7, tensors(2), {})
    assert sorted(done[:3]) == ["manifest.json", "meta.json", "state.safetensors"]
    assert done[3:] == [".partial", ".partial to step-7", "checkpoints"]


def test_the_newest_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (5, 10, 15, 100):
        checkpoints.save(step, tensors(step), {})
    assert checkpoints.steps() == [15, 100]
    checkpoints.save(15, tensors(15), {})  # a resumed run: what lies ahead belongs to the run it replaces
    assert checkpoints.steps() == [15]
    assert checkpoints.load(silent).tensors["scalar"] == 15


def test_old_ones_that_a_kill_has_left_are_deleted_up_to_the_state_in_use(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=4)
    for step in (1, 2, 3, 4):
        checkpoints.save(step, tensors(step), {})
    checkpoints.keep = 2
    checkpoints.delete_old(3)  # 4 is damaged, say
    assert checkpoints.steps() == [2, 3, 4]


FILES = ("state.safetensors", "meta.json", "manifest.json")


@pytest.fixture
def two(tmp_path):
    """Checkpoints of steps 1 and 2."""
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for step in (1, 2):
        checkpoints.save(step, {"a": torch.full((3,), step)}, {"seconds": 0.5})
    return checkpoints


def loaded(checkpoints):
    """Return the step of the state that is used, and what is said."""
    said = []
    return checkpoints.load(said.append).step, said


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(two, name, damage):
    path = two.folder / "step-2" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    if damage != "remove":
        path.write_bytes(content if damage == "flip" else content[:-5])
    step, (line,) = loaded(two)
    assert step == 1
    assert f"{two.folder / 'step-2'} is damaged" in line
    assert name in line or name == "manifest.json"
    assert "step-1 is taken in its place" in line
    two.save(2, tensors(2), {})
    assert loaded(two) == (2, [])


@pytest.mark.parametrize("name", FILES)
def test_a_flip_of_any_bit_and_a_cut_at_any_byte_are_found(two, name):
    path = two.folder / "step-2" / name
    sound = path.read_bytes()
    for place in range(len(sound)):
        flipped = bytearray(sound)
        flipped[place] ^= 1 << place % 8
        for content in (flipped, sound[:place]):
            path.write_bytes(content)
            assert loaded(two)[0] == 1, (place, bytes(content))
    path.write_bytes(sound)
    assert loaded(two) == (2, [])


def test_a_checkpoint_under_another_name_is_not_taken_for_what_it_is_not(two):
    (two.folder / "step-2").rename(two.folder / "step-3")
    step, (line,) = loaded(two)
    assert step == 1
    assert "it is of step 2" in line


def test_if_all_are_damaged_nothing_is_started_silently(two):
    for step in (1, 2):
        (two.folder / f"step-{step}" / "meta.json").write_text("{}")
    said = []
    with pytest.raises(RunError, match="every checkpoint"):
        two.load(said.append)
    assert ["step-2" in said[0], "step-1 is damaged" in said[1]] == [True, True]
    assert said[1].endswith("there is none before it")


# ── disks ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def disk_that_takes(size):
    """No file can grow beyond `size` bytes: the system refuses the write, as a full disk does."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize(("size", "meta"), [(40, {}), (400, {"skipped": {"photo.jpg": "broken " * 100}})])
def test_a_full_disk_leaves_the_older_ones_and_saving_goes_on_when_there_is_space(two, size, meta):
    with disk_that_takes(size), pytest.raises(RunError, match=r"step-3 cannot be written .*File too large") as error:
        two.save(3, {"a": torch.full((3,), 3)}, meta)
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in two.folder.iterdir()) == ["step-1", "step-2"]
    assert loaded(two) == (2, [])
    two.save(3, {"a": torch.full((3,), 3)}, meta)
    assert loaded(two) == (3, [])


def test_a_file_in_the_folder_s_place_is_named(tmp_path):
    (tmp_path / "checkpoints").touch()
    with pytest.raises(RunError, match="checkpoints/step-1 cannot be written"):
        Checkpoints(tmp_path / "checkpoints").save(1, tensors(1), {})


@contextmanager
def nobody_s_rights():
    """Nothing is read-only to root: inside, root has the rights of a user who owns nothing."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="folders are not read-only there")
def test_a_read_only_folder_is_named_and_left_as_it_was(two, monkeypatch):
    monkeypatch.chdir(two.folder)  # from inside, the folders above it, which are their owner's alone, do not count
    two.folder.chmod(0o555)
    try:
        with nobody_s_rights(), pytest.raises(RunError, match=r"step-3 cannot be written .*make its folder writable"):
            Checkpoints(Path()).save(3, tensors(3), {})
    finally:
        two.folder.chmod(0o755)
    assert loaded(two) == (2, [])


def test_a_folder_deleted_under_a_run_is_made_again(two):
    shutil.rmtree(two.folder)
    two.save(3, tensors(3), {})
    assert loaded(two) == (3, [])


def test_what_json_cannot_hold_leaves_nothing_behind(two):
    with pytest.raises(TypeError):
        two.save(3, tensors(3), {"set": {1}})
    assert sorted(path.name for path in two.folder.iterdir()) == ["step-1", "step-2"]


# ── kills ────────────────────────────────────────────────────────────────────────────────────────────────────────────

OPERATIONS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.scandir", "shutil.rmtree"}


def save_and_die(checkpoints, step, operation):
    """Save in a process that is killed as it begins its n-th operation on the disk; return whether it was."""
    child = os.fork()
    if child == 0:
        left = itertools.count(operation, -1)

        def die(event, args):
            if event in OPERATIONS and str(args[0]).startswith(str(checkpoints.folder)) and next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(die)
        try:
            checkpoints.save(step, {"a": torch.full((3,), step)}, {})
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that can fork")
@pytest.mark.parametrize("again", [False, True], ids=["new", "in the place of a damaged one"])
def test_a_save_killed_at_any_operation_loses_nothing_that_was_saved(two, again):
    step = 2 if again else 3
    if again:
        (two.folder / "step-2" / "meta.json").write_text("torn")
    before = shutil.copytree(two.folder, two.folder.parent / "before")
    found = set()
    for operation in itertools.count():
        killed = save_and_die(two, step, operation)
        state = two.load(lambda text: None)
        found.add(state.step)
        assert torch.equal(state.tensors["a"], torch.full((3,), state.step))
        two.save(step, {"a": torch.full((3,), step)}, {})  # as the resumed run does
        assert loaded(two) == (step, [])
        assert not (two.folder / ".partial").exists()
        if not killed:
            break
        shutil.rmtree(two.folder)
        shutil.copytree(before, two.folder)
    assert operation > 10
    assert found == {step, step - 1}


def test_what_a_killed_save_left_is_cleared(tmp_path):
    (tmp_path / ".partial").mkdir()
    (tmp_path / ".partial" / "state.safetensors").touch()
    Checkpoints(tmp_path).save(1, tensors(1), {})
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_an_optimiser_continues_where_it_stopped(tmp_path, name):
    def network():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
        net.networks = lambda: {"net": Network(net, "trained")}
        return net, build_optimiser(net, OptimConfig(name=name, decay_norms=False), 1)

    def learn(net, optimiser, steps):
        for step in steps:
            net(torch.full((1, 3), float(step))).square().sum().backward()
            optimiser.step()
            optimiser.zero_grad()

    straight, optimiser = network()
    learn(straight, optimiser, range(6))

    first, optimiser = network()
    learn(first, optimiser, range(3))
    moments, numbers = optimiser_state(optimiser)
    Checkpoints(tmp_path).save(3, moments, {"optimiser": numbers})
    loaded = Checkpoints(tmp_path).load(silent)

    second, optimiser = network()
    second.load_state_dict(first.state_dict())
    restore_optimiser(optimiser, loaded.tensors, loaded.meta["optimiser"])
    learn(second, optimiser, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), second.parameters(), strict=True))


def test_moments_lie_in_memory_as_their_parameters_do():
    def network():
        torch.manual_seed(0)
        net = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        return net, torch.optim.SGD(net.named_parameters(), 0.1, momentum=0.9, fused=True)

    def learn(net, optimiser):
        net(torch.arange(75.0).reshape(1, 3, 5, 5) / 75).square().sum().backward()
        optimiser.step()
        optimiser.zero_grad()

    straight, optimiser = network()
    learn(straight, optimiser)
    moments, numbers = optimiser_state(optimiser)
    second, restored = network()
    second.load_state_dict(straight.state_dict())
    restore_optimiser(restored, {name: moment.clone().contiguous() for name, moment in moments.items()}, numbers)
    learn(straight, optimiser)
    learn(second, restored)
    assert torch.equal(straight.weight, second.weight)


def test_state_of_a_parameter_that_is_not_trained_is_refused():
    net = nn.Linear(1, 1)
    net.networks = lambda: {"net": Network(net, "trained")}
    optimiser = build_optimiser(net, OptimConfig(), 1)
    with pytest.raises(RunError, match="gone"):
        restore_optimiser(optimiser, {"gone/momentum_buffer": torch.zeros(1)}, {})
