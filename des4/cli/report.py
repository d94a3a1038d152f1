"""The verb `des4 report`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from des4.cli import completion


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUNS", help="Finished run folders.", autocompletion=completion.run),
    ],
    html: Annotated[
        Path | None,
        typer.Option(metavar="PAGE", help="Of several runs: lay them side by side too, as des4 compare does."),
    ] = None,
) -> None:
    """Draw the diagrams of runs, and write the report.html of each once more.

    What several runs are to be seen in together, such as the shares of the classes in truth and pseudo-labels (the
    paper's figure 3), is on the page that `--html` or `des4 compare` writes.
    """
    from des4.report.page import write_report
    from des4.runlog import RunFolder

    folders = [RunFolder.open(run) for run in runs]
    if html is not None:
        from des4 import comparing

        if len(runs) == 1:
            raise typer.BadParameter("--html: takes several runs; of one, report.html in its folder is the page")
        comparing.check_page(html)
    for folder in folders:
        print(write_report(folder))
    if html is not None:
        from des4.report.compare import compare as compare_runs

        comparing.write_page(compare_runs(folders), html)
        print(html)
    elif len(runs) > 1:
        print(f"together  des4 compare {shlex.join(map(str, runs))} --html compare.html")
