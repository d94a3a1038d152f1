"""The verb `des4 doctor`. torch is imported inside it, so that --help is quick."""

from __future__ import annotations

import json
import shlex
from typing import Annotated

import typer
from rich.console import Console

from des4.cli.arguments import config_and_settings, file_and_settings


def doctor(
    arguments: Annotated[
        list[str] | None,
        config_and_settings("A training to try: as for des4 train."),
    ] = None,
    steps: Annotated[int, typer.Option(metavar="N", min=1, help="Steps that are measured.")] = 5,
    seconds: Annotated[
        float, typer.Option(metavar="S", min=1, help="Time for it, about; large networks are measured in part.")
    ] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Look at this machine and, given a config, at what that training would cost on it. Nothing is written.

    Exit code: 1 if there is a problem, else 0.
    """
    from des4.doctor import examine

    given = arguments or []
    file, overrides = file_and_settings(given)
    examination = examine(file or {}, overrides, steps, seconds) if given else examine()
    if as_json:
        print(json.dumps(examination.as_data(), indent=2, ensure_ascii=False))
    else:
        Console().print(examination.tables())
        if given and not examination.exit_code:
            print(f"next    des4 train {shlex.join(given)}")
    raise typer.Exit(examination.exit_code)
