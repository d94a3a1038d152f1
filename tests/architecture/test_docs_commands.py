"""Commands that pages show: each verb, option, setting, file, extra and target in them exists. Python in pages, too.

Nothing is trained here; tests/integration/test_pages.py runs the commands of the pages to begin with.
"""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import textwrap
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from des4 import campaign, cli
from des4.config import load_config
from des4.datasets import DATASETS, FORMATS
from des4.types import ConfigError

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
SHELL = ("", "console", "sh", "bash")
"""Languages of blocks that hold commands."""
PROGRAMS = ("des4", "make", "python", "pip", "torchrun", "srun")
PLACEHOLDER = re.compile(r"[$…]|\bKEY=VALUE\b|key=value")
"""In a line, or in one of its settings, that stands for others."""


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Yield language and text of the fenced blocks of a page, without those of a page that it shows."""
    text = re.sub(r"^````.*?^````", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    yield from re.findall(r"^ *```(\w*)\n(.*?)^ *```", text, re.M | re.S)


def commands(page: Path) -> list[str]:
    """Return the commands of a page: lines of its blocks, and `des4 …` in its sentences."""
    found = []
    for language, block in blocks(page):
        if language in SHELL:
            lines = block.replace("\\\n", " ").splitlines()
            found += [line for line in (one.removeprefix("$ ").strip() for one in lines) if _is_command(line)]
    return [*found, *re.findall(r"`(des4 [a-z][^`\n]*)`", page.read_text(encoding="utf-8"))]


def _is_command(line: str) -> bool:
    program, _, rest = line.partition(" ")
    return program in PROGRAMS and rest[:1].isascii()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_pages_show_exist(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # where the paths in campaign files lead from
    wrong = [f"{line}: {fault}" for line in commands(page) if (fault := fault_of(line))]
    assert wrong == []


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("des4 trian data=photos", "no verb"),
        ("des4 data chekc photos", "no verb"),
        ("des4 train data=photos step=3", "step"),
        ("des4 train data=photos method=des5", "des5"),
        ("des4 train configs/none.yaml", "no such file"),
        ("des4 predict RUN photos --overlay-all", "overlay-all"),
        ("des4 compare configs/camvid/few_masks.yaml nothing=3", "nothing"),
        ("torchrun --standalone -m des4 train config.yaml stepss=3", "stepss"),
        ("make dmeo", "no target"),
        ('pip install "des4[onyx]"', "no extra"),
        ("python examples/none.py", "no such file"),
    ],
)
def test_a_wrong_command_is_noticed(line: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert fault in str(fault_of(line))
    assert fault_of("des4 train data=photos steps=3  # comment") is None


def fault_of(line: str) -> str | None:
    """Return what is wrong with a command, or None."""
    words = shlex.split(line.rstrip("&"), comments=True)
    if "-m" in words and "des4" in words:  # torchrun … -m des4 train …
        words = words[words.index("des4") :]
    program, *rest = words
    if program == "des4":
        return _fault_of_verb(rest)
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
        return next((f"no target {word}" for word in rest if word not in targets), None)
    if program == "pip":
        known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
        extras = re.findall(r"\w+", "".join(re.findall(r"\[([\w,]+)\]", line)))
        return next((f"no extra {extra}" for extra in extras if extra not in known), None)
    script = next((word for word in rest if word.endswith(".py")), None)
    return f"{script}: no such file" if program == "python" and script and not (ROOT / script).exists() else None


@cache
def _verbs() -> Any:
    return typer.main.get_command(cli.app)


def _fault_of_verb(words: list[str]) -> str | None:
    verb = _verbs()
    while hasattr(verb, "commands"):
        if not words or words[0].startswith(("-", "…")):
            return None
        name, *words = words
        if name not in verb.commands:
            return f"no verb {name}"
        verb = verb.commands[name]
    if not words or any(PLACEHOLDER.search(word) for word in words):
        return None  # a verb that is only named, or a line that stands for several
    try:
        given = verb.make_context(verb.name, list(words)).params
    except Exception as error:  # of click, or of the click within typer
        return str(getattr(error, "message", error))
    arguments = [word for value in given.values() for word in (value if isinstance(value, list | tuple) else [value])]
    texts = [str(word) for word in arguments if word is not None]
    files = [ROOT / text for text in texts if text.startswith("configs/")]
    if missing := [file for file in files if not file.exists()]:
        return f"{missing[0]}: no such file"
    settings = [text for text in texts if re.match(r"[\w.]+=", text)]
    try:
        if files and verb.name == "compare":
            campaign.plan(campaign.read_campaign(files[0]), settings)
        elif files:
            load_config(files[0], settings)
        else:
            return _fault_of_settings(settings)
    except ConfigError as error:
        return str(error)
    return None


def _fault_of_settings(settings: list[str]) -> str | None:
    """Return the mistakes of settings, of the kind of dataset with the fewest."""
    faults = []
    for name in DATASETS if settings else ():
        data = {"name": name} | ({"root": "photos"} if name in FORMATS else {})
        try:
            load_config({"method": "des4", "data": data}, settings)
        except ConfigError as error:
            faults.append(str(error))
        else:
            return None
    return min(faults, key=len, default=None)


# ── Python ───────────────────────────────────────────────────────────────────────────────────────────────────────────


PYTHON = [(page, text) for page in PAGES for language, text in blocks(page) if language == "python"]


@pytest.mark.parametrize(("page", "text"), PYTHON, ids=[f"{page.name}-{n}" for n, (page, _) in enumerate(PYTHON)])
def test_python_that_pages_show_compiles_and_names_what_exists(page: Path, text: str) -> None:
    if page.name == "adding_a_method.md" and text.startswith("    "):
        return  # a line of a table
    tree = ast.parse(textwrap.dedent(text))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("des4"):
            module = importlib.import_module(str(node.module))
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "des4":
            assert hasattr(importlib.import_module("des4"), node.attr), f"des4.{node.attr}"
