"""The documentation against the code: config keys with defaults and choices, settings, links, functions it names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml
from pydantic_core import to_jsonable_python

from des4.config import KEYS, SHORTHANDS, RunConfig, load_config
from des4.datasets import DATASETS, FORMATS
from des4.types import Config, ConfigError

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("docs/**/*.md"), ROOT / "CONTRIBUTING.md"])
SETTINGS = [
    p for p in PAGES if p.name not in ("architecture.md", "CONTRIBUTING.md") and p.parent.name in ("docs", "methods")
]
NAMES = re.compile(r"\]\(([^)]+\.py)\): (`[\w.]+`(?:, `[\w.]+`)*)")


def _configs(config: type[Config]) -> Iterator[type[Config]]:
    """Yield a config class, its bases that have settings, and all that its fields may hold."""
    yield from (cls for cls in config.__mro__ if issubclass(cls, Config) and cls.model_fields)
    for field in config.model_fields.values():
        for part in _parts(field.annotation):
            if isinstance(part, type) and issubclass(part, Config):
                yield from _configs(part)


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        yield from _parts(part)


def _choices(annotation: Any) -> set[str]:
    literals = (part for part in _parts(annotation) if get_origin(part) is Literal)
    return {str(choice) for literal in literals for choice in get_args(literal)}


def _rows(config: type[Config]) -> dict[str, list[str]]:
    """Return the cells of the table under the heading that names this class, by key."""
    for section in (ROOT / "docs/configuration.md").read_text(encoding="utf-8").split("\n## "):
        heading, _, text = section.partition("\n")
        if f"`{config.__name__}`" in heading:
            lines = [line for line in text.splitlines() if line.startswith("| `")]
            rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
            return {row[0].strip("`"): row[1:] for row in rows}
    raise AssertionError(f"docs/configuration.md has no heading with `{config.__name__}`")


@pytest.mark.parametrize("config", dict.fromkeys(_configs(RunConfig)), ids=lambda config: config.__name__)
def test_configuration_page_states_keys_defaults_and_choices(config: type[Config]) -> None:
    rows = _rows(config)
    own = {key: field for key, field in config.model_fields.items() if key in config.__annotations__}
    assert list(rows) == list(own)
    for key, field in own.items():
        default, meaning = rows[key]
        if field.is_required():
            assert default == "required", key
        elif isinstance(field.default, Config):
            assert default == "section", key
        else:
            assert yaml.safe_load(default.strip("`")) == to_jsonable_python(field.default), key
        assert _choices(field.annotation) <= set(re.findall(r"`([^`]+)`", f"{default} {meaning}")), key


def test_configuration_page_names_the_keys_that_have_no_short_form() -> None:
    leaves = [key.split(".")[-1] for key in KEYS]
    ambiguous = {leaf for leaf in leaves if leaves.count(leaf) > 1} - SHORTHANDS.keys()
    text = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    (sentence,) = re.findall(r"written in full: (.*)\.", text)
    assert set(re.findall(r"`(\w+)`", sentence)) == ambiguous


@pytest.mark.parametrize("page", SETTINGS, ids=lambda page: str(page.relative_to(ROOT)))
def test_settings_that_pages_show_are_accepted(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    commands = [" ".join(re.findall(r"\S+=\S+", line)) for line in text.splitlines() if line.startswith("des4 train ")]
    shown = re.findall(r"`((?:[\w.]+=[^\s`]+ ?)+)`", text)
    for settings in {*commands, *shown} - {"key=value"}:
        assert any(_accepts(name, settings.split()) for name in DATASETS), settings


def _accepts(data: str, settings: list[str]) -> bool:
    section = {"name": data} | ({"root": "photos"} if data in FORMATS else {})
    try:
        load_config({"method": "des4", "data": section}, settings)
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_named_functions_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [link for link in links if link and not (page.parent / link).exists()] == []
    for link, names in NAMES.findall(text):
        defined = _defined(page.parent / link)
        assert [name for name in re.findall(r"`([^`]+)`", names) if name not in defined] == [], link


def _defined(path: Path) -> set[str]:
    """Name what a module defines: functions, classes, and methods with and without their class."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = [inner.name for inner in node.body if isinstance(inner, ast.FunctionDef)]
            names.update(methods, (f"{node.name}.{method}" for method in methods))
    return names


def test_site_navigation_has_every_page() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    listed = set(re.findall(r"[\w/-]+\.md", str(nav)))
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in ROOT.glob("docs/**/*.md")}
    assert sorted(pages - listed) == []
