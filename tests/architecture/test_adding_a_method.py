"""docs/adding_a_method.md is true: the method that it adds is one, its page and its test are what they are to be."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import write_docs

from des4.engine import OptimConfig, TrainStep, build_optimiser
from des4.methods import METHODS, Method

GUIDE = Path(__file__).parents[2] / "docs/adding_a_method.md"
NAME = "pseudo_label"
Make = Callable[..., Any]


@pytest.fixture(scope="module")
def blocks() -> list[str]:
    """The file, the line, the page and the test that the guide shows."""
    found = re.findall(r"^(````?)(?:python|markdown)\n(.*?)^\1$", GUIDE.read_text(encoding="utf-8"), re.M | re.S)
    assert len(found) == 4
    return [text for _, text in found]


@pytest.fixture
def added(blocks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Method]]:
    """The guide's method, in the table."""
    file = tmp_path / f"{NAME}.py"
    file.write_text(blocks[0], encoding="utf-8")
    spec = importlib.util.spec_from_file_location(f"des4.methods.{NAME}", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    key, cls = re.fullmatch(r'\s+"(\w+)": (\w+),\n', blocks[1]).groups()  # type: ignore[union-attr]
    assert key == NAME
    monkeypatch.setitem(METHODS, key, getattr(module, cls))
    yield METHODS[key]
    write_docs.meanings.cache_clear()


def test_the_method_of_the_guide_learns(added: type[Method], make_method: Make, make_batch: Make) -> None:
    method, batch = make_method(NAME), make_batch()
    step = TrainStep(method, build_optimiser(method, OptimConfig(lr=0.01), 2), torch.device("cpu"))
    losses = [sum(term.item() for term in step(batch).terms.values()) for _ in range(6)]
    assert losses[-1] < losses[0]
    assert method.tally.take().kept > 0  # the drift guard sees its targets


def test_the_test_of_the_guide_holds(
    blocks: list[str], added: type[Method], make_method: Make, make_batch: Make
) -> None:
    names: dict[str, Any] = {}
    exec(blocks[3], names)  # noqa: S102
    (test,) = (value for name, value in names.items() if name.startswith("test_"))
    test(make_method, make_batch)


def test_tables_and_settings_of_the_guides_method_are_written(
    blocks: list[str], added: type[Method], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in METHODS:
        page = tmp_path / f"docs/methods/{name}.md"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(blocks[2] if name == NAME else f"# {name}\n", encoding="utf-8")
    monkeypatch.setattr(write_docs, "ROOT", tmp_path)
    row = f"| `{NAME}` | one network | itself | same view | none, none | [Pseudo-Label]({NAME}.md) |"
    assert row in write_docs.method_table()
    assert f"      - Pseudo-Label: methods/{NAME}.md\n" in write_docs.method_navigation()
    text = write_docs.section(added.Config)
    assert text.startswith(
        "## Method: pseudo_label (`PseudoLabelConfig`)\n\nSee [Pseudo-Label](methods/pseudo_label.md)."
    )
    assert "| `threshold` | `0.0` | number in [0, 1] | Confidence a pseudo-label needs [ours] |" in text


def test_a_setting_without_a_meaning_is_refused(added: type[Method], monkeypatch: pytest.MonkeyPatch) -> None:
    source = inspect.getsource(added.Config).replace('    """λ, of the cross-entropy with pseudo-labels."""\n', "")
    assert source != inspect.getsource(added.Config)
    monkeypatch.setattr(inspect, "getsource", lambda cls: source)
    write_docs.meanings.cache_clear()
    with pytest.raises(ValueError, match=r"PseudoLabelConfig\.unlabeled_weight has no docstring: say under it"):
        write_docs.section(added.Config)
