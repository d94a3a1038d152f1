"""Imports run downward, as the table of docs/architecture.md says, and a few things are nowhere in the package."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from des4.config import RunConfig
from des4.methods import METHODS

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "des4"
FILES = sorted(PACKAGE.rglob("*.py"))

COMPONENTS = {"data", "datasets", "engine", "methods", "models", "types"}
TABLE: dict[str, set[str]] = {
    "types": set(),
    "ops": {"types"},
    "losses": {"ops", "types"},
    "models": {"ops", "types"},
    "images": {"ops", "types"},
    "data": {"ops", "types"},
    "datasets": {"data", "images", "ops", "types"},
    "data_tools": {"datasets", "ops", "types"},
    "metrics": {"ops", "types"},
    "methods": {"models", "losses", "ops", "types"},
    "engine": {"methods.base", "models", "metrics", "runlog", "types"},
    "runlog": {"types"},
    "loggers": set(),
    "watch": {"engine", "loggers", "types"},
    "report": {"runlog"},
    "hub": {"types"},
    "weights": {"engine", "hub", "models", "runlog", "types"},
    "config": COMPONENTS,
    "environment": set(),
    "opening": {"config", "data_tools"},
    "training": {"opening", "runlog", "weights"},
    "build": {"config", "data_tools", "metrics", "opening", "report", "runlog", "training", "weights", *COMPONENTS},
    "continuation": {"build"},
    "predict": {"build"},
    "doctor": {"build", "plan"},
    "plan": {"build"},
    "api": {"config", "build", "continuation", "environment", "plan", "predict", "report", "watch"},
    "campaign": {"build"},
    "paper": {"config", "datasets", "methods", "report", "runlog", "types"},
    "acquisition": {"api"},
    "comparing": {"api", "report"},
    "demo": {"comparing"},
    "export": {"build"},
    "probe": {"build"},
    "serve": {"predict"},
    "cli": {
        "acquisition",
        "api",
        "campaign",
        "comparing",
        "demo",
        "doctor",
        "export",
        "paper",
        "probe",
        "serve",
    },
}
"""Place → what it may import, and whatever that may import in its turn. A dotted name stands for one module."""

PROSE = {
    "every component's `Config`": COMPONENTS,
    "everything below it": TABLE["build"],
}
"""Cells of the table in docs/architecture.md that are no list of names."""

ENTRANCES = {"__init__", "__main__"}
"""Modules at the top that no other module imports."""


def place_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def allowed(place: str) -> set[str]:
    """Names that a place may import, through any number of rows."""
    reached, queue = {place}, list(TABLE[place])
    while queue:
        name = queue.pop()
        if name not in reached:
            reached.add(name)
            queue += TABLE.get(name, ())
    return reached


def imports(path: Path) -> Iterator[str]:
    """Full names of the modules a file imports; `from a import b` counts as `a.b`, which may be one."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# ── one direction ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", [path for path in FILES if place_of(path) not in ENTRANCES], ids=relative)
def test_nothing_imports_upward(path: Path) -> None:
    place = place_of(path)
    assert place in TABLE, f"{relative(path)} needs a row in docs/architecture.md and in this test"
    may = allowed(place)
    for name in imports(path):
        if not name.startswith("des4."):
            continue
        inner = name.removeprefix("des4.")
        assert inner.split(".")[0] in may or any(f"{inner}.".startswith(f"{one}.") for one in may), (
            f"{relative(path)} imports {name}; {place} may import {sorted(TABLE[place])} alone"
        )


MODELS: dict[str, set[str]] = {
    "training": set(),
    "encoders": set(),
    "decoders": set(),
    "judges": set(),
    "heads": {"decoders.layers"},
    "memory": {"heads"},
    "segmenter": {"encoders", "decoders", "heads", "training"},
    "compilation": {"segmenter"},
}
"""The rooms of `models`, and what each may import of the others."""


@pytest.mark.parametrize("path", sorted((PACKAGE / "models").rglob("*.py")), ids=relative)
def test_the_rooms_of_models_import_downward_too(path: Path) -> None:
    room = path.relative_to(PACKAGE / "models").parts[0].removesuffix(".py")
    if room == "__init__":
        return
    for name in imports(path):
        inner = f"{name.removeprefix('des4.models.')}."
        assert not name.startswith("des4.models.") or any(inner.startswith(f"{one}.") for one in {room, *MODELS[room]})


