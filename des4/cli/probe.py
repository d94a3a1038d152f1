"""The verb `des4 probe`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Column, Table
from rich.text import Text

from des4.cli.completion import run as run_folder
from des4.cli.printing import percent


def probe(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", autocompletion=run_folder)],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings of data and eval, e.g. data.val=LIST.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose features: teacher, student; default: the headline model.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Does the classifier use what the features hold? Fit others on a run's frozen features, and score them."""
    from des4.probe import OWN
    from des4.probe import probe as probe_run

    console = Console(stderr=True)

    def watch(ids: Any) -> Any:
        return track(ids, "probing", console=console, disable=not console.is_terminal)

    found = probe_run(run, model, settings or [], progress=watch)
    if as_json:
        print(json.dumps(found.as_data(), indent=2, ensure_ascii=False))
        return
    table = Table(
        f"classifier on the {found.model}'s features",
        *(Column(name, justify="right") for name in ("mIoU %", "tail mIoU %", "minus its own")),
        header_style="bold",
        border_style="dim",
    )
    own = found.heads[OWN].miou
    for name, results in found.heads.items():
        gap = "" if name == OWN else f"{100 * (results.miou - own):+.2f}"
        table.add_row(Text(name), f"{100 * results.miou:.2f}", percent(results.tail_miou), gap)
    Console().print(table)
    for line in found.verdict():
        print(line)
    if found.caution:
        console.print(Text(f"caution: {found.caution}", style="yellow"), soft_wrap=True)
