"""What the shell offers when a command is half typed: settings, methods, encoders, run folders.

Pressing a key must not cost the import of torch, so nothing here imports the rest of the package. What settings there
are is read from `completion.json`, which `make docs` writes from the code.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import typer

ENCODERS = (
    "tf_efficientnet_lite0", "mobilenetv3_large_100", "resnet18", "resnet34", "resnet50", "resnet101",
    "convnext_tiny", "convnext_small", "convnext_base", "vit_small_patch14_dinov2", "vit_base_patch14_dinov2",
)  # fmt: skip
"""Of the more than a thousand networks that timm has, those that are often asked for."""

SHORT = ("method", "data", "model", "minutes", "steps", "seed", "out")
"""Settings that are offered before anything is typed."""
MOST_ENTRIES = 2000
"""Folders that are looked at for runs, so that a slow disk does not hold up a shell."""


def settings(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete `key=value`. A key that is the only one left is followed by what it may be, or by its default."""
    values = _asked_values(ctx, incomplete)
    if values is not None:
        return values
    found = _keys(incomplete) if incomplete else [*SHORT]
    if len(found) == 1:  # its name alone too: a shell sets a space behind what is the only choice
        return [f"{found[0]}=", *(f"{found[0]}={one}" for one in _values(found[0], ""))]
    return [f"{name}=" for name in found]


def _asked_values(ctx: typer.Context, incomplete: str) -> list[str] | None:
    """Return what may follow `key=`; None where no key is typed yet."""
    before = [str(word) for value in ctx.params.values() if isinstance(value, list | tuple) for word in value]
    if before and before[-1] == "=":  # bash makes three words of key=value, and asks for the last of them alone
        return _values(before[-2] if len(before) > 1 else "", incomplete)
    if not incomplete and before and before[-1] in _table():
        return _values(before[-1], "")
    key, given, value = incomplete.partition("=")
    return [f"{key}={one}" for one in _values(key, value)] if given else None


def _keys(begun: str) -> list[str]:
    """Return the settings that begin so: by their short names, by their full ones once a section's name is typed."""
    known = [name for name in _table() if name.startswith(begun)]
    short = [name for name in known if "." not in name]
    whole = any(name.startswith(f"{begun}.") for name in known)
    return short if short and not whole and "." not in begun else known


def config_or_settings(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete a YAML file, or a setting."""
    values = _asked_values(ctx, incomplete)
    return [*_files(incomplete), *settings(ctx, incomplete)] if values is None else values


def run(incomplete: str) -> list[str]:
    """Complete a run folder: those below `runs`, or below what is typed; without any, a shell offers its files."""
    typed = Path(incomplete) if incomplete else Path("runs")
    roots = [typed, typed.parent] if incomplete else [typed]
    found = {str(path): None for root in roots for path in _runs_below(root) if str(path).startswith(incomplete)}
    return list(found)


def runs_or_campaign(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete what `des4 compare` takes: run folders, campaign files, `paper`, and settings of a campaign."""
    values = _asked_values(ctx, incomplete)
    if values is not None:
        return values
    return [*run(incomplete), *_files(incomplete), *(["paper"] if "paper".startswith(incomplete) else [])] or settings(
        ctx, incomplete
    )


def _table() -> Mapping[str, list[str]]:
    """Return what each setting may be, by its full name and by its short one."""
    known: dict[str, list[str]] = json.loads(Path(__file__).with_name("completion.json").read_text(encoding="utf-8"))
    known["model"] = known["encoder"] = known["model.encoder"] = list(ENCODERS)
    return known


def _values(key: str, begun: str) -> list[str]:
    return [value for value in _table().get(key, ()) if value.startswith(begun)]


def _files(incomplete: str) -> list[str]:
    """Return the YAML files whose path begins so."""
    folder, _, name = incomplete.rpartition("/")
    where = Path(folder or ("/" if incomplete.startswith("/") else "."))
    try:
        found = sorted(path for path in where.glob("*.y*ml") if path.name.startswith(name))
    except OSError:
        return []
    return [str(path) for path in found]


def _runs_below(root: Path, depth: int = 4) -> Iterator[Path]:
    """Yield the run folders in a folder and in those below it, which themselves hold none."""
    looked = 0
    waiting = [(root, depth)]
    while waiting and looked < MOST_ENTRIES:
        folder, left = waiting.pop(0)
        looked += 1
        if (folder / "config.yaml").is_file() and (folder / "train.log").is_file():
            yield folder
        elif left:
            waiting += [(path, left - 1) for path in _folders(folder)]


def _folders(folder: Path) -> Iterable[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:  # not there, or nobody may look
        return []
