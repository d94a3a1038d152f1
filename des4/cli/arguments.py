"""What verbs take: a run, a config file, settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from des4.cli import completion

RunArgument = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        help="A run folder, finished or not; a weights file or checkpoint of one; or hf://OWNER/NAME on the hub.",
        autocompletion=completion.run,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Settings, e.g. eval.mode=sliding.", autocompletion=completion.settings),
]
DataSettings = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Other data: data=FOLDER, and settings of it.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier command wrote there.")]


def config_and_settings(help: str) -> Any:
    """Return the argument of verbs that read a training's config: a YAML file, and settings that override it."""
    return typer.Argument(metavar="CONFIG KEY=VALUE", help=help, autocompletion=completion.config_or_settings)


def file_and_settings(given: Sequence[str]) -> tuple[str | None, list[str]]:
    """Take a config file, or None, and settings apart. Raises BadParameter where there are several files."""
    files, settings = [text for text in given if "=" not in text], [text for text in given if "=" in text]
    if len(files) > 1:
        raise typer.BadParameter(f"one config file at most, not {' and '.join(files)}; settings are written key=value")
    return (files[0] if files else None), settings


def data_and_settings(given: Sequence[str]) -> tuple[str | None, list[str]]:
    """Take the data that are named by data=FOLDER, or None, and the other settings apart."""
    data = [text.removeprefix("data=") for text in given if text.startswith("data=")]
    return (data[-1] if data else None), [text for text in given if not text.startswith("data=")]


def name_of(run: Path) -> str:
    """Return what the results of a run, of a lone weights file, or of a repository on the hub are called."""
    from des4 import hub

    if hub.is_address(run):
        return hub.address_of(run).name
    return run.resolve().name if run.is_dir() else run.stem
