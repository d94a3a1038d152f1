"""The hub, by a stand-in that speaks its protocol on this machine: what is loaded, what is pushed, what goes wrong."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import Result
from fake_hub import TOKEN, FakeHub, commit_of
from PIL import Image
from typer.testing import CliRunner

import des4
from des4 import cli, hub
from des4.config import load_config
from des4.types import ConfigError, RunError, WeightsError
from des4.weights import beginning, load_weights, save_weights, weights_file

constants = pytest.importorskip("huggingface_hub").constants
Des4 = Callable[..., Result]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub without repositories, an empty cache, and a token."""
    with FakeHub().running() as running:
        template = running.url + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in (("ENDPOINT", running.url), ("HUGGINGFACE_CO_URL_TEMPLATE", template),
                            ("HF_HUB_CACHE", str(tmp_path / "cache")), ("HF_HUB_OFFLINE", False)):  # fmt: skip
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield running


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Des4:
    """Call the command line in a folder with one photo."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)).save("a.png")
    return lambda *arguments: CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def weights_of(trained: Path) -> bytes:
    return (trained / "weights" / "last.safetensors").read_bytes()


# ── addresses ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_addresses() -> None:
    for text in ("hf://me/roads", Path("hf://me/roads"), "hf://me/roads/"):
        assert str(hub.address_of(text)) == "hf://me/roads"
    assert hub.address_of(Path("hf://me/roads@refs/pr/1")) == hub.Address("me/roads", "refs/pr/1")
    assert not hub.is_address("hf/me/roads")
    for wrong in ("hf://me", "hf://me/roads/deep", "hf://me/roads@", "hf://me/ro ads", "hf://"):
        with pytest.raises(ConfigError, match="an address on the hub is hf://OWNER/NAME"):
            hub.address_of(wrong)


# ── loading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_file_is_loaded_once(fake: FakeHub, trained: Path) -> None:
    fake.add("me/roads", model__safetensors=weights_of(trained), pytorch_model__bin=b"not read")
    image = np.random.default_rng(0).integers(0, 256, (33, 40, 3), dtype=np.uint8)
    assert (des4.load("hf://me/roads").predict(image) == des4.load(trained).predict(image)).all()
    assert len([line for line in fake.asked if line == "GET /me/roads/resolve/main/model.safetensors"]) == 1
    assert not [line for line in fake.asked if "pytorch_model" in line]
    assert des4.load("hf://me/roads").path.read_bytes() == weights_of(trained)
    assert len([line for line in fake.asked if line == "GET /me/roads/resolve/main/model.safetensors"]) == 1


def test_revisions_and_what_follows_the_main_branch(fake: FakeHub, trained: Path) -> None:
    fake.add("me/roads", model__safetensors=weights_of(trained))
    old = weights_file("hf://me/roads@v0")
    fake.repos["me/roads"]["commits"].append({"model.safetensors": b"another"})
    assert weights_file("hf://me/roads").read_bytes() == b"another"
    pinned = f"hf://me/roads@{commit_of('me/roads', 0)}"
    fake.asked.clear()
    assert weights_file(pinned).read_bytes() == old.read_bytes()
    assert fake.asked == [], "a commit that is in the cache needs no hub"
    with pytest.raises(WeightsError, match="hf://me/roads@v7: the repository has no revision v7"):
        weights_file("hf://me/roads@v7")


@pytest.mark.parametrize(
    ("setup", "said"),
    [
        ({}, "hf://me/roads: no such repository, or a private one that your token does not open; log in with"),
        ({"private": True, "model__safetensors": b""}, "a private one that your token does not open"),
        ({"pytorch_model__bin": b""}, "holds no model.safetensors, as des4 push writes it; des4 reads no other file"),
        ({"model__safetensors": b"x" * 99}, "cannot be read as a weights file"),
    ],
)
def test_what_is_not_there_is_one_line(
    fake: FakeHub, run: Des4, monkeypatch: pytest.MonkeyPatch, setup: dict[str, Any], said: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    if setup:
        fake.add("me/roads", **setup)
    done = run("predict", "hf://me/roads", "a.png")
    assert done.exit_code == 2
    assert said in done.stderr and len(done.stderr.splitlines()) == 1
    assert not Path("predictions").exists()


@pytest.mark.parametrize("name", ["me/a..b", "me/-a", "me/a.git", f"me/{'a' * 97}"])
def test_a_name_that_no_repository_has_is_one_line(fake: FakeHub, run: Des4, trained: Path, name: str) -> None:
    for command in (("predict", f"hf://{name}", "a.png"), ("push", str(trained), f"hf://{name}")):
        done = run(*command)
        assert done.exit_code == 2 and f"hf://{name}: no repository can be called so" in done.stderr
        assert len(done.stderr.splitlines()) == 1


class _Bomb:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("exploded"),)


def test_a_pickle_from_the_hub_does_not_run(fake: FakeHub, run: Des4) -> None:
    bomb = pickle.dumps(_Bomb())
    fake.add("me/roads", model__safetensors=bomb, pytorch_model__bin=bomb, model__pkl=bomb)
    done = run("predict", "hf://me/roads", "a.png")
    assert done.exit_code == 2 and "cannot be read as a weights file" in done.stderr
    assert not Path("exploded").exists()
    assert not [line for line in fake.asked if ".bin" in line or ".pkl" in line]


def test_offline_the_copy_in_the_cache_is_used_and_that_is_said(
    fake: FakeHub, run: Des4, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.add("me/roads", model__safetensors=weights_of(trained))
    weights_file("hf://me/roads")
    commit = commit_of("me/roads", 0)[:12]
    fake.down = 503
    with pytest.warns(UserWarning, match=f"cannot be reached .it answers 503.; the copy of commit {commit} in the"):
        weights_file("hf://me/roads")
    with pytest.raises(RunError, match=r"hf://me/new: the hub cannot be reached .*, and no copy is in the cache"):
        weights_file("hf://me/new")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.warns(UserWarning, match=r"\(HF_HUB_OFFLINE is set\)"):
        weights_file("hf://me/roads@main")
    with pytest.raises(RunError, match=r"\(HF_HUB_OFFLINE is set\), and no copy is in the cache"):
        weights_file("hf://me/new")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    done = run("predict", "hf://me/roads", "a.png")
    assert done.exit_code == 0
    assert done.stdout == "1 images, written to predictions/roads\n"
    assert "the hub cannot be reached ([Errno 111] Connection refused)" in done.stderr


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r'needs huggingface_hub; pip install "des4\[hub\]"'):
        des4.load("hf://me/roads")


def test_every_verb_and_a_training_take_an_address(
    fake: FakeHub, run: Des4, trained: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.add("me/roads", model__safetensors=weights_of(trained))
    assert run("export", "hf://me/roads", "--format", "safetensors").stdout == "roads-export/safetensors\n"
    scored = run("eval", "hf://me/roads", "data=scenes", "data.size=48", "data.val=2")
    assert scored.exit_code == 0 and "mIoU" in scored.stdout
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: None)
    assert run("serve", "hf://me/roads", "--port", "0").stdout.startswith("serving hf://me/roads at http://127")
    config = load_config(tiny, ["start_from=hf://me/roads@main"])
    assert config.model_dump(mode="json")["train"]["start_from"] == "hf://me/roads@main"
    assert config.train.start_from is not None
    assert beginning(config.train.start_from).info.method == "des4"


# ── pushing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_push_holds_the_network_and_nothing_else_of_the_run(fake: FakeHub, run: Des4, trained: Path) -> None:
    done = run("push", trained, "hf://me/roads", "--license", "apache-2.0")
    assert done.exit_code == 0, done.output
    assert done.stdout == (
        "pushed to hf://me/roads (private): README.md, classes.txt, config.json, model.safetensors\n"
        "next    des4 predict hf://me/roads IMAGES\n"
    )
    assert fake.repos["me/roads"]["private"] is True
    files = fake.files("me/roads")
    assert set(files) == {".gitattributes", "README.md", "classes.txt", "config.json", "model.safetensors"}
    assert files["model.safetensors"] == weights_of(trained)
    card = files["README.md"].decode()
    header = yaml.safe_load(card.split("---")[1])
    assert header["license"] == "apache-2.0" and header["library_name"] == "des4"
    assert 'predictor = des4.load("hf://me/roads")' in card
    assert "des4 predict hf://me/roads photo.jpg" in card
    told = json.loads(files["config.json"])
    assert told["classes"] == files["classes.txt"].decode().splitlines()
    assert told["training"]["train"]["steps"] == 4 and told["training"]["method"]["name"] == "des4"
    assert "data" not in told["training"] and "out" not in told["training"]
    everything = b"".join(files.values())
    for secret in (str(trained), str(Path.home()), str(Path.cwd()), sys.executable, TOKEN):
        assert secret.encode() not in everything
    assert run("predict", "hf://me/roads", "a.png").stdout == "1 images, written to predictions/roads\n"


def test_paths_of_the_machine_stay_there(fake: FakeHub, run: Des4, trained: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(trained, tmp_path / "run"))
    weights = copy / "weights" / "last.safetensors"
    segmenter, info = load_weights(weights)
    model = info.model.model_copy(update={"weights": "/home/me/secret/encoder.pth"})
    save_weights(weights, segmenter.state_dict(), info.model_copy(update={"model": model}))
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config["model"]["weights"] = "/home/me/secret/encoder.pth"
    config["train"]["start_from"] = "secret_run"
    config["data"] = {"name": "folder", "root": "secret_photos"}
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    assert run("push", copy, "hf://me/roads").exit_code == 0
    files = fake.files("me/roads")
    assert b"secret" not in b"".join(files.values())
    assert json.loads(files["config.json"])["training"]["model"]["weights"] == "encoder.pth"
    image = np.zeros((33, 33, 3), np.uint8)
    assert (des4.load("hf://me/roads").predict(image) == des4.load(trained).predict(image)).all()


def test_public_samples_and_again(fake: FakeHub, run: Des4, trained: Path) -> None:
    done = run("push", trained, "hf://me/roads", "--public", "--samples")
    assert "(public)" in done.stdout and "samples.png" in done.stdout
    assert fake.repos["me/roads"]["private"] is False
    files = fake.files("me/roads")
    assert files["samples.png"] == (trained / "plots" / "samples.png").read_bytes()
    assert b"![samples](samples.png)" in files["README.md"]
    again = run("push", trained, "hf://me/roads")
    assert again.exit_code == 2
    assert re.search(r"hf://me/roads holds README.md, classes.txt, .* …; push over it with --overwrite", again.stderr)
    assert len(fake.repos["me/roads"]["commits"]) == 2
    over = run("push", trained, "hf://me/roads", "--overwrite")
    assert "(public)" in over.stdout, "what is public stays so, and that is said"
    assert len(fake.repos["me/roads"]["commits"]) == 3
    assert set(fake.files("me/roads")) == {*files} - {"samples.png"}, "the picture is of another network"
    lone = run("push", trained / "weights" / "last.safetensors", "hf://me/lone")
    assert lone.exit_code == 0


@pytest.mark.parametrize(
    ("token", "target", "said"),
    [
        (None, "hf://me/roads", "pushing needs a token that may write; log in with: hf auth login, or set HF_TOKEN"),
        ("hf_wrong", "hf://me/roads", "the hub refuses your token (401)"),
        (TOKEN, "hf://others/roads", "the hub refuses your token (403)"),
        (TOKEN, "hf://me/roads@v1", "a push goes to the main branch; leave @v1 out"),
        (TOKEN, "me/roads", "an address on the hub is hf://OWNER/NAME"),
    ],
)
def test_a_push_that_fails_is_one_line(
    fake: FakeHub, run: Des4, trained: Path, monkeypatch: pytest.MonkeyPatch, token: str | None, target: str, said: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token or "")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(Path("none")))
    done = run("push", trained, target)
    assert done.exit_code == 2
    assert said in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert fake.repos == {}


def test_a_hub_that_is_down_gets_nothing(fake: FakeHub, run: Des4, trained: Path) -> None:
    fake.down = 502
    with warnings.catch_warnings():
        done = run("push", trained, "hf://me/roads")
    assert "the hub cannot be reached (it answers 502), and nothing was pushed; try again" in done.stderr
