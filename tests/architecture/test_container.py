"""The Dockerfile against the tree, as no container is built here: what it copies, installs and starts is there."""

from __future__ import annotations

import re
import shlex
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import typer

from des4.cli import app

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
IGNORED = [
    line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] not in ("#", "")
]
RUNS = re.findall(r"^docker run .+? (des4 .+)$", PAGE, re.MULTILINE)
COMMANDS = re.findall(r"^(des4 .+)$", PAGE, re.MULTILINE)


def is_sent(path: str) -> bool:
    """Whether a file at the top of the tree gets to the builder: the last pattern that it matches decides."""
    sent = True
    for pattern in IGNORED:
        if fnmatch(path, pattern.removeprefix("!")):
            sent = pattern.startswith("!")
    return sent


def copied() -> list[str]:
    lines = re.findall(r"^COPY (?!--)(.+)$", DOCKERFILE, re.MULTILINE)
    return [source for line in lines for source in shlex.split(line)[:-1]]


def test_what_is_copied_is_there_and_is_sent() -> None:
    assert sorted(copied()) == ["LICENSE", "README.md", "constraints.txt", "des4", "pyproject.toml"]
    for source in copied():
        assert (ROOT / source).exists() and is_sent(source), source
    for private in (".git", "runs", "data", "predictions", "docs", ".venv", "tests"):
        assert not is_sent(private), private
    assert PROJECT["project"]["readme"] in copied(), "setuptools reads it"


def test_what_is_installed_and_started_exists() -> None:
    (extras,) = re.findall(r'^ARG EXTRAS="(.+)"$', DOCKERFILE, re.MULTILINE)
    assert set(extras.split(",")) <= set(PROJECT["project"]["optional-dependencies"])
    (entrance,) = re.findall(r'^ENTRYPOINT \["(.+)"\]$', DOCKERFILE, re.MULTILINE)
    assert entrance in PROJECT["project"]["scripts"]
    (python,) = re.findall(r"^ARG PYTHON=(.+)$", DOCKERFILE, re.MULTILINE)
    assert tuple(map(int, python.split("."))) >= (3, 11)
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) == ["python:${PYTHON}-slim"] * 2


def test_it_does_not_run_as_root() -> None:
    last = DOCKERFILE.rpartition("FROM ")[2]
    assert re.findall(r"^USER (.+)$", last, re.MULTILINE) == ["1000"]
    assert "://" not in DOCKERFILE, "where things come from is for the builder to say"


def test_arguments_that_the_page_names_are_the_files() -> None:
    taken = set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE))
    assert set(re.findall(r"--build-arg (\w+)=", PAGE)) <= taken
    assert taken <= set(re.findall(r"`(\w+)`", PAGE))


@pytest.mark.parametrize("command", [*RUNS, *COMMANDS])
def test_commands_of_the_page_are_commands(command: str) -> None:
    _, verb, *arguments = shlex.split(command)
    click = typer.main.get_command(app)
    inner = click.commands[verb]  # type: ignore[attr-defined]
    context = inner.make_context(verb, arguments, parent=click.make_context("des4", [], resilient_parsing=True))
    if verb == "serve" and command in RUNS:
        assert context.params["host"] == "0.0.0.0", "127.0.0.1 is the container's own"  # noqa: S104


def test_there_are_commands() -> None:
    assert len(RUNS) >= 3 and len(COMMANDS) >= 5