def test_no_room_is_more_than_a_quarter_of_the_house() -> None:
    lines: Counter[str] = Counter()
    for path in FILES:
        lines[place_of(path)] += len(path.read_text(encoding="utf-8").splitlines())
    place, most = lines.most_common(1)[0]
    assert most <= lines.total() / 4, f"{place} has {most} of {lines.total()} lines; make two rooms of it"


def test_a_methods_file_has_at_most_120_lines() -> None:
    lines = {name: len((PACKAGE / f"methods/{name}.py").read_text(encoding="utf-8").splitlines()) for name in METHODS}
    assert {name for name, count in lines.items() if count > 120} <= {"des4", "des4_committee"}


def test_the_table_is_the_one_of_the_docs() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| `")
    ]
    documented = {
        re.findall(r"`(.+?)`", place)[0].removesuffix("/").removesuffix(".py"): PROSE.get(
            cell, set(re.findall(r"`(.+?)`", cell))
        )
        for place, _, cell in rows
    }
    assert documented == TABLE


def test_the_report_knows_no_torch() -> None:
    for path in (PACKAGE / "report").rglob("*.py"):
        assert not [name for name in imports(path) if name.split(".")[0] in ("torch", "torchvision", "timm")], path.name


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"]], ids=" ".join)
def test_help_does_not_wait_for_torch(arguments: list[str]) -> None:
    script = (
        "import sys; from des4.cli import app\n"
        "try: app(sys.argv[1:])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True, text=True)  # noqa: S603
    assert done.returncode == 0, done.stderr[-500:]
    assert "Usage" in done.stdout


def test_importing_the_package_does_not_import_torch() -> None:
    script = "import sys, des4; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == 0  # noqa: S603


# ── what is nowhere ──────────────────────────────────────────────────────────────────────────────────────────────────

FORBIDDEN = re.compile(
    r"(^|\.)(pickle|dill|cloudpickle|shelve|marshal|joblib)\.(load|loads|Unpickler|open)$"
    r"|^(torch\.)?export\.load$|^torch\.jit\.load$|^torch\.hub\."
    r"|^yaml\.(load|load_all|full_load|full_load_all|unsafe_load|unsafe_load_all)$"
    r"|^(np|numpy)\.load$|^(eval|exec|compile)$|^os\.(system|popen)$|^(un)?pickle$"
)


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_nothing_that_is_read_can_run(path: Path) -> None:
    for name, call in calls(path):
        assert not FORBIDDEN.search(name), f"{relative(path)}:{call.lineno}: {name}"
        keywords = {keyword.arg: keyword.value for keyword in call.keywords}
        if name in ("torch.load", "load") and "torch" in name:
            safe = keywords.get("weights_only")
            assert isinstance(safe, ast.Constant), f"{relative(path)}:{call.lineno}: torch.load without weights_only"
            assert safe.value is True, f"{relative(path)}:{call.lineno}"
        shell = keywords.get("shell")
        assert shell is None or (isinstance(shell, ast.Constant) and shell.value is False), (
            f"{relative(path)}:{call.lineno}"
        )
    for name in imports(path):
        assert name.split(".")[0] not in ("pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"), name
        assert name not in ("torch.load", "yaml.load", "torch.export.load"), name
        assert not name.endswith(".*"), f"{relative(path)}: wildcard import"


def test_the_search_finds_what_it_looks_for() -> None:
    for name in ("pickle.load", "torch.export.load", "yaml.load", "torch.jit.load", "np.load", "eval", "os.system"):
        assert FORBIDDEN.search(name), name
    for name in ("yaml.safe_load", "json.load", "torch.load", "method.eval", "self.load", "re.compile", "load_file"):
        assert not FORBIDDEN.search(name), name


def test_files_are_named_after_what_they_hold() -> None:
    vague = re.compile(r"utils?|helpers?|misc|managers?|common|tools")
    assert [relative(path) for path in FILES if any(vague.fullmatch(part) for part in path.with_suffix("").parts)] == []
    assert [relative(path) for path in FILES if vague.search(path.stem) and path.stem not in ("__init__",)] == []


def test_ignore_is_written_once() -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "ignore_index":
                assert isinstance(node.value, ast.Name), f"{relative(path)}:{node.value.lineno}"


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_methods_are_called_what_their_configs_say() -> None:
    """Their names stand in configs and runs: docs/methods/index.md lists them, and a test holds it against the code."""
    annotation = RunConfig.model_fields["method"].annotation
    assert set(get_args(annotation)) == {cls.Config for cls in METHODS.values()}
    assert [cls.Config.model_fields["name"].default for cls in METHODS.values()] == list(METHODS)
