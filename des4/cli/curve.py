"""The verb `des4 curve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from des4.cli.arguments import config_and_settings, file_and_settings
from des4.cli.printing import complain


def curve(
    arguments: Annotated[
        list[str],
        config_and_settings("Data and settings: as for des4 train."),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where lists, runs and the curve go.")] = Path("runs/curve"),
    masks: Annotated[list[int] | None, typer.Option(metavar="N", help="Labeled images; may be repeated.")] = None,
    seed: Annotated[list[int] | None, typer.Option(metavar="S", help="Seed; may be repeated. Default: 0.")] = None,
    jobs: Annotated[int, typer.Option(metavar="N", min=1, help="Runs that train at a time.")] = 1,
) -> None:
    """Would more masks help, or unlabeled images? Train with ever more of the masks you have, and draw the curve."""
    from des4 import campaign, comparing
    from des4.config import dump
    from des4.plan import plan, within_kept_budget

    file, overrides = file_and_settings(arguments)
    wanted = plan(file or {"method": "supervised"}, overrides)
    settings = campaign.curve(wanted.config, out, masks or (), seed or (0,))  # refuses before anything is timed
    decided = within_kept_budget(wanted, out / "budget.json")
    config = decided.config
    settings = settings.model_copy(update={"settings": dump(config)})
    planned = campaign.plan(settings)
    page = out / "campaign.html"
    comparing.check_reports(out)
    for line in decided.lines():
        print(line)
    failures = campaign.run_campaign(planned, jobs)
    for line in failures:
        complain(f"failed: {line}", "red")
    found = campaign.report(settings, planned)
    found.write(out)
    comparing.write_campaign(found, page)
    Console().print(found)
    for line in found.verdict(config.method.name):
        print(line)
    print(f"curve   {out / 'curve.png'}\npage    {page}")
    if failures:
        raise typer.Exit(1)
