"""The documentation against the code: what is made of it, settings in sentences, links, functions that are named."""

from __future__ import annotations

import ast
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import write_docs
import yaml

from des4.config import load_config
from des4.datasets import DATASETS, FORMATS
from des4.methods import METHODS
from des4.types import ConfigError

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("docs/**/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
WITHOUT_SETTINGS = ("adding_a_method.md", "architecture.md")
SETTINGS = [
    p
    for p in PAGES
    if p.name not in WITHOUT_SETTINGS and (p.parent in (ROOT / "docs", ROOT / "docs/methods") or p.name == "README.md")
]
NAMES = re.compile(r"\]\(([^)]+\.py)\): (`[\w.]+`(?:, `[\w.]+`)*)")


def test_what_pages_say_of_the_code_is_what_it_says() -> None:
    old = [str(page.relative_to(ROOT)) for page in write_docs.stale()]
    assert not old, f"{', '.join(old)}: out of date, mend with: {write_docs.MEND}"


def test_an_old_page_is_noticed_and_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    page = tmp_path / "page.md"
    page.write_text("there are <!-- begin number of other methods -->3<!-- end number of other methods --> of them")
    monkeypatch.setattr(write_docs, "ROOT", tmp_path)
    monkeypatch.setattr(write_docs, "pages", lambda: [page])
    monkeypatch.setattr(write_docs, "FILES", {"words.json": lambda: "[]"})
    monkeypatch.setattr(sys, "argv", ["write_docs.py", "--check"])
    with pytest.raises(SystemExit, match=f"mend with: {re.escape(write_docs.MEND)}"):
        write_docs.main()
    assert "out of date: page.md" in capsys.readouterr().out and "-->3<!--" in page.read_text()
    monkeypatch.setattr(sys, "argv", ["write_docs.py"])
    write_docs.main()
    assert f"-->{len(METHODS) - 2}<!--" in page.read_text()
    assert (tmp_path / "words.json").read_text() == "[]"
    assert write_docs.stale() == {}


def test_the_page_of_settings_says_it_all() -> None:
    """Sections, defaults, ranges, choices and meanings: a few settings that show how each kind of them is written."""
    text = write_docs.settings()
    for line in (
        "## Method: unimatch (`UniMatchConfig`)",
        "| `temperature` | `0.1` | number > 0 | Divides the cosines of the prototype classifier [ours]; 1 is",
        "| `root` | required | path | The data folder |",
        "| `ratios` | `[0.4, 0.5]` | list of: number in (0, 1] | Of each round that follows,",
        "| `crop_size` | `256` | integer ≥ 1, [integer ≥ 1, integer ≥ 1] | Pixels:",
        "| `device` | `auto` | `auto`, `cpu`, `cuda` | `auto`: a GPU if there is one |",
        "| `optim` | section | [below](#optim-optimconfig) | Optimiser and schedule |",
    ):
        assert line in text, line
    headings = {line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")}
    links = re.findall(r"\(#([\w-]+)\)", text)
    assert set(links) <= {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", SETTINGS, ids=lambda page: str(page.relative_to(ROOT)))
def test_settings_that_pages_show_are_accepted(page: Path) -> None:
    shown = re.findall(r"`((?:[\w.]+=[^\s`]+ ?)+)`", page.read_text(encoding="utf-8"))
    for settings in {*shown} - {"key=value", "eval.resize=auto"}:  # which a prediction alone takes
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
    text = re.sub(r"^````.*?^````", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)  # a page that a page shows
    links = [link.partition("#") for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [link for link, _, _ in links if not (page.parent / link).exists()] == []
    targets = [(page.parent / link if link else page, anchor) for link, _, anchor in links if anchor]
    assert [f"{target.name}#{anchor}" for target, anchor in targets if anchor not in _anchors(target)] == []
    for link, names in NAMES.findall(text):
        defined = _defined(page.parent / link)
        assert [name for name in re.findall(r"`([^`]+)`", names) if name not in defined] == [], link


@cache
def _anchors(page: Path) -> set[str]:
    """Name the headings of a page as links do, and what mkdocstrings writes into it (`::: des4.train`)."""
    text = re.sub(r"^(```+).*?^\1", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    plain = [re.sub(r"[^\w\s-]", "", heading.encode("ascii", "ignore").decode()).strip() for heading in headings]
    written = re.findall(r"^::: ([\w.]+)", text, re.M)
    return {*written, *(re.sub(r"[-\s]+", "-", heading.lower()) for heading in plain)}


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
