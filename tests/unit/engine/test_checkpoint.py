import pytest
import torch
from torch import nn

from des4.engine.checkpoint import Checkpoints, optimiser_state, restore_optimiser, restore_rng, rng_state
from des4.engine.optim import OptimConfig, build_optimiser
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


def test_the_newest_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (5, 10, 15, 100):
        checkpoints.save(step, tensors(step), {})
    assert checkpoints.steps() == [15, 100]
    checkpoints.save(15, tensors(15), {})  # a resumed run: what lies ahead belongs to the run it replaces
    assert checkpoints.steps() == [15]
    assert checkpoints.load(silent).tensors["scalar"] == 15


@pytest.mark.parametrize("name", ["state.safetensors", "meta.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(tmp_path, name, damage):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, tensors(1), {})
    checkpoints.save(2, tensors(2), {})
    path = tmp_path / "step-2" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    if damage != "remove":
        path.write_bytes(content if damage == "flip" else content[:-5])
    said = []
    assert checkpoints.load(said.append).step == 1
    assert len(said) == 1 and "step-2" in said[0] and "damaged" in said[0]
    checkpoints.save(2, tensors(2), {})
    assert checkpoints.load(silent).step == 2


def test_if_all_are_damaged_nothing_is_started_silently(tmp_path):
    Checkpoints(tmp_path).save(1, tensors(1), {})
    (tmp_path / "step-1" / "meta.json").write_text("{}")
    with pytest.raises(RunError, match="every checkpoint"):
        Checkpoints(tmp_path).load(lambda text: None)


def test_a_failed_save_leaves_the_older_ones(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, tensors(1), {})
    with pytest.raises(TypeError):
        checkpoints.save(2, tensors(2), {"set": {1}})
    monkeypatch.setattr("des4.engine.checkpoint.save_file", full_disk)
    with pytest.raises(RunError, match="disk space"):
        checkpoints.save(2, tensors(2), {})
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]
    assert checkpoints.load(silent).step == 1


def full_disk(*_):
    raise OSError(28, "No space left on device")


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


def test_state_of_a_parameter_that_is_not_trained_is_refused():
    optimiser = build_optimiser(nn.Linear(1, 1), OptimConfig(), 1)
    with pytest.raises(RunError, match="gone"):
        restore_optimiser(optimiser, {"gone/momentum_buffer": torch.zeros(1)}, {})


def test_the_generator_goes_on_after_its_state_is_restored():
    state = rng_state(CPU)
    drawn = torch.rand(3)
    restore_rng(state, CPU)
    assert torch.equal(torch.rand(3), drawn)
