"""What the package needs beside its code is in the wheel: pyproject.toml names every such file."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_file_that_is_no_code_is_packed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["des4"]
    package = ROOT / "des4"
    packed = {path for pattern in patterns for path in package.glob(pattern)}
    there = {path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert there == packed, sorted(map(str, there ^ packed))


def test_every_folder_with_code_is_a_package() -> None:
    folders = {path.parent for path in (ROOT / "des4").rglob("*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").exists()]
