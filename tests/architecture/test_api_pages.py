"""Pages of the Python interface: all public names are on one, all names on one exist, docstrings become lists."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import docstring_lists
import pytest

import des4

ROOT = Path(__file__).parents[2]
SHOWN = [
    name
    for page in sorted(ROOT.glob("docs/api/*.md"))
    for name in re.findall(r"^::: ([\w.]+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
]
STAY_PUT = (
    "des4.train", "des4.load", "des4.evaluate", "des4.ops.sampling", "des4.ops.entropy", "des4.losses.cross_entropy",
    "des4.models.PrototypeClassifier", "des4.methods.Method",
)  # fmt: skip
"""What other software calls, beside what the package itself exports."""


def found(name: str) -> Any:
    """Return what a dotted name is: a module, or an attribute of the longest part that is one."""
    module, _, rest = name.rpartition(".")
    try:
        return import_module(name)
    except ModuleNotFoundError:
        return getattr(found(module), rest)


@pytest.mark.parametrize("name", SHOWN)
def test_what_is_shown_is_there_and_documented(name: str) -> None:
    assert found(name).__doc__


def test_every_public_name_is_shown() -> None:
    assert len(SHOWN) == len(set(SHOWN))
    exported = {f"des4.{name}" for name in des4.__all__ if name != "__version__"}
    assert exported | set(STAY_PUT) <= set(SHOWN)


def test_sentences_on_parameters_become_a_list() -> None:
    said = (
        "Do it.\n\nconfig: a file. overwrite: replace\nan earlier one; see `x: y`. Note: this is none.\n"
        "low, high: (C,) numbers. Returns nothing.\n\nAnother paragraph, config: alike."
    )
    assert docstring_lists.listed(said, {"config", "overwrite", "low", "high"}) == (
        "Do it.\n\n- `config`: a file.\n- `overwrite`: replace an earlier one; see `x: y`. Note: this is none.\n"
        "- `low`, `high`: (C,) numbers.\n\nReturns nothing.\n\nAnother paragraph, config: alike."
    )
    assert docstring_lists.listed("Plain.\n\n  indented: text", {"x"}) == "Plain.\n\n  indented: text"


@pytest.mark.slow
def test_the_site_is_built_without_a_complaint_and_can_be_searched(tmp_path: Path) -> None:
    for name in ("docs", "des4", "tools"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)  # noqa: S603
    assert done.returncode == 0 and "No issues found" in done.stdout + done.stderr, done.stdout + done.stderr
    items = json.loads((tmp_path / "site" / "search.json").read_text(encoding="utf-8"))["items"]
    places = {item["title"]: item["location"] for item in items}
    assert places["multi_entropy_sample"] == "api/functions.html#des4.ops.sampling.multi_entropy_sample"
    assert places["des4.train"] == "api/index.html#des4.train"
